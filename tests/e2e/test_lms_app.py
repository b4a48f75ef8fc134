"""The test LMS by itself, judged by the validator that hubs use: good launches pass, each fault is what it says."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from ltiauthenticator.lti13.error import ValidationError
from ltiauthenticator.lti13.validator import LTI13LaunchValidator
from test_lms.faults import FAULTS
from test_lms.keys import load_or_create
from test_lms.settings import SettingsError, parse
from test_lms.web import create_app

ISSUER = "https://lms.localhost:8443"
HUB = "https://hubs.localhost:8443/math101/"
CALLBACK = HUB + "hub/lti13/oauth_callback"
CLAIM = "https://purl.imsglobal.org/spec/lti/claim/"


def raw_settings() -> dict[str, Any]:
    def person(name: str, role: str) -> dict[str, str]:
        return {
            "id": name,
            "given_name": name.title(),
            "family_name": "Example",
            "email": f"{name}@example.org",
            "role": role,
        }

    def course(name: str, client_id: str) -> dict[str, Any]:
        return {"id": name, "title": name.title(), "tools": [{"title": "Hub", "client_id": client_id, "url": HUB}]}

    return {
        "issuer": ISSUER,
        "port": 8100,
        "people": [person("teacher1", "instructor"), person("student1", "student")],
        "courses": [course("algebra", "client-1"), course("calculus", "client-2")],
        "allow_faults": True,
    }


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return create_app(parse(raw_settings()), load_or_create(tmp_path / "key.pem"))


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    return app.test_client()


def authorization_request(browser: FlaskClient, person: str, **launch: str) -> dict[str, str]:
    """Choose a person, open a course, and be the hub that answers the login initiation."""
    assert browser.post("/person", base_url=ISSUER, data={"person": person}).status_code == 303
    query = {"course": "algebra", "client_id": "client-1", **launch}
    answer = browser.get("/launch", base_url=ISSUER, query_string=query)
    assert answer.status_code == 302, answer.text
    assert answer.location.startswith(HUB + "hub/lti13/oauth_login?")
    sent = {key: values[0] for key, values in parse_qs(urlsplit(answer.location).query).items()}
    LTI13LaunchValidator().validate_login_request(sent)
    return {
        "response_type": "id_token",
        "scope": "openid",
        "response_mode": "form_post",
        "prompt": "none",
        "client_id": sent["client_id"],
        "redirect_uri": CALLBACK,
        "login_hint": sent["login_hint"],
        "lti_message_hint": sent["lti_message_hint"],
        "nonce": "nonce-1",
        "state": "state-1",
    }


def launch(browser: FlaskClient, person: str, **query: str) -> tuple[str, str]:
    """The id_token and the state that the LMS posts to the hub."""
    answer = browser.get("/auth", base_url=ISSUER, query_string=authorization_request(browser, person, **query))
    assert answer.status_code == 200, answer.text
    assert f'action="{CALLBACK}"' in answer.text
    fields = dict(re.findall(r'name="(id_token|state)" value="([^"]+)"', answer.text))
    return fields["id_token"], fields["state"]


def validated(browser: FlaskClient, token: str) -> dict[str, Any]:
    """The claims, after the checks that the hub makes (its own code, with the key set read from the LMS)."""
    keys = jwt.PyJWKSet.from_dict(browser.get("/jwks", base_url=ISSUER).get_json())
    key = keys[jwt.get_unverified_header(token)["kid"]].key
    claims = jwt.decode(token, key, algorithms=["RS256"], audience=["client-1", "client-2"], issuer=ISSUER)
    LTI13LaunchValidator().validate_id_token(claims)
    return claims


@pytest.mark.parametrize(("person", "role"), [("teacher1", "Instructor"), ("student1", "Learner")])
def test_launch_is_valid_and_says_who_and_where(browser: FlaskClient, person: str, role: str) -> None:
    token, state = launch(browser, person)
    claims = validated(browser, token)
    assert state == "state-1"
    assert claims["nonce"] == "nonce-1"
    assert claims["sub"] == person
    assert claims["name"] == f"{person.title()} Example"
    assert claims["given_name"] == person.title()
    assert claims["family_name"] == "Example"
    assert claims["email"] == f"{person}@example.org"
    assert any(uri.endswith(f"membership#{role}") for uri in claims[CLAIM + "roles"])
    assert claims[CLAIM + "context"]["id"] == "algebra"
    assert claims[CLAIM + "deployment_id"] == "1"


def test_two_courses_link_one_hub_with_client_ids_of_their_own(browser: FlaskClient) -> None:
    token, _ = launch(browser, "student1", course="calculus", client_id="client-2")
    assert validated(browser, token)["aud"] == "client-2"


@pytest.mark.parametrize(
    "fault",
    ["expired", "forged", "stale", "unsigned", "wrong_issuer", "unknown_client", "token_issuer", "token_client"],
)
def test_faulty_tokens_are_refused_by_the_hub_s_checks(browser: FlaskClient, fault: str) -> None:
    token, _ = launch(browser, "student1", fault=fault)
    with pytest.raises((jwt.PyJWTError, ValidationError)):
        validated(browser, token)


def test_faulty_nonce_state_and_replay(browser: FlaskClient) -> None:
    first, _ = launch(browser, "student1")
    assert validated(browser, launch(browser, "student1", fault="wrong_nonce")[0])["nonce"] != "nonce-1"
    assert launch(browser, "student1", fault="wrong_state")[1] != "state-1"
    assert launch(browser, "student1", fault="replay")[0] == first


def test_every_fault_is_off_by_default(tmp_path: Path) -> None:
    raw = raw_settings()
    del raw["allow_faults"]
    browser = create_app(parse(raw), load_or_create(tmp_path / "key.pem")).test_client()
    browser.post("/person", base_url=ISSUER, data={"person": "student1"})
    for fault in FAULTS:
        query = {"course": "algebra", "client_id": "client-1", "fault": fault}
        answer = browser.get("/launch", base_url=ISSUER, query_string=query)
        assert answer.status_code == 400
        assert "test_lms_allow_faults is off" in answer.text


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"redirect_uri": "https://evil.example/"}, 400, "is not the redirection URI"),
        ({"login_hint": "teacher1"}, 403, "is not the one who is signed in"),
        ({"lti_message_hint": "forged"}, 400, "lti_message_hint"),
        ({"client_id": "client-9"}, 400, "its own client_id"),
        ({"nonce": ""}, 400, "nonce"),
        ({"response_mode": "query"}, 400, "response_mode=form_post"),
    ],
)
def test_lms_refuses_a_wrong_authorization_request(
    browser: FlaskClient, change: dict[str, str], status: int, text: str
) -> None:
    asked = authorization_request(browser, "student1")
    answer = browser.get("/auth", base_url=ISSUER, query_string={**asked, **change})
    assert answer.status_code == status
    assert text in answer.text


def test_nobody_launches_without_signing_in(browser: FlaskClient) -> None:
    asked = authorization_request(browser, "student1")
    browser.post("/leave", base_url=ISSUER)
    assert browser.get("/auth", base_url=ISSUER, query_string=asked).status_code == 403
    assert browser.get("/courses", base_url=ISSUER).location == "/"


def test_pages_escape_what_they_show(tmp_path: Path) -> None:
    raw = raw_settings()
    raw["people"][0]["given_name"] = "<script>alert(1)</script>"
    browser = create_app(parse(raw), load_or_create(tmp_path / "key.pem")).test_client()
    page = browser.get("/", base_url=ISSUER).text
    assert "<script>" not in page
    assert "not for production" in page


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    first = load_or_create(path)
    assert load_or_create(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("issuer",), "lms.localhost", "issuer"),
        (("issuer",), ISSUER + "/", "scheme, host and port only"),
        (("port",), "8100", "port"),
        (("allow_faults",), "true", "allow_faults"),
        (("people",), [], "at least one"),
        (("people", 0, "id"), "../x", r"people\[0\].id"),
        (("people", 1, "id"), "teacher1", "more than once"),
        (("people", 0, "role"), "boss", "choose one of"),
        (("people", 0, "given_name"), "a\nb", "one line"),
        (("courses", 0, "tools"), [], r"courses\[0\].tools"),
        (("courses", 0, "tools", 0, "url"), "/math101/", "not an address"),
        (("courses", 0, "tools", 0, "client_id"), "", "client_id"),
        (("courses", 1, "tools", 0), {"title": "x", "client_id": "client-1", "url": ISSUER}, "client ids of its own"),
    ],
)
def test_settings_that_cannot_be_used_are_named(path: tuple[Any, ...], value: Any, message: str) -> None:
    raw = raw_settings()
    place: Any = raw
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(SettingsError, match=message):
        parse(raw)
