# SPDX-License-Identifier: GPL-3.0-or-later
"""Read and check a hub's description (``/etc/ananke/hub.json``, version 1).

The description is written by the ``hub`` role, which checks it more closely and explains more. These checks keep a
hub from starting with a description that is damaged, of another version, or edited by hand; they name the one key
that is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .usernames import MAX_LENGTH, ROOM_PREFIX, is_room_account, may_be_room_account

VERSION = 1
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
HUB_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}\Z")
USER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}\Z")
USER_PREFIX = re.compile(r"[a-z][a-z0-9_-]{0,7}\Z")
ROOM_NAME = re.compile(rf"(?=.{{1,{MAX_LENGTH - len(ROOM_PREFIX)}}}\Z)[a-z](?:[a-z0-9-]*[a-z0-9])?\Z")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
CLAIM_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z")
BASE_URL = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*\Z")
TIME_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*\Z")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class DescriptionError(ValueError):
    """A description cannot be used. The text is one printable line, whatever the key is: key, value, what is allowed."""

    def __init__(self, text: str) -> None:
        super().__init__("".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text))


@dataclass(frozen=True)
class Servers:
    """Limits and defaults of each hub user's server. Sizes in bytes, times in seconds; None means no limit."""

    memory: int | None
    swap: int | None
    tasks: int | None
    cpus: float | None
    default_url: str
    start_timeout: int
    http_timeout: int
    concurrent_spawns: int
    environment: dict[str, str]


@dataclass(frozen=True)
class Culling:
    """When idle servers are stopped; all in seconds, ``timeout`` 0: never."""

    timeout: int
    every: int
    max_age: int


@dataclass(frozen=True)
class Lti:
    """The LMS that sends people here by LTI 1.3."""

    issuer: str
    client_ids: tuple[str, ...]
    authorize_url: str
    jwks_endpoint: str
    username_key: str
    username_prefix: str


@dataclass(frozen=True)
class Room:
    """Where people work together: everybody (``public``), or these users and the members of these groups."""

    name: str
    title: str
    public: bool
    users: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """One hub."""

    name: str
    base_url: str
    public_url: str
    log_level: str
    time_zone: str
    forget: bool
    admins: tuple[str, ...]
    users: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    rooms: tuple[Room, ...]
    servers: Servers
    culling: Culling
    lti: Lti | None

    @property
    def https(self) -> bool:
        """Whether browsers reach this hub by HTTPS."""
        return urlsplit(self.public_url).scheme == "https"


Check = Callable[[str, Any], Any]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= 80 else text[:77] + "..."


def _fail(key: str, value: object, allowed: str) -> DescriptionError:
    return DescriptionError(f"{key}: {_shown(value)} is not allowed: it must be {allowed}")


def _text(pattern: re.Pattern[str], allowed: str) -> Check:
    def check(key: str, value: Any) -> str:
        if not isinstance(value, str) or not pattern.match(value):
            raise _fail(key, value, allowed)
        return value

    return check


def _number(low: float, allowed: str, *, integer: bool = True, optional: bool = False) -> Check:
    kinds = int if integer else int | float

    def check(key: str, value: Any) -> Any:
        if value is None and optional:
            return None
        # bool is an int in Python and never meant here; "not >=" also refuses NaN
        if isinstance(value, bool) or not isinstance(value, kinds) or not value >= low or value >= 2**63:
            raise _fail(key, value, allowed + (" or null" if optional else ""))
        return value

    return check


def _boolean(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _fail(key, value, "true or false")
    return value


def _choice(*choices: str) -> Check:
    def check(key: str, value: Any) -> str:
        if value not in choices:
            raise _fail(key, value, "one of " + ", ".join(choices))
        return str(value)

    return check


def _list(item: Check, *, minimum: int = 0) -> Check:
    def check(key: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) < minimum:
            raise _fail(key, value, f"a list of at least {minimum} items" if minimum else "a list")
        items = tuple(item(f"{key}[{number}]", entry) for number, entry in enumerate(value))
        if len(set(items)) != len(items):
            raise _fail(key, value, "a list without duplicates")
        return items

    return check


def _line(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or CONTROL.search(value) or value != value.strip():
        raise _fail(key, value, "one line of text without control characters or outer spaces")
    return value


def _url(key: str, value: Any) -> str:
    _line(key, value)
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or " " in value or parts.username or parts.fragment:
        raise _fail(key, value, "a URL that starts with https:// or http:// and names a host")
    return str(value)


def _path_url(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or CONTROL.search(value) or value.startswith("//"):
        raise _fail(key, value, "a path that starts with one /")
    return value


def _environment(key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _fail(key, value, "a mapping of names to strings")
    for name, text in value.items():
        if not VARIABLE_NAME.match(name):
            raise _fail(f"{key}.{name}", name, "a name of letters, digits and _ that does not start with a digit")
        if not isinstance(text, str) or "\0" in text or "\n" in text or "\r" in text:
            raise _fail(f"{key}.{name}", text, "a string of one line")
    return dict(value)


def _section(key: str, value: Any, checks: Mapping[str, Check]) -> dict[str, Any]:
    prefix = f"{key}." if key else ""
    if not isinstance(value, dict):
        raise _fail(key or "description", value, "a mapping")
    unknown = sorted(set(value) - set(checks))
    if unknown:
        raise DescriptionError(f"{prefix}{unknown[0]}: unknown key; known are {', '.join(checks)}")
    missing = [name for name in checks if name not in value]
    if missing:
        raise DescriptionError(f"{prefix}{missing[0]}: missing; write the description again by running the playbook")
    return {name: check(prefix + name, value[name]) for name, check in checks.items()}


def _user(key: str, value: Any) -> str:
    allowed = f"a user name: lower case letters, digits, _ and -, a letter first, 31 at most, not {ROOM_PREFIX}..."
    if not isinstance(value, str) or not USER_NAME.match(value) or is_room_account(value):
        raise _fail(key, value, allowed)
    return value


_GROUP = _text(USER_NAME, "a group's name: lower case letters, digits, _ and -, a letter first, 31 at most")


def _groups(key: str, value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise _fail(key, value, "a mapping of names to lists of users")
    return {_GROUP(key, name): _list(_user)(f"{key}.{name}", users) for name, users in value.items()}


_ROOM: dict[str, Check] = {
    "name": _text(ROOM_NAME, "a room's name: lower case letters, digits and - inside, a letter first, 26 at most"),
    "title": _line,
    "public": _boolean,
    "users": _list(_user),
    "groups": _list(_GROUP),
}


def _username_prefix(key: str, value: Any) -> str:
    allowed = "lower case letters, digits, _ and -, a letter first, 8 at most"
    prefix: str = _text(USER_PREFIX, allowed)(key, value)
    if may_be_room_account(prefix):
        raise _fail(key, value, f"such that no name can start with {ROOM_PREFIX}, as those of room accounts do")
    return prefix


_SERVERS: dict[str, Check] = {
    "memory": _number(2**20, "a number of bytes, at least 1 MiB", optional=True),
    "swap": _number(0, "a number of bytes", optional=True),
    "tasks": _number(1, "a number of tasks, at least 1", optional=True),
    "cpus": _number(0.01, "a number of CPUs, at least 0.01", integer=False, optional=True),
    "default_url": _path_url,
    "start_timeout": _number(1, "a number of seconds, at least 1"),
    "http_timeout": _number(1, "a number of seconds, at least 1"),
    "concurrent_spawns": _number(1, "a number of servers, at least 1"),
    "environment": _environment,
}
_CULLING: dict[str, Check] = {
    "timeout": _number(0, "a number of seconds, 0 for never"),
    "every": _number(1, "a number of seconds, at least 1"),
    "max_age": _number(0, "a number of seconds, 0 for no limit"),
}
_LTI: dict[str, Check] = {
    "issuer": _url,
    "client_ids": _list(_line, minimum=1),
    "authorize_url": _url,
    "jwks_endpoint": _url,
    "username_key": _text(CLAIM_NAME, "the name of a claim, such as sub, email or custom_NAME"),
    "username_prefix": _username_prefix,
}


def _version(key: str, value: Any) -> int:
    if value != VERSION or isinstance(value, bool):
        raise DescriptionError(
            f"{key}: {_shown(value)} is not allowed: this image reads version {VERSION}; use an image of the "
            "collection's version, or run the playbook again"
        )
    return VERSION


_HUB: dict[str, Check] = {
    "version": _version,
    "name": _text(HUB_NAME, "a hub's name: lower case letters, digits and -, a letter first, 31 at most"),
    "base_url": _text(BASE_URL, "a path that starts and ends with /"),
    "public_url": _url,
    "log_level": _choice(*LOG_LEVELS),
    "time_zone": _text(TIME_ZONE, "a time zone such as Europe/Berlin or UTC"),
    "forget": _boolean,
    "admins": _list(_user),
    "users": _list(_user),
    "groups": _groups,
    "rooms": _list(lambda key, value: Room(**_section(key, value, _ROOM))),
    "servers": lambda key, value: Servers(**_section(key, value, _SERVERS)),
    "culling": lambda key, value: Culling(**_section(key, value, _CULLING)),
    "lti": lambda key, value: None if value is None else Lti(**_section(key, value, _LTI)),
}


def parse(data: Any) -> Description:
    """Check decoded JSON and return the hub that it describes. Raises DescriptionError."""
    if isinstance(data, dict) and "version" in data:
        _version("version", data["version"])  # a description of another version fails by its version, not by its keys
    values = _section("", data, _HUB)
    del values["version"]
    path = urlsplit(values["public_url"]).path
    if path != values["base_url"]:
        raise _fail("public_url", values["public_url"], f"a URL whose path is base_url, {values['base_url']}")
    _check_rooms(values["rooms"], values["groups"])
    return Description(**values)


def _check_rooms(rooms: tuple[Room, ...], groups: Mapping[str, Any]) -> None:
    for number, room in enumerate(rooms):
        if room.name in (other.name for other in rooms[:number]):
            raise _fail(f"rooms[{number}].name", room.name, "a name of its own")
        for group in room.groups:
            if group not in groups:
                raise _fail(f"rooms[{number}].groups", group, "one of groups")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise DescriptionError(f"{key}: given twice")
        seen[key] = value
    return seen


def parse_text(text: str | bytes, source: str) -> Description:
    """Like :func:`parse`, from JSON text; ``source`` names it in errors."""
    try:
        return parse(json.loads(text, object_pairs_hook=_no_duplicates))
    except DescriptionError as error:
        raise DescriptionError(f"{source}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DescriptionError(f"{source}: not valid JSON: {error}") from None


def load(path: Path) -> Description:
    """Read and check the description at ``path``. Raises DescriptionError, with the path in front."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DescriptionError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_text(text, str(path))
