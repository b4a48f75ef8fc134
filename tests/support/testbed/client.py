"""A client of a test machine with addresses of its own: a network namespace and a link to the machine's.

Connections through published ports all come from one address. Whether a firewall hides a port, or who is banned, only
shows to somebody who stands elsewhere on the network.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.common import TestbedError, prefix, write_file
from testbed.machine import Machine

INTERFACE = "lan0"
MACHINE4, MACHINE6 = "10.42.0.1", "fd42::1"
"""The machine's addresses on the link."""
OTHERS = tuple(f"10.42.0.{number}" for number in range(2, 10))
"""The client's addresses: as many clients as tests need."""
OTHERS6 = tuple(f"fd42::{number}" for number in range(2, 10))


@dataclass(frozen=True)
class Client:
    """Somebody on the machine's network."""

    machine: Machine

    @property
    def name(self) -> str:
        """The namespace's; interfaces bear short names, so it is short as well."""
        return f"ananke-{hashlib.sha256(f'{prefix()} {self.machine.name}'.encode()).hexdigest()[:8]}"

    @property
    def path(self) -> Path:
        """What nsenter enters."""
        return Path("/run/netns") / self.name

    @property
    def enter(self) -> list[str]:
        """The beginning of a command that runs as this client."""
        return ["nsenter", f"--net={self.path}"]

    def run(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program as this client.

        Raises:
            TestbedError: the program failed and `check` is true.
        """
        options.setdefault("capture_output", True)
        result: subprocess.CompletedProcess[str] = subprocess.run(
            [*self.enter, *arguments], text=True, check=False, **options
        )
        if check and result.returncode != 0:
            shown = f"{' '.join(arguments)[:200]}: {(result.stderr or '').strip()[-2000:]}"
            raise TestbedError(f"client of {self.machine.name} ({result.returncode}): {shown}")
        return result

    def attach(self) -> None:
        """Make the namespace and the link unless they are there; after a reboot the machine needs a new one."""
        # machine.down removes what is named there
        write_file(self.machine.directory / "client", str(self.path))
        if not self.path.exists():
            _ip("netns", "add", self.name)
            self.run("ip", "link", "set", "lo", "up")
        if self.run("ip", "link", "show", INTERFACE, check=False).returncode != 0:
            pid = str(self.machine.pid())
            peer = ["peer", "name", INTERFACE, "netns", self.name]
            _ip("link", "add", INTERFACE, "netns", pid, "type", "veth", *peer)
            for address in (*(f"{a}/24" for a in OTHERS), *(f"{a}/64" for a in OTHERS6)):
                self.run("ip", "address", "add", address, "dev", INTERFACE, *_at_once(address))
            self.run("ip", "link", "set", INTERFACE, "up")
            for address in (f"{MACHINE4}/24", f"{MACHINE6}/64"):
                self.machine.exec("ip", "address", "add", address, "dev", INTERFACE, *_at_once(address))
            self.machine.exec("ip", "link", "set", INTERFACE, "up")


def _at_once(address: str) -> Sequence[str]:
    return ["nodad"] if ":" in address else []  # nobody else is on the link: no need to look for duplicates


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    # namespaces that others have left behind make `ip` complain, but not fail
    if done.returncode != 0:
        raise TestbedError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
