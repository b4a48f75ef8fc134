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
  - Fails, with all reasons at once, when a port of a hub is in use by somebody else than its container admin.
  - Reads only; needs no privileges.
attributes:
  check_mode:
    support: full
    description: It never changes anything.
  diff_mode:
    support: none
    description: It never changes anything.
  idempotent:
    support: full
    description: It never changes anything.
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
        description: Account whose own processes may listen there.
        type: str
        required: true
"""

EXAMPLES = r"""
- name: Nobody sits on a hub's port
  ananke.jupyterhub.machine_preflight:
    hubs:
      - name: math101
        port: 8101
        container_admin: math101
"""

RETURN = r"""
problems:
  description: What stands in the way, one readable sentence each.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import sockets


def main() -> None:
    """Entry point."""
    hub_spec = {
        "name": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "container_admin": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={"hubs": {"type": "list", "elements": "dict", "required": True, "options": hub_spec}},
        supports_check_mode=True,
    )
    problems = sockets.taken(module.params["hubs"])
    if problems:
        module.fail_json(msg="; ".join(problems), problems=problems)
    module.exit_json(changed=False, problems=[])


if __name__ == "__main__":
    main()
