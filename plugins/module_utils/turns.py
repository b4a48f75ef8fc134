# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns: no more hubs start at once than a machine's CPUs start well.

Twenty hubs that start together on two CPUs take each other's caches and need half as many CPU seconds
again as when a few go first. Root provides the turns; whoever may start a hub can take one, only for as
long as its process lives, and nobody is kept waiting for ever by one who does not let go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files

DIRECTORY = os.path.join(files.RUN_DIR, "turns")
PER_CPU = 2
"""A starting hub waits for its own processes for about half of the time."""
PATIENCE = 600.0
"""Seconds after which a start goes on without a turn."""
PAUSE = 0.1


def provide(directory: str = DIRECTORY) -> None:
    """Make this machine's turns; only root can, and others can only read them."""
    files.folder(directory)
    for path in _paths(directory):
        with contextlib.suppress(FileExistsError):
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            os.fchmod(handle, 0o644)  # whatever root's umask is
            os.close(handle)


def provided(directory: str = DIRECTORY) -> bool:
    """Whether this machine has its turns; a reboot takes them away."""
    return all(os.path.exists(path) for path in _paths(directory))


@contextlib.contextmanager
def take(directory: str = DIRECTORY, patience: float = PATIENCE) -> t.Iterator[bool]:
    """Wait for a turn and hold it; yields False where there are none, or none came free in ``patience`` seconds."""
    with contextlib.ExitStack() as stack:
        handles = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(directory):
                handles.append(os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC))
                stack.callback(os.close, handles[-1])
        yield _locked(handles, time.monotonic() + patience)


def _paths(directory: str) -> list[str]:
    return [os.path.join(directory, str(number)) for number in range(PER_CPU * (os.cpu_count() or 1))]


def _locked(handles: list[int], deadline: float) -> bool:
    """Lock one of these files."""
    while handles:
        for handle in handles:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        if time.monotonic() > deadline:
            break
        time.sleep(PAUSE)
    return False
