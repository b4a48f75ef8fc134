"""The hub on the virtual machine as the tests see it."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.vm import Vm
from testbed.waiting import until

PYTHON = "/opt/conda/envs/jhub/bin/python"
HEALTH = "http://127.0.0.1:8101/small/hub/health"
STUDENT = Path(__file__).with_name("student.py")
API = """\
c.JupyterHub.services.append({{"name": "limits", "api_token": "{token}"}})
c.JupyterHub.load_roles.append(
    {{"name": "limits", "services": ["limits"], "scopes": ["admin:users", "admin:servers", "access:servers"]}}
)
"""


@dataclass(frozen=True)
class Guest:
    """The machine, and its hub `small`."""

    vm: Vm
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def root(self, script: str, stdin: str = "") -> str:
        """Output of a shell script that runs as root on the machine and must succeed."""
        return str(self.vm.exec("sh", "-euc", script, input=stdin).stdout).strip()

    def inside(self, arguments: Sequence[str], stdin: str = "") -> str:
        """Output of a program that runs as root in the hub's container, and so within the container's limits."""
        podman = shlex.join(["podman", "exec", "--interactive", "ananke-small", *arguments])
        script = f"cd /; exec sudo -u small env XDG_RUNTIME_DIR=/run/user/$(id -u small) {podman}"
        return self.root(script, stdin)

    @property
    def unit(self) -> str:
        """Folder of the container's unit, as a shell pattern."""
        return "/sys/fs/cgroup/user.slice/user-*.slice/user@*.service/app.slice/ananke-small.service"

    @property
    def payload(self) -> str:
        """Folder of the container's control group, as a shell pattern."""
        return f"{self.unit}/libpod-payload-*"

    def server(self, user: str) -> str:
        """Folder of the control group of a user's server, as a shell pattern."""
        return f"{self.payload}/system.slice/jupyter-{user}.service"

    def group(self, folder: str, *files: str) -> dict[str, str]:
        """Content of files of a control group; one of statistics gives FILE.KEY for each of its lines."""
        found = {}
        for line in self.root(f"cd {folder}; grep . /dev/null {' '.join(files)}").splitlines():
            name, _colon, value = line.partition(":")
            key, space, rest = value.partition(" ")
            if space and not name.endswith(".max"):  # cpu.max: a quota and its period
                name, value = f"{name}.{key}", rest
            found[name] = value
        return found

    def counted(self, folder: str, file: str, key: str) -> int:
        """One number of a control group's statistics."""
        return int(self.group(folder, file)[f"{file}.{key}"])

    def healthy(self) -> bool:
        """Whether the hub answers."""
        probe = f"import urllib.request as r; print(r.urlopen({HEALTH!r}, timeout=30).status)"
        return self.vm.exec("python3", "-c", probe, check=False).stdout.strip() == "200"

    def wait_healthy(self, timeout: float = 900) -> None:
        """Wait until the hub answers."""
        until(self.healthy, timeout, "the hub answers")

    def processes(self, *units: str) -> list[str]:
        """Main PIDs of units in the container; the same numbers later are the same processes."""
        show = self.inside(["systemctl", "show", "--property=MainPID", "--value", *units])
        return show.split()

    def open_api(self) -> None:
        """Give the tests a token, as a hub admin would; in force when JupyterHub starts next."""
        path = "/home/small/hubs/small/jupyterhub_config.d/40_limits.py"
        self.root(f"install -o small -g small -m 600 /dev/stdin {path}", API.format(token=self.token))

    def start(self, *users: str) -> None:
        """Start users' servers and wait for them."""
        self._student("start", *users)

    def welcome(self, *users: str) -> None:
        """Make users known to the hub."""
        self._student("welcome", *users)

    def stop(self, *users: str) -> None:
        """Stop users' servers."""
        self._student("stop", *users)

    def start_and_listen(self, user: str) -> str:
        """Start a user's server; what the user is told meanwhile."""
        return self._student("progress", user)

    def run(self, user: str, code: str) -> dict[str, Any]:
        """Run code in a kernel of the user's: `text` is what it printed, `died` whether the kernel did."""
        return dict(json.loads(self._student("run", user, code)))

    def _student(self, *arguments: str) -> str:
        # the program comes as an argument, so that the token can come by standard input, where no process list shows it
        return self.inside([PYTHON, "-c", STUDENT.read_text(), *arguments], self.token + "\n")
