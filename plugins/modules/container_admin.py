#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_admin
short_description: Give a container admin all that root must grant
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Creates the unprivileged account that owns hubs' containers, with a UID of at least 1000, 65536 subordinate UIDs and GIDs,
    lingering, password hash, authorised keys, a home with mode 0750 and a C(storage.conf) that names the shared image store.
  - Grants public paths of the machine's nginx to hubs of that account. A fragment is validated with the whole configuration before nginx
    reloads; runs side by side wait for each other.
  - Where wanted, puts the home onto a file system image of its own with C(nosuid) and C(nodev), mounted by a systemd unit without which the account's
    systemd manager does not start. A home that holds files is not moved unasked.
  - Where wanted, keeps users of the account's hubs to quotas inside that home. The service C(ananke-quotas) gives homes their projects.
  - Provides the turns that starting hubs take, so that no more start at once than the machine's CPUs start well.
  - All of it is one module execution, and without changes it starts no process.
  - Must run as root.
extends_documentation_fragment:
  - ananke.jupyterhub.changing
  - ananke.jupyterhub.changing.in_words
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing, also where the account or nginx does not exist yet.
options:
  name:
    description: Name of the account.
    type: str
    required: true
  uid:
    description: UID of a new account, at least 1000; chosen by the machine if not given. An existing account must have it.
    type: int
  password_hash:
    description: Hash for C(/etc/shadow), as C(mkpasswd) or passlib make it. If not given, the password is left alone.
    type: str
  password_change:
    description:
      - Whether O(password_hash) is only the first password, which must be changed at the next login and is left alone from then on. Another
        O(password_hash) than before is a first password again.
      - If V(false), the account's password is O(password_hash) after each run.
    type: bool
    default: false
  authorized_keys:
    description: All public keys that may log in, one per item. If not given, the account's own file is left alone.
    type: list
    elements: str
  store:
    description: Path of the shared image store. If not given, the account's C(storage.conf) is left alone.
    type: path
  home_size:
    description:
      - Size of the home, which is then a file system on a sparse image of its own in C(/var/lib/ananke/homes), such as V(50G). It is rounded
        down to whole 128 MiB; the smallest is V(256M).
      - A larger size than before enlarges the file system, while it is in use if the kernel does that. A smaller one is refused.
      - If not given, the home stays as it is.
    type: bytes
  home_offline:
    description:
      - Whether the account's hubs may be stopped to move a home that holds files onto an image, or to enlarge one where the kernel does not do
        that while it is in use. Without it both are refused, with a message.
    type: bool
    default: false
  locations:
    description: Public paths that nginx hands to hubs of this account.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the hub; the fragment's file is named after it.
        type: str
        required: true
      path:
        description: Public path; starts and ends with a slash.
        type: str
        required: true
      port:
        description: The hub's port on the machine's loopback.
        type: int
        required: true
      upload_limit:
        description: Largest request body, as an nginx size; V(0) means no limit.
        type: str
        default: 1g
  quotas:
    description: Quotas for users of this account's hubs. They need O(home_size), a kernel that counts projects, and the role quotas on the machine.
    type: list
    elements: dict
    default: []
    suboptions:
      hub:
        description: Name of the hub.
        type: str
        required: true
      size:
        description: Bytes of each hub user's home. If not given, the hub has no quotas.
        type: int
      users:
        description: Bytes by name, for hub users who have another limit.
        type: dict
        default: {}
  backups:
    description: Backups of this account's hubs. They need the role backup on the machine. The repository is tried before anything is written.
    type: list
    elements: dict
    default: []
    suboptions:
      hub:
        description: Name of the hub.
        type: str
        required: true
      repository:
        description: Repository of restic. If not given, the hub has no backups; what was backed up stays.
        type: str
      password:
        description: Its password.
        type: str
      environment:
        description: Further variables of restic, for example for S3.
        type: dict
        default: {}
      schedule:
        description: When backups are made, as systemd.time(7) has it.
        type: str
        default: daily
      keep:
        description: How many snapshots stay, by C(last), C(hourly), C(daily), C(weekly), C(monthly) and C(yearly).
        type: dict
        default: {}
      exclude:
        description: Patterns of files that are left out, below the hub's folder.
        type: list
        elements: str
        default: []
"""

EXAMPLES = r"""
- name: The account that owns the hub math101, and the hub's public path
  ananke.jupyterhub.container_admin:
    name: math101
    store: /var/lib/ananke/store
    authorized_keys:
      - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2o7ngmhZ5WJ9Ysvq2vY2wL1XxOaLr5tF0f6yq5D2vA lecturer
    locations:
      - name: math101
        path: /math101/
        port: 8101
  become: true
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be done), in words.
  type: list
  elements: str
  returned: success
  sample: [account math101 created, lingering enabled]
commands:
  description: The commands that were run; secrets travel on standard input and are not among them.
  type: list
  elements: str
  returned: success
exists:
  description: Whether the account exists now; false only in check mode.
  type: bool
  returned: success
"""

import shlex
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import (
    accounts,
    commands,
    grants,
    homes,
    logins,
    nginx,
    sockets,
)


class Commands(commands.Commands):
    """The commands, some of which must succeed."""

    def checked(self, argv: t.Sequence[str], stdin: str | None = None) -> str:
        """Output of a command that must succeed."""
        status, output = self.status(argv, stdin)
        if status:
            raise accounts.AccountError(f"{shlex.join(argv)} failed with status {status}: {output.strip()}")
        return output


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=grants.OPTIONS, supports_check_mode=True)
    wanted = module.params
    commands.need_root(module, "container_admin")
    problems = sockets.taken({**location, "container_admin": wanted["name"]} for location in wanted["locations"])
    if problems:
        module.fail_json(msg="; ".join(problems))
    ran = Commands(module)
    try:
        done = grants.foretell(wanted) if module.check_mode else grants.grant(wanted, ran.checked, ran.status)
    except (accounts.AccountError, logins.LoginError, nginx.NginxError) as error:
        module.fail_json(msg=str(error), commands=ran.run)
    warnings = grants.warnings(wanted)
    if wanted["home_size"] is not None and done and not module.check_mode:
        warnings += [warning for warning in [homes.overcommitted()] if warning]
    for warning in warnings:
        module.warn(warning)
    module.exit_json(
        changed=bool(done), actions=done, commands=ran.run, exists=accounts.lookup(wanted["name"]) is not None
    )


if __name__ == "__main__":
    main()
