"""An account with a home on a file system image, and something that writes there: for test machines and virtual ones."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import playbook

NAME = "homer"
IMAGE = f"/var/lib/ananke/homes/{NAME}.img"
# One that writes all the time: it is stopped with its account, like a hub, and comes back with it.
WRITER = """
import hashlib, os, time
os.makedirs("load", exist_ok=True)
number = len(os.listdir("load"))
with open("sums", "a") as sums:
    while True:
        number += 1
        data = os.urandom(100_000)
        with open(f"load/{number}", "wb") as stream:
            stream.write(data)
            os.fsync(stream.fileno())
        sums.write(f"{hashlib.sha256(data).hexdigest()}  load/{number}\\n")
        sums.flush()
        os.fsync(sums.fileno())
        time.sleep(0.1)
"""
SERVICE = """
[Service]
ExecStart=/usr/bin/python3 %h/writer.py
WorkingDirectory=%h
[Install]
WantedBy=default.target
"""


KILLED_AT = ("cp", "e2fsck", "mkfs.ext4", "resize2fs", "systemctl", "tar", "umount", "userdel", "usermod")
"""Programs in whose place tests put some that kill the run."""


class Machine(Protocol):
    """A test machine, or a virtual one."""

    def exec(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program as root."""


@dataclass(frozen=True)
class Account:
    """The account, as the module `container_admin` sees to it."""

    machine: Machine
    host: str
    """The machine's inventory host."""
    inventory: Path

    def grant(self, *sizes: str, check: bool = False, offline: bool = False) -> list[dict[str, Any]]:
        """Results of the module, one for each size; ends at the first failure."""
        options = {"name": NAME, "home_size": "{{ item }}", "home_offline": offline}
        task = {"ananke.jupyterhub.container_admin": options, "loop": list(sizes)}
        result = playbook.task(self.inventory, self.host, task, *["--check"] * check)
        found: list[dict[str, Any]] = result["results"]
        return found

    def one(self, size: str, check: bool = False, offline: bool = False) -> dict[str, Any]:
        """The same for one size."""
        return self.grant(size, check=check, offline=offline)[0]

    def run(self, script: str, check: bool = True) -> str:
        """Output of a shell's script as root, past SSH."""
        return self.machine.exec("sh", "-c", script, check=check).stdout

    def own(self, script: str) -> str:
        """The same as the account, with its systemd manager."""
        bus = "export XDG_RUNTIME_DIR=/run/user/$(id -u)"
        return self.machine.exec("runuser", "-u", NAME, "--", "sh", "-c", f"{bus}; cd; {script}").stdout

    def kill_at(self, last: str) -> None:
        """The module's process is killed when it runs this program, or this verb of systemctl or tar, which has begun its work by then."""
        program = {"daemon-reload": "systemctl", "enable": "systemctl", "--create": "tar", "--compare": "tar"}.get(
            last, last
        )
        path = self.run(f"command -v {program}").strip()
        when = "true" if program == last else f'[ "$1" = {last} ]'
        if (
            last == "resize2fs"
        ):  # on a device it is the attempt to enlarge what is in use; it is the one on the image that is hit
            when = '[ "${1%.offline}" != "$1" ]'
        script = (
            f'#!/bin/sh\nif {when}; then {path} "$@" & sleep 0.02; kill -9 $PPID $!; exit 1; fi\nexec {path} "$@"\n'
        )
        self.machine.exec("tee", f"/usr/local/sbin/{program}", input=script)
        self.run(f"chmod 0755 /usr/local/sbin/{program}")

    def kill_no_more(self) -> None:
        """Programs are what they are again."""
        self.run(f"cd /usr/local/sbin && rm -f {' '.join(KILLED_AT)}; sleep 0.5")

    def start_writing(self) -> None:
        """Start the writer, and see that it starts with the account."""
        folder = f"/home/{NAME}/.config/systemd/user"
        self.own(f"mkdir -p {folder}")
        for path, text in ((f"/home/{NAME}/writer.py", WRITER), (f"{folder}/writer.service", SERVICE)):
            self.machine.exec("install", "-m", "0644", "/dev/stdin", path, input=text)
        self.own("systemctl --user daemon-reload; systemctl --user enable --now writer.service")

    def nothing_lost(self) -> None:
        """The writer still runs; stop it, and compare all that it wrote with its checksums."""
        self.own("systemctl --user is-active writer.service && systemctl --user stop writer.service")
        assert int(self.own("wc -l <sums")) > 20
        self.own("sha256sum --quiet --check sums")

    def remove(self) -> None:
        """As if it had never been."""
        killers = " ".join(f"/usr/local/sbin/{name}" for name in KILLED_AT)
        self.run(
            f"""
            uid=$(id -u {NAME} || echo none)  # without one, this would be the units of all accounts
            systemctl stop user@$uid.service user-runtime-dir@$uid.service home-{NAME}.mount
            rm -f {killers} /var/lib/systemd/linger/{NAME} /etc/systemd/system/user@$uid.service.d/*
            systemctl disable home-{NAME}.mount
            umount /run/ananke/homes/{NAME}
            userdel --remove {NAME}; groupdel {NAME}; sed -i '/^{NAME}:/d' /etc/subuid /etc/subgid
            rm -rf {IMAGE}* /etc/systemd/system/home-{NAME}.mount /home/.{NAME}.before-image /home/{NAME}
            systemctl daemon-reload; systemctl reset-failed
            """,
            check=False,
        )
