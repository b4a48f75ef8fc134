# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder through which assignments of nbgrader are handed out and in, and what of it each user's server sees.

UIDs of users come and go, so owners and modes keep nobody out there. A student's server sees what is released and cannot change it, and of what was
submitted the student's own; servers of hub admins see all. Folders that this makes as root lie in folders that only root may write to.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path

EXCHANGE = Path("/opt/nbgrader_exchange")
#: Settings of JupyterLab and its server that take from students what only teachers need; the feature nbgrader brings it.
STUDENTS = "/opt/conda/envs/jhub/share/ananke/nbgrader-student"


def installed() -> bool:
    """Whether the feature nbgrader is there; it may come and go while the hub runs, which shares its environment."""
    importlib.invalidate_caches()
    return importlib.util.find_spec("ananke_nbgrader") is not None


def prepare(course: str, user: str, exchange: Path = EXCHANGE) -> None:
    """Make the course's folders, and the one for what the user submits. Raises OSError, also where something else is in their place."""
    top = os.open(exchange, os.O_RDONLY | os.O_DIRECTORY)
    opened = [top]
    try:
        opened.append(own := _folder(top, course, 0o755))
        opened.append(_folder(own, "outbound", 0o777))
        # feedback has names that cannot be guessed, so nobody may list them
        opened.append(_folder(own, "feedback", 0o733))
        opened.append(inbound := _folder(own, "inbound", 0o755))
        opened.append(_folder(inbound, user, 0o777))
    finally:
        for number in opened:
            os.close(number)


def _folder(parent: int, name: str, mode: int) -> int:
    """An open folder of root's, whatever it was before."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=parent)
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    os.fchown(folder, os.geteuid(), os.getegid())
    os.fchmod(folder, mode)
    return folder


def view(course: str, user: str, teaches: bool) -> dict[str, list[str]]:
    """Properties of the unit of a user's server."""
    if teaches:
        return {"ReadWritePaths": [str(EXCHANGE)]}
    folder = EXCHANGE / course
    return {
        "TemporaryFileSystem": [f"{EXCHANGE}:ro"],
        "BindReadOnlyPaths": [f"{folder}/outbound", f"{folder}/feedback"],
        "BindPaths": [f"{folder}/inbound/{user}:{folder}/inbound"],
    }


def environment(course: str, teaches: bool) -> dict[str, str]:
    """Variables of the environment of a user's server."""
    return {"ANANKE_COURSE": course, **({} if teaches else {"JUPYTER_CONFIG_PATH": STUDENTS})}
