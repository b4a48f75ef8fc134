#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_preflight
short_description: Look whether a machine can take its hubs, before the first change
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Fails, with all reasons at once, when a port of a hub is in use by somebody else than its container admin, or when
    quotas are wanted that the machine's kernel cannot keep anybody to.
  - Finds out for which hubs root has nothing to grant, so that M(ananke.jupyterhub.container_admin) need not be executed for them.
  - Reads only, and starts no process.
  - Must run as root.
extends_documentation_fragment:
  - ananke.jupyterhub.reading
options:
  hubs:
    description: The machine's hubs.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the hub's inventory host.
        type: str
        required: true
      port:
        description: The hub's port on the machine's loopback.
        type: int
        required: true
      container_admin:
        description: What root grants for the hub, as options of M(ananke.jupyterhub.container_admin).
        type: dict
        required: true
        suboptions:
          name:
            description: Name of the account, whose own processes may listen on the hub's port.
            type: str
            required: true
          uid:
            description: UID of the account.
            type: int
          password_hash:
            description: Hash in C(/etc/shadow).
            type: str
          password_change:
            description: Whether that password is only the first one.
            type: bool
            default: false
          authorized_keys:
            description: All public keys that may log in, one per item.
            type: list
            elements: str
          store:
            description: Path of the shared image store.
            type: path
          home_size:
            description: Size of the home's own file system image, such as V(50G).
            type: bytes
          home_offline:
            description: Whether hubs may be stopped to change the home. A look does not heed it.
            type: bool
            default: false
          locations:
            description: Public paths that nginx hands to hubs of this account.
            type: list
            elements: dict
            default: []
            suboptions:
              name:
                description: Name of the hub.
                type: str
                required: true
              path:
                description: Public path; starts and ends with a slash.
                type: str
                required: true
              port:
                description: The hub's port on the machine's loopback.
                type: int
                required: true
              upload_limit:
                description: Largest request body, as an nginx size; V(0) means no limit.
                type: str
                default: 1g
          quotas:
            description:
              - Quotas for users of this account's hubs. They need O(hubs[].container_admin.home_size), a kernel that counts projects, and the role
                quotas on the machine.
            type: list
            elements: dict
            default: []
            suboptions:
              hub:
                description: Name of the hub.
                type: str
                required: true
              size:
                description: Bytes of each hub user's home. If not given, the hub has no quotas.
                type: int
              users:
                description: Bytes by name, for hub users who have another limit.
                type: dict
                default: {}
          backups:
            description: Backups of this account's hubs. They need the role backup on the machine. The repository is tried before anything is written.
            type: list
            elements: dict
            default: []
            suboptions:
              hub:
                description: Name of the hub.
                type: str
                required: true
              repository:
                description: Repository of restic. If not given, the hub has no backups; what was backed up stays.
                type: str
              password:
                description: Its password.
                type: str
              environment:
                description: Further variables of restic, for example for S3.
                type: dict
                default: {}
              schedule:
                description: When backups are made, as systemd.time(7) has it.
                type: str
                default: daily
              keep:
                description: How many snapshots stay, by C(last), C(hourly), C(daily), C(weekly), C(monthly) and C(yearly).
                type: dict
                default: {}
              exclude:
                description: Patterns of files that are left out, below the hub's folder.
                type: list
                elements: str
                default: []
"""

EXAMPLES = r"""
- name: Nobody sits on a hub's port
  ananke.jupyterhub.machine_preflight:
    hubs:
      - name: math101
        port: 8101
        container_admin:
          name: math101
          store: /var/lib/ananke/store
  become: true
"""

RETURN = r"""
problems:
  description: What stands in the way, one readable sentence each.
  type: list
  elements: str
  returned: always
settled:
  description: Names of the hubs for which there is nothing to grant.
  type: list
  elements: str
  returned: success
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import commands, grants, sockets


def main() -> None:
    """Entry point."""
    hub_spec = {
        "name": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "container_admin": {"type": "dict", "required": True, "options": grants.OPTIONS},
    }
    module = AnsibleModule(
        argument_spec={"hubs": {"type": "list", "elements": "dict", "required": True, "options": hub_spec}},
        supports_check_mode=True,
    )
    commands.need_root(module, "machine_preflight", problems=[])
    hubs = module.params["hubs"]
    problems = sockets.taken({**hub, "container_admin": hub["container_admin"]["name"]} for hub in hubs)
    for hub in hubs:
        problems += grants.refusals(hub["container_admin"])
    if problems:
        module.fail_json(msg="; ".join(problems), problems=problems)
    settled = [hub["name"] for hub in hubs if grants.settled(hub["container_admin"])]
    for hub in hubs:
        if hub["name"] in settled:  # of others, their own task says it
            for warning in grants.warnings(hub["container_admin"]):
                module.warn(warning)
    module.exit_json(changed=False, problems=[], settled=settled)


if __name__ == "__main__":
    main()
