#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: acme_certificate
short_description: A certificate from an ACME server, which certbot then renews by itself
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Lets certbot get a certificate by challenge http-01 unless there is the right one.
  - There is the right one when it is for O(hosts), from O(directory), and neither expired nor overdue. Then certbot is not even called.
  - Renewals are the business of certbot's own timer.
  - Must run as root.
attributes:
  check_mode:
    support: full
    description: Says whether a certificate would be asked for, also where certbot is not installed yet.
  diff_mode:
    support: none
    description: Keys and certificates are not shown.
  idempotent:
    support: full
    description: Running it again changes nothing until a renewal is overdue.
requirements:
  - certbot
  - openssl
options:
  name:
    description: What certbot calls the certificate; it is found below C(/etc/letsencrypt/live/NAME).
    type: str
    required: true
  hosts:
    description: Host names that the certificate is for.
    type: list
    elements: str
    required: true
  directory:
    description: URL of the server's directory.
    type: str
    required: true
  email:
    description: Address that the server's operator may write to. A later change is told to the server as well.
    type: str
    default: ""
  eab_key_id:
    description: Identifier of a key for external account binding.
    type: str
    default: ""
  eab_key:
    description: The key itself (base64url).
    type: str
    default: ""
  ca:
    description: File on the machine with the authorities to trust for talking to the server. If empty, those that the machine trusts.
    type: path
    default: ""
  webroot:
    description: Folder from which the web server answers challenges. It is made if it is not there.
    type: path
    required: true
  hook:
    description: Command to run after each renewal, by a shell.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: A certificate from Let's Encrypt
  ananke.jupyterhub.acme_certificate:
    name: wiki
    hosts: [wiki.example.org]
    directory: https://acme-v02.api.letsencrypt.org/directory
    webroot: /var/www/acme
    hook: systemctl reload nginx.service
  become: true
"""

RETURN = r"""
reasons:
  description: Why a certificate was (in check mode, would be) asked for, in words.
  type: list
  elements: str
  returned: always
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""

import contextlib
import datetime
import glob
import json
import os
import tempfile
import typing as t
import urllib.parse

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import acme, files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Commands

NOTE = "/etc/letsencrypt/ananke-{name}.json"
"""Which address the server was told last; certbot does not keep it."""


def has_account(directory: str) -> bool:
    """Whether certbot is known to the server."""
    address = urllib.parse.urlsplit(directory)
    return bool(glob.glob(f"{acme.ACCOUNTS}/{glob.escape(address.netloc + address.path)}/*/regr.json"))


def find(name: str, commands: Commands) -> acme.Found | None:
    """The certificate that is there."""
    certificate = f"{acme.LIVE}/{name}/cert.pem"
    renewal = files.read(f"{acme.RENEWAL}/{name}.conf")
    if renewal is None or not os.path.exists(certificate):
        return None
    shown = ["openssl", "x509", "-in", certificate, "-noout", "-dates", "-ext", "subjectAltName"]
    status, output = commands.status(shown)
    if status:
        return None
    return acme.Found(*acme.read_certificate(output), acme.read_renewal(renewal))


@contextlib.contextmanager
def settings_file(text: str, folder: str) -> t.Iterator[str]:
    """A file that only root reads, as long as certbot needs it."""
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix="ananke-acme-", suffix=".ini") as stream:
        stream.write(text)
        stream.flush()
        yield stream.name


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "hosts": {"type": "list", "elements": "str", "required": True},
            "directory": {"type": "str", "required": True},
            "email": {"type": "str", "default": ""},
            "eab_key_id": {"type": "str", "default": ""},
            "eab_key": {"type": "str", "default": "", "no_log": True},
            "ca": {"type": "path", "default": ""},
            "webroot": {"type": "path", "required": True},
            "hook": {"type": "str", "required": True},
        },
        required_together=[("eab_key_id", "eab_key")],
        supports_check_mode=True,
    )
    given = {**module.params}
    authority = given.pop("ca")
    wanted = acme.Wanted(**given)
    commands = Commands(module)
    found = find(wanted.name, commands)
    because = acme.reasons(wanted, found, datetime.datetime.now(datetime.UTC))
    note = NOTE.format(name=wanted.name)
    told = json.dumps({"directory": wanted.directory, "email": wanted.email}) + "\n"
    acts = ["certonly"] if because else []
    known = has_account(wanted.directory)
    if known and files.read(note) != told:
        acts.insert(0, "update_account")
        because.append(acme.OTHER_ADDRESS)

    if acts and not module.check_mode:
        files.folder(wanted.webroot)
        trust = {"REQUESTS_CA_BUNDLE": authority} if authority else {}
        with settings_file(acme.settings(wanted, because), module.tmpdir) as path:
            for act in acts:
                status, output = commands.status(["certbot", act, "--config", path], environment=trust)
                if status:
                    if has_account(wanted.directory) and not known:
                        files.write(
                            note, told, 0o644
                        )  # the account is there, with this address, though the certificate is not
                    module.fail_json(msg=acme.explain(wanted, output), reasons=because, commands=commands.run)
        files.write(note, told, 0o644)
    module.exit_json(changed=bool(because), reasons=because, commands=commands.run)


if __name__ == "__main__":
    main()
