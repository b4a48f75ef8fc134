#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_fragment
short_description: Put a file of nginx's configuration in force, or leave everything as it was
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Writes one file, lets nginx test its whole configuration with it, and reloads nginx. When nginx refuses, the old file comes back.
  - Runs side by side wait for each other. A reload that a killed run still owed is made good.
  - Must run as root.
extends_documentation_fragment:
  - ananke.jupyterhub.changing
attributes:
  check_mode:
    support: full
    description: Says whether the file would change, also where nginx is not installed yet.
  diff_mode:
    support: full
    description: Shows the changed file.
options:
  path:
    description: The file, below C(/etc/nginx/ananke) or included by nginx in another way.
    type: path
    required: true
  content:
    description: The file's text. If not given, the file is removed.
    type: str
"""

EXAMPLES = r"""
- name: A site of its own beside the hubs
  ananke.jupyterhub.nginx_fragment:
    path: /etc/nginx/ananke/sites.d/wiki.conf
    content: "{{ lookup('ansible.builtin.template', 'wiki.conf.j2') }}"
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import files, nginx
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Commands


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "content": {"type": "str"}},
        supports_check_mode=True,
    )
    path, content = module.params["path"], module.params["content"]
    before = files.read(path)
    diff = {"before": before or "", "after": content or "", "before_header": path, "after_header": path}
    commands = Commands(module)
    try:
        actions = nginx.foretell(path, content) if module.check_mode else nginx.apply(path, content, commands.status)
    except (nginx.NginxError, FileNotFoundError) as error:
        module.fail_json(msg=str(error), commands=commands.run)
    module.exit_json(
        changed=bool(actions), actions=actions, commands=commands.run, diff=diff if before != content else {}
    )


if __name__ == "__main__":
    main()
