#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: security_updates
short_description: Debian's security updates of a machine or of a running hub
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Tells which security updates wait, and installs them if wanted. Other updates are counted only.
  - In a hub, packages start and restart no service, so that users' servers go on. Package lists are fetched for the time of the run, some 10 MB.
    The next image replaces what was installed.
  - On a machine, its own package lists are refreshed, and packages restart their services as ever.
  - Settings that somebody has changed stay, and nothing is removed.
  - Must run as root, or for a container as the hub's container admin.
attributes:
  check_mode:
    support: full
    description: Says what would be installed and installs nothing. Package lists are fetched all the same.
  diff_mode:
    support: none
    description: Its result names each package with both versions.
  idempotent:
    support: full
    description: Installs what waits, and then nothing.
options:
  container:
    description: The hub's container. If not given, it is about the machine itself.
    type: str
  state:
    description:
      - V(listed) only tells what waits.
      - V(installed) installs it, and what it newly needs.
    type: str
    choices: [listed, installed]
    default: listed
  hold:
    description: Packages that stay as they are; regular expressions for the beginning of names, as unattended-upgrades reads them.
    type: list
    elements: str
    default: []
  restart:
    description:
      - Whether JupyterHub and its proxy are restarted in a hub where they use what was replaced. Kernels survive it.
      - Only with O(state=installed) and O(container).
    type: bool
    default: false
seealso:
  - module: ananke.jupyterhub.machine_maintenance
"""

EXAMPLES = r"""
- name: Security updates inside the hub, while people work
  ananke.jupyterhub.security_updates:
    container: ananke-math101
    state: installed
  become: true
  become_user: math101
  register: math101

- name: What still waits on the machine
  ananke.jupyterhub.security_updates:
  become: true
  register: machine
"""

RETURN = r"""
pending:
  description: Security updates that wait, after this run.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: The package.
      type: str
      sample: libssl3t64
    old:
      description: The version that is, or was, installed.
      type: str
    new:
      description: The version that comes.
      type: str
installed:
  description: Security updates that were installed; in check mode, those that would be.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: The package.
      type: str
      sample: libssl3t64
    old:
      description: The version that is, or was, installed.
      type: str
    new:
      description: The version that comes.
      type: str
others:
  description: How many other updates wait, those on hold among them.
  type: int
  returned: success
services:
  description:
    - Services of the hub that still use what was replaced, users' servers among them as far as they can be looked at. Empty for a machine, see
      M(ananke.jupyterhub.machine_maintenance).
  type: list
  elements: str
  returned: success
restarted:
  description: Services of the hub that were restarted.
  type: list
  elements: str
  returned: success
problems:
  description: What somebody should look at.
  type: list
  elements: str
  returned: success
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import inside, security_updates


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **inside.CONTAINER_OPTIONS,
            "state": {"type": "str", "choices": ["listed", "installed"], "default": "listed"},
            "hold": {"type": "list", "elements": "str", "default": []},
            "restart": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    wish = {
        "install": module.params["state"] == "installed",
        "inside": bool(module.params["container"]),
        "hold": module.params["hold"],
        "restart": module.params["restart"],
    }
    module.exit_json(**inside.act(module, security_updates, wish))


if __name__ == "__main__":
    main()
