#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_adopt
short_description: Take over a hub of the former system
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Reads a hub that the former system's releases 0.5 and 0.6 have made, and lets a new hub take its place. C(playbooks/adopt.yml) does both.
  - Its configuration is read as text and never executed. What no variable can say is told, with file and line.
  - The former hub's folder and container stay as they are, so that it can run again. Its container alone is stopped.
  - Files are copied with owners, modes, times, ACLs, extended attributes and holes, each by processes of the account that has it.
  - A run that is killed anywhere is finished by the next one.
  - Must run as root.
extends_documentation_fragment:
  - ananke.jupyterhub.changing
  - ananke.jupyterhub.changing.in_words
options:
  name:
    description: Name of the hub that takes over.
    type: str
    required: true
  state:
    description:
      - V(looked) reads the former hub and changes nothing.
      - V(taken) stops it, and copies what it holds to a new hub, which does not run yet.
      - V(settled) notes that the new hub is healthy. From then on the former one is never started again.
      - V(given_back) undoes V(taken) if the new hub is not V(settled). The new hub goes, its files to the folder C(removed) of its account, and the
        former one runs as it ran before.
    type: str
    choices: [looked, taken, settled, given_back]
    default: looked
  former:
    description: Folder of the former hub, with its C(config.py). Needed for V(looked) and V(taken).
    type: path
  container_admin:
    description: Account of the new hub, which must be another one than the former hub's. Needed for V(taken) and V(given_back).
    type: str
  image:
    description: Name of the image definition of the new hub, which must be on the machine.
    type: str
    default: standard
  username_key:
    description: Claim of a launch that tells users of the new hub apart.
    type: str
    default: sub
  username_prefix:
    description: What precedes it in their names.
    type: str
    default: u
  forget:
    description: Whether the new hub forgets homes. Then none are copied.
    type: bool
    default: false
  rooms:
    description: Names of the new hub's rooms, which get the files of former rooms.
    type: list
    elements: str
    default: []
  machine:
    description: What the inventory calls the machine; for the description.
    type: str
  port:
    description: Port of the new hub, if it has one already. Otherwise the description has a free one.
    type: int
  ports:
    description: Ports of other hubs of the machine.
    type: list
    elements: int
    default: []
seealso:
  - module: ananke.jupyterhub.hub
  - module: ananke.jupyterhub.hub_removal
"""

EXAMPLES = r"""
- name: See what a former hub is like
  ananke.jupyterhub.hub_adopt:
    name: math101
    former: /home/teach/ananke/containers/math101
    machine: hubs1
  become: true
  register: looked

- name: Copy what it holds
  ananke.jupyterhub.hub_adopt:
    name: math101
    former: /home/teach/ananke/containers/math101
    container_admin: math101
    state: taken
  become: true
"""

RETURN = r"""
variables:
  description: Variables of the hub that takes over.
  type: dict
  returned: success, for O(state=looked)
text:
  description: The same as a file for C(host_vars), with what was not carried over as comments.
  type: str
  returned: success, for O(state=looked)
remarks:
  description: What was not carried over, where it is said, and what to do about it.
  type: list
  elements: str
  returned: success, for O(state=looked)
  sample: ["config.py:20: config.requires: no variable of a hub does that; see hub-variables.md"]
actions:
  description: What was done (in check mode, what would be done), in words.
  type: list
  elements: str
  returned: success
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""

import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import (
    accounts,
    adoption,
    commands,
    files,
    hub_adoption,
    nginx,
)

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}\Z")


def looked(module: AnsibleModule, ran: commands.Commands) -> dict[str, t.Any]:
    """What the former hub is like."""
    wish = module.params
    hub = hub_adoption.former(wish["former"])
    reading = hub_adoption.look(hub, ran.status)
    machine = {"hub_machine": wish["machine"]} if wish["machine"] else {}
    placed = hub_adoption.place(wish["name"], hub, wish["ports"], wish["port"])
    reading.variables = {**machine, **placed, **reading.variables}
    return {
        "variables": reading.variables,
        "text": adoption.text(wish["name"], hub.folder, reading),
        "remarks": [str(one) for one in reading.remarks],
        "actions": [],
    }


def changed(module: AnsibleModule, ran: commands.Commands) -> list[str]:
    """Bring the adoption to its state; returns what was done, in words."""
    wish, check = module.params, module.check_mode
    if wish["state"] == "settled":
        return hub_adoption.settle(wish["name"], check)
    if wish["state"] == "given_back":
        return hub_adoption.give_back(wish["name"], wish["container_admin"], ran.status, check)
    described = hub_adoption.Wish(
        name=wish["name"],
        account=wish["container_admin"],
        image=wish["image"],
        username_key=wish["username_key"],
        username_prefix=wish["username_prefix"],
        forget=wish["forget"],
        rooms=tuple(wish["rooms"]),
    )
    hub = hub_adoption.former(wish["former"])
    return hub_adoption.foretell(described, hub) if check else hub_adoption.take(described, hub, ran.status)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["looked", "taken", "settled", "given_back"], "default": "looked"},
            "former": {"type": "path"},
            "container_admin": {"type": "str"},
            "image": {"type": "str", "default": "standard"},
            "username_key": {"no_log": False, "type": "str", "default": "sub"},
            "username_prefix": {"type": "str", "default": "u"},
            "forget": {"type": "bool", "default": False},
            "rooms": {"type": "list", "elements": "str", "default": []},
            "machine": {"type": "str"},
            "port": {"type": "int"},
            "ports": {"type": "list", "elements": "int", "default": []},
        },
        required_if=[
            ("state", "looked", ["former"]),
            ("state", "taken", ["former", "container_admin"]),
            ("state", "given_back", ["container_admin"]),
        ],
        supports_check_mode=True,
    )
    name = module.params["name"]
    ran = commands.Commands(module)
    commands.need_root(module, "hub_adopt", commands=[])
    if not NAME.match(name):
        module.fail_json(
            msg=f"{name!r} is no hub's name: lower case letters, digits and -, a letter first, 31 at most", commands=[]
        )
    try:
        if module.params["state"] == "looked":
            found = looked(module, ran)
        else:
            with files.lock(f"adopt-{name}"):
                found = {"actions": changed(module, ran)}
    except (accounts.AccountError, nginx.NginxError) as error:
        module.fail_json(msg=f"hub {name}: {error}", commands=ran.run)
    module.exit_json(changed=bool(found["actions"]), commands=ran.run, **found)


if __name__ == "__main__":
    main()
