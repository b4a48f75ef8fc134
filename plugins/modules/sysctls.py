#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sysctls
short_description: Kernel settings, now and after the next boot
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Writes a file for C(sysctl.d) with all values, and sets those that the running kernel has otherwise.
  - All of it is one module execution and starts no process.
  - A key that the kernel does not have is no failure; it is returned. A file that sets another value later at boot gives a warning.
  - Must run as root, and not in a container, where these settings are those of the whole machine.
extends_documentation_fragment:
  - ananke.jupyterhub.changing
attributes:
  diff_mode:
    support: full
    description: Shows the file and the running kernel's values before and after.
options:
  path:
    description: The file, below C(/etc/sysctl.d).
    type: path
    required: true
  values:
    description: Key, with dots, and value of each setting.
    type: dict
    required: true
  apparmor:
    description:
      - Whether a kernel that runs without AppArmor gives a warning, which says what to do.
      - What a kernel runs with is decided at boot, so nothing is changed here.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: No redirects
  ananke.jupyterhub.sysctls:
    path: /etc/sysctl.d/60-site.conf
    values:
      net.ipv4.conf.all.accept_redirects: 0
      net.ipv6.conf.all.accept_redirects: 0
  become: true
"""

RETURN = r"""
keys:
  description: Keys whose value in the running kernel was changed (in check mode, would be).
  type: list
  elements: str
  returned: success
  sample: [kernel.dmesg_restrict]
missing:
  description: Keys that this kernel does not have.
  type: list
  elements: str
  returned: success
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import commands, sysctls


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "values": {"type": "dict", "required": True},
            "apparmor": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    commands.need_root(module, "sysctls")
    path = module.params["path"]
    values = {key: " ".join(str(value).split()) for key, value in module.params["values"].items()}
    try:
        outcome = sysctls.ensure(path, values, module.check_mode)
    except OSError as error:
        module.fail_json(
            msg=f"{error.filename}: {error.strerror}: take this key out of the values if this kernel cannot have it"
        )
    for words in outcome.later:
        module.warn(words)
    if outcome.locked:
        module.warn(
            f"the running kernel does not let go of {', '.join(outcome.locked)}: reboot the machine for the new value"
        )
    unconfined = sysctls.without_apparmor() if module.params["apparmor"] else ""
    if unconfined:
        module.warn(unconfined)
    diff = []
    if outcome.written:
        diff.append({"before_header": path, "after_header": path, "before": outcome.before, "after": outcome.after})
    if outcome.set:
        before, after = ("".join(f"{key} = {pair[index]}\n" for key, pair in outcome.set.items()) for index in (0, 1))
        diff.append(
            {"before_header": "running kernel", "after_header": "running kernel", "before": before, "after": after}
        )
    module.exit_json(
        changed=outcome.written or bool(outcome.set), keys=list(outcome.set), missing=outcome.missing, diff=diff
    )


if __name__ == "__main__":
    main()
