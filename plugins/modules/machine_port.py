#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_port
short_description: Find the port at which a machine's sshd answers
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - The role P(ananke.jupyterhub.ssh#role) moves sshd to a port of its own. The inventory need not change with it. This logs in on the new
    port first, then on the one that the inventory names (C(ansible_port), or 22), and returns the one that leads in; playbooks then
    set it for the rest of the run.
  - Nothing is executed on the machine. The connection that is made is the one that the following tasks use.
  - The variables C(ananke_ssh_port) (default 986), C(ananke_ssh_reach_port) (default the same; where a router forwards another port to it)
    and C(ssh_enabled) of the machine say which ports come into question.
extends_documentation_fragment:
  - ananke.jupyterhub.reading
options:
  machine:
    description: Inventory name of the machine. The task must run on it, or be delegated to it.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Find the way in
  ananke.jupyterhub.machine_port:
    machine: "{{ inventory_hostname }}"
  register: way

- name: Take it
  ansible.builtin.set_fact:
    ansible_port: "{{ way.port }}"
"""

RETURN = r"""
port:
  description: The port. Where none leads in, the inventory's, so that later tasks say what is wrong.
  type: int
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """All is done by the action plugin of the same name."""
    module = AnsibleModule(argument_spec={"machine": {"type": "str", "required": True}}, supports_check_mode=True)
    module.fail_json(msg="the action plugin of the same name was not found: install the collection as a whole")


if __name__ == "__main__":
    main()
