#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_access
short_description: Change how a machine is reached, without any chance to be locked out
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Replaces files of sshd's configuration and of the firewall, all of them or none, and puts them in force on trial.
  - A timer on the machine puts the old files back and in force, unless a fresh login over the new way has succeeded before. So does
    a boot. This module makes that login itself, and ends the trial. Where the login fails, the old state comes back at once if the
    connection that the run already has still works, else by the timer; and the task fails and says why.
  - What sshd (C(sshd -T)) or C(nft --check) refuse, or what another line of sshd's configuration overrides, is not put in force.
  - Must run as root on the machine, over SSH. Over another connection there is no login to try, and nothing is confirmed by one.
attributes:
  check_mode:
    support: full
    description: Says what would change.
  diff_mode:
    support: full
    description: Shows the changed files.
  idempotent:
    support: full
    description: Where all is as wanted, no trial begins and nobody logs in anew.
options:
  files:
    description: What decides how the machine is reached.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The file, below C(/etc/ssh), C(/etc/pam.d) or C(/etc/nftables.d), or C(/etc/nftables.conf). Its folder is made.
        type: path
        required: true
      content:
        description: Its text. If not given, the file is removed.
        type: str
      mode:
        description: Its mode, in octal.
        type: str
        default: "0644"
  port:
    description: Port for the fresh login, as the controller reaches it. If not given, that of the present connection.
    type: int
  admins:
    description: Accounts that must be able to log in afterwards; refused where one has no key, no password where that is demanded, or is root.
    type: list
    elements: str
    default: []
  password:
    description: Whether logins need a password beside the key. Ansible then needs one as well (C(ansible_password)).
    type: bool
    default: false
  timeout:
    description: Seconds until the old state comes back by itself.
    type: int
    default: 120
  act:
    description: Which part of the work this execution does; for the module's own use.
    type: str
    choices: [begin, confirm, restore]
    default: begin
  token:
    description: What ties these parts together; for the module's own use.
    type: str
notes:
  - The script that takes changes back is C(/usr/local/lib/ananke/access-restore) on the machine; C(/var/lib/ananke/access/restored) holds what it
    was last about.
"""

EXAMPLES = r"""
- name: Move sshd to another port
  ananke.jupyterhub.machine_access:
    files:
      - path: /etc/ssh/sshd_config.d/00-port.conf
        content: |
          Port 986
    port: 986
  become: true
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be done), in words.
  type: list
  elements: str
  returned: success
port:
  description: Port over which the fresh login came.
  type: int
  returned: when changed
commands:
  description: The commands that were run on the machine before that login.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import access, files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Commands


def main() -> None:
    """Entry point. The action plugin calls it up to twice; `act` and `token` are between the two."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str"},
                    "mode": {"type": "str", "default": "0644"},
                },
                "required": True,
            },
            "port": {"type": "int"},
            "admins": {"type": "list", "elements": "str", "default": []},
            "password": {"type": "bool", "default": False, "no_log": False},
            "timeout": {"type": "int", "default": 120},
            "act": {"type": "str", "choices": ["begin", "confirm", "restore"], "default": "begin"},
            "token": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    commands = Commands(module)
    done: list[str] = []
    diff: list[dict[str, str]] = []
    try:
        if wanted["act"] == "confirm":
            access.confirm(wanted["token"], commands.status)
        elif wanted["act"] == "restore":
            access.restore(commands.status)
        else:
            changes = [access.Change(one["path"], one["content"], int(one["mode"], 8)) for one in wanted["files"]]
            diff = differences(changes)
            access.check_admins(wanted["admins"], wanted["password"])
            done = (
                access.foretell(changes)
                if module.check_mode
                else access.begin(changes, wanted["token"], wanted["timeout"], commands.status)
            )
    except (access.AccessError, OSError) as error:
        module.fail_json(msg=str(error), commands=commands.run)
    module.exit_json(changed=bool(done), actions=done, commands=commands.run, diff=diff)


def differences(changes: list[access.Change]) -> list[dict[str, str]]:
    """What `--diff` shows."""
    return [
        {"before_header": one.path, "after_header": one.path, "before": before or "", "after": one.content or ""}
        for one in changes
        for before in [files.read(one.path)]
        if before != one.content
    ]


if __name__ == "__main__":
    main()
