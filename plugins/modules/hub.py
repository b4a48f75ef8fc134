#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub
short_description: Bring one hub's container to its described state
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Writes the container definition folder C(~/hubs/NAME) and the systemd unit, starts the container and waits until the hub is healthy.
  - A changed description restarts JupyterHub inside the container, which ends no kernel; only a changed unit (image, limits, volumes ...)
    replaces the container.
  - A changed description is loaded by the JupyterHub in the running container before it replaces the old one. When the changed hub does not
    become healthy, the old state comes back and the module fails.
  - Hubs that start together take turns, a few for each CPU of the machine, which is quicker for all of them.
  - Without changes it is one module execution that starts no process.
  - Must run as the container admin.
extends_documentation_fragment:
  - ananke.jupyterhub.changing
attributes:
  diff_mode:
    support: full
    description: Shows the changed files.
options:
  name:
    description: Name of the hub.
    type: str
    required: true
  container_admin_exists:
    description: Whether the container admin's account exists. V(false) is for check mode alone, which then runs as whoever there is.
    type: bool
    default: true
  port:
    description: The hub's port on the machine's loopback.
    type: int
    required: true
  image:
    description: Name of the image definition; what it stands for now is read from C(image_records).
    type: str
    required: true
  image_foretold:
    description:
      - Reference that the image will have, for check mode alone. What the machine has recorded is still the image before the change.
    type: str
  image_records:
    description: Folder with the machine's image records.
    type: path
    default: /var/lib/ananke/images
  description:
    description:
      - Content of C(hub.json). What its C(servers.environment) holds is replaced by O(environment), and a C(time_zone) of null by the machine's.
      - A description with C(forget), which lets the hub empty homes, is refused where there are homes already, unless O(forget_homes) is set.
    type: dict
    required: true
  environment:
    description:
      - Environment variables of users' servers, as the text of a JSON mapping; V("") for none. They may be secrets.
      - It is a text because Ansible hides a text as a whole. In place of a mapping it would hide every part of the result that is like one
        of the values, even a V(1).
    type: str
    default: ""
  forget_homes:
    description: Whether what the homes hold may be lost, where the hub begins to forget.
    type: bool
    default: false
  config_files:
    description: The collection's own files of C(jupyterhub_config.d), from name to content.
    type: dict
    default: {}
  ca_certificates:
    description: Private CA certificates that the hub trusts, from file name to PEM text.
    type: dict
    default: {}
  lms_sheet:
    description: Text of the sheet for the LMS admin.
    type: str
  memory:
    description: Limit of the container's memory in bytes.
    type: int
  cpus:
    description: Limit of the container's CPUs.
    type: float
  pids:
    description: Limit of the container's processes and threads.
    type: int
  user_quota:
    description:
      - Whether hub users have quotas for their homes. Then C(/var/tmp) of the container is in memory, like C(/tmp), and counts there. On disk it
        would be a way around quotas.
    type: bool
    default: false
  devices:
    description: Devices of the machine, or CDI names, that the container gets.
    type: list
    elements: str
    default: []
  volumes:
    description: Folders of the machine that the container gets.
    type: list
    elements: dict
    default: []
    suboptions:
      source:
        description: Absolute path on the machine.
        type: str
        required: true
      target:
        description: Absolute path in the container.
        type: str
        required: true
      read_only:
        description: Whether the container may only read it.
        type: bool
        default: false
      follow_mounts:
        description: Whether file systems that the machine mounts below it later appear in the container, too.
        type: bool
        default: false
  extra_hosts:
    description: Host names that the container resolves by itself, from name to address or V(host-gateway).
    type: dict
    default: {}
  health_timeout:
    description: Seconds until a started hub must be healthy.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: The hub math101
  ananke.jupyterhub.hub:
    name: math101
    port: 8101
    image: standard
    description: "{{ description }}"
  become: true
  become_user: math101
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be done), in words.
  type: list
  elements: str
  returned: always
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
container:
  description: Name of the container.
  type: str
  returned: success
  sample: ananke-math101
image:
  description: Reference of the image that the hub runs.
  type: str
  returned: success, and the account exists
healthy_after:
  description: Seconds that the module waited for the hub to become healthy; 0 where it was.
  type: float
  returned: success, and the account exists
"""

import contextlib
import functools
import http.client
import json
import os
import pwd
import shlex
import tempfile
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import (
    container,
    files,
    hub_folder,
    sockets,
    time_zone,
    turns,
)
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Commands

QUADLET = "/usr/libexec/podman/quadlet"
POLL = 0.1
"""Seconds between the first questions to a hub that starts."""
PATIENCE = 1 / 20
"""How much longer each question waits, of the time that has passed: a slow machine has better things to do than to say 503."""
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
        runtime = f"/run/user/{self.account.pw_uid}"
        environment = {
            "XDG_RUNTIME_DIR": runtime,
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
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
            self.module.warn(
                f"hub {self.wish['name']}: this machine delegates no cgroup controllers for {', '.join(lost)} to"
                f" {self.account.pw_name}: the container runs without these limits"
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

    def wait(self) -> bool:
        """Wait until the hub is healthy; False when it is not in time."""
        started = time.monotonic()
        while not self.healthy():
            passed = time.monotonic() - started
            if passed > self.wish["health_timeout"]:
                return False
            time.sleep(max(POLL, passed * PATIENCE))
        self.waited += time.monotonic() - started
        return True

    def wait_for_manager(self) -> None:
        """Lingering starts the account's manager in the background: wait for it."""
        socket = f"/run/user/{self.account.pw_uid}/systemd/private"
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

    def restart_container(self) -> None:
        """Let systemd start the container anew, with the unit that is on disk.

        Twice if need be: many containers that start together may make podman's notification come too late for systemd, which
        then takes a container that runs for a failed one.
        """
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

    def log(self) -> str:
        """What the container and its hub said last."""
        in_container = ["podman", "exec", self.name, "journalctl", "--no-pager", "--lines=15", "--output=cat"]
        texts = [
            self.run([*in_container, "--unit=jupyterhub.service"])[1],
            self.run(["journalctl", "--user", "--no-pager", "--lines=15", "--output=cat", f"--unit={self.service}"])[1],
        ]
        return "\n".join(text.strip() for text in texts)


def converge(hub: Hub) -> tuple[list[str], list[dict[str, str]]]:
    """Bring the hub to its wanted state; returns what was done in words, and the diff."""
    wanted = hub.wanted()
    todo = hub_folder.plan(hub.folder, wanted)
    if todo.empty and hub.healthy():
        return [], []
    if hub.description.get("forget") and not hub.wish["forget_homes"]:
        protect_homes(hub)
    actions, diff = todo.actions, todo.diff
    if hub.module.check_mode:
        return actions + predicted(hub, todo), diff
    hub.wait_for_manager()
    running = hub.running()
    if hub_folder.UNIT in todo.stale:
        hub.validate_unit()
    elif hub_folder.DESCRIPTION in todo.stale and running and hub.healthy():
        hub.validate_description()
    before = {one.path: (files.read(one.path), one.mode) for one in todo.write if one.part}
    noted = hub_folder.applied(hub.folder)
    hub_folder.write(hub.folder, todo)
    try:
        with turns.take():
            actions += activate(hub, todo.stale, running)
            if not hub.wait():
                raise HubError(f"it was not healthy after {hub.wish['health_timeout']} s")
    except HubError as error:
        log = hub.log()
        fate = fall_back(hub, before, todo.stale) if noted else "it is left as it is for a look"
        raise HubError(f"hub {hub.wish['name']}: {error}; {fate}. Its last words:\n{log}") from error
    if todo.stale:
        hub_folder.note_applied(hub.folder, hub_folder.digests(wanted))
    return actions, diff


def protect_homes(hub: Hub) -> None:
    """Raise HubError where a hub that has homes would begin to empty them without a word from its host admin."""
    homes = hub_folder.homes(hub.folder)
    if homes and not hub_folder.forgets(hub.folder):
        raise HubError(
            f"hub {hub.wish['name']}: hub_forget would delete all files in {len(homes)} homes that there are ({', '.join(homes[:5])} ...). "
            f"If that is meant, run once with --limit HUB --extra-vars hub_forget_homes={hub.wish['name']}"
        )


def predicted(hub: Hub, todo: hub_folder.Plan) -> list[str]:
    """What :func:`activate` would do, in words."""
    if hub_folder.UNIT in todo.stale:
        return [f"{hub.service} started"]
    if hub_folder.DESCRIPTION in todo.stale:
        return ["JupyterHub restarted"]
    return [] if hub.healthy() or hub.running() else [f"{hub.service} started"]


def activate(hub: Hub, stale: set[str], running: bool) -> list[str]:
    """Put the written files in force with as little interruption as possible; returns what was done, in words."""
    if hub_folder.UNIT in stale or not running:
        hub.restart_container()
        return [f"{hub.service} started"]
    if hub_folder.DESCRIPTION in stale:
        hub.restart_hub()
        return ["JupyterHub restarted"]
    return []


def fall_back(hub: Hub, before: dict[str, tuple[str | None, int]], stale: set[str]) -> str:
    """Bring the previous state back after a failed change; returns in words how that went."""
    if not before:
        return "nothing had changed but its state"
    for path, (content, mode) in before.items():
        files.restore(path, content, mode)
    try:
        activate(hub, stale, running=hub.running())
        healthy = hub.wait()
    except HubError:
        healthy = False
    return "the state before is back" if healthy else "the state before was written back, but is not healthy either"


def main() -> None:
    """Entry point."""
    volume_spec = {
        "source": {"type": "str", "required": True},
        "target": {"type": "str", "required": True},
        "read_only": {"type": "bool", "default": False},
        "follow_mounts": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "container_admin_exists": {"type": "bool", "default": True},
            "port": {"type": "int", "required": True},
            "image": {"type": "str", "required": True},
            "image_foretold": {"type": "str"},
            "image_records": {"type": "path", "default": "/var/lib/ananke/images"},
            "description": {"type": "dict", "required": True},
            "environment": {"type": "str", "default": "", "no_log": True},
            "forget_homes": {"type": "bool", "default": False},
            "config_files": {"type": "dict", "default": {}},
            "ca_certificates": {"type": "dict", "default": {}},
            "lms_sheet": {"type": "str"},
            "memory": {"type": "int"},
            "cpus": {"type": "float"},
            "pids": {"type": "int"},
            "user_quota": {"type": "bool", "default": False},
            "devices": {"type": "list", "elements": "str", "default": []},
            "volumes": {"type": "list", "elements": "dict", "default": [], "options": volume_spec},
            "extra_hosts": {"type": "dict", "default": {}},
            "health_timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    if module.check_mode and not module.params["container_admin_exists"]:
        name = f"ananke-{module.params['name']}"
        module.exit_json(changed=True, actions=[f"{name} created and started"], commands=[], container=name)
    if os.geteuid() == 0:
        module.fail_json(
            msg="hub must run as the container admin, not as root: set become_user to hub_container_admin",
            actions=[],
            commands=[],
        )
    hub = Hub(module)
    os.chdir(hub.account.pw_dir)
    os.umask(0o077)
    try:
        actions, diff = converge(hub)
    except HubError as error:
        module.fail_json(msg=str(error), actions=[], commands=hub.commands.run)
    module.exit_json(
        changed=bool(actions),
        actions=actions,
        commands=hub.commands.run,
        container=hub.name,
        image=hub.image,
        healthy_after=round(hub.waited, 2),
        diff=diff,
    )


if __name__ == "__main__":
    main()
