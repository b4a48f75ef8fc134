#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_backup
short_description: Back up a hub now
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Makes a snapshot of a hub while it runs, as its timer does every night, and returns how that went.
  - Homes, configuration and secrets are read as they are, databases as they are at one moment.
  - A backup of the same hub that is under way is waited for.
  - Must run as root, on a machine with the role backup, for a hub with C(hub_backup_repository).
extends_documentation_fragment:
  - ananke.jupyterhub.hub
attributes:
  check_mode:
    support: full
    description: Says that it would make a snapshot.
  diff_mode:
    support: none
    description: It changes nothing on the machine.
  idempotent:
    support: none
    description: Each run makes a snapshot.
seealso:
  - module: ananke.jupyterhub.hub_restore
"""

EXAMPLES = r"""
- name: Back up the hub math101
  ananke.jupyterhub.hub_backup:
    name: math101
  become: true
  register: saved
"""

RETURN = r"""
backup:
  description:
    - C(snapshot) is its ID, C(time) when it began (UTC, ISO 8601), C(seconds) how long it took.
    - C(files) and C(bytes) say how much the hub has, C(added) how many bytes were new, before compression.
    - C(complete) is false where files could not be read; C(error) says what went wrong since, for example while old snapshots were let go.
  type: dict
  returned: success, and not in check mode
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""

import json
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import backups, commands, files


def noted(name: str) -> dict[str, t.Any]:
    """How the hub's last backup went."""
    try:
        return dict(json.loads(files.read(os.path.join(backups.STATE, f"{name}.json")) or "{}"))
    except ValueError:
        return {}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"name": {"type": "str", "required": True}}, supports_check_mode=True)
    name = module.params["name"]
    commands.need_root(module, "hub_backup", commands=[])
    if not os.path.exists(backups.Backup(name).path):
        module.fail_json(
            msg=f"hub {name} has no backups: set hub_backup_repository and run playbooks/hubs.yml", commands=[]
        )
    ran = commands.Commands(module)
    if module.check_mode:
        module.exit_json(changed=True, commands=[])
    unit = f"ananke-backup@{name}.service"
    status = ran.status(["systemctl", "start", unit])[0]
    known = noted(name)
    if status:
        why = known.get("error") or f"journalctl --unit={unit} says why"
        module.fail_json(msg=f"hub {name}: {why}", commands=ran.run)
    if not known.get("complete"):
        module.warn(f"hub {name}: some files could not be read: journalctl --unit={unit} names them")
    module.exit_json(changed=True, backup=known, commands=ran.run)


if __name__ == "__main__":
    main()
