"""A client of a test machine with addresses of its own: a network namespace and a link to the machine's.

Connections through published ports all come from one address. Whether a firewall hides a port, or who is banned, only
shows to somebody who stands elsewhere on the network.
"""

from __future__ import annotations

import hashlib
import os
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
CONTROLLER, CLIENT6 = "10.42.0.2", "fd42::2"
"""The client's own addresses; Ansible comes from the first."""
OTHERS = tuple(f"10.42.0.{number}" for number in range(10, 250))
"""Addresses of as many more clients as tests need: who is banned or made to wait harms no other test."""


HARDENED = 986
"""Where a hardened machine's sshd listens."""


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

    def ssh(
        self,
        *command: str,
        user: str = "",
        key: str | None = "",
        password: str | None = "",
        code: str = "",
        source: str = "",
        to: str = MACHINE4,
        port: int = HARDENED,
        options: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Log in with OpenSSH's client, whatever comes of it; by default as the host admin, with what that one needs.

        Args:
            command: A shell's text, as ever with ssh.
            user: Name of the account.
            key: Path of the private key; None for none.
            password: What is typed wherever something is asked; None for nothing.
            code: What is typed where a one-time password is asked for.
            source: The client's address; by default one that was not used before.
            to: The machine's address.
            port: The machine's port.
            options: Further options of ssh.
        """
        line = ["ssh", "-F", "none", "-p", str(port), "-l", user or self.machine.ssh_user]
        line += [*self.settings(key=key, password=password, source=source), *options]
        environment = {**self.types(password), "CODE": code}
        return self.run(*("timeout", "30", *line, to, *command), check=False, env=environment, stdin=subprocess.DEVNULL)

    def settings(self, key: str | None = "", password: str | None = "", source: str = "") -> list[str]:
        """Options of ssh, sftp and sshfs; see `ssh`."""
        settings = {
            "BindAddress": source or self.address(),
            "HostKeyAlias": self.machine.name,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.machine.known_hosts,
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "5",
            "NumberOfPasswordPrompts": "1",
            "BatchMode": "yes" if password is None else "no",
        }
        settings |= {"PubkeyAuthentication": "no"} if key is None else {"IdentityFile": key or self.machine.ssh_key}
        return [text for setting in settings.items() for text in ("-o", "=".join(setting))]

    def types(self, password: str | None = "") -> dict[str, str]:
        """An environment in which ssh, sftp and sshfs are typed this password; by default the host admin's."""
        return typing(self.machine.directory, self.machine.password if password == "" else password or "")

    def address(self) -> str:
        """An address from which nobody has come yet, or not for long."""
        used = self.machine.directory / "addresses"
        number = int(used.read_text()) if used.exists() else 0
        write_file(used, str(number + 1))
        return OTHERS[number % len(OTHERS)]

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
            for address in (*(f"{a}/24" for a in (CONTROLLER, *OTHERS)), f"{CLIENT6}/64"):
                self.run("ip", "address", "add", address, "dev", INTERFACE, *_at_once(address))
            self.run("ip", "link", "set", INTERFACE, "up")
            for address in (f"{MACHINE4}/24", f"{MACHINE6}/64"):
                self.machine.exec("ip", "address", "add", address, "dev", INTERFACE, *_at_once(address))
            self.machine.exec("ip", "link", "set", INTERFACE, "up")


def typing(folder: Path, password: str) -> dict[str, str]:
    """An environment in which OpenSSH's programs are typed this password, without a terminal.

    Args:
        folder: Where the program is that types.
        password: What it types.
    """
    program = folder / "askpass"
    script = '#!/bin/sh\ncase $1 in *"Verification code"*) TYPED=$CODE ;; esac\nprintf "%s\\n" "$TYPED"\n'
    if not program.exists() or program.read_text() != script:
        write_file(program, script, 0o700)
    return {**os.environ, "SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force", "TYPED": password}


def _at_once(address: str) -> Sequence[str]:
    return ["nodad"] if ":" in address else []  # nobody else is on the link: no need to look for duplicates


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    # namespaces that others have left behind make `ip` complain, but not fail
    if done.returncode != 0:
        raise TestbedError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
