# SPDX-License-Identifier: GPL-3.0-or-later
"""Rooms: several people work in one server at the same time, that of a *room account*.

A room account is a user of JupyterHub with a home, a unit and limits like everybody's, as whom nobody can log in. Who may enter gets scopes
on its server, from the description and from nowhere else.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from .description import Description, Room
from .usernames import ROOM_PREFIX, is_room_account

#: What turns collaboration on, which is off in all other servers.
ARGUMENTS = ("--YDocExtension.disable_rtc=False",)


def account(room: Room) -> str:
    """The user name of a room's account."""
    return ROOM_PREFIX + room.name


def visitors(hub: Description, room: Room) -> set[str] | None:
    """Who may enter; None: whoever may enter the hub. Hub admins, who may open all servers, are not counted."""
    if room.public:
        return {*hub.users, *hub.admins} if hub.users else None
    return {*room.users, *(name for group in room.groups for name in hub.groups[group])}


def roles(hub: Description) -> list[dict[str, Any]]:
    """JupyterHub's roles; each start of the hub makes memberships exactly these and deletes roles of former rooms."""
    if not hub.rooms:
        return []
    private = [
        {
            "name": account(room),
            "description": f"Start and enter the room {room.name}",
            "scopes": _scopes(room),
            "users": list(room.users),
            "groups": list(room.groups),
        }
        for room in hub.rooms
        if not room.public
    ]
    public = [scope for room in hub.rooms if room.public for scope in _scopes(room)]
    # JupyterHub's own role of all users: without a list of them, it keeps those that it has
    everybody = [{"name": "user", "scopes": ["self", *public]}] if public else []
    # no rights; that it names the accounts makes JupyterHub create them
    accounts = {"name": "rooms", "description": "Room accounts", "scopes": [], "users": [*map(account, hub.rooms)]}
    return [*private, *everybody, accounts]


def _scopes(room: Room) -> list[str]:
    # JupyterHub has no scope to start that does not stop, too
    return [f"{scope}!user={account(room)}" for scope in ("access:servers", "servers")]


def entrances(hub: Description) -> dict[str, str]:
    """Titles of rooms by what JupyterHub calls their servers when it asks visitors whether they want to enter."""
    return {f"jupyterhub-user-{account(room)}": room.title for room in hub.rooms}


def open_to(hub: Description, user: Any) -> list[dict[str, str]]:
    """The rooms that the home page offers to ``user``, which is JupyterHub's; None before a login."""
    if user is None or not hasattr(user, "spawners") or is_room_account(user.name):
        return []
    found = []
    for room in hub.rooms:
        allowed = visitors(hub, room)
        if user.admin or allowed is None or user.name in allowed:
            found.append({"account": account(room), "title": room.title})
    return found


def can_collaborate() -> bool:
    """Whether the feature rtc is installed; it may come and go while the hub runs, which shares its environment."""
    importlib.invalidate_caches()
    return importlib.util.find_spec("jupyter_server_ydoc") is not None
