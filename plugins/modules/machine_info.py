#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_info
short_description: How a machine of hubs is
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Tells how much memory and disk space is left, when the certificate that browsers see expires, and whether packages wait for a reboot.
  - Nothing of a machine makes it fail. What is not there is null, and RV(problems) says what to do.
extends_documentation_fragment:
  - ananke.jupyterhub.reading
  - ananke.jupyterhub.proxy
seealso:
  - module: ananke.jupyterhub.hub_info
"""

EXAMPLES = r"""
- name: Look at the machine
  ananke.jupyterhub.machine_info:
    server_name: hubs-north.example.org
  register: north

- name: Its certificate is good for another week
  ansible.builtin.assert:
    that: north.certificate.days >= 7
"""

RETURN = r"""
problems:
  description: What is wrong or missing, and what to do about it; a line each.
  type: list
  elements: str
  returned: success
memory:
  description: C(size) and C(available) in bytes.
  type: dict
  returned: success
cpus:
  description: Number of CPUs.
  type: int
  returned: success
load:
  description: Processes that have worked or waited for a disk, on average of fifteen minutes.
  type: float
  returned: success
disks:
  description: The file systems of images, of homes, and of all else, each once, with C(path), and C(size), C(used) and C(free) in bytes.
  type: list
  elements: dict
  returned: success
certificate:
  description: The certificate that browsers get, C(host), C(not_after) (ISO 8601, UTC), and C(days) that are left; null if there is none.
  type: dict
  returned: success
backups:
  description: By hub, how its last backup went, with C(time) (ISO 8601, UTC), C(complete), and C(error), which is empty where all went well.
  type: dict
  returned: success
reboot:
  description: Packages that wait for a reboot.
  type: list
  elements: str
  returned: success
"""

import subprocess
from collections.abc import Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils.machine_facts import Machine, look


def _run(command: Sequence[str], given: bytes) -> tuple[int, str]:
    """Status and output of a command."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)
    except OSError as error:
        return 127, str(error)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def main() -> None:
    """Entry point."""
    options = {"server_name": {"type": "str", "required": True}, "https_port": {"type": "int", "default": 443}}
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    found = look(Machine(_run), module.params["server_name"], module.params["https_port"])
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
