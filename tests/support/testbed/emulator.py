"""QEMU as Debian 13 has it, whatever this machine runs: it starts processes three times as fast as Debian 12's.

It runs in a container that sees this machine's network and processes and the folder `build`, so that ports, PIDs and
paths are the same inside and outside.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from testbed import base, podman
from testbed.common import BUILD, RUN_DIR, TestbedError, digest, locked

IMAGE = "localhost/ananke-emulator"
IMAGE_FILES = Path(__file__).with_name("emulator_image")
SUITE = "trixie"
OPTIONS = ("--network=host", "--pid=host", "--security-opt=label=disable", f"--volume={BUILD}:{BUILD}")
PREFERENCE = "-15"
"""Where the kernel shares processors out among sessions, as it often does, `nice` counts within a session only, and this between them."""
START_TIMEOUT = 60.0
"""Seconds until the emulator runs."""


def image() -> str:
    """Return the name of the image with QEMU, which is built if it is not there (20 s)."""
    source = base.ensure(SUITE)
    name = f"{IMAGE}:{SUITE}-{digest(source, (IMAGE_FILES / 'Containerfile').read_bytes())}"
    with locked(RUN_DIR / "emulator-image.lock"):
        if not podman.exists("image", name):
            podman.build(name, IMAGE_FILES, BASE=source)
    return name


def output(*command: str) -> str:
    """Run one of QEMU's programs to its end and return what it prints."""
    return podman.output(["run", "--rm", *OPTIONS, image(), *command])


def start(container: str, command: Sequence[str], pid: Callable[[], int]) -> None:
    """Start an emulator in a container of that name, wait until it runs, and let it have the processors before all else.

    Args:
        container: The container's name.
        command: The emulator and its arguments.
        pid: Tells the emulator's PID; 0 as long as it does not run.

    Raises:
        TestbedError: it ended instead; with what it printed.
    """
    end(container)  # one that was powered off from inside
    podman.run(["run", "--detach", f"--name={container}", *OPTIONS, image(), *command], capture_output=True)
    deadline = time.monotonic() + START_TIMEOUT
    while not (found := pid()):
        state = podman.output(["inspect", "--format={{.State.Status}}", container])
        if state == "exited" or time.monotonic() > deadline:
            printed = podman.run(["logs", container], capture_output=True, check=False)
            raise TestbedError(f"the emulator did not start ({state}): {(printed.stdout + printed.stderr)[-2000:]}")
        time.sleep(0.1)
    with contextlib.suppress(OSError):  # another kernel, or fewer rights: then it is only slower
        Path(f"/proc/{found}/autogroup").write_text(PREFERENCE)


def end(container: str) -> None:
    """Take an emulator's power away; nothing happens when there is none."""
    podman.run(["rm", "--force", "--time=0", "--ignore", container], capture_output=True)
