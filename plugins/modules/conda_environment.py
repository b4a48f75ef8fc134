#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: conda_environment
short_description: Conda environments that change as a whole or not at all
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Makes, changes, updates and removes conda environments, in a hub's container or on a host, with packages of conda and of pip.
  - A change is made beside the environment and put in its place when it is complete. When conda or pip fails, the network is down, the disk is
    full or the run is killed, the old environment is as it was.
  - Meanwhile a change needs room on the disk for a second copy of the environment.
  - The old and the new environment change places in one step. Only where an environment came with the container's image, files are replaced one
    by one at the end, which the next run finishes if it was cut short.
  - Kernels that run go on with what they have loaded; what they load later comes from the changed environment.
  - Nothing is started where the environment's own records tell that it is as wanted; conda is asked only about specs that it alone understands.
  - Changes in a container last as long as the container. Declare in the image's definition what must survive a new one.
attributes:
  check_mode:
    support: full
    description: It asks conda what it would do (C(--dry-run)), which also finds what cannot be installed. Versions that pip would choose may be open.
  diff_mode:
    support: full
    description: The packages before and after.
  idempotent:
    support: full
    description: Running it again changes nothing, except that V(updated) takes what was published since.
options:
  container:
    description: The hub's container. Without it, environments of this host are meant, and the module must run as root.
    type: str
  name:
    description:
      - Name of the environment; letters, digits and C(_ . -), beginning with a letter, a digit or C(_).
      - C(jhub) and C(base) are refused, since the hub itself runs with them.
    type: str
    required: true
  state:
    description:
      - V(present) sees to it that the environment is there and holds at least these packages.
      - V(exact) sees to it that it holds these packages and what they need, and nothing else. It is built anew if the list has changed, or if
        somebody has installed or removed something since.
      - V(updated) takes the newest versions of these packages that the channels have; of all of conda's packages, if none is named.
      - V(absent) removes the environment, and the kernels that M(ananke.jupyterhub.conda_kernel) made for it.
    type: str
    choices: [present, exact, updated, absent]
    default: present
  packages:
    description: Packages of conda, as one writes them for C(conda install), such as V(numpy), V(numpy=2.1) or V(numpy>=2,<3).
    type: list
    elements: str
  pip:
    description:
      - Packages of pip, as one line of a requirements file each. They are installed after conda's.
      - If the environment has no pip, it gets conda's.
    type: list
    elements: str
  definition:
    description:
      - An C(environment.yml) as a mapping, in place of O(packages) and O(pip). C(name) must be absent or equal to O(name); C(prefix) is ignored.
    type: dict
  channels:
    description:
      - Channels to take packages from, and no others. Without it, those of O(definition), or those that conda is configured for.
      - Passwords do not belong into addresses, neither here nor in O(pip), since everybody sees command lines. They are refused.
    type: list
    elements: str
  prefix_folder:
    description: Folder of the environments.
    type: path
    default: /opt/conda/envs
  conda:
    description: The program conda.
    type: path
    default: /opt/conda/bin/conda
  timeout:
    description: Seconds until a run gives up.
    type: int
    default: 1800
seealso:
  - module: ananke.jupyterhub.conda_kernel
"""

EXAMPLES = r"""
- name: An environment for a course
  ananke.jupyterhub.conda_environment:
    container: ananke-math101
    name: data
    packages: [python=3.13, ipykernel, pandas, "numpy>=2,<3"]
    pip: [nbgitpuller]

- name: Exactly what a file says
  ananke.jupyterhub.conda_environment:
    container: ananke-math101
    name: data
    state: exact
    definition: "{{ lookup('ansible.builtin.file', 'environment.yml') | from_yaml }}"

- name: The newest pandas
  ananke.jupyterhub.conda_environment:
    container: ananke-math101
    name: data
    state: updated
    packages: [pandas]

- name: Last year's environment goes
  ananke.jupyterhub.conda_environment:
    container: ananke-math101
    name: data2025
    state: absent
"""

RETURN = r"""
environment:
  description: Path of the environment.
  returned: success
  type: str
  sample: /opt/conda/envs/data
added:
  description: Packages that were added, with their versions; those of pip say so.
  returned: success
  type: list
  elements: str
  sample: [pandas 2.3.1, "nbgitpuller 1.2.2 (pip)"]
removed:
  description: Packages that were removed, with their versions.
  returned: success
  type: list
  elements: str
updated:
  description: Packages that have another version now.
  returned: success
  type: list
  elements: str
  sample: [numpy 2.1.0 -> 2.2.6]
kernels:
  description: Names of the kernels that were removed with the environment.
  returned: success
  type: list
  elements: str
commands:
  description: What was run.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import conda_environments, inside


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **inside.CONTAINER_OPTIONS,
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "exact", "updated", "absent"], "default": "present"},
            "packages": {"type": "list", "elements": "str"},
            "pip": {"type": "list", "elements": "str"},
            "definition": {"type": "dict"},
            "channels": {"type": "list", "elements": "str"},
            "prefix_folder": {"type": "path", "default": "/opt/conda/envs"},
            "conda": {"type": "path", "default": "/opt/conda/bin/conda"},
            "timeout": {"type": "int", "default": 1800},
        },
        mutually_exclusive=[("definition", "packages"), ("definition", "pip")],
        supports_check_mode=True,
    )
    if module.params["timeout"] < 1:
        module.fail_json(msg=f"timeout is {module.params['timeout']}: give seconds, 1 or more", commands=[])
    module.exit_json(**inside.act(module, conda_environments))


if __name__ == "__main__":
    main()
