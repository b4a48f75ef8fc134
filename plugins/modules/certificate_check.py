#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_check
short_description: Refuse a TLS certificate that would not work, before it is served
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Fails when a certificate is expired, not valid yet, not for the given host names, or not for the given key, and says what to do.
  - Warns when it expires soon, or when its chain is incomplete.
  - Changes nothing. Meant to run on the controller (C(delegate_to=localhost)).
extends_documentation_fragment:
  - ananke.jupyterhub.reading
requirements:
  - cryptography >= 42
options:
  certificate:
    description: The certificate and the chain behind it (PEM), as text.
    type: str
    required: true
  key:
    description: Its private key (PEM), as text.
    type: str
    required: true
  hosts:
    description: Host names that it will be served for.
    type: list
    elements: str
    required: true
  label:
    description: What messages call the certificate, for instance where it comes from.
    type: str
    required: true
  warn_days:
    description: Warn when fewer days are left, or less than a fifth of the certificate's life.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: The certificate will work
  ananke.jupyterhub.certificate_check:
    certificate: "{{ lookup('ansible.builtin.file', 'wiki.pem') }}"
    key: "{{ lookup('ansible.builtin.file', 'wiki.key') }}"
    hosts: [wiki.example.org]
    label: wiki.pem
  delegate_to: localhost
"""

RETURN = r"""
not_after:
  description: When it expires (ISO 8601, UTC).
  type: str
  returned: success
ocsp:
  description: Whether its authority names an OCSP responder, so that stapling makes sense.
  type: bool
  returned: success
warnings:
  description: What is not right but may do for now.
  type: list
  elements: str
  returned: when there are any
"""

import datetime

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ananke.jupyterhub.plugins.module_utils import certificates


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
            "hosts": {"type": "list", "elements": "str", "required": True},
            "label": {"type": "str", "required": True},
            "warn_days": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if not certificates.HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    given = module.params
    now = datetime.datetime.now(datetime.UTC)
    report = certificates.check(given["certificate"], given["key"], given["hosts"], given["warn_days"], now)
    for warning in report.warnings:
        module.warn(f"{given['label']}: {warning}")
    if report.refusals or report.ends is None:
        module.fail_json(msg="\n".join(f"{given['label']}: {refusal}" for refusal in report.refusals))
    module.exit_json(changed=False, not_after=report.ends.isoformat(), ocsp=report.ocsp)


if __name__ == "__main__":
    main()
