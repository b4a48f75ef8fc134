# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One hub's container on its machine, seen and changed by its container admin."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import pwd
import re
import shlex
import tempfile
import time
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import container, files, hub_folder, sockets, time_zone
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Commands

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

QUADLET = "/usr/libexec/podman/quadlet"
POLL = 0.1
"""Seconds between the first questions to a hub that starts."""
PATIENCE = 1 / 20
"""How much longer each question waits, of the time that has passed: a slow machine has better things to do than to say 503."""
LOOP = 3
"""How often JupyterHub may end by itself while it starts, until it is taken for one that will never start."""
LOOK = 3.0
"""Seconds between two looks at whether it does; each is a process in the container."""
WORDS = 15
"""Lines of a log that an error shows."""
RECOVERY = 10.0
"""Seconds that JupyterHub may need to answer again after it was restarted."""
NOT_LOADED = 5
"""Exit status of systemctl for a unit that there is not."""
MANAGER_TIMEOUT = 30
"""Seconds until the container admin's systemd manager must be there after lingering was enabled."""


class HubError(Exception):
    """What is wrong with a hub, and what to do about it."""


class Hub:
    """One hub of this account, with the means to look at it and to change it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wish = module.params
        self.account = pwd.getpwuid(os.getuid())
        self.name = f"ananke-{self.wish['name']}"
        self.service = f"{self.name}.service"
        self.folder = os.path.join(self.account.pw_dir, "hubs", self.wish["name"])
        self.runtime = f"/run/user/{self.account.pw_uid}"
        self.quadlet = os.path.exists(QUADLET)
        self.commands = Commands(module)
        servers = {**self.wish["description"]["servers"], "environment": json.loads(self.wish["environment"] or "{}")}
        zone = self.wish["description"].get("time_zone") or time_zone.of_machine()
        self.description = {**self.wish["description"], "servers": servers, "time_zone": zone}
        self.waited = 0.0
        config = os.path.join(self.account.pw_dir, ".config")
        self.unit_path = (
            os.path.join(config, "containers/systemd", f"{self.name}.container")
            if self.quadlet
            else os.path.join(config, "systemd/user", self.service)
        )

    def run(self, argv: t.Sequence[str], stdin: str | None = None, **environment: str) -> tuple[int, str]:
        """Run a command in the account's own systemd session; returns exit status and output."""
        environment = {
            "XDG_RUNTIME_DIR": self.runtime,
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.runtime}/bus",
            "HOME": self.account.pw_dir,
            **environment,
        }
        return self.commands.status(argv, stdin, environment)

    def systemctl(self, *arguments: str) -> None:
        """Run systemctl for the account's manager."""
        status, output = self.run(["systemctl", "--user", *arguments])
        if status:
            raise HubError(f"systemctl --user {' '.join(arguments)} failed: {output.strip()}")

    @functools.cached_property
    def image(self) -> str:
        """Reference of the image that the definition stands for on this machine."""
        if self.module.check_mode and self.wish["image_foretold"]:
            return str(self.wish["image_foretold"])
        path = os.path.join(self.wish["image_records"], f"{self.wish['image']}.json")
        text = files.read(path)
        if text is None and self.module.check_mode:
            return f"localhost/ananke/{self.wish['image']}:not-built-yet"
        if text is None:
            raise HubError(
                f"hub_image {self.wish['image']}: this machine has no such image ({path} is missing);"
                " build it first: ansible-playbook ananke.jupyterhub.images"
            )
        return str(json.loads(text)["reference"])

    @functools.cached_property
    def unit(self) -> str:
        """Text of the unit."""
        limits = {key: self.wish[key] for key in ("memory", "cpus", "pids")}
        held, lost = container.limit(limits, container.delegated(self._controllers()))
        if {"memory", "cpus"} & set(lost):
            self.warn(
                f"this machine delegates no cgroup controllers for {', '.join(lost)} to {self.account.pw_name}:"
                " the container runs without these limits"
            )
        described = container.Container(
            name=self.name,
            image=self.image,
            folder=self.folder,
            port=self.wish["port"],
            user_quota=self.wish["user_quota"],
            devices=tuple(self.wish["devices"]),
            volumes=tuple(container.Volume(**one) for one in self.wish["volumes"]),
            hosts=tuple((name, self.address(wanted)) for name, wanted in sorted(self.wish["extra_hosts"].items())),
            **held,
        )
        return container.quadlet(described) if self.quadlet else container.plain(described)

    def address(self, wanted: str) -> str:
        """An address for a host of the container. A podman without Quadlet does not know host-gateway."""
        if wanted != "host-gateway" or self.quadlet:
            return wanted
        try:
            return sockets.primary_address()
        except OSError as error:
            raise HubError(
                f"hub_extra_hosts: this machine has no route to the outside ({error}), so host-gateway means nothing:"
                " write the machine's address instead"
            ) from error

    def _controllers(self) -> str:
        uid = self.account.pw_uid
        return files.read(f"/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers") or ""

    def wanted(self) -> list[hub_folder.Wanted]:
        """All files of the hub."""
        wish = self.wish
        return [
            *hub_folder.wanted_files(
                self.folder,
                self.name,
                self.description,
                wish["config_files"],
                wish["ca_certificates"],
                wish["lms_sheet"],
            ),
            hub_folder.Wanted(self.unit_path, self.unit, 0o644, hub_folder.UNIT),
        ]

    def healthy(self) -> bool:
        """Whether the hub answers on its port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.wish["port"], timeout=5)
        try:
            connection.request("GET", f"{self.description['base_url']}hub/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def recovers(self) -> bool:
        """Whether JupyterHub, which does not answer, does so in a moment: it may only be restarting, and users' servers go on meanwhile."""
        end = time.monotonic() + RECOVERY
        while self.running() and time.monotonic() < end:
            time.sleep(1)
            if self.healthy():
                return True
        return False

    def wait(self) -> None:
        """Return when the hub is healthy. Raises HubError when it is not in time, or will never be."""
        started = looked = time.monotonic()
        while not self.healthy():
            passed = time.monotonic() - started
            if passed > self.wish["health_timeout"]:
                raise HubError(f"it was not healthy after {self.wish['health_timeout']} s")
            if time.monotonic() - looked > LOOK:
                self.see_loop()
                looked = time.monotonic()
            time.sleep(max(POLL, passed * PATIENCE))
        self.waited += time.monotonic() - started

    def see_loop(self) -> None:
        """Raise HubError if the container runs, but JupyterHub ends again and again in it, or was not started at all."""
        show = ["systemctl", "show", "--property=Id,ActiveState,NRestarts", "ananke-init.service", "jupyterhub.service"]
        status, output = self.run(["podman", "exec", self.name, *show])
        if not status and re.search(r"^ActiveState=failed", output, re.MULTILINE):
            raise HubError("what prepares JupyterHub's start fails in its container")
        ended = max(map(int, re.findall(r"^NRestarts=(\d+)", output, re.MULTILINE)), default=0)
        if not status and ended >= LOOP:
            raise HubError(f"JupyterHub ended {ended} times while it was starting")

    def wait_for_manager(self) -> None:
        """Lingering starts the account's manager in the background: wait for it."""
        socket = f"{self.runtime}/systemd/private"
        deadline = time.monotonic() + MANAGER_TIMEOUT
        while not os.path.exists(socket):
            if time.monotonic() > deadline:
                raise HubError(
                    f"the systemd manager of {self.account.pw_name} does not run ({socket} is missing);"
                    f" see: systemctl status user@{self.account.pw_uid}.service"
                )
            time.sleep(0.05)

    def running(self) -> bool:
        """Whether the container's unit is active."""
        return self.run(["systemctl", "--user", "is-active", "--quiet", self.service])[0] == 0

    def validate_unit(self) -> None:
        """Let Quadlet read the unit before it is installed."""
        if not self.quadlet:
            return
        with tempfile.TemporaryDirectory() as folder:
            files.write(os.path.join(folder, f"{self.name}.container"), self.unit, 0o600)
            status, output = self.run([QUADLET, "-dryrun", "-user"], QUADLET_UNIT_DIRS=folder)
        if status or f"---{self.service}---" not in output:
            raise HubError(f"podman refuses the unit of hub {self.wish['name']}: {output.strip()}")

    def validate_description(self) -> None:
        """Let the JupyterHub of the running container load the description before it replaces the old one."""
        check = [f"{container.JHUB}/bin/python", "-m", "ananke_hub.check", "--description", "-"]
        status, output = self.run(
            ["podman", "exec", "--interactive", self.name, *check], stdin=json.dumps(self.description)
        )
        if status:
            raise HubError(f"JupyterHub refuses the description of hub {self.wish['name']}: {output.strip()}")

    def stop_container(self) -> None:
        """Stop the container and, in it, everything. A unit that systemd does not know runs none."""
        status, output = self.run(["systemctl", "--user", "stop", self.service])
        if status not in (0, NOT_LOADED):
            raise HubError(f"systemctl --user stop {self.service} failed: {output.strip()}")

    def restart_container(self) -> None:
        """Let systemd start the container anew, with the unit that is on disk.

        Twice if need be: many containers that start together may make podman's notification come too late for systemd, which
        then takes a container that runs for a failed one.
        """
        if self.quadlet:
            with contextlib.suppress(
                FileNotFoundError
            ):  # from before Debian's podman knew Quadlet; systemd would prefer it
                os.unlink(os.path.join(self.account.pw_dir, ".config/systemd/user", self.service))
        self.systemctl("daemon-reload")
        if not self.quadlet:
            self.systemctl("enable", "--quiet", self.service)
        with contextlib.suppress(HubError):
            return self.systemctl("restart", self.service)
        return self.systemctl("restart", self.service)

    def restart_hub(self) -> None:
        """Restart JupyterHub in the container; servers and kernels go on."""
        for command in (
            [f"{container.JHUB}/bin/python", "-m", "ananke_hub.init"],
            ["systemctl", "restart", "jupyterhub.service"],
        ):
            status, output = self.run(["podman", "exec", self.name, *command])
            if status:
                raise HubError(f"{shlex.join(command)} failed in {self.name}: {output.strip()}")

    def prove(self) -> dict[str, t.Any]:
        """Have the hub do what people will want of it; returns what it did. Raises HubError, with what it cannot do."""
        status, output = self.run(
            ["podman", "exec", self.name, f"{container.JHUB}/bin/python", "-m", "ananke_hub.probe"]
        )
        if "No module named ananke_hub.probe" in output:
            self.warn("its image is older than the proof of hubs, so it was not proven")
            return {}
        lines = output.strip().splitlines() or ["it said nothing"]
        proofs = [line for line in lines if line.startswith("{")]  # podman may add warnings of its own
        if status or not proofs:
            raise HubError(f"it starts, but does not work: {lines[-1]} (exit status {status})")
        return dict(json.loads(proofs[-1]))

    def warn(self, text: str) -> None:
        """A warning about this hub."""
        self.module.warn(f"hub {self.wish['name']}: {text}")

    def log(self, since: float) -> str:
        """What the hub said when it first failed, and its container last.

        :param since: seconds since the epoch
        """
        in_container = [
            "podman",
            "exec",
            self.name,
            "journalctl",
            "--no-pager",
            "--output=cat",
            f"--since=@{int(since)}",
        ]
        own = ["journalctl", "--user", "--no-pager", f"--lines={WORDS}", "--output=cat", f"--unit={self.service}"]
        hub = self.run([*in_container, "--unit=ananke-init.service", "--unit=jupyterhub.service"])[1]
        return "\n".join([first_failure(hub), self.run(own)[1].strip()])


def first_failure(log: str) -> str:
    """The lines before a unit ended for the first time, or the last ones."""
    lines = log.strip().splitlines()
    ends = [number for number, line in enumerate(lines) if "Main process exited" in line]
    end = ends[0] if ends else len(lines)
    return "\n".join(lines[max(0, end - WORDS) : end])
