#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dynamic_user_ownership
short_description: Give the files of hub users' homes to whom they belong
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - systemd chooses the UID of a hub user anew each time, and the whole home with it. Where that went wrong, this puts it right, while servers run.
  - It follows no link out of a home, leaves file systems alone that are mounted below it, and files with another name outside of it. It says
    exactly what it changed.
  - A home that changes hands is marked (a link C(.ananke-owner-NAME) beside it) until all its files have, and as long as the container admin has
    it. So a run that was cut short is seen, and finished by the next.
attributes:
  check_mode:
    support: full
    description: It looks at all files and says which it would change.
  diff_mode:
    support: full
    description: The former owners and the new one of each home.
  idempotent:
    support: full
    description: Files that are right are left alone.
options:
  container:
    description: The hub's container. Without it, O(folder) on this host is meant, and owners are what the account's containers see (C(podman unshare)).
    type: str
  users:
    description: Names of hub users. None means all homes in O(folder).
    type: list
    elements: str
    default: []
  folder:
    description: Folder of the homes. Needed where no O(container) is named, for instance C(~/hubs/math101/private) of a hub that was removed.
    type: path
  state:
    description:
      - V(consistent) gives every file to the UID of the user's unit if that runs, else to the owner of the home's top folder.
      - V(admin) hands homes to the container admin, to be read, archived or deleted. Users' servers must not run.
      - V(restored) gives homes back that were handed over.
    type: str
    choices: [consistent, admin, restored]
    default: consistent
  unit:
    description: A user's unit; C({user}) stands for the name.
    type: str
    default: jupyter-{user}.service
  processes:
    description: Processes that share the work on a large home. V(0) means one for each processor.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Everything in all homes of a hub belongs to whom it should
  ananke.jupyterhub.dynamic_user_ownership:
    container: ananke-math101

- name: What a former student has left becomes readable for the container admin
  ananke.jupyterhub.dynamic_user_ownership:
    container: ananke-math101
    users: [uanna]
    state: admin

- name: All homes of a hub whose container is gone
  ananke.jupyterhub.dynamic_user_ownership:
    folder: ~/hubs/math101/private
    state: admin
"""

RETURN = r"""
homes:
  description: What was found and done in each home.
  returned: always
  type: list
  elements: dict
  contains:
    home:
      description: Its path.
      type: str
      returned: always
    user:
      description: Name of the hub user.
      type: str
      returned: always
    owner:
      description: UID that it belongs to.
      type: int
      returned: always
    seen:
      description: How many files were looked at, folders and the home itself among them.
      type: int
      returned: always
    changed_files:
      description: How many of them changed hands.
      type: int
      returned: always
    former_owners:
      description: How many of these each UID had.
      type: dict
      returned: always
    paths:
      description: Their paths below the home, at most 1000; what cannot be printed is escaped.
      type: list
      elements: str
      returned: always
    refused:
      description: Files that could not be changed, and why. The module fails then.
      type: list
      elements: list
      returned: always
    mounts:
      description: Folders that were left alone since something is mounted there.
      type: list
      elements: str
      returned: always
    interrupted:
      description: Whether an earlier run had been cut short.
      type: bool
      returned: always
commands:
  description: What was run.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import inside, user_ownership

HOMES = "/var/lib/private"
"""Folder of homes in a container."""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **inside.CONTAINER_OPTIONS,
            "users": {"type": "list", "elements": "str", "default": []},
            "folder": {"type": "path"},
            "state": {"type": "str", "choices": ["consistent", "admin", "restored"], "default": "consistent"},
            "unit": {"type": "str", "default": "jupyter-{user}.service"},
            "processes": {"type": "int", "default": 0},
        },
        required_one_of=[("container", "folder")],
        supports_check_mode=True,
    )
    wish = dict(module.params)
    for user in wish["users"]:
        if "/" in user or "\0" in user or user.startswith(".") or not user:
            module.fail_json(
                msg=f"users: {user!r} is no name of a home: give names of hub users", homes=[], commands=[]
            )
    if wish["processes"] < 0:
        module.fail_json(msg=f"processes is {wish['processes']}: give 0 or more", homes=[], commands=[])
    wish["folder"] = wish["folder"] or HOMES
    result = inside.act(module, user_ownership, wish, unshare=True)
    changed = [home for home in result["homes"] if home["changed"]]
    before = "".join(
        f"{home['home']}: {count} files of UID {uid}\n"
        for home in changed
        for uid, count in home["former_owners"].items()
    )
    after = "".join(f"{home['home']}: {home['changed_files']} files of UID {home['owner']}\n" for home in changed)
    module.exit_json(**result, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
