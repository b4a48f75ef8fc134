"""The LTI 1.3 platform itself: login initiation, authorization response, key set. The protocol is lti1p3platform's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lti1p3platform.ltiplatform import LTI1P3PlatformConfAbstract
from lti1p3platform.message_launch import LaunchData, MessageLaunchAbstract
from lti1p3platform.oidc_login import OIDCLoginAbstract
from lti1p3platform.registration import Registration
from lti1p3platform.request import Request

from . import __version__
from .faults import REPLAY, TOKEN_FAULTS, Launch
from .keys import KeyPair
from .settings import Course, Person, Tool

CLAIM = "https://purl.imsglobal.org/spec/lti/claim"
VOCABULARY = "http://purl.imsglobal.org/vocab/lis/v2"
COURSE_TYPE = f"{VOCABULARY}/course#CourseOffering"
ROLE_CLAIMS = {
    "instructor": [f"{VOCABULARY}/membership#Instructor", f"{VOCABULARY}/institution/person#Instructor"],
    "student": [f"{VOCABULARY}/membership#Learner", f"{VOCABULARY}/institution/person#Student"],
}
TOKEN_SECONDS = 300


class NothingToReplay(Exception):
    """A replay was asked for, but nothing was launched before."""


def registration(issuer: str, tool: Tool, keys: KeyPair, fault: str = "") -> Registration:
    """The agreement between this LMS and one tool, or with a registration fault one that the tool has not agreed to."""
    return (
        Registration()
        .set_iss(f"{issuer}/another-lms" if fault == "wrong_issuer" else issuer)
        .set_client_id("a-client-id-nobody-registered" if fault == "unknown_client" else tool.client_id)
        .set_deployment_id(tool.deployment_id)
        .set_launch_url(tool.url)
        .set_oidc_login_url(tool.login_url)
        .set_platform_private_key(keys.private)
        .set_platform_public_key(keys.public)
    )


class Platform(LTI1P3PlatformConfAbstract):
    """The library's view of this LMS, for one tool."""

    def init_platform_config(self, **kwargs: Any) -> None:
        self._registration = kwargs["registration"]

    def get_registration_by_params(self, **kwargs: Any) -> Registration:
        return self._registration


class Parameters(Request):
    """What the tool sent to the authorization endpoint, by GET or POST."""

    def build_metadata(self, request: Mapping[str, str]) -> Any:
        return {"method": "GET", "get_data": dict(request), "form_data": {}, "headers": {}, "path": "", "json": None}


class Login(OIDCLoginAbstract):
    """Step 1: send the browser to the tool's login initiation address."""

    def set_lti_message_hint(self, **kwargs: Any) -> None:
        self._lti_message_hint = kwargs["hint"]

    def get_redirect(self, url: str) -> str:
        return url


class ResourceLinkLaunch(MessageLaunchAbstract):
    """Step 3: answer the tool's authorization request with a signed id_token."""

    # The last token of each person and tool; read only for `fault=replay`.
    sent: dict[tuple[str, str], str] = {}  # noqa: RUF012

    def __init__(self, parameters: Mapping[str, str], platform: Platform, fault: str = "") -> None:
        super().__init__(Parameters(parameters), platform)
        self._fault = fault
        self.set_id_token_expiration(TOKEN_SECONDS)

    def describe(self, person: Person, course: Course, tool: Tool, issuer: str) -> None:
        """Fill in who opens what, from where."""
        self.set_user_data(person.id, ROLE_CLAIMS[person.role], person.name, person.email)
        self.set_launch_context_claim(course.id, [COURSE_TYPE], course.title, course.id)
        self.set_resource_link_claim(f"{course.id}-{tool.client_id}", title=tool.title)
        self.set_launch_presentation_claim("window", f"{issuer}/courses")
        self.set_extra_claims(
            {
                "given_name": person.given_name,
                "family_name": person.family_name,
                f"{CLAIM}/tool_platform": {
                    "guid": issuer,
                    "name": "Test LMS",
                    "product_family_code": "ananke-test-lms",
                    "version": __version__,
                },
            }
        )

    def generate_launch_request(self) -> LaunchData:
        claims, state = self.get_launch_data()
        key = (str(claims["sub"]), str(claims["aud"]))
        if self._fault == REPLAY:
            if key not in self.sent:
                raise NothingToReplay
            return {"state": state, "id_token": self.sent[key]}
        if self._fault in TOKEN_FAULTS:
            return self._faulty(claims, state)
        launch = super().generate_launch_request()
        self.sent[key] = launch["id_token"]
        return launch

    def _faulty(self, claims: dict[str, Any], state: str) -> LaunchData:
        assert self._registration
        now = int(time.time())
        good = Launch(
            claims={**claims, "iat": now, "exp": now + TOKEN_SECONDS},
            private_key=self._registration.get_platform_private_key() or "",
            key_id=self._registration.get_kid() or "",
            state=state,
        )
        bad = TOKEN_FAULTS[self._fault](good)
        return {"state": bad.state, "id_token": bad.token()}

    def render_launch_form(self, launch_data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return launch_data
