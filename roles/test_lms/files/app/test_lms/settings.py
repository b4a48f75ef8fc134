"""What the LMS knows: people, courses, tools. Read from one JSON file and checked completely before anything starts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
ROLES = ("instructor", "student")


class SettingsError(ValueError):
    """The settings cannot be used; the message says where and what to write instead."""


@dataclass(frozen=True)
class Person:
    """Somebody who may be chosen on the front page; `id` is the `sub` that tools see, for ever the same."""

    id: str
    given_name: str
    family_name: str
    email: str
    role: str

    @property
    def name(self) -> str:
        return f"{self.given_name} {self.family_name}"


@dataclass(frozen=True)
class Tool:
    """A tool as one course links it: the registration (client id, addresses) and the deployment."""

    title: str
    client_id: str
    deployment_id: str
    url: str
    login_url: str
    redirect_uri: str


@dataclass(frozen=True)
class Course:
    id: str
    title: str
    tools: tuple[Tool, ...]


@dataclass(frozen=True)
class Settings:
    issuer: str
    port: int
    people: dict[str, Person]
    courses: dict[str, Course]
    allow_faults: bool
    digest: str

    @property
    def secure(self) -> bool:
        """Whether browsers reach the LMS by HTTPS."""
        return self.issuer.startswith("https://")


def load(path: Path) -> Settings:
    """Read and check the settings file.

    Raises SettingsError for anything that is missing, wrong or contradictory.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict):
        raise SettingsError(f"{path}: must be a JSON object")
    return parse(raw)


def parse(raw: dict[str, Any]) -> Settings:
    """Settings from plain data; see `load`."""
    issuer = _url(raw, "issuer", "issuer")
    if urlsplit(issuer).path or urlsplit(issuer).query:
        raise SettingsError(f"issuer: {issuer!r} must be scheme, host and port only, as in https://lms.example.org")
    port = raw.get("port")
    if not isinstance(port, int) or not 1 <= port <= 65535:
        raise SettingsError(f"port: {port!r} is not a port; write a number from 1 to 65535")
    allow_faults = raw.get("allow_faults", False)
    if not isinstance(allow_faults, bool):
        raise SettingsError(f"allow_faults: {allow_faults!r} must be true or false")
    people = [_person(entry, f"people[{i}]") for i, entry in enumerate(_list(raw, "people"))]
    courses = [_course(entry, f"courses[{i}]") for i, entry in enumerate(_list(raw, "courses"))]
    _unique("people: id", [person.id for person in people])
    _unique("courses: id", [course.id for course in courses])
    _one_registration_per_client_id(tool for course in courses for tool in course.tools)
    return Settings(
        issuer=issuer,
        port=port,
        people={person.id: person for person in people},
        courses={course.id: course for course in courses},
        allow_faults=allow_faults,
        digest=str(raw.get("digest", "")),
    )


def _person(raw: dict[str, Any], where: str) -> Person:
    role = _text(raw, "role", where)
    if role not in ROLES:
        raise SettingsError(f"{where}.role: {role!r} is not a role; choose one of {', '.join(ROLES)}")
    return Person(
        id=_identifier(raw, "id", where),
        given_name=_text(raw, "given_name", where),
        family_name=_text(raw, "family_name", where),
        email=_text(raw, "email", where),
        role=role,
    )


def _course(raw: dict[str, Any], where: str) -> Course:
    tools = tuple(_tool(entry, f"{where}.tools[{i}]") for i, entry in enumerate(_list(raw, "tools", where)))
    return Course(id=_identifier(raw, "id", where), title=_text(raw, "title", where), tools=tools)


def _tool(raw: dict[str, Any], where: str) -> Tool:
    url = _url(raw, "url", where)
    base = url if url.endswith("/") else url + "/"
    defaults = {
        "login_url": urljoin(base, "hub/lti13/oauth_login"),
        "redirect_uri": urljoin(base, "hub/lti13/oauth_callback"),
        "deployment_id": "1",
    }
    full = {**defaults, **{key: value for key, value in raw.items() if value}}
    return Tool(
        title=_text(full, "title", where),
        client_id=_text(full, "client_id", where),
        deployment_id=_text(full, "deployment_id", where),
        url=url,
        login_url=_url(full, "login_url", where),
        redirect_uri=_url(full, "redirect_uri", where),
    )


def _one_registration_per_client_id(tools: Iterable[Tool]) -> None:
    known: dict[str, str] = {}
    for tool in tools:
        if known.setdefault(tool.client_id, tool.redirect_uri) != tool.redirect_uri:
            raise SettingsError(
                f"courses: client_id {tool.client_id!r} stands for {known[tool.client_id]} and for "
                f"{tool.redirect_uri}; give each hub client ids of its own"
            )


def _list(raw: dict[str, Any], key: str, where: str = "") -> list[dict[str, Any]]:
    value = raw.get(key)
    name = f"{where}.{key}" if where else key
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        raise SettingsError(f"{name}: must be a list with at least one entry")
    return value


def _text(raw: dict[str, Any], key: str, where: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise SettingsError(f"{where}.{key}: {value!r} must be text of one line")
    return value


def _identifier(raw: dict[str, Any], key: str, where: str) -> str:
    value = _text(raw, key, where)
    if not IDENTIFIER.fullmatch(value):
        raise SettingsError(f"{where}.{key}: {value!r} may hold letters, digits and . _ - only, 64 at most")
    return value


def _url(raw: dict[str, Any], key: str, where: str) -> str:
    value = _text(raw, key, where)
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise SettingsError(f"{where}.{key}: {value!r} is not an address; write it as https://host/path")
    return value


def _unique(what: str, values: list[str]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise SettingsError(f"{what}: {', '.join(twice)} used more than once")
