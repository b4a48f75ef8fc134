#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_offboard
short_description: Archive and remove the homes of hub users who have left
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Stops a user's server, packs the home with numeric owners, ACLs and extended attributes, compares the archive with the home, and only then
    deletes the home, and the user in JupyterHub. Who comes back from the LMS gets an empty home.
  - Users whom the hub's description names (C(hub_users), C(hub_rooms)) stay in JupyterHub; only their homes go.
  - Hub admins and rooms never go.
  - While somebody leaves, the hub starts no server for them. All others notice nothing.
  - A run that is killed anywhere is finished by the next one, if an archive is whole already. Else it is undone, unless the next run is about the
    same user.
  - Must run as the hub's container admin, on a machine with the package C(zstd). The hub must run, with an image that is not older than this module.
extends_documentation_fragment:
  - ananke.jupyterhub.changing
  - ananke.jupyterhub.hub
attributes:
  diff_mode:
    support: full
    description: Shows a line for each user who leaves.
options:
  users:
    description:
      - Names of the hub users who leave. Exactly one of O(users) and O(idle_days) is needed.
      - It is an error to name a hub admin, a room, or somebody who has never been there. Who has left already is no error.
    type: list
    elements: str
  idle_days:
    description:
      - All users leave whom the hub has not seen for that many days. Those whose servers run stay, as do homes whose user the hub does not know.
    type: int
  running:
    description: Whether named users leave although their servers run. What they have not saved is lost. Otherwise it is an error to name them.
    type: bool
    default: false
  folder:
    description: Folder of archives. It is made, for the container admin alone. The default is C(~/archives/) and the hub's name.
    type: path
  timeout:
    description: Seconds that a server may take to stop.
    type: int
    default: 120
seealso:
  - module: ananke.jupyterhub.hub_servers
  - module: ananke.jupyterhub.hub_removal
"""

EXAMPLES = r"""
- name: Two students have left the course
  ananke.jupyterhub.hub_offboard:
    name: math101
    users: [u17, u42]
  become: true
  become_user: math101

- name: Homes of those go who were not there for half a year
  ananke.jupyterhub.hub_offboard:
    name: math101
    idle_days: 180
  become: true
  become_user: math101
"""

RETURN = r"""
departed:
  description: Who left (in check mode, who would).
  type: list
  elements: dict
  returned: success, or some users could not leave
  contains:
    user:
      description: Name of the hub user.
      type: str
      sample: u17
    archive:
      description: Path of the archive. Beside it, with C(.json) appended, are its checksum and its time. Empty where there was no home, and in check mode.
      type: str
      sample: /home/math101/archives/math101/u17-20261001T120000Z.tar.zst
    bytes:
      description: Size of the archive.
      type: int
    forgotten:
      description: Whether the user was deleted in JupyterHub, too.
      type: bool
staying:
  description: Who does not leave although nobody has seen them for so long.
  type: list
  elements: dict
  returned: success, or some users could not leave
  contains:
    user:
      description: Name of the hub user.
      type: str
    reason:
      description: Why.
      type: str
undone:
  description: Users whose departure an earlier run had begun without archiving the home. They can work again. In check mode, those who would.
  type: list
  elements: str
  returned: success, or some users could not leave
failures:
  description: Users who could not leave. If there are any, the module fails after the others have left.
  type: list
  elements: dict
  returned: success, or some users could not leave
  contains:
    user:
      description: Name of the hub user.
      type: str
    reason:
      description: Why, and what to do.
      type: str
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""

import contextlib
import dataclasses
import os
import pwd
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import (
    accounts,
    commands,
    files,
    hub_api,
    hub_departures,
    inside,
)
from ansible_collections.ananke.jupyterhub.plugins.module_utils.hub_departures import DepartureError

PARALLEL = 1
"""Servers that stop at a time: one leaves after the other."""


class Offboarding:
    """One execution of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wish: dict[str, t.Any] = module.params
        self.commands = commands.Commands(module)
        self.account = pwd.getpwuid(os.geteuid())
        self.runtime = f"/run/user/{self.account.pw_uid}"
        name, home = self.wish["name"], self.account.pw_dir
        archives = self.wish["folder"] or os.path.join(home, "archives", name)
        self.hub = hub_departures.Hub(name, os.path.join(home, "hubs", name), archives)
        self.place = inside.Place(self.commands, self.hub.container)

    def ask(self, state: str, users: list[str]) -> dict[str, t.Any]:
        """Have the hub bring users to a state."""
        wish = {"state": state, "users": users, "timeout": self.wish["timeout"], "parallel": PARALLEL}
        try:
            found = self.place.run(hub_api, {**wish, "idle_for": None, "grace": 0, "wait": True, "check": False})
        except inside.InsideError as error:
            raise DepartureError(str(error)) from error
        self.commands.run += found.get("commands", [])
        return found

    def run(self, argv: t.Sequence[str]) -> tuple[int, str]:
        """Run a command in the account's session."""
        return self.commands.status(argv, environment={"HOME": self.account.pw_dir, "XDG_RUNTIME_DIR": self.runtime})

    def act(self) -> dict[str, t.Any]:
        """Let people leave, or say who would."""
        check = self.module.check_mode
        with contextlib.nullcontext() if check else files.lock(f"ananke-offboard-{self.hub.name}", self.runtime):
            everybody = hub_departures.people(self.hub, self.ask("known", [])["people"])
            options = (self.wish[key] for key in ("users", "idle_days", "running"))
            plan = hub_departures.plan(everybody, self.hub.gone(), *options)
            names = [one.name for one in plan.leaving]
            departures = hub_departures.Departures(self.hub, self.ask, self.run, self.wish["timeout"])
            undone = departures.undo(names, dry=check)
            departed, failures = [], []
            for person in plan.leaving:
                try:
                    departed.append(hub_departures.foretold(person) if check else departures.depart(person))
                except (accounts.AccountError, DepartureError, OSError) as error:
                    failures.append({"user": person.name, "reason": str(error)})
        return {
            "changed": bool(departed or undone),
            "departed": [dataclasses.asdict(one) for one in departed],
            "staying": [{"user": name, "reason": why} for name, why in sorted(plan.staying.items())],
            "undone": undone,
            "failures": failures,
            "diff": {"before": "".join(f"{one.user}\n" for one in departed), "after": ""},
        }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "users": {"type": "list", "elements": "str"},
            "idle_days": {"type": "int"},
            "running": {"type": "bool", "default": False},
            "folder": {"type": "path"},
            "timeout": {"type": "int", "default": 120},
        },
        mutually_exclusive=[("users", "idle_days")],
        required_one_of=[("users", "idle_days")],
        supports_check_mode=True,
    )
    for key in ("idle_days", "timeout"):
        if module.params[key] is not None and module.params[key] < 1:
            module.fail_json(msg=f"{key}: {module.params[key]} is too little, 1 is the least", commands=[])
    if os.geteuid() == 0:
        module.fail_json(
            msg="hub_offboard must run as the hub's container admin: set become_user for this task", commands=[]
        )
    os.chdir("/")  # podman wants to be able to read the folder that it is started in
    offboarding = Offboarding(module)
    try:
        result = offboarding.act()
    except DepartureError as error:
        module.fail_json(msg=f"hub {module.params['name']}: {error}", commands=offboarding.commands.run)
    result["commands"] = offboarding.commands.run
    if result["failures"]:
        shown = "; ".join(f"{one['user']}: {one['reason']}" for one in result["failures"][:5])
        count = f"{len(result['failures'])} of {len(result['failures']) + len(result['departed'])}"
        module.fail_json(msg=f"hub {module.params['name']}: {count} users could not leave: {shown}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
