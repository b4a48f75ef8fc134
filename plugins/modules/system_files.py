#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: system_files
short_description: Write many small files of a system at once
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Writes drop-ins, sets settings in files that know no drop-ins, takes away permissions, and closes homes to others.
  - All of it is one module execution; a loop over M(ansible.builtin.copy) costs one for each file.
  - Files are replaced whole or not at all. Folders that are missing are made.
  - Must run as root; what it writes belongs to root.
extends_documentation_fragment:
  - ananke.jupyterhub.changing
attributes:
  diff_mode:
    support: full
    description: Shows each file before and after.
options:
  files:
    description: The files.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      content:
        description: The whole text of the file.
        type: str
      settings:
        description: Lines C(KEY VALUE) of an existing file, as C(/etc/login.defs) has them; all other lines stay.
        type: dict
      mode:
        description:
          - With O(files[].content) the mode of the file, V(0644) if not given.
          - Without, the permissions that the file or folder may have at most, if it exists.
        type: str
      absent:
        description: Whether the file is removed.
        type: bool
        default: false
  home_mode:
    description:
      - Permissions that homes of accounts with a UID from 1000 to 60000 may have at most. Only a folder that its account owns is changed.
      - If not given, homes are left alone.
    type: str
"""

EXAMPLES = r"""
- name: A drop-in, a setting, permissions and homes
  ananke.jupyterhub.system_files:
    files:
      - path: /etc/systemd/journald.conf.d/site.conf
        content: |
          [Journal]
          Storage=persistent
      - path: /etc/login.defs
        settings: {UMASK: "027"}
      - path: /etc/cron.d
        mode: "0700"
    home_mode: "0750"
  become: true
"""

RETURN = r"""
paths:
  description: Paths that were changed (in check mode, that would be).
  type: list
  elements: str
  returned: success
  sample: [/etc/login.defs]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import commands, system_files

FILE = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str"},
    "settings": {"type": "dict"},
    "mode": {"type": "str"},
    "absent": {"type": "bool", "default": False},
}


def wanted(file: dict[str, t.Any]) -> system_files.Wanted:
    """One item of the option files."""
    mode = None if file["mode"] is None else int(file["mode"], 8)
    settings = None if file["settings"] is None else {key: str(value) for key, value in file["settings"].items()}
    return system_files.Wanted(file["path"], mode, file["content"], settings, file["absent"])


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": FILE,
                "mutually_exclusive": [("content", "settings")],
            },
            "home_mode": {"type": "str"},
        },
        supports_check_mode=True,
    )
    commands.need_root(module, "system_files")
    try:
        home_mode = None if module.params["home_mode"] is None else int(module.params["home_mode"], 8)
        files = [wanted(file) for file in module.params["files"]]
    except ValueError as error:
        module.fail_json(msg=f'a mode must be an octal number in quotes, such as "0644": {error}')
    try:
        with open("/etc/passwd", encoding="utf-8") as stream:
            passwd = stream.read()
        changes = system_files.ensure(files, home_mode, passwd, module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}: look at it on the machine, then run again")
    diff = [
        {"before_header": change.path, "after_header": change.path, "before": change.before, "after": change.after}
        for change in changes
    ]
    module.exit_json(changed=bool(changes), paths=[change.path for change in changes], diff=diff)


if __name__ == "__main__":
    main()
