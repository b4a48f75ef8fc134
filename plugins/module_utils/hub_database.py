# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JupyterHub's database as it was before a change of the container: a newer JupyterHub changes it, and an older one cannot read it then.

The copy lies in the hub's folder until the change is over (:mod:`.hub_change`). While it is there, no other takes its place: a run that was killed may
have started the new container already, and what that one made of the database is not what was there before.
"""

from __future__ import annotations

import contextlib
import os
import shutil

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files

FOLDER = "before"
PARTS = ("jupyterhub.sqlite", "jupyterhub.sqlite-wal", "jupyterhub.sqlite-shm", "jupyterhub.sqlite-journal")
NOTE = "complete"
"""Written last: a folder without it holds half a copy."""


def size(folder: str) -> int:
    """Bytes of the database."""
    paths = (os.path.join(folder, "data", name) for name in PARTS)
    return sum(os.path.getsize(path) for path in paths if os.path.exists(path))


def kept(folder: str) -> bool:
    """Whether there is a whole copy."""
    return os.path.exists(os.path.join(folder, FOLDER, NOTE))


def keep(folder: str) -> bool:
    """Copy the database of a hub that is stopped, unless there is a copy. Returns whether it was made.

    Raises OSError where there is no room for it, and leaves no half of it.

    :param folder: the hub's container definition folder
    """
    there, before = os.path.join(folder, "data"), os.path.join(folder, FOLDER)
    if kept(folder) or not os.path.exists(os.path.join(there, PARTS[0])):
        return False
    provide(folder)
    _drop(before)
    try:
        _copy(there, before)
        files.write(os.path.join(before, NOTE), "", 0o600)
    except OSError:
        _drop(before)
        raise
    return True


def give_back(folder: str) -> bool:
    """Put the copy in the place of the database of a hub that is stopped. Returns whether there was one."""
    there, before = os.path.join(folder, "data"), os.path.join(folder, FOLDER)
    if not kept(folder):
        return False
    for name in PARTS[1:]:  # a journal of the newer database must not be played into the older one
        if os.path.lexists(os.path.join(there, name)):
            os.unlink(os.path.join(there, name))
    _copy(before, there)
    return True


def _copy(source: str, target: str) -> None:
    """Copy the database from folder to folder. Each file is on the disk before it has its name: power may be cut at any moment."""
    for name in PARTS:
        if not os.path.exists(os.path.join(source, name)):
            continue
        draft = os.path.join(target, f"{name}-new")
        shutil.copy2(os.path.join(source, name), draft)
        with open(draft, "rb") as stream:
            os.fsync(stream.fileno())
        os.rename(draft, os.path.join(target, name))


def _drop(folder: str) -> None:
    """Remove what a copy left that did not come to its end."""
    for name in PARTS:
        for path in (os.path.join(folder, name), os.path.join(folder, f"{name}-new")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def provide(folder: str) -> None:
    """Make the folder of what was before, readable for the container admin alone."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.join(folder, FOLDER), 0o700)


def forget(folder: str) -> None:
    """Remove all that was before, whole or half."""
    shutil.rmtree(os.path.join(folder, FOLDER), ignore_errors=True)
