# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rooms of a hub, in which people work together, and the groups that may enter them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Optional

from . import checks
from .problems import Bad, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    Refuse = Callable[[str, Optional[str], str, str], None]

#: What names of room accounts start with, and no name of a person.
PREFIX = "room-"
_KEYS = ("name", "title", "public", "users", "groups")
_NAME = checks.text(
    re.compile(r"(?=.{1,26}\Z)[a-z](?:[a-z0-9-]*[a-z0-9])?\Z"),
    "it is not a room's name",
    "Write lower case letters, digits and -, a letter first and no - last, 26 at most, such as project-a",
)
_TITLE = checks.text(
    re.compile(r"\S(?:.{0,98}\S)?\Z"), "it is not one line of 100 characters at most", "Write a short title"
)
_GROUP = checks.text(
    re.compile(r"[a-z][a-z0-9_-]{0,30}\Z"),
    "it is not a group's name",
    "Write lower case letters, digits, _ and -, a letter first, 31 at most, such as team-a",
)
_PERSON = checks.text(
    re.compile(rf"(?!{PREFIX})[a-z][a-z0-9_-]{{0,30}}\Z"),
    "it is not a user name of a person inside a hub",
    "Write the name inside the hub: lower case letters, digits, _ and -, a letter first, 31 at most, such as u123",
)
_PEOPLE = checks.names(_PERSON, "Write a list of names, such as [u123, u456]")


def prefix(name: str) -> str:
    """A prefix of people's names, unless names of room accounts may start with it as well."""
    if name.startswith(PREFIX) or PREFIX.startswith(name):
        raise Bad(f"people could have names of room accounts, which start with {PREFIX}", "Write another, such as u")
    return name


def groups(value: Any) -> dict[str, list[str]]:
    """hub_groups, in the order of names."""
    if not isinstance(value, dict):
        raise Bad(
            "it is not a mapping of groups to lists of users",
            "Write {NAME: [USER, ...]}, such as {team-a: [u123, u456]}",
        )
    result = {}
    for name in sorted(value):
        _GROUP(name)
        result[name] = checks.inside(_PEOPLE, value[name], f".{name}")
    return result


def rooms(value: Any) -> list[dict[str, Any]]:
    """hub_rooms, in the order of names."""
    each = checks.listing(_room, "Write a list of {name: ..., users: [...], groups: [...]}")
    return checks.distinct(each(value), "name", "rooms")


def _room(value: Any) -> dict[str, Any]:
    remedy = "Write {name: project-a, users: [u123, u456]}, or {name: forum, public: true}"
    if not isinstance(value, dict):
        raise Bad("it is not a mapping", remedy)
    for key in value:
        if key not in _KEYS:
            raise Bad(f"{key} is unknown, the nearest is {nearest(key, _KEYS)}", remedy)
    if "name" not in value:
        raise Bad("name is missing", remedy)
    name = checks.inside(_NAME, value["name"], ".name")
    result = {
        "name": name,
        "title": checks.inside(_TITLE, value.get("title", name), ".title"),
        "public": checks.inside(checks.boolean, value.get("public", False), ".public"),
        "users": checks.inside(_PEOPLE, value.get("users", []), ".users"),
        "groups": checks.inside(checks.names(_GROUP, "Write a list of groups"), value.get("groups", []), ".groups"),
    }
    members = bool(result["users"] or result["groups"])
    if result["public"] and members:
        raise Bad("it is public, and names users or groups as well", "Remove them, or public")
    if not result["public"] and not members:
        raise Bad("nobody may enter it", "Name users or groups, or write public: true")
    return result


def people(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Everybody who is named in groups and rooms, by the key that names them."""
    named = {f"hub_groups.{name}": users for name, users in (values.get("hub_groups") or {}).items()}
    named.update((_key(room, "users"), room["users"]) for room in values.get("hub_rooms") or [])
    return named


def _key(room: Mapping[str, Any], part: str) -> str:
    # the list is sorted, so that positions in the inventory are unknown here
    return f"hub_rooms.{room['name']}.{part}"


def together(values: Mapping[str, Any], features: Optional[Collection[str]], refuse: Refuse) -> None:
    """Rules between rooms, groups, the features of the hub's image (None: not known) and who may enter the hub."""
    if "hub_groups" in values:
        _know_groups(values.get("hub_rooms") or [], values["hub_groups"], refuse)
    if values.get("hub_users"):
        _let_in(values, {*values["hub_users"], *(values.get("hub_admins") or [])}, refuse)
    if values.get("hub_rooms") and features is not None and "rtc" not in features:
        refuse("hub_rooms", None, "rooms need the feature rtc", "Add rtc to hub_features")


def _know_groups(listed: Sequence[Mapping[str, Any]], known: Collection[str], refuse: Refuse) -> None:
    for room in listed:
        for group in room["groups"]:
            if group not in known:
                guess = nearest(group, known)
                remedy = f"The nearest group is {guess}; or add it to hub_groups" if guess else "Add it to hub_groups"
                refuse(_key(room, "groups"), shown(group), "the hub has no such group", remedy)


def _let_in(values: Mapping[str, Any], allowed: Collection[str], refuse: Refuse) -> None:
    for key, users in people(values).items():
        for name in users:
            if name not in allowed:
                remedy = f"Add {name} to hub_users, or remove it here"
                refuse(key, shown(name), "hub_users does not let them into the hub", remedy)
