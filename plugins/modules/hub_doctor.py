#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_doctor
short_description: Find out why a hub does not work
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Looks at all that a hub needs, from its account to the keys of its LMS, and says what to do about what is missing.
  - A check whose ground is missing is not made, so one cause gives one failure.
  - Nothing of a hub makes it fail. It must run as root, as it looks at what belongs to the machine and to the account.
extends_documentation_fragment:
  - ananke.jupyterhub.reading
  - ananke.jupyterhub.hub
  - ananke.jupyterhub.hub.account
  - ananke.jupyterhub.proxy
options:
  port:
    description: Its port on the machine's loopback address.
    type: int
    required: true
  path:
    description: Its public path; starts and ends with a slash.
    type: str
    required: true
  image:
    description: Name of the image that it starts from.
    type: str
    required: true
seealso:
  - module: ananke.jupyterhub.hub_info
"""

EXAMPLES = r"""
- name: Examine the hub math101
  ananke.jupyterhub.hub_doctor:
    name: math101
    container_admin: math101
    port: 8101
    path: /math101/
    image: standard
    server_name: hubs-north.example.org
  become: true
  register: examined
"""

RETURN = r"""
findings:
  description: All checks, from the ground up.
  type: list
  elements: dict
  returned: success
  contains:
    check:
      description: Its name.
      type: str
      sample: lti_jwks
    passed:
      description: Whether it passed; null if it was not made.
      type: bool
    said:
      description: What was seen.
      type: str
    remedy:
      description: What to do; empty unless it has failed.
      type: str
ill:
  description: What failed, what was seen, and what to do, a line each; empty for a hub that is well.
  type: list
  elements: str
  returned: success
passed:
  description: How many checks passed.
  type: int
  returned: success
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""

import pwd
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import commands, diagnosis, hub_symptoms, inside


class Place(inside.Place):
    """The container of another account, as root reaches it."""

    def __init__(self, ran: commands.Commands, container: str, account: str) -> None:
        super().__init__(ran, container)
        self.account = pwd.getpwnam(account)

    def command(self, python: str | None) -> list[str]:
        """The command, in the account's session."""
        surroundings = [f"HOME={self.account.pw_dir}", f"XDG_RUNTIME_DIR=/run/user/{self.account.pw_uid}"]
        own = ["runuser", f"--user={self.account.pw_name}", "--", "env", "--chdir=/", *surroundings]
        return [*own, *super().command(python)]


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "container_admin": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "path": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "server_name": {"type": "str", "required": True},
            "https_port": {"type": "int", "default": 443},
        },
        supports_check_mode=True,
    )
    commands.need_root(module, "hub_doctor", commands=[])
    wish = dict(module.params)
    ran = commands.Commands(module)
    hub = diagnosis.Hub(account=wish.pop("container_admin"), run=ran.status, **wish)

    def look_inside() -> list[t.Sequence[t.Any]]:
        try:
            return list(Place(ran, f"ananke-{hub.name}", hub.account).run(hub_symptoms, {})["findings"])
        except inside.InsideError as error:
            return [("services", False, str(error))]

    found = diagnosis.examine(hub, look_inside)
    module.exit_json(
        changed=False,
        findings=found,
        ill=[f"{one['check']}: {one['said']}. {one['remedy']}" for one in found if one["passed"] is False],
        passed=sum(one["passed"] is True for one in found),
        commands=ran.run,
    )


if __name__ == "__main__":
    main()
