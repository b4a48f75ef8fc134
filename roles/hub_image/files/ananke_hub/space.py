# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether there is room in a hub user's home and in the hub, and what to tell whom where there is none.

A home with a quota is a project of the file system, which then tells the quota as the home's size: nothing needs to be asked but what
``df`` asks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .paths import Paths

#: Bytes; who has less left cannot save a notebook.
LEAST_HOME = 2**20
#: Bytes that users have left together. The hub itself has more, kept for it by the file system.
LEAST_HUB = 2**24


def room(folder: Path) -> tuple[int, int] | None:
    """Bytes that users can still write below ``folder``, and those of all; None where there is no such folder."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def shown(size: int) -> str:
    """A size for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def hub_full(paths: Paths) -> bool:
    """Whether the hub's users have filled its file system."""
    found = room(paths.data)
    return found is not None and found[0] < LEAST_HUB


def notice(name: str | None, paths: Paths) -> str:
    """What a user should know, "" while there is room."""
    if hub_full(paths):
        return (
            "The disk of this hub is full, for everybody: nothing can be saved. Delete what you do not need, and tell your teacher, "
            "who should tell whoever runs this hub."
        )
    found = room(paths.private / name) if name else None
    if found is not None and found[0] < LEAST_HOME:
        return (
            f"Your home folder is full: it may hold {shown(found[1])}. Your server runs, but saves nothing until you delete "
            "something. In a terminal, this shows what is large: du -ah ~ | sort -h | tail -n 20"
        )
    return ""


def announcement(user: Any) -> str:
    """The same on top of each of JupyterHub's pages; ``user`` is JupyterHub's, None before a login."""
    return notice(user.name if user is not None and hasattr(user, "spawners") else None, Paths.current())
