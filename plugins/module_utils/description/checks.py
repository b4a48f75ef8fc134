# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of single values: each takes a plain value and returns the normalised one, or raises Bad.

They are strict, since what passes here ends in unit files, nginx's configuration, paths and Python; and human, since
"8101" for a port is what many people write.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import itertools
import re
import unicodedata
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .problems import Bad, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from re import Pattern

    Check = Callable[[Any], Any]

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)\Z")
_JINJA = re.compile(r"\{\{|\{%|\{#")
_PATH = re.compile(r"/[A-Za-z0-9._@+/-]*\Z")
_HOST = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\Z"
)
_URL = re.compile(r"[A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]+\Z")
_PUBLIC_KEY = re.compile(
    r"(?:[a-z][A-Za-z0-9=\",.:/*@ _-]* )?"
    r"(?P<kind>ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-[a-z0-9-]+@openssh\.com)"
    r" (?P<blob>[A-Za-z0-9+/]+=*)(?: .*)?\Z"
)
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s*(.*?)\s*-----END \1-----", re.DOTALL)


# ---------------------------------------------------------------- of every value


def screen(value: Any) -> None:
    """Refuse what nothing may hold: control characters, templates that were not rendered, values that are not data."""
    if isinstance(value, str):
        _screen_text(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise Bad(f"the name {shown(key)} is not a string", "Put it in quotes")
            _screen_text(key)
            inside(screen, item, f"[{shown(key)}]")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            inside(screen, item, f"[{number}]")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Bad("the number is too long", "Write a shorter one", value="(a very long number)")
    elif not (value is None or isinstance(value, (bool, int, float))):
        kind = type(value).__name__.replace("_AnsibleTagged", "").lower()
        raise Bad(f"a {kind} is not a string, a number, a list or a mapping", "Put it in quotes")


def _screen_text(text: str) -> None:
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            raise Bad(
                f"it contains the control character U+{ord(character):04X}",
                "Write it in one line, without invisible characters",
            )
    found = _JINJA.search(text)
    if found:
        raise Bad(
            f"it contains {found.group()}, a template that was not rendered",
            "Write the value itself, or remove !unsafe if the template shall be rendered",
        )


def inside(check: Check, value: Any, where: str) -> Any:
    """Check a part of a value; a problem names the part, ``where``."""
    try:
        return check(value)
    except Bad as error:
        raise error.inside(where, error.value if error.value is not None else shown(value)) from None


# ---------------------------------------------------------------- building blocks


def optional(check: Check) -> Check:
    """null is allowed, and means no limit or none."""
    return lambda value: None if value is None else check(value)


def text(pattern: Pattern[str], what: str, remedy: str) -> Check:
    """A string that matches ``pattern`` as a whole."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise Bad(f"it is {_kind(value)}, not a string", remedy)
        if not pattern.match(value):
            raise Bad("it is empty" if not value else what, remedy)
        return value

    return check


def choice(*choices: str) -> Check:
    """One of a few words."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            guess = nearest(value.upper(), choices) if isinstance(value, str) and choices[0].isupper() else ""
            raise Bad("it is not one of " + ", ".join(choices), f"Write {guess or ' or '.join(choices)}")
        return value

    return check


def integer(low: int, high: int, unit: str) -> Check:
    """A whole number from ``low`` to ``high``; digits in quotes count, true and 1.5 do not."""
    remedy = f"Write {unit} from {low} to {high}"

    def check(value: Any) -> int:
        if isinstance(value, str) and re.match(r"[0-9]{1,18}\Z", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Bad(f"it is {_kind(value)}, not a whole number", remedy)
        if not low <= value <= high:
            raise Bad("it is out of range", remedy)
        return value

    return check


def boolean(value: Any) -> bool:
    """True or false, and nothing that only looks like it."""
    if not isinstance(value, bool):
        raise Bad("it is not true or false", "Write true or false, without quotes")
    return value


def number(low: float, high: float, unit: str) -> Check:
    """A number from ``low`` to ``high``, kept to three decimal places."""
    remedy = f"Write {unit} from {low} to {high}, such as 1.5"

    def check(value: Any) -> float:
        if isinstance(value, str) and re.match(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z", value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Bad(f"it is {_kind(value)}, not a number", remedy)
        if not low <= value <= high:  # also refuses NaN
            raise Bad("it is out of range", remedy)
        return round(float(value), 3)

    return check


def size(low: int, high: int, example: str) -> Check:
    """A number of bytes: a whole number, or one with K, M, G or T (powers of 1024)."""
    remedy = (
        f"Write bytes, or a whole number with K, M, G or T, from {_short(low)} to {_short(high)}, such as {example}"
    )

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise Bad(f"it is {_kind(value)}, not a size", remedy)
        if isinstance(value, int):
            result = value
        else:
            match = _SIZE.match(value)
            if not match:
                raise Bad("it is not a size", remedy)
            result = int(match.group(1)) * _UNITS[match.group(2)]
        if not low <= result <= high:
            raise Bad("it is out of range", remedy)
        return result

    return check


def listing(item: Check, remedy: str) -> Check:
    """A list whose items pass ``item``."""

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise Bad(f"it is {_kind(value)}, not a list", remedy)
        return [inside(item, entry, f"[{position}]") for position, entry in enumerate(value)]

    return check


def names(item: Check, remedy: str) -> Check:
    """A list of names, returned sorted and each once, so that their order in the inventory means nothing."""
    each = listing(item, remedy)
    return lambda value: sorted(set(each(value)))


def distinct(entries: Sequence[dict[str, Any]], key: str, what: str) -> list[dict[str, Any]]:
    """The entries (``what``, in the plural), sorted by ``key``, which tells each from the others."""
    found = sorted(str(entry[key]) for entry in entries)
    for value, following in itertools.pairwise(found):
        if value == following:
            raise Bad(f"two {what} have the {key} {value}", f"Give each its own {key}")
    return sorted(entries, key=lambda entry: str(entry[key]))


def _kind(value: Any) -> str:
    kinds = (
        (type(None), "not set"),
        (bool, "true or false"),
        (int, "a number"),
        (float, "a fraction"),
        (str, "text"),
        (list, "a list"),
        (dict, "a mapping"),
    )
    return next((word for kind, word in kinds if isinstance(value, kind)), type(value).__name__)


def _short(count: int) -> str:
    for unit in "TGMK":
        if count >= _UNITS[unit] and count % _UNITS[unit] == 0:
            return f"{count // _UNITS[unit]}{unit}"
    return str(count)


def time_zone(value: Any) -> str:
    """A time zone by its IANA name. Where the controller knows none, the hub's image judges alone."""
    import zoneinfo

    remedy = "Write a name such as Europe/Berlin or UTC"
    zone = str(text(re.compile(r"[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*\Z"), "it is not a time zone", remedy)(value))
    known = zoneinfo.available_timezones()
    if known and zone not in known:
        raise Bad("there is no such time zone", f"The nearest is {nearest(zone, known)}")
    return zone


# ---------------------------------------------------------------- paths


def absolute_path(value: Any, remedy: str) -> str:
    """A normalised absolute path of characters that mean nothing to a shell, podman or systemd."""
    if not isinstance(value, str):
        raise Bad(f"it is {_kind(value)}, not a path", remedy)
    if value.startswith("~"):
        raise Bad("~ is not expanded", remedy)
    if not value.startswith("/"):
        raise Bad("it is not an absolute path", remedy)
    if not _PATH.match(value):
        raise Bad("it contains other characters than letters, digits and . _ @ + -", remedy)
    parts = [part for part in value.split("/") if part]
    if "." in parts or ".." in parts:
        raise Bad("it contains . or ..", remedy)
    return "/" + "/".join(parts)


def contains(folder: str, path: str) -> bool:
    """Whether ``path`` is ``folder`` or lies inside it; both normalised."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def url_path(value: Any) -> str:
    """The path of a hub's address, normalised to start and end with a slash."""
    remedy = "Write a path such as /math101/, of letters, digits and - _ ., each part starting with a letter or digit"
    if not isinstance(value, str):
        raise Bad(f"it is {_kind(value)}, not a path", remedy)
    inner = value[1:] if value.startswith("/") else value
    inner = inner[:-1] if inner.endswith("/") else inner
    if not inner:
        raise Bad("a hub cannot have the whole address, which the machine's hubs share", remedy)
    if len(value) > 200:
        raise Bad("it is longer than 200 characters", remedy)
    if not all(re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z", part) for part in inner.split("/")):
        raise Bad("it is not a path that is safe in an address", remedy)
    return f"/{inner}/"


def volume(value: Any, hidden_sources: Sequence[str], reserved_targets: Sequence[str]) -> dict[str, Any]:
    """One entry of hub_volumes: ``{source, target, read_only, follow_mounts}``."""
    remedy = "Write {source: /srv/course, target: /srv/course, read_only: true}"
    if not isinstance(value, dict):
        raise Bad(f"it is {_kind(value)}, not a mapping", remedy)
    keys = ["source", "target", "read_only", "follow_mounts"]
    for key in value:
        if key not in keys:
            raise Bad(f"{key} is unknown, the nearest is {nearest(key, keys)}", remedy)
    for key in ("source", "target"):
        if key not in value:
            raise Bad(f"{key} is missing", remedy)
    flags = {}
    for key in ("read_only", "follow_mounts"):
        flags[key] = value.get(key, False)
        if not isinstance(flags[key], bool):
            raise Bad("it is not true or false", "Write true or false", f".{key}", shown(flags[key]))
    source = inside(
        lambda path: absolute_path(path, "Write an absolute path of the machine"), value["source"], ".source"
    )
    target = inside(
        lambda path: absolute_path(path, "Write an absolute path inside the hub"), value["target"], ".target"
    )
    for folder in hidden_sources:
        if source == "/" or contains(folder, source):
            raise Bad(
                f"{source} of the machine is not for hubs",
                "Write a folder such as /srv/course",
                ".source",
                shown(source),
            )
    for folder in reserved_targets:
        if contains(folder, target) or contains(target, folder):
            raise Bad(
                f"it would hide {folder}, which the hub itself uses",
                "Write a folder such as /srv/course",
                ".target",
                shown(target),
            )
    return {"source": source, "target": target, **flags}


_CDI = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[a-z0-9]([a-z0-9._-]*[a-z0-9])?=[A-Za-z0-9][A-Za-z0-9._:-]*\Z")


def device(value: Any) -> str:
    """One entry of hub_devices: a CDI name, or a device file that keeps its path."""
    remedy = "Write a CDI name such as nvidia.com/gpu=all, or a device file such as /dev/kvm"
    if not isinstance(value, str):
        raise Bad(f"it is {_kind(value)}, not a device", remedy)
    if _CDI.match(value):
        return value
    path = absolute_path(value, remedy)
    if not path.startswith("/dev/"):
        raise Bad("it is not below /dev", remedy)
    return path


# ---------------------------------------------------------------- the network


def host_name(value: Any) -> bool:
    """Whether it is a DNS name or an IPv4 address."""
    return isinstance(value, str) and bool(_HOST.match(value))


def public_key(value: Any) -> str:
    """A line of authorized_keys: a public SSH key, perhaps after options."""
    remedy = "Write a public key in one line, as in ~/.ssh/id_ed25519.pub"
    if not isinstance(value, str):
        raise Bad(f"it is {_kind(value)}, not text", remedy)
    match = _PUBLIC_KEY.match(value.strip())
    try:
        blob = base64.b64decode(match.group("blob"), validate=True) if match else b""
    except (binascii.Error, ValueError):
        blob = b""
    kind = match.group("kind").encode() if match else b""
    if not match or blob[:4] != len(kind).to_bytes(4, "big") or blob[4 : 4 + len(kind)] != kind:
        raise Bad("it is not a public SSH key", remedy)
    return value.strip()


def extra_hosts(value: Any) -> dict[str, str]:
    """Names that resolve inside the hub: ``{name: address or host-gateway}``."""
    remedy = "Write {lms.example.org: 192.0.2.7}, or host-gateway for the machine itself"
    if not isinstance(value, dict):
        raise Bad(f"it is {_kind(value)}, not a mapping", remedy)
    result = {}
    for name in sorted(value):
        where, address = f"[{shown(name)}]", value[name]
        if not host_name(name) or name.lower() == "localhost":
            raise Bad("the name is not one that a host can have", remedy, where, shown(name))
        if address != "host-gateway":
            try:
                address = str(ipaddress.ip_address(address if isinstance(address, str) else ""))
            except ValueError:
                raise Bad("it is not an IP address", remedy, where, shown(value[name])) from None
        result[name] = address
    return result


def https_url(value: Any, remedy: str, query: bool) -> str:
    """A URL by https, exactly as given; ``query`` allows ?a=b."""
    if not isinstance(value, str):
        raise Bad(f"it is {_kind(value)}, not a URL", remedy)
    if not value:
        raise Bad("it is empty", remedy)
    if "://" not in value:
        raise Bad("it has no scheme", remedy)
    if not value.startswith("https://"):
        raise Bad("it is not https, so launches could be forged", remedy)
    try:
        parts = urlsplit(value)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        raise Bad("it is not a URL", remedy) from None
    if not _URL.match(value) or not port_ok or not host_name(parts.hostname or ""):
        raise Bad("it is not a URL", remedy)
    if "@" in parts.netloc or "#" in value or (("?" in value) and not query):
        raise Bad("it holds more than an address: a user, a query or a fragment", remedy)
    return value


# ---------------------------------------------------------------- files and environments

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")


def environment(value: Any) -> dict[str, str]:
    """Environment variables of the users' servers. Messages do not repeat their values, which may be secrets."""
    remedy = "Write a mapping such as {OMP_NUM_THREADS: '4'}"
    if not isinstance(value, dict):
        raise Bad(f"it is {_kind(value)}, not a mapping", remedy, value="(not shown)")
    result = {}
    for name in sorted(value):
        item, where = value[name], f"[{shown(name)}]"
        if not _VARIABLE.match(name):
            raise Bad("the name is not one of letters, digits and _", remedy, where, shown(name))
        if name.startswith(("JUPYTERHUB_", "LD_")) or name in ("HOME", "USER", "LOGNAME", "SHELL"):
            raise Bad("the hub sets this variable itself", "Remove it, or give it another name", where, "(not shown)")
        if isinstance(item, bool) or not isinstance(item, (str, int, float)):
            plain = item is None or isinstance(item, bool)
            raise Bad(
                f"it is {_kind(item)}, not text", "Put it in quotes", where, shown(item) if plain else "(not shown)"
            )
        result[name] = str(item)
    return result


def screen_environment(value: Any) -> None:
    """screen() for the environment: the same, but keeps values to itself."""
    if not isinstance(value, dict):
        return screen(value)
    for name, item in value.items():
        screen({name: None})
        try:
            screen(item)
        except Bad as error:
            raise Bad(error.what, error.remedy, f"[{shown(name)}]", "(not shown)") from None
    return None


def certificates(content: str) -> str:
    """The text of a file of CA certificates, ending with one line break."""
    remedy = "Name a PEM file that holds certificates and nothing else"
    blocks = _PEM.findall(content)
    if not blocks:
        raise Bad("the file holds no certificate in PEM", remedy)
    result = []
    for kind, body in blocks:
        if "PRIVATE" in kind:
            raise Bad("the file holds a private key, which must stay where it is", remedy)
        if kind != "CERTIFICATE":
            raise Bad(f"the file holds a {kind.lower()}, not only certificates", remedy)
        try:
            der = base64.b64decode("".join(body.split()), validate=True)
        except (binascii.Error, ValueError):
            der = b""
        if der[:1] != b"\x30":  # an ASN.1 sequence, as every certificate is
            raise Bad("the file's certificate is damaged", remedy)
        result.append("-----BEGIN CERTIFICATE-----\n" + "\n".join(body.split()) + "\n-----END CERTIFICATE-----\n")
    return "".join(result)
