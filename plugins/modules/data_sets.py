#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: data_sets
short_description: Folders of other machines, mounted by sshfs on demand
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Mounts folders of other machines at C(/srv/ananke/data/NAME/files) as soon as somebody looks into them, for hubs to use as volumes.
  - Each is two units of systemd, a mount and an automount. A machine that is down makes nobody wait longer than some seconds, neither at boot nor
    later, and is tried again whenever somebody looks.
  - The other machine must show one of the host keys that it is said to have. The login is by key; one is made on the machine unless it is given.
  - Data sets that are not in the list any more go, with their keys.
  - Each is mounted once to see that it works. One that does not gives a warning with what to do, and is no failure.
  - Must run as root, and needs the package sshfs.
extends_documentation_fragment:
  - ananke.jupyterhub.changing
attributes:
  diff_mode:
    support: none
    description: RV(actions) says in words what was done.
options:
  sets:
    description: All data sets of the machine.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name, and folder below C(/srv/ananke/data), of lower case letters, digits, V(_) and V(-).
        type: str
        required: true
      source:
        description: The folder, as C(USER@HOST:/FOLDER).
        type: str
        required: true
      port:
        description: Port of the other machine's sshd.
        type: int
        default: 22
      host_keys:
        description: Keys by which the other machine proves who it is, each its kind and the key, as in C(/etc/ssh/ssh_host_ed25519_key.pub) there.
        type: list
        elements: str
        required: true
      private_key:
        description: The key to log in with, without a passphrase. If not given, one is made on the machine; RV(public_keys) has its public half.
        type: str
      read_only:
        description: Whether nobody can write.
        type: bool
        default: true
      uid:
        description: UID that all files seem to have.
        type: int
        default: 0
      gid:
        description: GID that all files seem to have.
        type: int
        default: 0
      umask:
        description: Permissions that files seem not to have. They are enforced.
        type: str
        default: "0022"
      idle:
        description: Seconds without use after which it is unmounted; V(0) for never.
        type: int
        default: 600
"""

EXAMPLES = r"""
- name: A corpus of the library's
  ananke.jupyterhub.data_sets:
    sets:
      - name: corpus
        source: hubs@files.example.org:/export/corpus
        host_keys:
          - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA5dVxq4BYYDAuYdGvYoF6S0tmFXZVzPLNNGNv8rrG1y
  become: true
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be done), in words.
  type: list
  elements: str
  returned: success
public_keys:
  description: Name of each data set, and the public key that the other machine must let in.
  type: dict
  returned: success
new_keys:
  description: Names of the data sets whose key was made in this run.
  type: list
  elements: str
  returned: success
problems:
  description: Data sets that cannot be mounted now, why, and what to do.
  type: list
  elements: str
  returned: success
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import data_sets
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Commands, need_root

SET = {
    "name": {"type": "str", "required": True},
    "source": {"type": "str", "required": True},
    "port": {"type": "int", "default": 22},
    "host_keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
    "private_key": {"type": "str", "no_log": True},
    "read_only": {"type": "bool", "default": True},
    "uid": {"type": "int", "default": 0},
    "gid": {"type": "int", "default": 0},
    "umask": {"type": "str", "default": "0022"},
    "idle": {"type": "int", "default": 600},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"sets": {"type": "list", "elements": "dict", "required": True, "options": SET}},
        supports_check_mode=True,
    )
    need_root(module, "data_sets")
    commands = Commands(module)
    sets = [
        data_sets.DataSet(**{**one, "host_keys": tuple(" ".join(key.split()[:2]) for key in one["host_keys"])})
        for one in module.params["sets"]
    ]
    try:
        outcome = data_sets.ensure(sets, commands.status, module.check_mode)
    except (data_sets.DataSetError, OSError) as error:
        module.fail_json(msg=str(error), commands=commands.run)
    for problem in outcome.problems:
        module.warn(problem)
    module.exit_json(
        changed=bool(outcome.done),
        actions=outcome.done,
        public_keys=outcome.public_keys,
        new_keys=outcome.made,
        problems=outcome.problems,
        commands=commands.run,
    )


if __name__ == "__main__":
    main()
