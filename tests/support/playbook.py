"""Runs playbooks as an admin does, and reads what their recap says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Host:
    """One line of the recap."""

    ok: int
    changed: int
    unreachable: int
    failed: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run."""

    status: int
    output: str
    recap: dict[str, Host]
    wall: float
    """Seconds."""
    cpu: float
    """Seconds of CPU on the controller."""
    executions: list[dict[str, str]]
    """Executions of modules: host, module, task."""

    @property
    def changed(self) -> int:
        """Changed tasks on all hosts."""
        return sum(host.changed for host in self.recap.values())

    def executions_of(self, host: str) -> list[str]:
        """Names of the modules that were executed for a host."""
        return [one["module"] for one in self.executions if one["host"] == host]


@contextlib.contextmanager
def further_inventory(groups: dict[str, Any]) -> Iterator[Path]:
    """An inventory in a folder of its own, which is as deep as inventories/demo, for its paths."""
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        inventory = Path(folder) / "hosts.json"
        inventory.write_text(json.dumps(groups))
        yield inventory


def arguments(playbook: str, inventory: str | Path, *more: str) -> list[str]:
    """The command line of a run."""
    return ["ansible-playbook", "--inventory", str(inventory), str(ROOT / "playbooks" / f"{playbook}.yml"), *more]


def environment(executions: str = "", **more: str) -> dict[str, str]:
    """The environment of a run; ``executions`` names the file that counts executions of modules."""
    added = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    if executions:
        added["ANSIBLE_CALLBACK_PLUGINS"] = str(ROOT / "tests/support/callback_plugins")
        added["ANSIBLE_CALLBACKS_ENABLED"] = "module_executions"
        added["ANANKE_EXECUTIONS"] = executions
    return {**os.environ, **added, **more}


def run(
    playbook: str,
    inventory: str | Path,
    *more: str,
    count: bool = False,
    timeout: float | None = None,
    **variables: str,
) -> Outcome:
    """Run a playbook to its end, whatever that is.

    Args:
        playbook: Its name.
        inventory: Path of the inventory.
        more: Further arguments.
        count: Whether executions of modules are counted.
        timeout: Seconds after which the run is killed.
        variables: Further environment variables.

    Raises:
        subprocess.TimeoutExpired: the run was killed.
    """
    with tempfile.NamedTemporaryFile("r", prefix="executions-") as counted:
        started, used = time.monotonic(), _children_cpu()
        process = subprocess.run(
            arguments(playbook, inventory, *more),
            cwd=ROOT,
            env=environment(counted.name if count else "", **variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        wall, cpu = time.monotonic() - started, _children_cpu() - used
        executions = [json.loads(line) for line in counted.read().splitlines()]
    output = process.stdout + process.stderr
    return Outcome(process.returncode, output, read_recap(output), wall, cpu, executions)


def succeed(
    playbook: str,
    inventory: str | Path,
    *more: str,
    count: bool = False,
    timeout: float | None = None,
    **variables: str,
) -> Outcome:
    """Run a playbook that must succeed."""
    outcome = run(playbook, inventory, *more, count=count, timeout=timeout, **variables)
    if outcome.status:
        raise AssertionError(f"{playbook} ended with status {outcome.status}:\n{outcome.output[-6000:]}")
    return outcome


def task(inventory: str | Path, host: str, task: dict[str, Any], *more: str, timeout: float = 900) -> dict[str, Any]:
    """Run one task on a machine, as root, and return its result, also where it failed; with the run's warnings as `said`.

    Args:
        inventory: Path of the inventory.
        host: The machine.
        task: The task, as in a playbook.
        more: Further arguments.
        timeout: Seconds after which the run is killed.
    """
    play = [
        {"import_playbook": "ananke.jupyterhub.reach"},
        {"hosts": host, "gather_facts": False, "become": True, "tasks": [task]},
    ]
    # extra inventories of tests lie at this depth, and find files from here
    path = ROOT / f"build/task/{os.getpid()}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(play))
    done = subprocess.run(
        ["ansible-playbook", "--inventory", str(inventory), str(path), *more],
        env={**environment(), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    plays = json.loads(done.stdout[done.stdout.index("{\n") :])["plays"]
    result: dict[str, Any] = plays[-1]["tasks"][-1]["hosts"][host]
    return {**result, "said": done.stderr}


def read_recap(output: str) -> dict[str, Host]:
    """The recap of a run's output, by host."""
    return {name: Host(*map(int, numbers)) for name, *numbers in RECAP.findall(output)}


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
