# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns: no more hubs start at once than a machine's CPUs start well.

Twenty hubs that start together on two CPUs take each other's caches and need half as many CPU seconds
again as when a few go first. Root provides the turns; whoever may start a hub can take one, only for as
long as its process lives, and nobody is kept waiting for ever by one who does not let go.

In a run, the module ``hub`` takes the turn. At boot, and wherever else systemd starts a hub's container, a unit that the
hub's unit wants does: it has started when it has a turn, and ends when the hub is healthy.
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
HOLD = 60
"""Seconds for which a hub that systemd starts keeps its turn at most, healthy or not."""
PROGRAM = "/usr/local/lib/ananke/turn"
UNIT = "/etc/systemd/user/ananke-turn@.service"
BOOT = "/etc/tmpfiles.d/ananke-turns.conf"

SCRIPT = f"""\
#!/usr/bin/python3 -I
# Managed by ananke.jupyterhub
\"\"\"turn PORT-HUB: wait for a turn to start the hub, tell systemd, and keep it until the hub is healthy.\"\"\"
import fcntl, http.client, json, os, pathlib, socket, sys, time

port, hub = sys.argv[1].split("-", 1)
by_run = f"{{os.environ['XDG_RUNTIME_DIR']}}/ananke-turn@{{port}}-{{hub}}"
path = json.loads(pathlib.Path.home().joinpath("hubs", hub, "description/hub.json").read_bytes())["base_url"] + "hub/health"

def taken(turn):
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

def healthy():
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

turns = [os.open(one.path, os.O_RDONLY) for one in os.scandir("{DIRECTORY}")]
while not os.path.exists(by_run) and not any(map(taken, turns)):
    time.sleep({PAUSE})
address = os.environ["NOTIFY_SOCKET"]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
    systemd.sendto(b"READY=1", "\\0" + address[1:] if address.startswith("@") else address)
end = time.monotonic() + {HOLD}
while not os.path.exists(by_run) and time.monotonic() < end and not healthy():
    time.sleep(1)
"""
UNIT_TEXT = f"""\
# Managed by ananke.jupyterhub
[Unit]
Description=A turn for a hub to start, in the order PORT-HUB
ConditionPathIsDirectory={DIRECTORY}
StopWhenUnneeded=true

[Service]
Type=notify
ExecStart={PROGRAM} %i
TimeoutStartSec={PATIENCE:.0f}
"""


def unit(port: int, hub: str) -> str:
    """Name of the unit that takes a hub's turn where no run does."""
    return f"ananke-turn@{port}-{hub}.service"


@contextlib.contextmanager
def by_run(port: int, hub: str, runtime: str) -> t.Iterator[None]:
    """While this lasts, the hub starts in the turn of a run, and its unit needs none of its own.

    :param runtime: the account's folder in ``/run/user``
    """
    mark = os.path.join(runtime, f"ananke-turn@{port}-{hub}")
    with open(mark, "wb"):
        pass
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(mark)


def provide(directory: str = DIRECTORY) -> None:
    """Make this machine's turns; only root can, and others can only read them."""
    for path, (content, mode) in _files(directory).items():
        if files.differs(path, content, mode):
            files.folder(os.path.dirname(path))
            files.write(path, content, mode)
    files.folder(directory)
    for path in _paths(directory):
        with contextlib.suppress(FileExistsError):
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            os.fchmod(handle, 0o644)  # whatever root's umask is
            os.close(handle)


def provided(directory: str = DIRECTORY) -> bool:
    """Whether this machine has its turns, and will have them after its next boot."""
    wanted = _files(directory).items()
    there = all(os.path.exists(path) for path in _paths(directory))
    return there and not any(files.differs(path, content, mode) for path, (content, mode) in wanted)


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


def _files(directory: str) -> dict[str, tuple[str, int]]:
    """Content and mode of the files that make turns at boot, and take them."""
    lines = [f"d {directory} 0755 root root -", *(f"f {path} 0644 root root -" for path in _paths(directory))]
    boot = "# Managed by ananke.jupyterhub\n" + "\n".join(lines) + "\n"
    return {BOOT: (boot, 0o644), UNIT: (UNIT_TEXT, 0o644), PROGRAM: (SCRIPT, 0o755)}


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
