#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance_report
short_description: One report of the upkeep of all hubs and machines
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Puts together what M(ananke.jupyterhub.security_updates), M(ananke.jupyterhub.machine_maintenance) and M(ananke.jupyterhub.hub_info) have told, as a
    table, and if wanted as a JSON file and as one HTML page that needs no other file and no network. Names the images that lack security updates.
  - Reads these variables of hosts. C(ananke_updates), what M(ananke.jupyterhub.security_updates) returned; C(ananke_told), what
    M(ananke.jupyterhub.machine_maintenance) returned for a machine and M(ananke.jupyterhub.hub_info) for a hub; and C(hub_described), what
    M(ananke.jupyterhub.hub_description) returned. The playbook C(maintain) sets them.
  - Hosts that could not be asked are in the report, too, with the reason.
extends_documentation_fragment:
  - ananke.jupyterhub.reporting
options:
  directory:
    description: Folder on the controller for C(maintain.json) and C(maintain.html), both with mode 0600. If not given, nothing is written.
    type: path
seealso:
  - module: ananke.jupyterhub.status_report
"""

EXAMPLES = r"""
- name: Say what is left to do
  ananke.jupyterhub.maintenance_report:
    hubs: "{{ groups.hubs }}"
    machines: "{{ groups.machines }}"
    directory: /srv/www/intern/maintain
  run_once: true
"""

RETURN = r"""
report:
  description:
    - C(version), C(time), C(summary), C(machines), C(hubs) and C(images), as in the JSON file. What is not known is null.
    - Each machine has C(name), C(reached), C(updates), C(services), C(sessions), C(reboot), C(kernels), C(holes), C(packaged), C(watched), C(lynis),
      C(images), C(problems).
    - Each hub has C(name), C(machine), C(reached), C(healthy), C(image), C(updates), C(ahead) (packages that are newer than its image's), C(services),
      C(restarted), C(problems).
    - C(updates) has C(pending) and C(installed), and C(others), the number of updates that close no hole.
    - Each of C(images) lacks security updates, with C(machine), C(image), C(days), C(lacks), C(hubs), and C(text), what to do.
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
