"""Another machine on the network of a test machine: an sshd at the client's address, with an account and a folder of its own.

Its files are on the test machine, so that no second one must be made; its network, its sshd and its keys are not.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from testbed.client import CONTROLLER, Client

PORT = 2222
USER = "archivist"
ROOT = "/run/remote"
CONFIG = f"""\
Port {PORT}
ListenAddress {CONTROLLER}
HostKey {ROOT}/host
PidFile {ROOT}/pid
AuthorizedKeysFile {ROOT}/keys
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Remote:
    """The other machine."""

    client: Client

    def make(self) -> None:
        """Make the account, its folder and the keys."""
        script = (
            f"useradd --create-home --password '*' {USER}; install -d -m 755 {ROOT}; install -d -o {USER} /home/{USER}/set;"
            f"echo datum >/home/{USER}/set/file; ssh-keygen -q -t ed25519 -N '' -f {ROOT}/host; : >{ROOT}/keys; cat >{ROOT}/config"
        )
        self.client.machine.exec("sh", "-c", script, input=CONFIG)

    @property
    def source(self) -> str:
        """Its folder, as sshfs names it."""
        return f"{USER}@{CONTROLLER}:/home/{USER}/set"

    @property
    def host_key(self) -> str:
        """Its host key."""
        return " ".join(self.client.machine.exec("cat", f"{ROOT}/host.pub").stdout.split()[:2])

    def trust(self, line: str) -> None:
        """Let this key log in, and no other."""
        self.client.machine.exec("tee", f"{ROOT}/keys", input=f"{line}\n")

    def start(self) -> None:
        """Let it answer."""
        enter = ["nsenter", f"--net={self.client.path}", "--target", str(self.client.machine.pid()), "--mount"]
        subprocess.run([*enter, "/usr/sbin/sshd", "-f", f"{ROOT}/config"], check=True, capture_output=True)

    def stop(self) -> None:
        """Let it die, with all connections."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.client.name], capture_output=True, text=True, check=True
        ).stdout.split()
        for pid in found:
            name = subprocess.run(["ps", "-p", pid, "-o", "comm="], capture_output=True, text=True, check=False).stdout
            if name.startswith("sshd"):
                subprocess.run(["kill", pid], check=False)

    def remove(self) -> None:
        """Remove it."""
        self.stop()
        self.client.machine.exec("sh", "-c", f"userdel --remove {USER}; rm -r {ROOT}", check=False)
