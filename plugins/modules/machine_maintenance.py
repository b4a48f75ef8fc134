#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_maintenance
short_description: What a machine's upkeep has left to do
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Asks needrestart, debsecan, debsums and AIDE, and reads Lynis' last report. Tells which services use what has been replaced, whether a reboot waits,
    which holes are known, which files are not as they should be, and how old images are.
  - Nothing of a machine makes it fail. What could not be looked at is null, and RV(problems) says what to do.
  - Must run as root.
extends_documentation_fragment:
  - ananke.jupyterhub.reading
options:
  debsecan_source:
    description: Address of the data about holes, for machines that do not reach Debian's tracker; the suite is added to it.
    type: str
    default: ""
seealso:
  - module: ananke.jupyterhub.security_updates
  - module: ananke.jupyterhub.machine_info
"""

EXAMPLES = r"""
- name: Look after the machine
  ananke.jupyterhub.machine_maintenance:
  become: true
  register: north

- name: No file of a package was changed
  ansible.builtin.assert:
    that: north.packaged | length == 0
    fail_msg: "{{ north.packaged | map(attribute='path') }}"
"""

RETURN = r"""
problems:
  description: What could not be looked at, and what to do about it; a line each.
  type: list
  elements: str
  returned: success
restart:
  description: What needrestart says; null if it could not be asked.
  type: dict
  returned: success
  contains:
    services:
      description: Services that use programs or libraries that have been replaced since they were started.
      type: list
      elements: str
    sessions:
      description: People's sessions that do, and the managers of accounts, in which hubs run.
      type: list
      elements: str
    kernel:
      description: Whether a newer kernel waits for a reboot; null if that is not known.
      type: bool
    kernels:
      description: The kernel that is C(running), and the C(newest) one that is installed.
      type: dict
    microcode:
      description: Whether newer microcode waits for a reboot; null if that is not known.
      type: bool
reboot:
  description: What waits for a reboot; empty if nothing does.
  type: list
  elements: str
  returned: success
  sample: [linux-image-amd64, kernel 6.12.57+deb13-amd64]
holes:
  description: What debsecan says; null if it could not be asked.
  type: dict
  returned: success
  contains:
    known:
      description: Known holes in what is installed.
      type: int
    fixed:
      description: Those that new versions close.
      type: int
    urgent:
      description: Those that Debian calls highly urgent.
      type: int
    remote:
      description: Those that can be used from elsewhere.
      type: int
    packages:
      description: Packages of which new versions close holes.
      type: list
      elements: str
packaged:
  description: Files of packages that are not as Debian has made them, each with C(path) and C(package). Settings are not looked at. Null without debsums.
  type: list
  elements: dict
  returned: success
watched:
  description: System files that are not as somebody has accepted them. Null if the role auditing does not watch them.
  type: list
  elements: str
  returned: success
lynis:
  description: Lynis' last report, C(index), C(warnings), the number of C(suggestions), and C(time) (ISO 8601, UTC). Null if there is none.
  type: dict
  returned: success
images:
  description: What hubs start from, C(name) and C(created) (ISO 8601).
  type: list
  elements: dict
  returned: success
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""

import os
import shlex
import subprocess
from collections.abc import Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import need_root
from ansible_collections.ananke.jupyterhub.plugins.module_utils.maintenance import Upkeep, look

PATIENCE = 1800
"""Seconds that a tool may take; debsums reads all files of all packages."""


class Runner:
    """Runs commands and keeps their words."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def __call__(self, command: Sequence[str], given: bytes) -> tuple[int, str]:
        """Status and output of a command."""
        self.commands.append(shlex.join(command))
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, timeout=PATIENCE, check=False, env=environment
            )
        except OSError as error:
            return 127, str(error)
        except subprocess.TimeoutExpired:
            return 124, f"it did not end within {PATIENCE} seconds"
        return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"debsecan_source": {"type": "str", "default": ""}}, supports_check_mode=True)
    need_root(module, "machine_maintenance", commands=[])
    run = Runner()
    found = look(Upkeep(run), module.params["debsecan_source"])
    module.exit_json(changed=False, commands=run.commands, **found)


if __name__ == "__main__":
    main()
