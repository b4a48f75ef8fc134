#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_gpu_info
short_description: NVIDIA's GPUs of a machine, and the container toolkit that fits its podman
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Looks for GPUs on the PCI bus, for a driver that runs, and for podman, and says in words what is missing for containers to use the GPUs.
extends_documentation_fragment:
  - ananke.jupyterhub.reading
"""

EXAMPLES = r"""
- name: Look for GPUs
  ananke.jupyterhub.nvidia_gpu_info:
"""

RETURN = r"""
gpus:
  description: Addresses on the PCI bus.
  type: list
  elements: str
  returned: always
  sample: ["0000:01:00.0"]
driver:
  description: Version of the driver that runs; empty for none.
  type: str
  returned: always
podman:
  description: Version of podman; empty for none.
  type: str
  returned: always
toolkit:
  description: The newest version of the container toolkit that is known to fit this podman; empty for none.
  type: str
  returned: always
ready:
  description: Whether containers could use the GPUs.
  type: bool
  returned: always
message:
  description: What there is, and what to do where something is missing.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import nvidia


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    podman = module.get_bin_path("podman")
    found = nvidia.look(module.run_command([podman, "--version"])[1] if podman else "")
    module.exit_json(
        gpus=found.gpus,
        driver=found.driver,
        podman=found.podman,
        toolkit=nvidia.toolkit(found.podman),
        ready=nvidia.ready(found),
        message=nvidia.message(found),
    )


if __name__ == "__main__":
    main()
