# SPDX-License-Identifier: GPL-3.0-or-later
"""Hubs that forget: a hub user's home is emptied when their server has stopped, and at the latest before the next one starts.

``python -m ananke_hub.forgetting [USER]`` empties the home of one user, or at a container's start those of all. A unit of its own,
``ananke-forget@USER.service``, runs it: as root, and without anything that the user could have put into the server's environment.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from . import description, units
from .description import USER_NAME, DescriptionError
from .paths import Paths

NOTICE = (
    "This hub forgets: whatever is in your home folder is deleted when your server stops, which may happen while you are "
    "away. Download what you want to keep, or hand it in, before you leave."
)
RUNNING = ("active", "activating", "deactivating", "reloading")


def announcement(user: Any) -> str:
    """On top of each of JupyterHub's pages, for people who are logged in; ``user`` is JupyterHub's."""
    return NOTICE if hasattr(user, "spawners") else ""


def runs(name: str) -> bool:
    """Whether the user's server runs."""
    ask = ["systemctl", "show", "--property=ActiveState", "--value", f"{units.unit_name(name)}.service"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() in RUNNING


def empty(home: Path) -> str:
    """Delete all that is in a home. Returns what could not be deleted, and why, in one line.

    find follows no link, leaves other file systems alone, and neither names nor depth of folders are too odd for it.
    """
    delete = ["find", "-P", str(home), "-xdev", "-mindepth", "1", "-delete"]
    done = subprocess.run(delete, capture_output=True, text=True, errors="backslashreplace", check=False)
    return " ".join(done.stderr.split())


def homes(paths: Paths) -> list[str]:
    """Whose homes there are."""
    return sorted(one.name for one in paths.private.iterdir() if USER_NAME.match(one.name) and not one.is_symlink())


def main(names: list[str]) -> int:
    """Command line entry point: exit code 0, or 1 where something is left."""
    paths = Paths.current()
    try:
        if not description.load(paths.description).forget:
            return 0  # switched off while the server ran
        left = {name: empty(paths.private / name) for name in names or homes(paths) if not runs(name)}
    except (DescriptionError, OSError, subprocess.CalledProcessError) as error:
        print(f"Homes are not forgotten. {error}", file=sys.stderr)
        return 1
    for name, why in left.items():
        if why:
            print(
                f"Not all of {paths.private / name} is forgotten: {why[:500]}. If it is immutable (lsattr), the host admin takes that "
                "away with chattr -i; the next start of the server tries again.",
                file=sys.stderr,
            )
    return 1 if any(left.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
