#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: demo_ca
short_description: Certificates from a certificate authority of one's own, for demonstrations and tests
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Keeps a small certificate authority in a folder, and one certificate for a list of host names.
  - The certificate is renewed when its names change, when less than C(renew_days) are left, or when it does not fit its key or its authority.
  - Meant to run on the controller (C(delegate_to=localhost)). Not for production, as browsers do not trust such an authority.
attributes:
  check_mode:
    support: full
    description: Says what would be made and makes nothing.
  diff_mode:
    support: none
    description: Keys and certificates are not shown.
  idempotent:
    support: full
    description: Running it again changes nothing until a certificate is due.
requirements:
  - cryptography >= 42
options:
  directory:
    description: Folder of the authority, mode 0700; gets C(ca.pem), C(ca.key), C(NAME.pem) and C(NAME.key).
    type: path
    required: true
  name:
    description: Name of the certificate's files.
    type: str
    required: true
  hosts:
    description: Host names that the certificate is for.
    type: list
    elements: str
    required: true
  renew_days:
    description: Renew the certificate when fewer days are left.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: A certificate for a test machine
  ananke.jupyterhub.demo_ca:
    directory: build/demo/ca
    name: hubs
    hosts: [hubs.localhost]
  delegate_to: localhost
"""

RETURN = r"""
ca:
  description: Path of the authority's certificate, which browsers must be told to trust.
  type: str
  returned: success
certificate:
  description: Path of the certificate.
  type: str
  returned: success
key:
  description: Path of its private key.
  type: str
  returned: success
"""

import datetime
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ananke.jupyterhub.plugins.module_utils import files

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

CA_DAYS = 3650
LEAF_DAYS = 365
Pair = tuple[t.Any, t.Any]


def load(directory: str, name: str) -> Pair | None:
    """Certificate and key NAME of a folder, None where one is missing or damaged."""
    certificate, key = (files.read(os.path.join(directory, f"{name}.{kind}")) for kind in ("pem", "key"))
    if certificate is None or key is None:
        return None
    try:
        return (
            x509.load_pem_x509_certificate(certificate.encode()),
            serialization.load_pem_private_key(key.encode(), password=None),
        )
    except ValueError:
        return None


def save(directory: str, name: str, pair: Pair) -> None:
    """Write certificate and key NAME into a folder."""
    certificate, key = pair
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    files.write(os.path.join(directory, f"{name}.key"), text, 0o600)
    files.write(
        os.path.join(directory, f"{name}.pem"), certificate.public_bytes(serialization.Encoding.PEM).decode(), 0o644
    )


def builder(subject: str, issuer: t.Any, key: t.Any, days: int) -> t.Any:
    """A certificate that is all but signed."""
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def usage(authority: bool) -> t.Any:
    """Key usage of an authority or of a server."""
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def new_authority() -> Pair:
    """A new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    ready = (
        builder("ananke.jupyterhub demo CA, not for production", None, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(authority=True), critical=True)
    )
    return ready.sign(key, hashes.SHA256()), key


def new_certificate(authority: Pair, hosts: list[str]) -> Pair:
    """A new server certificate of this authority."""
    certificate, authority_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    ready = (
        builder(hosts[0][:64], certificate.subject, key, LEAF_DAYS)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    return ready.sign(authority_key, hashes.SHA256()), key


def due(pair: Pair | None, authority: Pair, hosts: list[str], renew_days: int) -> bool:
    """Whether a certificate must be made anew."""
    if pair is None:
        return True
    certificate, key = pair
    try:
        certificate.verify_directly_issued_by(authority[0])
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:
        return True
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return (
        certificate.public_key() != key.public_key()
        or names.get_values_for_type(x509.DNSName) != hosts
        or left < datetime.timedelta(days=renew_days)
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "hosts": {"type": "list", "elements": "str", "required": True},
            "renew_days": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if not HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    directory, name = module.params["directory"], module.params["name"]
    authority = load(directory, "ca")
    changed = authority is None
    if authority is None:
        authority = new_authority()
    pair = load(directory, name)
    renew = due(pair, authority, module.params["hosts"], module.params["renew_days"])
    if not module.check_mode:
        if changed or renew:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        if changed:
            save(directory, "ca", authority)
        if renew:
            save(directory, name, new_certificate(authority, module.params["hosts"]))
    module.exit_json(
        changed=changed or renew,
        ca=os.path.join(directory, "ca.pem"),
        certificate=os.path.join(directory, f"{name}.pem"),
        key=os.path.join(directory, f"{name}.key"),
    )


if __name__ == "__main__":
    main()
