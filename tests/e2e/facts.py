"""The running demo as the tests see it: its facts, its machine over SSH, its hubs' containers."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from testbed import machine as machines
from testbed.client import typing
from testbed.waiting import until

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = "build/demo.json"


class DemoError(AssertionError):
    """The demo does not do what a test needs; the message holds the command and what it printed."""


@dataclass(frozen=True)
class Machine:
    """The machine that runs the hubs, reached as its host admin."""

    ssh_host: str
    ssh_port: int
    ssh_user: str
    ssh_key: Path

    @property
    def name(self) -> str:
        """Its name in the test bed, which keeps the key in the machine's folder."""
        return self.ssh_key.parent.name

    def ssh(self, command: str, *, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the machine.

        Raises DemoError if it fails and `check` is on, TimeoutExpired after `timeout` seconds.
        """
        done = self.login(self.ssh_user, self.ssh_key, machines.load(self.name).password, command, timeout)
        if check and done.returncode != 0:
            raise DemoError(f"on the machine, {command!r} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def login(
        self, user: str, key: Path, password: str, command: str, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as an account that logs in with this key, and with this password if it is asked for one."""
        line = ["ssh", "-F", "none", "-i", str(key), "-p", str(self.ssh_port), "-o", "IdentitiesOnly=yes"]
        line += ["-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=yes"]
        line += ["-o", f"UserKnownHostsFile={self.ssh_key.with_name('known_hosts')}", "-o", f"HostKeyAlias={self.name}"]
        return subprocess.run(
            [*line, f"{user}@{self.ssh_host}", command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=typing(self.ssh_key.parent, password),
        )

    def as_root(self, command: str, *, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root."""
        # what tests write for the collection must be as readable as what it writes itself
        return self.ssh(f"sudo -n sh -c {shlex.quote(f'umask 022; {command}')}", check=check, timeout=timeout)

    def as_admin(
        self, hub: Hub, command: str, *, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as the hub's container admin, with their systemd and podman at hand."""
        inner = f"export XDG_RUNTIME_DIR=/run/user/$(id -u); cd; {command}"
        whole = f"cd / && sudo -n -H -u {shlex.quote(hub.container_admin)} sh -c {shlex.quote(inner)}"
        return self.ssh(whole, check=check, timeout=timeout)

    def reboot(self) -> None:
        """Reboot the machine as its test bed does, and wait until it can be logged in to again."""
        subprocess.run(
            [sys.executable, "-m", "testbed", "machine", "reboot", self.name],
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "tests/support")},
            timeout=300,
        )

    def cut_power(self) -> None:
        """End everything on the machine at once, without the start of a program before, and wait until it can be logged in to again."""
        machines.crash(self.name)


@dataclass(frozen=True)
class Hub:
    """One hub of the demo."""

    name: str
    url: str
    container: str
    container_admin: str
    machine: Machine

    @property
    def path(self) -> str:
        """Base path, with slashes at both ends."""
        return urlsplit(self.url).path

    @property
    def unit(self) -> str:
        """Unit of the container in its admin's manager."""
        return f"{self.container}.service"

    @property
    def folder(self) -> str:
        """Container definition folder on the machine."""
        home = self.machine.ssh(f"getent passwd {shlex.quote(self.container_admin)}").stdout.split(":")[5]
        return f"{home}/hubs/{self.name}"

    def admin(self, command: str, *, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell command as the hub's container admin."""
        return self.machine.as_admin(self, command, check=check, timeout=timeout)

    def exec(self, command: str, *, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root in the hub's container."""
        return self.admin(
            f"podman exec {shlex.quote(self.container)} sh -c {shlex.quote(command)}", check=check, timeout=timeout
        )

    def description(self) -> dict[str, Any]:
        """The rendered description that the hub runs with."""
        return dict(json.loads(self.exec("cat /etc/ananke/hub.json").stdout))

    def port(self) -> int:
        """Port of the hub on the machine's loopback interface."""
        return int(self.admin(f"podman port {shlex.quote(self.container)} 8000/tcp").stdout.strip().rpartition(":")[2])

    def container_id(self) -> str:
        """ID of the container that runs now."""
        return self.admin(f"podman container inspect --format '{{{{.Id}}}}' {self.container}").stdout.strip()

    def image_id(self) -> str:
        """ID of the image that the container was made from."""
        return self.admin(f"podman container inspect --format '{{{{.Image}}}}' {self.container}").stdout.strip()

    def healthy(self) -> bool:
        """Whether the hub answers inside its container."""
        probe = f"import urllib.request as r; r.urlopen('http://127.0.0.1:8000{self.path}hub/health', timeout=5)"
        return self.exec(f'/opt/conda/envs/jhub/bin/python -c "{probe}"', check=False).returncode == 0

    def wait_healthy(self, timeout: float = 180) -> None:
        """Wait until the hub answers; `timeout` in seconds."""
        until(self.healthy, timeout, f"hub {self.name} is healthy")


@dataclass(frozen=True)
class Demo:
    """Everything that `make demo` says about itself."""

    machine: Machine
    lms_url: str
    ca: Path
    hubs: dict[str, Hub]


def load(path: Path | None = None) -> Demo:
    """Read the demo's facts from `path`, ANANKE_FACTS or build/demo.json.

    Raises DemoError if there are none.
    """
    path = path or Path(os.environ.get("ANANKE_FACTS", ROOT / DEFAULT))
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DemoError(f"{path} does not exist: run `make demo`, or name the facts in ANANKE_FACTS") from error
    machine = Machine(
        raw["machine"]["ssh_host"],
        int(raw["machine"]["ssh_port"]),
        raw["machine"]["ssh_user"],
        (ROOT / raw["machine"]["ssh_key"]).resolve(),
    )
    hubs = {
        hub["name"]: Hub(hub["name"], hub["url"], hub["container"], hub["container_admin"], machine)
        for hub in raw["hubs"]
    }
    return Demo(machine, raw["lms"]["url"].rstrip("/"), (ROOT / raw["ca"]).resolve(), hubs)
