"""Kill a run of the site at random moments; the next one must always be able to go on.

``python -m killed --times 10`` starts ``playbooks/site.yml`` on ``inventories/demo`` again and again and kills each run, and all
it started on this computer, without warning. What the runs did stays, so the moments wander over the whole site. The run
that completes it all is the caller's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import IO

import playbook


def kill_one(moment: float, name: str = "site", *more: str, log: IO[str] | int = subprocess.DEVNULL) -> int | None:
    """Start a run of a playbook and kill it after ``moment`` seconds; returns its status when it ended before, None when it was killed.

    Args:
        moment: Seconds until it is killed.
        name: The playbook.
        more: Further arguments of ``ansible-playbook``.
        log: Gets what the run says.
    """
    mark = f"ANANKE_KILLED={uuid.uuid4().hex}"
    process = subprocess.Popen(
        playbook.arguments(name, playbook.ROOT / "inventories/demo", *more),
        cwd=playbook.ROOT,
        env=playbook.environment(**dict([mark.split("=")])),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        end_marked(mark.encode())
        return None


def end_marked(mark: bytes) -> None:
    """Kill whoever has this variable in its environment: Ansible's workers have sessions of their own, and would go on.

    Args:
        mark: NAME=VALUE
    """
    while found := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if marked(pid, mark)]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def marked(pid: int, mark: bytes) -> bool:
    """Whether a process that runs has the variable."""
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="killed", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="runs to kill")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="to repeat the same moments")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chance = random.Random(options.seed)  # noqa: S311  (moments, no secrets)
    for number in range(1, options.times + 1):
        moment = chance.uniform(2, 12 + 6 * number)
        with tempfile.TemporaryFile("w+") as log:
            status = kill_one(moment, log=log)
            print(
                f"run {number}: {f'killed after {moment:.1f} s' if status is None else f'ended by itself with {status}'}"
            )
            sys.stdout.flush()
            if status:
                log.seek(0)
                sys.exit(f"run {number} failed by itself, and said:\n{log.read()}")


if __name__ == "__main__":
    main()
