#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: conda_kernel
short_description: Offer the kernel of a conda environment to a hub's users
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Registers the kernel of a conda environment under a name of choice, or takes it from the launcher of JupyterLab.
  - The kernel is started with its environment activated. An environment with R, or another language that brings its own kernelspec, has a kernel
    for each of them.
  - No kernel is listed twice. A second kernelspec that starts the same environment is removed, and so are those of environments that are gone,
    if this collection had made them.
  - JupyterLabs that run see a change within about a minute, without a restart. Kernels that run go on.
  - Where the hub has nb_conda_kernels, that lists kernels by itself, from each environment's own kernelspecs. There this module changes an
    environment's own kernelspec, or hides it. What people see then follows C(CondaKernelSpecManager.name_format), which by default appends the
    environment, and shortens a name that begins with C(Python).
  - An update of ipykernel by conda brings its own name back where the hub has nb_conda_kernels. Run this module after it.
attributes:
  check_mode:
    support: full
    description: It says what it would do and does nothing.
  diff_mode:
    support: full
    description: The kernelspecs before and after.
  idempotent:
    support: full
    description: Kernels that are right are left alone.
options:
  container:
    description: The hub's container. Without it, folders of this host are meant, and the module must run as whoever may write them.
    type: str
  environment:
    description: Name of the environment.
    type: str
    required: true
  state:
    description:
      - V(present) offers its kernel. The environment must be there and have C(ipykernel) or another language's kernel.
      - V(absent) offers it no longer. The environment stays as it is.
    type: str
    choices: [present, absent]
    default: present
  display_name:
    description:
      - What people see. Further kernels of the same environment have their language behind it.
      - Without it, it is the name of the environment; with nb_conda_kernels, what the environment's own kernelspec says.
    type: str
  prefix_folder:
    description: Folder of the environments. Where it has no C(/opt/install/kernel), C(bin/activate) of the conda above it activates environments.
    type: path
    default: /opt/conda/envs
  jhub:
    description: Path of the environment that Jupyter runs in.
    type: path
    default: /opt/conda/envs/jhub
seealso:
  - module: ananke.jupyterhub.conda_environment
"""

EXAMPLES = r"""
- name: Notebooks can use the environment data
  ananke.jupyterhub.conda_kernel:
    container: ananke-math101
    environment: data
    display_name: Data science (2026)

- name: The usual kernel has another name
  ananke.jupyterhub.conda_kernel:
    container: ananke-math101
    environment: python3
    display_name: Mathematics 101

- name: Last year's environment is no longer offered
  ananke.jupyterhub.conda_kernel:
    container: ananke-math101
    environment: data2025
    state: absent
"""

RETURN = r"""
kernels:
  description: All kernels of the hub (in check mode, those that there would be).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Jupyter's name of the kernel.
      type: str
      returned: always
    display_name:
      description: What its kernelspec says that people see.
      type: str
      returned: always
    environment:
      description: Name of the environment that it starts; empty if that is not known.
      type: str
      returned: always
    ours:
      description: Whether this collection has made the kernelspec.
      type: bool
      returned: always
  sample: [{name: data, display_name: Data science (2026), environment: data, ours: true}]
removed:
  description: Names of kernels that were removed; beside the wanted ones, those that were listed twice or whose environment was gone.
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
from ansible_collections.ananke.jupyterhub.plugins.module_utils import conda_kernels, inside


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **inside.CONTAINER_OPTIONS,
            "environment": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "display_name": {"type": "str"},
            "prefix_folder": {"type": "path", "default": "/opt/conda/envs"},
            "jhub": {"type": "path", "default": "/opt/conda/envs/jhub"},
        },
        supports_check_mode=True,
    )
    module.exit_json(**inside.act(module, conda_kernels))


if __name__ == "__main__":
    main()
