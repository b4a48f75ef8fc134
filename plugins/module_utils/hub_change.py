# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of a hub, from before its first write until it is over: what is needed to undo it, and to know that it was never finished.

The record lies in the hub's folder. One that is there when a run begins is that of a run which was killed, or which could not bring the state before
back. What the container runs with then, nobody knows: the former state, or the one that the change was to bring.
"""

from __future__ import annotations

import dataclasses
import json
import os

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files, hub_database, hub_folder

RECORD = os.path.join(hub_database.FOLDER, "change.json")


@dataclasses.dataclass
class Change:
    """What a change began with, and where it leads."""

    applied: dict[str, str]
    """What the hub ran with before, see :func:`.hub_folder.applied`."""
    target: dict[str, str]
    """What it is to run with, see :func:`.hub_folder.digests`."""
    files: dict[str, tuple[str | None, int]]
    """Text and mode of each file that the hub had before, or did not have (None), by path."""


def begun(folder: str) -> Change | None:
    """The change that was not finished, if there is one.

    :param folder: the hub's container definition folder
    """
    try:
        noted = json.loads(files.read(os.path.join(folder, RECORD)) or "null")
        former = {str(path): (text, int(mode)) for path, (text, mode) in noted["files"].items()}
        return Change(dict(noted["applied"]), dict(noted["target"]), former)
    except (ValueError, TypeError, KeyError):
        return None


def plan(folder: str, wanted: list[hub_folder.Wanted]) -> hub_folder.Plan:
    """Compare with what is there, as :func:`.hub_folder.plan`; what an unfinished change may have brought is not taken for what is wanted."""
    result, change = hub_folder.plan(folder, wanted), begun(folder)
    if change:
        parts = hub_folder.digests(wanted)
        result.stale |= {part for part, value in parts.items() if change.target.get(part) != value}
    return result


def begin(folder: str, wanted: list[hub_folder.Wanted], healthy: bool) -> Change:
    """Record a change of a hub that was in force once. Raises OSError; nothing was changed then.

    What was there before an unfinished change is what a failure of the next one brings back, too: it is the last state that is known to work.

    :param wanted: all files of the hub
    :param healthy: whether the hub answers
    """
    applied, target = hub_folder.applied(folder), hub_folder.digests(wanted)
    change = begun(folder)
    if change is None or change.target == applied or _works(folder, change, target, healthy):
        hub_database.forget(folder)
        change = Change(applied, target, {})
    change.target = target
    for path in [*(one.path for one in wanted if one.part), *hub_folder.authorities(folder)]:
        change.files.setdefault(path, (files.read(path), files.mode_of(path) or 0o600))
    _write(folder, change)
    return change


def _works(folder: str, change: Change, target: dict[str, str], healthy: bool) -> bool:
    """Whether an unfinished change of the container came so far that the hub works with it, and something else is wanted now.

    The hub was stopped for it, so what answers is what the files say. People may have worked with that for weeks: it is not taken from them.
    """
    return healthy and hub_database.kept(folder) and target not in (change.target, change.applied)


def undo(change: Change) -> None:
    """Bring the files back. Raises OSError."""
    for path, (content, mode) in change.files.items():
        files.restore(path, content, mode)


def undone(folder: str, change: Change) -> None:
    """Note that what was there before is in force again, healthy or not: the next run need not start it once more."""
    change.target = change.applied
    _write(folder, change)


def over(folder: str) -> None:
    """Forget the change, and the database from before it."""
    hub_database.forget(folder)


def _write(folder: str, change: Change) -> None:
    hub_database.provide(folder)
    files.write(os.path.join(folder, RECORD), json.dumps(dataclasses.asdict(change), sort_keys=True) + "\n", 0o600)
