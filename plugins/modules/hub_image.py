#!/usr/bin/python
# Copyright: (c) 2026, The ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_image
short_description: Images that hubs start from, in a machine's shared store
version_added: 0.1.0
author: The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Builds, loads or pulls the declared images on a machine, unless they are there. The tag of an image follows from
    everything that it is made of, so that the same definition is never built twice.
  - A build runs in a systemd unit of its own, its output is shown while it works. A run that is interrupted meanwhile
    leaves it running, and the next run attaches to it.
  - Needs root on the machine, and what the role P(ananke.jupyterhub.podman#role) prepares.
options:
  definitions:
    description: Image definitions, as in the role's variable C(hub_image_definitions).
    type: list
    elements: dict
    required: true
  files:
    description: Folder on the controller with the role's own files.
    type: path
    required: true
  hubs:
    description:
      - Inventory hosts of hubs. For those whose C(hub_machine) is this host and that add something by C(hub_features), C(hub_environments) or
        C(hub_apt), further images are made, derived from the definitions that their C(hub_image) names. Hubs that add the same share one.
    type: list
    elements: str
    default: []
  settings:
    description:
      - Where images come from, C(apt_mirror), C(apt_security_mirror), C(pip_index), C(npm_registry), C(proxy), C(no_proxy),
        C(ca_certificates) and C(conda), as in the role's variables of the same names.
    type: dict
    default: {}
  keep:
    description:
      - How many former images of each definition stay although nobody uses them. Others are removed when all images are there, unless a
        unit, a container or an image of any account needs them.
    type: int
    default: 1
  store:
    description: Folder of the machine's image store.
    type: path
    default: /var/lib/ananke/store
  stream:
    description: Show what a build does while it works.
    type: bool
    default: true
  validate_only:
    description: Only check the definitions and settings, on the controller.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the machine.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: full
  action:
    description: Has a corresponding action plugin, which does the controller's part.
    support: full
"""

EXAMPLES = r"""
- name: Build the standard image from the public sources
  ananke.jupyterhub.hub_image:
    definitions:
      - name: standard
    files: /usr/share/ansible/collections/ansible_collections/ananke/jupyterhub/roles/hub_image/files
    settings:
      conda:
        installer: https://mirror.example.org/Miniforge3-Linux-x86_64.sh
        checksum: 848194851a98903134187fbb4ab50efe87b003e0c0f808f97644b7524a62bf2c
        channels: [conda-forge]
"""

RETURN = r"""
names:
  description: Names of all images, those derived for hubs among them.
  returned: with O(validate_only)
  type: list
  elements: str
images:
  description: All images in the order of the definitions. C(state) is V(present), or V(absent) in check mode for one that would be made.
  returned: always
  type: list
  elements: dict
  sample: [{"name": "standard", "reference": "localhost/ananke/standard:0123456789ab", "state": "present", "id": "8e61bf554d15"}]
commands:
  description: Commands that were run on the machine to change something.
  returned: always
  type: list
  elements: list
"""
