#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_restore
short_description: Bring back a hub, or one user's home, from a backup
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Brings all files of a snapshot beside those that there are, and lets them change places. The hub is stopped only for that.
  - What was there is kept in the folder C(removed) of the account's home.
  - Owners come out right on whatever machine and account, since snapshots have those that the hub's container sees.
  - The hub must be there already, from C(playbooks/hubs.yml); the same brings it to its described state afterwards. C(playbooks/restore.yml) does both.
  - Must run as root, on a machine with the role backup, for a hub with C(hub_backup_repository).
extends_documentation_fragment:
  - ananke.jupyterhub.hub
attributes:
  check_mode:
    support: full
    description: Says that it would restore.
  diff_mode:
    support: none
    description: There are too many files.
  idempotent:
    support: none
    description: Each run restores again.
options:
  snapshot:
    description: ID of the snapshot, or V(latest).
    type: str
    default: latest
  of:
    description: Name of the hub whose snapshot it is, where that is another one. Its own repository is used if it is a hub of this machine.
    type: str
  user:
    description: Name inside the hub of the user whose home alone is restored. The user's server is stopped for that.
    type: str
seealso:
  - module: ananke.jupyterhub.hub_backup
"""

EXAMPLES = r"""
- name: Bring back the hub math101 as it was last night
  ananke.jupyterhub.hub_restore:
    name: math101
  become: true

- name: Bring back a home
  ananke.jupyterhub.hub_restore:
    name: math101
    user: u123
    snapshot: 4f3c2a1b
  become: true
"""

RETURN = r"""
kept:
  description: Folder with what was there before; empty if there was nothing.
  type: str
  returned: success, and not in check mode
  sample: /home/math101/removed/math101-20261001T120000Z
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import backups, commands


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "snapshot": {"type": "str", "default": "latest"},
            "of": {"type": "str"},
            "user": {"type": "str"},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]
    commands.need_root(module, "hub_restore", commands=[])
    if not os.path.exists(backups.PROGRAM):
        module.fail_json(
            msg=f"{backups.PROGRAM} is missing: apply the role backup to this machine first (playbooks/machines.yml --tags backup)",
            commands=[],
        )
    if module.check_mode:
        module.exit_json(changed=True, commands=[])
    ran = commands.Commands(module)
    wanted = [f"--{key}={module.params[key]}" for key in ("snapshot", "of", "user") if module.params[key]]
    status, said = ran.status([backups.PROGRAM, "restore", name, *wanted])
    if status:
        module.fail_json(msg=f"hub {name}: {said.strip()[-3000:]}", commands=ran.run)
    told = next(line for line in reversed(said.splitlines()) if line.startswith("{"))
    module.exit_json(changed=True, kept=json.loads(told)["kept"], commands=ran.run)


if __name__ == "__main__":
    main()
