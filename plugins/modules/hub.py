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
    become healthy, the old state comes back, the container with the database that it had, and the module fails.
  - Hubs that start together take turns, a few for each CPU of the machine, which is quicker for all of them.
  - Without changes it is one module execution that starts no process.
  - Must run as the container admin.
extends_documentation_fragment:
  - ananke.jupyterhub.changing
  - ananke.jupyterhub.hub
attributes:
  diff_mode:
    support: full
    description: Shows the changed files.
options:
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
    description: Seconds until a started hub must be healthy. One that ends again and again is given up earlier.
    type: int
    default: 120
  prove:
    description:
      - Whether a hub that was changed has to prove that it works, beyond being healthy. It answers an announced launch and refuses a token that is not
        the LMS's, starts a server of its own account C(ananke-probe), and each kernel that is offered there runs a cell. Then the account goes.
      - A hub that does not work is one that failed. The old state comes back.
    type: bool
    default: false
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
replaced:
  description: Whether the container made place for another one (in check mode, would), which ends all servers.
  type: bool
  returned: success
away:
  description: Seconds without the hub, from the end of the old state until the new one was healthy; 0 for a new hub.
  type: float
  returned: success, and the account exists
proof:
  description:
    - With O(prove) and a change, what the hub did. C(launch) says in words how a launch went, C(server) is the seconds that a server took, and
      C(kernels) those that each kernel took to run a cell, by its name.
  type: dict
  returned: success, and the account exists
healthy_before:
  description: Whether the hub was healthy before anything was done.
  type: bool
  returned: success
healthy_after:
  description: Seconds that the module waited for the hub to become healthy; 0 where it was.
  type: float
  returned: success, and the account exists
"""

import contextlib
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import (
    files,
    hub_change,
    hub_database,
    hub_folder,
    turns,
)
from ansible_collections.ananke.jupyterhub.plugins.module_utils.hub_container import Hub, HubError

SETTINGS_ROOM = 1 << 20
"""Bytes that new settings take at most."""
CONTAINER_ROOM = 4 << 20
"""Bytes that podman and systemd write at most while a container starts."""
FULL = "delete what is not needed there, or enlarge the home (container_admin_home_size and playbooks/grow.yml), and run again"
"""What to do where a hub has no room."""


class Done(t.NamedTuple):
    """What a run did, or would do."""

    actions: list[str]
    diff: list[dict[str, str]]
    replaced: bool = False
    """Whether the container makes place for a new one, which ends all servers."""
    away: float = 0.0
    """Seconds without the hub."""
    proof: t.Optional[dict[str, t.Any]] = None
    healthy_before: bool = True


def converge(hub: Hub) -> Done:
    """Bring the hub to its wanted state. A run that is at it already is waited for."""
    todo = hub_change.plan(hub.folder, hub.wanted())
    if todo.empty and hub.healthy() and not hub_change.begun(hub.folder):
        return Done([], [])
    if hub.module.check_mode:
        return change(hub)
    hub.wait_for_manager()
    with files.lock(hub.name, hub.runtime):
        return change(hub)


def change(hub: Hub) -> Done:
    """Bring a hub to its wanted state that is not in it."""
    wanted = hub.wanted()
    todo = hub_change.plan(hub.folder, wanted)
    noted = hub_folder.applied(hub.folder)
    healthy = hub.healthy() or (bool(noted) and hub.recovers())
    if todo.empty and healthy:
        if not hub.module.check_mode:
            hub_change.over(hub.folder)
        return Done([], [])
    see_room(hub, hub_folder.UNIT in todo.stale or not healthy)
    if hub.description.get("forget") and not hub.wish["forget_homes"]:
        protect_homes(hub)
    replaced = bool(noted) and hub_folder.UNIT in todo.stale
    if hub.module.check_mode:
        return Done(todo.actions + predicted(hub, todo), todo.diff, replaced, healthy_before=healthy)
    running = hub.running()
    if hub_folder.UNIT in todo.stale:
        hub.validate_unit()
    elif hub_folder.DESCRIPTION in todo.stale and running and healthy:
        hub.validate_description()
    begun = hub_change.begin(hub.folder, wanted, healthy) if noted else None
    hub_folder.write(hub.folder, todo)
    moment, began = time.time(), time.monotonic()
    try:
        with turns.take(), turns.by_run(hub.wish["port"], hub.wish["name"], hub.runtime):
            began = time.monotonic()
            actions = activate(hub, todo.stale, running, keep=bool(noted))
            hub.wait()
        away = time.monotonic() - began
        proof = hub.prove() if hub.wish["prove"] else None
    except (HubError, OSError) as error:
        log = hub.log(moment)
        fate = fall_back(hub, begun, todo.stale) if begun else "it is left as it is for a look"
        raise HubError(f"hub {hub.wish['name']}: {error}; {fate}. Its words:\n{log}") from error
    if todo.stale:
        hub_folder.note_applied(hub.folder, hub_folder.digests(wanted))
    hub_change.over(hub.folder)
    return Done(todo.actions + actions, todo.diff, replaced, away if actions and noted else 0.0, proof, healthy)


def see_room(hub: Hub, starts: bool) -> None:
    """Raise HubError where the change would end half-way, with a hub that is stopped.

    :param starts: whether a container is started; the database may be copied then, and given back
    """
    needed = SETTINGS_ROOM + (CONTAINER_ROOM + 2 * hub_database.size(hub.folder) if starts else 0)
    folder = hub.folder if os.path.isdir(hub.folder) else hub.account.pw_dir
    if not files.fits(folder, needed):
        raise HubError(
            f"hub {hub.wish['name']}: the disk is full: {folder} has no room for the {needed / 2**20:.0f} MiB that this change"
            f" takes meanwhile. Nothing was changed: {FULL}"
        )


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


def activate(hub: Hub, stale: set[str], running: bool, *, keep: bool) -> list[str]:
    """Put the written files in force with as little interruption as possible; returns what was done, in words.

    :param keep: whether the database is copied before another container works with it
    """
    if hub_folder.UNIT in stale or not running:
        if keep and hub_folder.UNIT in stale:
            hub.stop_container()
            hub_database.keep(hub.folder)
        hub.restart_container()
        return [f"{hub.service} started"]
    if hub_folder.DESCRIPTION in stale:
        hub.restart_hub()
        return ["JupyterHub restarted"]
    return []


def fall_back(hub: Hub, begun: hub_change.Change, stale: set[str]) -> str:
    """Bring the previous state back after a failed change; returns in words how that went.

    First the database, then the files: whenever this is interrupted, what starts at the next boot can read its database.
    """
    if not stale and all(files.read(path) == text for path, (text, _mode) in begun.files.items()):
        hub_change.over(hub.folder)
        return "nothing had changed but its state"
    began = time.monotonic()
    try:
        if hub_folder.UNIT in stale:
            hub.stop_container()
            hub_database.give_back(hub.folder)
        hub_change.undo(begun)
        activate(hub, stale, hub.running(), keep=False)
        with contextlib.suppress(OSError):
            hub_change.undone(hub.folder, begun)
        hub.wait()
    except HubError as error:
        return f"the state before was written back, but is not healthy either ({error})"
    except OSError as error:
        return f"the state before could not be brought back ({error}): run again when that is mended"
    hub_change.over(hub.folder)
    return f"the state before is back, after {time.monotonic() - began:.0f} s"


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
            "prove": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if module.check_mode and not module.params["container_admin_exists"]:
        name = f"ananke-{module.params['name']}"
        module.exit_json(
            changed=True,
            actions=[f"{name} created and started"],
            commands=[],
            container=name,
            replaced=False,
            healthy_before=False,
        )
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
        done = converge(hub)
    except HubError as error:
        module.fail_json(msg=str(error), actions=[], commands=hub.commands.run)
    except OSError as error:
        if error.errno not in files.FULL:
            raise
        module.fail_json(msg=f"hub {hub.wish['name']}: {error}: {FULL}", actions=[], commands=hub.commands.run)
    module.exit_json(
        changed=bool(done.actions),
        actions=done.actions,
        commands=hub.commands.run,
        container=hub.name,
        image=hub.image,
        replaced=done.replaced,
        away=round(done.away, 2),
        proof=done.proof,
        healthy_before=done.healthy_before,
        healthy_after=round(hub.waited, 2),
        diff=done.diff,
    )


if __name__ == "__main__":
    main()
