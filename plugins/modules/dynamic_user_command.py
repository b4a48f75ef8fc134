#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dynamic_user_command
short_description: Run a command as a hub user
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Runs a command as a hub user in that user's home, whether or not the user's server runs. No file of the home changes its owner.
  - In a hub the command is closed and limited as the user's server is, has the same environment, and C(HOME), C(ssh-keygen), C(git) work.
  - Runs as the hub's container admin, and reaches into the container by one C(podman exec).
attributes:
  check_mode:
    support: partial
    details: The command is not run; O(creates) and O(removes) are looked at.
    description: Can run in check mode and say what it would do.
  diff_mode:
    support: none
    description: What a command changes is its own affair.
  idempotent:
    support: partial
    details: With O(creates) or O(removes).
    description: Run once or twice, the result is the same.
options:
  container:
    description: The hub's container. Without it, the host itself has the dynamic user, and the module must run as root.
    type: str
  user:
    description: Name of the hub user.
    type: str
    required: true
  argv:
    description: The command and its arguments; no shell sees them. Exactly one of O(argv) and O(cmd) is needed.
    type: list
    elements: str
  cmd:
    description: A line for Bash.
    type: str
  chdir:
    description: Folder to run in, relative to the home.
    type: path
  creates:
    description: A path relative to the home; if it exists, the command is not run.
    type: path
  removes:
    description: A path relative to the home; if it does not exist, the command is not run.
    type: path
  environment:
    description: Variables for the command, beside those that the user's server has. They are on no command line and in no result.
    type: dict
    default: {}
  stdin:
    description: What the command reads on standard input.
    type: str
    default: ""
  timeout:
    description: Seconds after which the command is stopped, and the module fails.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: A key for the user's git remotes
  ananke.jupyterhub.dynamic_user_command:
    container: ananke-math101
    user: uanna
    cmd: ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
    creates: .ssh/id_ed25519

- name: Fetch the course's material
  ananke.jupyterhub.dynamic_user_command:
    container: ananke-math101
    user: uanna
    argv: [git, clone, https://git.example.org/math101.git]
    creates: math101
    timeout: 120
"""

RETURN = r"""
rc:
  description: Exit status; 124 if it was stopped, 127 if there is no such command.
  type: int
  returned: when the command was run
stdout:
  description: What it printed, at most the last MiB.
  type: str
  returned: always
stderr:
  description: What it printed to standard error, at most the last MiB.
  type: str
  returned: always
truncated:
  description: Whether the beginning of its output is left out.
  type: bool
  returned: when the command was run
timed_out:
  description: Whether it was stopped.
  type: bool
  returned: when the command was run
seconds:
  description: How long it took.
  type: float
  returned: when the command was run
owner:
  description: UID that owns the home afterwards; V(owner_before) is the one before.
  type: int
  returned: when the command was run
commands:
  description: What was run.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import inside, user_command

SHORTEST_SECRET = 6
"""Characters."""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **inside.CONTAINER_OPTIONS,
            "user": {"type": "str", "required": True},
            "argv": {"type": "list", "elements": "str"},
            "cmd": {"type": "str"},
            "chdir": {"type": "path"},
            "creates": {"type": "path"},
            "removes": {"type": "path"},
            "environment": {"type": "dict", "default": {}, "no_log": True},
            "stdin": {"type": "str", "default": "", "no_log": True},
            "timeout": {"type": "int", "default": 600},
        },
        mutually_exclusive=[("argv", "cmd")],
        required_one_of=[("argv", "cmd")],
        supports_check_mode=True,
    )
    # whatever equals a hidden value is hidden in the result; what is this short is no secret, but part of many an output and exit status
    module.no_log_values = {value for value in module.no_log_values if len(str(value)) >= SHORTEST_SECRET}
    wish = dict(module.params)
    if wish["argv"] == [] or (wish["cmd"] is not None and not wish["cmd"].strip()):
        module.fail_json(msg="there is nothing to run: give argv with at least one word, or cmd", commands=[])
    if wish["timeout"] < 1:
        module.fail_json(msg=f"timeout is {wish['timeout']}: give seconds, at least 1", commands=[])
    for key in ("chdir", "creates", "removes"):
        if wish[key] and (wish[key].startswith("/") or ".." in wish[key].split("/")):
            module.fail_json(
                msg=f"{key} is {wish[key]}: give a path relative to the user's home, without '..'", commands=[]
            )
    wish["environment"] = {str(name): str(value) for name, value in wish["environment"].items()}
    result = inside.act(module, user_command, wish)
    if result["rc"]:
        last = (result["stderr"] or result["stdout"]).strip().splitlines()
        module.fail_json(
            msg=f"the command ended with exit status {result['rc']}{': ' + last[-1] if last else ''}", **result
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
