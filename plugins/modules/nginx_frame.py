#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_frame
short_description: Put several files of nginx's configuration in force together, or leave everything as it was
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Makes folders, writes and removes files, lets nginx test its whole configuration with them, and reloads nginx once.
    When nginx refuses, all old files come back.
  - Waits for other runs of this module and of M(ananke.jupyterhub.nginx_fragment), which is the one to use for a single file.
  - Must run as root.
extends_documentation_fragment:
  - ananke.jupyterhub.changing
attributes:
  check_mode:
    support: full
    description: Says what would change, also where nginx is not installed yet.
  diff_mode:
    support: partial
    description: Shows the changed files, but not those with secrets.
options:
  folders:
    description: Folders that must be there.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The folder.
        type: path
        required: true
      mode:
        description: Its mode.
        type: str
        default: "0755"
  files:
    description: Files as they are to be. Folders that are not among O(folders) must exist.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file.
        type: path
        required: true
      content:
        description: The file's text.
        type: str
      secret:
        description: The file's text, kept out of all output; its mode is 0600.
        type: str
  removed:
    description: Files that must not be there.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: A site with a certificate of its own
  ananke.jupyterhub.nginx_frame:
    files:
      - {path: /etc/nginx/ananke/tls/wiki.pem, content: "{{ lookup('ansible.builtin.file', 'wiki.pem') }}"}
      - {path: /etc/nginx/ananke/tls/wiki.key, secret: "{{ lookup('ansible.builtin.file', 'wiki.key') }}"}
      - {path: /etc/nginx/ananke/sites.d/wiki.conf, content: "{{ lookup('ansible.builtin.template', 'wiki.conf.j2') }}"}
  become: true
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be done), in words.
  type: list
  elements: str
  returned: success
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import files, nginx
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Commands


def fragment(wanted: dict[str, t.Any]) -> nginx.Fragment:
    """One of the option ``files``."""
    if wanted["secret"] is not None:
        return nginx.Fragment(wanted["path"], wanted["secret"], 0o600)
    return nginx.Fragment(wanted["path"], wanted["content"])


def difference(wanted: nginx.Fragment) -> dict[str, str]:
    """One file's part of the diff."""
    shown = {"before_header": wanted.path, "after_header": wanted.path}
    if wanted.mode == 0o600:
        return {**shown, "before": "(a secret)\n", "after": "(another secret)\n"}
    return {**shown, "before": files.read(wanted.path) or "", "after": wanted.content or ""}


def main() -> None:
    """Entry point."""
    file = {"path": {"type": "path", "required": True}, "content": {"type": "str"}}
    module = AnsibleModule(
        argument_spec={
            "folders": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "mode": {"type": "str", "default": "0755"},
                },
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {**file, "secret": {"type": "str", "no_log": True}},
                "mutually_exclusive": [("content", "secret")],
                "required_one_of": [("content", "secret")],
            },
            "removed": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    folders = [nginx.Folder(one["path"], int(one["mode"], 8)) for one in module.params["folders"]]
    # first what goes: it may stand in the way of what comes
    wanted = [nginx.Fragment(path, None) for path in module.params["removed"]]
    wanted += [fragment(one) for one in module.params["files"]]
    diff = [difference(one) for one in wanted if one.difference()]
    commands = Commands(module)
    try:
        foretold = nginx.foretell_all(wanted, folders)
        actions = foretold if module.check_mode else nginx.apply_all(wanted, commands.status, folders)
    except (nginx.NginxError, FileNotFoundError) as error:
        module.fail_json(msg=str(error), commands=commands.run)
    module.exit_json(changed=bool(actions), actions=actions, commands=commands.run, diff=diff)


if __name__ == "__main__":
    main()
