# SPDX-License-Identifier: GPL-3.0-or-later
"""Login by launches from an LMS (LTI 1.3), and the login page of a hub that still waits for its LMS.

What this adds to ltiauthenticator: a launch is good for one login only; each browser tab has a launch of its own;
the LMS's keys are kept for five minutes and fetched without blocking the hub; user names are safe; the declared
admins and users are the only ones; and whatever is refused is refused with a page that a student can act on.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import jwt
from jupyterhub.auth import Authenticator
from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import url_path_join
from ltiauthenticator.lti13.auth import LTI13Authenticator
from ltiauthenticator.lti13.constants import LTI13_CUSTOM_CLAIM
from ltiauthenticator.lti13.validator import LTI13LaunchValidator
from tornado.httputil import url_concat
from traitlets import Dict, Int, Set, Unicode

from . import userdata
from .launches import UsedLaunches
from .notice import Notice
from .refusals import ASK, REOPEN, TELL_ADMIN, Refused, not_from_course, shown
from .tokens import signing_key, unknown_client, verify
from .usernames import PROBE_ACCOUNT, is_room_account, username

COOKIE = "ananke-launch-"
COOKIE_SECONDS = 600
MAX_COOKIES = 8


def _inside(target: str, public_url: str) -> str:
    """The path and query of ``target`` if it lies in the hub at ``public_url``, else ""."""
    own = urlsplit(public_url)
    if "\\" in target or any(ord(c) <= 32 for c in target):
        return ""
    try:
        parts = urlsplit(target)
    except ValueError:
        return ""
    if parts.scheme not in ("", "http", "https") or (parts.netloc or own.netloc) != own.netloc:
        return ""
    if bool(parts.scheme) != bool(parts.netloc) or parts.path.startswith("//") or ".." in parts.path.split("/"):
        return ""
    if not (parts.path + "/").startswith(own.path.rstrip("/") + "/"):
        return ""
    return urlunsplit(("", "", parts.path, parts.query, parts.fragment))


def safe_next(target: str, public_url: str) -> str:
    """Where in this hub a launch is to end; "" for the user's own server.

    ``target`` is what the LMS gives as target_link_uri (or a path); ``public_url`` is the hub's own address. A
    ``next`` parameter of the hub's front pages is followed. Other sites, other hubs of the same site and everything
    odd give "".
    """
    path = _inside(target.strip(), public_url)
    parts = urlsplit(path)
    base = urlsplit(public_url).path.rstrip("/")
    front = (
        base,
        base + "/hub",
        base + "/hub/login",
        base + "/hub/lti13/oauth_login",
        base + "/hub/lti13/oauth_callback",
    )
    if parts.path.rstrip("/") not in front:
        return path
    inner = parse_qs(parts.query).get("next", [""])[0]
    path = _inside(inner, public_url)
    return "" if urlsplit(path).path.rstrip("/") in front else path


class LoginPage(BaseHandler):
    """``/hub/login``: says that one enters from the course, or that the hub still waits for its LMS."""

    async def get(self) -> None:
        user = self.current_user
        if user:
            self.set_login_cookie(user)
            self.redirect(self.get_next_url(user))
            return
        self.set_status(403)
        refusal = not_from_course()
        self.finish(await self.render_template("login.html", refusal=refusal, login_url=self.settings["login_url"]))

    async def post(self) -> None:
        raise not_from_course()


#: What everybody may ask for, with an LMS and without one.
PAGES: tuple[tuple[str, type], ...] = (("/login", LoginPage), ("/ananke/notice", Notice))


class _LaunchHandler(BaseHandler):
    """What both steps of a launch share."""

    authenticator: LmsAuthenticator

    def check_xsrf_cookie(self) -> None:
        """A launch is a request from another site by design; its state cookie and nonce protect it instead."""

    def _cookie_options(self) -> dict[str, Any]:
        # The LMS's answer is a form posted from another site: browsers send only SameSite=None cookies with it, and
        # accept those only with Secure. Without HTTPS there is no such cookie, and the browsers' short grace for
        # POST applies.
        https = urlsplit(self.authenticator.public_url).scheme == "https"
        return {"samesite": "None", "secure": True} if https else {"samesite": None, "secure": False}


class LaunchStart(_LaunchHandler):
    """``/hub/lti13/oauth_login``: the LMS announces a person; their browser is sent back to the LMS for a token."""

    async def get(self) -> None:
        auth = self.authenticator
        issuer = self.get_argument("iss", "")
        login_hint = self.get_argument("login_hint", "")
        if not issuer and not login_hint:
            raise not_from_course()
        if issuer != auth.issuer:
            raise Refused(
                400,
                "This login comes from another learning platform than the one that this hub belongs to.",
                TELL_ADMIN,
                f"The LMS calls itself {shown(issuer)}, but this hub expects issuer {shown(auth.issuer)}.",
            )
        if not login_hint:
            raise Refused(
                400, "The learning platform did not say whom it sends.", TELL_ADMIN, "login_hint is missing or empty."
            )
        client_id = self.get_argument("client_id", "")
        if not client_id and len(auth.client_id) == 1:
            (client_id,) = auth.client_id  # optional in LTI 1.3; without it only a single registration is unambiguous
        if client_id not in auth.client_id:
            raise unknown_client(client_id, auth.client_id)
        state, nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(32)
        target = self.get_argument("next", "") or self.get_argument("target_link_uri", "")
        self._remember(state, {"nonce": nonce, "next": safe_next(target, auth.public_url)})
        arguments = {
            "response_type": "id_token",
            "response_mode": "form_post",
            "scope": "openid",
            "prompt": "none",
            "client_id": client_id,
            "redirect_uri": url_path_join(auth.public_url, "hub/lti13/oauth_callback"),
            "login_hint": login_hint,
            "nonce": nonce,
            "state": state,
        }
        message_hint = self.get_argument("lti_message_hint", None)
        if message_hint is not None:
            arguments["lti_message_hint"] = message_hint
        self.redirect(url_concat(auth.authorize_url, arguments))

    post = get

    def _remember(self, state: str, launch: dict[str, str]) -> None:
        """Keep a launch in a signed cookie of its own, so that several tabs can be opened at once."""
        old = [name for name in self.request.cookies if name.startswith(COOKIE)]
        for name in old if len(old) >= MAX_COOKIES else ():
            self.clear_cookie(name, path=self.hub.base_url)
        self.set_secure_cookie(
            COOKIE + state,
            json.dumps(launch),
            expires_days=None,
            max_age=COOKIE_SECONDS,
            path=self.hub.base_url,
            httponly=True,
            **self._cookie_options(),
        )


class LaunchEnd(_LaunchHandler):
    """``/hub/lti13/oauth_callback``: the LMS's signed answer logs the person in."""

    async def get(self) -> None:
        raise Refused(
            405, "This page cannot be opened directly.", REOPEN, "GET is not allowed here: the LMS must answer by POST."
        )

    async def post(self) -> None:
        auth = self.authenticator
        launch = self._launch()
        failure = self.get_body_argument("error", "")
        if failure:
            reason = self.get_body_argument("error_description", "")
            raise Refused(
                400,
                "Your learning platform did not confirm your login.",
                f"Log in to your learning platform again. {REOPEN} {ASK}",
                f"The LMS answered {shown(failure)} {shown(reason) if reason else ''}".rstrip() + ".",
            )
        token = self.get_body_argument("id_token", "", strip=False)
        if not token:
            raise Refused(
                400, "The learning platform's answer is incomplete.", f"{REOPEN} {ASK}", "id_token is missing or empty."
            )
        claims = await auth.verify_token(token)
        if not hmac.compare_digest(claims["nonce"].encode("utf-8", "replace"), launch["nonce"].encode()):
            raise Refused(
                400,
                "This login belongs to another launch.",
                f"{REOPEN} {ASK}",
                "The token's nonce is not the one that this hub asked for: a forged or mixed-up answer.",
            )
        await auth.use_launch(claims["nonce"])
        user = await self.login_user(claims)
        if user is None:
            raise Refused(
                403,
                "You are not on the list of people who may use this hub.",
                "If you think that you should be, ask your teacher.",
                f"User {shown(auth.username_of(claims))} is not among the declared users of this hub.",
            )
        self.redirect(launch["next"] or self.get_next_url(user))

    def _launch(self) -> dict[str, str]:
        """The launch that this answer belongs to, from its cookie; the cookie is dropped."""
        state = self.get_body_argument("state", "")
        if not state:
            raise Refused(400, "The learning platform's answer is incomplete.", f"{REOPEN} {ASK}", "state is missing.")
        name = COOKIE + state
        value = None
        if state.isascii() and state.replace("-", "").replace("_", "").isalnum() and len(state) <= 64:
            value = self.get_secure_cookie(name, max_age_days=COOKIE_SECONDS / 86400)
            self.clear_cookie(name, path=self.hub.base_url)
        if value is None:
            raise Refused(
                400,
                "This login was not started in this browser, or more than ten minutes ago.",
                f"{REOPEN} If that does not help: allow cookies for this site, and make the course open this hub "
                "in a window of its "
                "own instead of inside the course page.",
                "The launch's state cookie is missing, expired or not this hub's.",
            )
        launch: dict[str, str] = json.loads(value)
        return launch


class DeclaredUsers(Authenticator):
    """Who may enter, who is a hub admin and in which groups is what the description says, at any time and not only at the next login."""

    declared_groups = Dict(config=True, help="JupyterHub's groups, each with its members.")
    room_accounts = Set(config=True, help="Accounts of rooms, which have servers and never log in.")

    def is_admin(self, handler: Any, authentication: dict[str, Any]) -> bool:
        """Always an answer, so that a former admin loses the rights."""
        return authentication["name"] in self.admin_users

    def groups_of(self, name: str) -> list[str]:
        """The groups that a user is a member of."""
        return sorted(group for group, members in self.declared_groups.items() if name in members)

    def check_blocked_users(self, username: str, authentication: Any = None) -> Any:
        """Whether a login may go on; never one as a room or as who proves the hub, whatever a file of the admin's makes names from."""
        nobody = is_room_account(username) or username == PROBE_ACCOUNT
        return not nobody and super().check_blocked_users(username, authentication)

    def delete_user(self, user: Any) -> None:
        """Nothing: JupyterHub's own would keep a declared user out, once deleted, until it starts anew."""

    def _may_enter(self, name: str) -> bool:
        if is_room_account(name):  # what its own server asks the hub
            return name in self.room_accounts
        if name == PROBE_ACCOUNT:
            return True
        listed = name in self.allowed_users or name in self.admin_users
        return name not in self.blocked_users and (self.allow_all or listed)

    async def refresh_user(self, user: Any, handler: Any = None) -> Any:
        """Log out whoever may no longer enter; put the admin flag and the groups right."""
        if not self._may_enter(user.name):
            return False
        declared = {"admin": user.name in self.admin_users, "groups": self.groups_of(user.name)}
        groups = sorted(group.name for group in user.groups) if self.manage_groups else declared["groups"]
        return True if declared == {"admin": user.admin, "groups": groups} else {"name": user.name, **declared}


class WaitingAuthenticator(DeclaredUsers):
    """The hub of a course that no LMS is connected to yet: nobody can log in, and the login page says so."""

    any_allow_config = True

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        return list(PAGES)

    async def authenticate(self, handler: Any, data: Any) -> None:
        return None

    def _may_enter(self, name: str) -> bool:
        return name not in self.blocked_users  # sessions from before stay


class LmsAuthenticator(DeclaredUsers, LTI13Authenticator):
    """LTI 1.3 logins from one LMS."""

    username_prefix = Unicode("u", config=True, help="What user names start with; the person's id in the LMS follows.")
    public_url = Unicode(config=True, help="The hub's address for browsers, with its path.")
    used_launches_file = Unicode(config=True, help="SQLite file that remembers used launches.")
    user_data_file = Unicode(config=True, help="JSON file of users' names; empty: none is written.")
    keys_timeout = Int(10, config=True, help="Seconds to wait for the LMS's keys.")

    _keys: jwt.PyJWKClient | None = None

    def login_url(self, base_url: str) -> str:
        """Where people without a session go: the page that tells them how to enter."""
        return url_path_join(base_url, "login")

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        return [
            *PAGES,
            ("/lti13/oauth_login", LaunchStart),
            ("/lti13/oauth_callback", LaunchEnd),
        ]

    async def verify_token(self, token: str) -> dict[str, Any]:
        """The claims of a token that passes every check. Raises Refused."""
        if self._keys is None or self._keys.uri != self.jwks_endpoint:
            self._keys = jwt.PyJWKClient(self.jwks_endpoint, timeout=self.keys_timeout)
        loop = asyncio.get_running_loop()
        key = await loop.run_in_executor(None, signing_key, token, self._keys, self.issuer)
        return verify(
            token,
            key,
            issuer=self.issuer,
            client_ids=self.client_id,
            algorithms=self.jwks_algorithms,
            validator=LTI13LaunchValidator(parent=self.parent),
        )

    async def use_launch(self, nonce: str) -> None:
        """Mark a launch as used. Raises Refused if it was used before or if that cannot be stored."""
        used = UsedLaunches(Path(self.used_launches_file))
        try:
            fresh = await asyncio.get_running_loop().run_in_executor(None, used.use, nonce)
        except (sqlite3.Error, OSError) as error:
            raise Refused(
                503,
                "This hub cannot log anybody in at the moment.",
                "Try again in a few minutes. " + ASK,
                f"{used.path} cannot be written: {error}. Is the disk full?",
            ) from error
        if not fresh:
            raise Refused(
                400,
                "This login was used before.",
                f"Each launch works once. {REOPEN}",
                "The token's nonce was used before: the page was loaded again, or somebody replays a login.",
            )

    def lms_id(self, claims: dict[str, Any]) -> str:
        """The person's id in the LMS, by ``username_key``. Raises Refused, for another claim would be another user."""
        key = self.username_key or "sub"
        source: Any = claims
        if key.startswith("custom_"):
            source, key = claims.get(LTI13_CUSTOM_CLAIM), key.removeprefix("custom_")
        value = source.get(key) if isinstance(source, dict) else None
        if isinstance(value, bool) or not isinstance(value, str | int) or str(value).strip() == "":
            raise Refused(
                400,
                "The learning platform did not say who you are.",
                TELL_ADMIN,
                f"The launch has no claim {shown(self.username_key)}, which this hub's user names are made from. "
                "Let the LMS send it, or set "
                "hub_lti_username_key to one that it sends.",
            )
        return str(value).strip()

    def username_of(self, claims: dict[str, Any]) -> str:
        """The user name of the person who is launched. Raises Refused."""
        return username(self.username_prefix, self.lms_id(claims))

    async def authenticate(self, handler: Any, data: Any = None) -> dict[str, Any]:
        name = self.username_of(data)
        return {"name": name, "auth_state": data, "groups": self.groups_of(name)}

    async def get_authenticated_user(self, handler: Any, data: Any) -> dict[str, Any] | None:
        """As JupyterHub's; whoever is let in is noted in the user data file."""
        authenticated: dict[str, Any] | None = await super().get_authenticated_user(handler, data)
        if authenticated and self.user_data_file:
            await self._record(authenticated["name"], data)
        return authenticated

    async def _record(self, name: str, claims: dict[str, Any]) -> None:
        path = Path(self.user_data_file)
        entry = userdata.from_claims(claims, self.lms_id(claims))
        try:
            put_aside = await asyncio.get_running_loop().run_in_executor(None, userdata.record, path, name, entry)
        except OSError as error:
            # a full disk must not keep people out; their names are written at the next login
            self.log.error("%s cannot be written: %s. %s is logged in without being noted.", path, error, name)
            return
        if put_aside:
            self.log.error("%s was damaged; it is now %s, and a new file was begun.", path, put_aside)
