#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: status_report
short_description: One report of all hubs and machines
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Puts together what M(ananke.jupyterhub.hub_info) and M(ananke.jupyterhub.machine_info) have told, as a table, and if wanted as a JSON file and as
    one HTML page with plots that needs no other file and no network.
  - Reads these variables of hosts. C(ananke_status), what the module returned; C(hub_described), what M(ananke.jupyterhub.hub_description) returned; and
    C(ananke_lost), texts of what a hub's next image will not have. The playbook C(status) sets them.
  - Hosts that could not be asked are in the report, too, with the reason.
extends_documentation_fragment:
  - ananke.jupyterhub.reporting
options:
  directory:
    description: Folder on the controller for C(status.json) and C(status.html), both with mode 0600. If not given, nothing is written.
    type: path
"""

EXAMPLES = r"""
- name: Say how all is
  ananke.jupyterhub.status_report:
    hubs: "{{ groups.hubs }}"
    machines: "{{ groups.machines }}"
    directory: /srv/www/intern/status
  run_once: true
"""

RETURN = r"""
report:
  description:
    - C(version), C(time), C(summary), C(hubs) and C(machines), as in the JSON file. Sizes are in bytes; what is not known is null.
    - Each hub has C(name), C(machine), C(url), C(reached), C(healthy), C(versions), C(image), C(users), C(memory), C(disk), C(backup), C(drift), C(problems).
    - Each machine has C(name), C(reached), C(memory), C(cpus), C(load), C(disks), C(certificate), C(reboot), C(problems).
  type: dict
  returned: success
msg:
  description: The table.
  type: str
  returned: success
files:
  description: What was written.
  type: list
  elements: str
  returned: if O(directory) is given
"""
