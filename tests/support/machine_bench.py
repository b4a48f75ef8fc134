"""``python -m machine_bench``: what hardening costs, against the machine as it was before, in the same run.

Wall seconds from the start of OpenSSH's client to the end of a command that does nothing, before and after; of the machines
play, first run and unchanged second run, with its module executions; and how exposed systemd finds our units.
Written to ``build/machine-bench.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import playbook
from exposure import exposures
from testbed import machine as machines
from testbed.client import HARDENED, Client
from testbed.common import BUILD, REPOSITORY

NAME = "hardened"
INVENTORY = REPOSITORY / "tests/machine/inventory"
LOGINS = 15


def login(client: Client, port: int) -> float:
    """Median seconds of a login that runs nothing."""
    times = []
    for _ in range(LOGINS):
        started = time.monotonic()
        done = client.ssh("true", port=port)
        times.append(time.monotonic() - started)
        if done.returncode:
            raise AssertionError(f"no login on port {port}: {done.stderr}")
    return statistics.median(times)


def measure() -> dict[str, Any]:
    """All figures, on a machine made for them."""
    machines.down(NAME)
    machine = machines.up(NAME)
    try:
        client = Client(machine)
        client.attach()
        before = login(client, 22)
        first = playbook.succeed("machines", INVENTORY, count=True)
        second = playbook.succeed("machines", INVENTORY, count=True)
        if second.changed:
            raise AssertionError(f"the second run changed something:\n{second.output[-4000:]}")
        after = login(client, HARDENED)
        return {
            "login_before_s": round(before, 3),
            "login_after_s": round(after, 3),
            "login_ratio": round(after / before, 2),
            "first_run_s": round(first.wall, 1),
            "first_run_executions": len(first.executions),
            "second_run_s": round(second.wall, 1),
            "second_run_executions": len(second.executions),
            "exposure": exposures(lambda script: machine.exec("sh", "-c", script).stdout, "ananke-*"),
        }
    finally:
        machines.down(NAME)


def main() -> None:
    """Command line."""
    argparse.ArgumentParser(prog="machine_bench", description=__doc__).parse_args()
    result = measure()
    print(json.dumps(result, indent=2), flush=True)
    (BUILD / "machine-bench.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
