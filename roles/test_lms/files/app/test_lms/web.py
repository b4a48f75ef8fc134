"""The pages: choose a person, choose a course, open the hub; and the endpoints that tools use."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, abort, redirect, render_template, request, session, url_for
from itsdangerous import BadSignature, URLSafeSerializer
from lti1p3platform.exceptions import PreflightRequestValidationException
from lti1p3platform.registration import Registration
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from .faults import FAULTS
from .keys import KeyPair
from .platform import Login, NothingToReplay, Platform, ResourceLinkLaunch, registration
from .settings import Course, Person, Settings, Tool

# What the security framework of LTI 1.3 demands of an authentication request.
REQUIRED = {"scope": "openid", "response_type": "id_token", "response_mode": "form_post", "prompt": "none"}


def create_app(settings: Settings, keys: KeyPair) -> Flask:
    """The LMS as a WSGI application."""
    app = Flask(__name__)
    app.secret_key = keys.secret("session")
    app.config.update(
        SESSION_COOKIE_NAME="test_lms_session",
        SESSION_COOKIE_SECURE=settings.secure,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=64 * 1024,
    )
    hints = URLSafeSerializer(keys.secret("hint"), salt="lti_message_hint")

    @app.context_processor
    def everywhere() -> dict[str, Any]:
        return {"person": _person(settings), "allow_faults": settings.allow_faults}

    @app.after_request
    def harden(response: Response) -> Response:
        response.headers.setdefault(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        return response

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> tuple[str, int]:
        return render_template("error.html", error=error), error.code or 500

    @app.get("/")
    def people() -> str:
        return render_template("people.html", people=settings.people.values())

    @app.post("/person")
    def choose_person() -> Response:
        chosen = settings.people.get(request.form.get("person", ""))
        if chosen is None:
            abort(404, "There is no such person in this LMS.")
        session.clear()
        session["person"] = chosen.id
        return redirect(url_for("courses"), 303)

    @app.post("/leave")
    def leave() -> Response:
        session.clear()
        return redirect(url_for("people"), 303)

    @app.get("/courses")
    def courses() -> Response | str:
        if _person(settings) is None:
            return redirect(url_for("people"))
        return render_template("courses.html", courses=settings.courses.values())

    @app.get("/launch")
    def launch() -> Response:
        person = _person(settings)
        if person is None:
            return redirect(url_for("people"))
        course, tool = _placement(settings, request.args.get("course", ""), request.args.get("client_id", ""))
        fault = _fault(settings)
        login = Login(None, Platform(registration=registration(settings.issuer, tool, keys, fault)))
        login.set_lti_message_hint(hint=hints.dumps([course.id, tool.client_id, fault]))
        return redirect(login.initiate_login(person.id))

    @app.route("/auth", methods=["GET", "POST"])
    def authorize() -> Response | str:
        parameters = request.values.to_dict()
        for name, value in REQUIRED.items():
            if parameters.get(name) != value:
                abort(400, f"The tool must send {name}={value}; it sent {parameters.get(name)!r}.")
        try:
            course_id, client_id, fault = hints.loads(parameters.get("lti_message_hint", ""))
        except (BadSignature, ValueError):
            abort(400, "The tool did not hand back the lti_message_hint of this launch.")
        course, tool = _placement(settings, course_id, client_id)
        if parameters.get("redirect_uri") != tool.redirect_uri:
            abort(400, f"{parameters.get('redirect_uri')!r} is not the redirection URI of {tool.title}.")
        person = _person(settings)
        if person is None or person.id != parameters.get("login_hint"):
            abort(403, "The person of this launch is not the one who is signed in here. Open the course again.")
        platform = Platform(registration=registration(settings.issuer, tool, keys, fault))
        message = ResourceLinkLaunch(parameters, platform, fault)
        message.describe(person, course, tool, settings.issuer)
        try:
            form = message.lti_launch()
        except PreflightRequestValidationException:
            abort(400, "The tool must send nonce, state and its own client_id.")
        except NothingToReplay:
            abort(409, "There is nothing to replay yet: open the hub once before.")
        return _form_post(form)

    @app.get("/jwks")
    def jwks() -> dict[str, Any]:
        return {"keys": [Registration.get_jwk(keys.public)]}

    @app.get("/.well-known/openid-configuration")
    def configuration() -> dict[str, Any]:
        return {
            "issuer": settings.issuer,
            "authorization_endpoint": f"{settings.issuer}/auth",
            "jwks_uri": f"{settings.issuer}/jwks",
            "response_types_supported": ["id_token"],
            "response_modes_supported": ["form_post"],
            "scopes_supported": ["openid"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "digest": settings.digest}

    return app


def _person(settings: Settings) -> Person | None:
    return settings.people.get(session.get("person", ""))


def _placement(settings: Settings, course_id: str, client_id: str) -> tuple[Course, Tool]:
    course = settings.courses.get(course_id)
    tool = next((tool for tool in course.tools if tool.client_id == client_id), None) if course else None
    if course is None or tool is None:
        abort(404, "There is no such course, or the course does not link this tool.")
    return course, tool


def _fault(settings: Settings) -> str:
    fault = request.args.get("fault", "")
    if fault and not settings.allow_faults:
        abort(400, "This LMS makes no faulty launches; test_lms_allow_faults is off.")
    if fault and fault not in FAULTS:
        abort(400, f"{fault!r} is no fault; choose one of {', '.join(FAULTS)}.")
    return fault


def _form_post(form: dict[str, Any]) -> Response:
    """A page that submits itself to the tool; with a button for browsers without scripts."""
    nonce = secrets.token_urlsafe(16)
    response = Response(render_template("form_post.html", form=form, nonce=nonce), mimetype="text/html")
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(form["launch_url"]))
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'self'; script-src 'nonce-{nonce}'; form-action {origin}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return response
