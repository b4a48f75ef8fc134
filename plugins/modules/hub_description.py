#!/usr/bin/python
# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_description
short_description: Validate hubs of the inventory and describe them
version_added: 0.1.0
author: The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Turns the variables of an inventory host into the validated, normalised description of a hub.
  - Runs on the controller only. No host is connected to, and no module is executed there.
  - Refuses bad input with a message per problem that names the host, the variable, its value and what to write instead.
    All problems are reported, not only the first.
  - Hubs' variables fall back to the defaults of the roles P(ananke.jupyterhub.hub#role) and
    P(ananke.jupyterhub.hub_lti#role).
options:
  all_hubs:
    description:
      - V(false) describes the hub that the task runs for.
      - V(true) validates every hub of the play in one execution, also beside those hubs of the inventory that
        C(--limit) leaves out. Use it with C(run_once).
    type: bool
    default: false
  hubs_group:
    description: The inventory group that holds the hubs.
    type: str
    default: hubs
  machines_group:
    description: The inventory group that holds the machines.
    type: str
    default: machines
attributes:
  check_mode:
    description: Can run in check mode, and does the same there.
    support: full
  diff_mode:
    description: Returns what has changed, which is never anything.
    support: none
  action:
    description: Is an action plugin; everything happens on the controller.
    support: full
"""

EXAMPLES = r"""
- name: Refuse bad hubs before anything is changed
  ananke.jupyterhub.hub_description:
    all_hubs: true
  delegate_to: localhost
  run_once: true

- name: Describe this hub
  ananke.jupyterhub.hub_description:
  register: described
"""

RETURN = r"""
machines:
  description: By machine, the hubs of the play with C(name), C(port) and C(container_admin).
  returned: success, and O(all_hubs) is true
  type: dict
hub:
  description: What the machine needs to run the hub's container.
  returned: success, and O(all_hubs) is false
  type: dict
  contains:
    name:
      description: The hub's name.
      type: str
    host:
      description: The hub's inventory host.
      type: str
    machine:
      description: The inventory host that runs it.
      type: str
    container:
      description: Name of the container.
      type: str
    container_admin:
      description: The account that owns it.
      type: str
    port:
      description: Port on the machine's loopback address.
      type: int
    image:
      description: Name of the image definition, or of the one derived from it for what the hub adds.
      type: str
    features:
      description: Features of that image; null if it comes from an archive or a registry, so that this is not known.
      type: list
      elements: str
    limits:
      description: C(memory) in bytes, C(cpus) as a number, C(pids) as a number; null for none.
      type: dict
    devices:
      description: CDI names and device files.
      type: list
      elements: str
    volumes:
      description: Mappings of C(source), C(target), C(read_only) and C(follow_mounts).
      type: list
      elements: dict
    extra_hosts:
      description: Addresses by name.
      type: dict
    ca_certificates:
      description: The text of each private CA, by file name.
      type: dict
    health_timeout:
      description: Seconds that a started container has until it answers.
      type: int
description:
  description: Content of C(hub.json).
  returned: success, and O(all_hubs) is false
  type: dict
location:
  description: The hub's C(name), C(path), C(port) and C(upload_limit) (bytes) for the machine's proxy.
  returned: success, and O(all_hubs) is false
  type: dict
quota:
  description: The hub's name as C(hub), C(size) of each user's quota in bytes, null for none, and C(users) with another one.
  returned: success, and O(all_hubs) is false
  type: dict
backup:
  description: The hub's name as C(hub), and the variables C(hub_backup_*) without that beginning. Its password and environment are secrets.
  returned: success, and O(all_hubs) is false
  type: dict
lms_sheet:
  description: The values for the LMS's admin, as text.
  returned: success, and O(all_hubs) is false
  type: str
hubs:
  description: The hubs of the inventory.
  returned: O(all_hubs) is true
  type: list
  elements: str
"""
