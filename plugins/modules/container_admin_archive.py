#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_admin_archive
short_description: Archive the home of a container admin and remove the account
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Takes away the account's logins and its hubs' public paths, ends all of its processes, and packs its home with numeric owners, ACLs and extended
    attributes. Layers and containers of podman are left out, as they are made again from images.
  - Compares the archive with the home. Only then it deletes the account, its subordinate IDs, its home or the image that this is on, and what
    else the machine knows of it.
  - A run that is killed anywhere is finished by the next one.
  - Refuses accounts that the module M(ananke.jupyterhub.container_admin) has not made.
  - Must run as root. Needs the package C(zstd).
extends_documentation_fragment:
  - ananke.jupyterhub.changing
  - ananke.jupyterhub.changing.in_words
attributes:
  idempotent:
    support: full
    description: Where there is no such account, nothing changes.
options:
  name:
    description: Name of the account.
    type: str
    required: true
  folder:
    description: Folder of archives. It is made, for root alone.
    type: path
    default: /var/lib/ananke/archives
"""

EXAMPLES = r"""
- name: Remove the account math101, and keep its files
  ananke.jupyterhub.container_admin_archive:
    name: math101
  become: true
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be done), in words.
  type: list
  elements: str
  returned: success
archive:
  description: Path of the archive; beside it, with C(.json) appended, is what is needed to bring the account back. Empty where nothing was archived.
  type: str
  returned: success
  sample: /var/lib/ananke/archives/math101-20260930T120000Z.tar.zst
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, commands, files, logins, nginx, removal


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "folder": {"type": "path", "default": "/var/lib/ananke/archives"},
        },
        supports_check_mode=True,
    )
    name, folder = module.params["name"], module.params["folder"]
    commands.need_root(module, "container_admin_archive")
    ran = commands.Commands(module)
    record = None
    try:
        if module.check_mode:
            done = removal.foretell(name, folder)
        else:
            with files.lock("removal"):
                done, record = removal.remove(name, folder, ran.status)
    except (accounts.AccountError, logins.LoginError, nginx.NginxError) as error:
        module.fail_json(msg=str(error), commands=ran.run)
    archive = os.path.join(folder, record.archive) if record is not None else ""
    module.exit_json(changed=bool(done), actions=done, archive=archive, commands=ran.run)


if __name__ == "__main__":
    main()
