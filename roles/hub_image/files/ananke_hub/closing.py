# SPDX-License-Identifier: GPL-3.0-or-later
"""A hub that closes for a while, before an update: no server starts any more, and people are told when theirs is stopped.

The module ``hub_servers`` writes when that is into a file in the container's memory. A new container opens by itself, and so does one whose
update was given up without a word.
"""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from .paths import Paths


class Closing(NamedTuple):
    """When servers are stopped, and when the hub opens again if nobody says anything; both in seconds since the epoch."""

    at: float
    until: float


def closing(paths: Paths) -> Closing | None:
    """None while the hub is open."""
    try:
        said = json.loads(paths.closing.read_text(encoding="ascii"))
        found = Closing(float(said["at"]), float(said["until"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if time.time() < found.until else None


def notice(found: Closing) -> str:
    """What everybody should know."""
    left = found.at - time.time()
    if left <= 0:
        return "This hub is being updated. Come back in a few minutes; your files stay as they are."
    # the hub's time zone is the one of its people
    at = time.strftime("%H:%M", time.localtime(found.at))
    return f"This hub is updated at {at}, and running notebooks are stopped then. Save your work now. No server starts until the update is done."


def announcement(user: Any) -> str:
    """On top of each of JupyterHub's pages; ``user`` is JupyterHub's."""
    found = closing(Paths.current())
    return notice(found) if found else ""


def refusal(paths: Paths) -> str:
    """Why no server starts, "" while the hub is open."""
    found = closing(paths)
    return notice(found) if found else ""
