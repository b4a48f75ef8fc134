#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_removal
short_description: Remove a hub, and archive, hand over or delete its files
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Takes away the hub's public path, ends its container and all servers in it, forgets its unit, and then does with its files what O(keep) says.
  - An archive is compared with the hub's folder before anything is deleted.
  - The account stays, as do its other hubs and folders of the machine that the hub had as volumes.
  - A run that is killed anywhere is finished by the next one.
  - Must run as root. To archive, it needs the package C(zstd).
extends_documentation_fragment:
  - ananke.jupyterhub.changing
  - ananke.jupyterhub.changing.in_words
  - ananke.jupyterhub.hub
  - ananke.jupyterhub.hub.account
attributes:
  idempotent:
    support: full
    description: Where there is no such hub, nothing changes.
options:
  keep:
    description:
      - What becomes of the hub's files, homes of its users among them.
      - V(archive) packs them, with numeric owners, ACLs and extended attributes, in O(folder).
      - V(home) gives them to the container admin, in the account's folder C(removed).
      - V(nothing) deletes them.
    type: str
    choices: [archive, home, nothing]
    default: archive
  folder:
    description: Folder of archives. It is made, for root alone.
    type: path
    default: /var/lib/ananke/archives/hubs
seealso:
  - module: ananke.jupyterhub.container_admin_archive
"""

EXAMPLES = r"""
- name: Remove the hub math101, and keep its files
  ananke.jupyterhub.hub_removal:
    name: math101
    container_admin: math101
  become: true
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be done), in words.
  type: list
  elements: str
  returned: success
kept:
  description: Path of the archive, or of the folder in the account's home. Empty where nothing was kept.
  type: str
  returned: success
  sample: /var/lib/ananke/archives/hubs/math101-20260930T120000Z.tar.zst
hubs_left:
  description: Hubs that the account still has; C(removed) stands for files of removed hubs in its home. In check mode, the one that would be removed counts.
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
from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, commands, files, hub_removal, nginx


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "container_admin": {"type": "str", "required": True},
            "keep": {"type": "str", "choices": list(hub_removal.KEEP), "default": "archive"},
            "folder": {"type": "path", "default": "/var/lib/ananke/archives/hubs"},
        },
        supports_check_mode=True,
    )
    name, account, keep, folder = (module.params[key] for key in ("name", "container_admin", "keep", "folder"))
    commands.need_root(module, "hub_removal", commands=[])
    ran = commands.Commands(module)
    record = None
    try:
        if module.check_mode:
            done = hub_removal.foretell(name, account, keep, folder)
        else:
            with files.lock("removal"):
                done, record = hub_removal.remove(name, account, keep, folder, ran.status)
        left = hub_removal.hubs_left(account)
    except (accounts.AccountError, nginx.NginxError) as error:
        module.fail_json(msg=f"hub {name}: {error}", commands=ran.run)
    module.exit_json(
        changed=bool(done),
        actions=done,
        kept=hub_removal.kept(record, folder) if record else "",
        hubs_left=left,
        commands=ran.run,
    )


if __name__ == "__main__":
    main()
