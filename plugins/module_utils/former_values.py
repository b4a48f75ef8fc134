# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of the former system's files as variables of a hub have them."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import user_names

_PATH = re.compile(r"/(?:[A-Za-z0-9._~-]+/)+\Z")
_USER = re.compile(r"[a-z][a-z0-9_-]{0,30}\Z")
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([kmgt]?)(?:i?b)?\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


class Unusable(Exception):
    """A value that no variable can have. The text says what to do."""


def size(value: t.Any) -> t.Any:
    """A size as variables have it, from one of podman, systemd or JupyterHub."""
    if value is None or value == "infinity":
        return None
    found = _SIZE.match(str(value).strip())
    if found is None or isinstance(value, bool):
        raise Unusable("it is no size such as 2G; see hub-variables.md")
    count = int(float(found.group(1)) * _UNITS[found.group(2).lower()])
    for unit in ("G", "M", "K"):
        if count and count % _UNITS[unit.lower()] == 0:
            return f"{count // _UNITS[unit.lower()]}{unit}"
    return str(count)


def cpus(value: t.Any) -> t.Any:
    """CPUs, from a number or its text."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if isinstance(value, bool) or not 0 < number < 4096:
        raise Unusable("it is no number of CPUs such as 2 or 0.5")
    return int(number) if number == int(number) else number


def percent(value: t.Any) -> t.Any:
    """CPUs, from a quota of systemd."""
    if not re.match(r"[0-9]{1,6}%\Z", str(value)):
        raise Unusable("it is no percentage such as 200%; see hub_user_cpus")
    return cpus(int(str(value)[:-1]) / 100)


def count(value: t.Any) -> int:
    """A whole number."""
    if isinstance(value, bool) or not re.match(r"[0-9]{1,15}\Z", str(value)):
        raise Unusable("it is no whole number")
    return int(value)


def text(value: t.Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise Unusable("it is no text")
    return value


def path(value: t.Any) -> str:
    """The path of a hub."""
    found = f"/{str(value).strip('/')}/"
    if found == "//":
        raise Unusable(
            "a hub here has a path of its own: set hub_path, and give the LMS's admin the new addresses (lms.txt)"
        )
    if not _PATH.match(found):
        raise Unusable("it is no path such as /math101/; set hub_path")
    return found


def level(value: t.Any) -> str:
    """One of JupyterHub's levels, from its name or number."""
    found = _LEVELS.get(value) if isinstance(value, int) else value
    if found not in _LEVELS.values():
        raise Unusable("it is none of JupyterHub's levels; see hub_log_level")
    return str(found)


def groups(value: t.Any) -> dict[str, list[str]]:
    """Groups and their members, from both forms of JupyterHub."""
    if not isinstance(value, dict):
        raise Unusable("it is no mapping of groups; see hub_groups")
    lists = {name: one.get("users", []) if isinstance(one, dict) else one for name, one in value.items()}
    return {name: [person(who) for who in names(members)] for name, members in lists.items()}


def names(value: t.Any) -> list[str]:
    """The names in a list, or the only one."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and one]


def texts(value: t.Any) -> list[str]:
    """Texts and numbers of a list, or the only one, as texts."""
    return [str(one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, (str, int))]


def person(name: str) -> str:
    """The name of a hub user here, from the former one alone."""
    return name if _USER.match(name) else user_names.renamed(name.lower(), None, "sub", user_names.FORMER_PREFIX)


def room_name(former: str) -> str:
    """The name of a room here."""
    name = re.sub(r"[^a-z0-9]+", "-", former.lower()).strip("-")
    return (name if name[:1].isalpha() else f"room-{name}")[:26].strip("-")
