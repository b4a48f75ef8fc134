# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a certificate that somebody wants to serve. Needs cryptography, as Ansible itself does."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import re
import typing as t

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
RSA_BITS = 2048
"""Debian's OpenSSL refuses less, so nginx would not start."""


@dataclasses.dataclass
class Report:
    """What was found."""

    refusals: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    ends: datetime.datetime | None = None
    ocsp: bool = False
    """Whether its authority still answers questions about revocation."""


def soon(begins: datetime.datetime, ends: datetime.datetime, days: int) -> datetime.timedelta:
    """What must be left of a certificate: ``days``, but not more than a fifth of its life, which may be short."""
    return min(datetime.timedelta(days=days), (ends - begins) / 5)


def matches(host: str, name: str) -> bool:
    """Whether a name in a certificate, perhaps with a wildcard as its first label, stands for a host."""
    host, name = host.lower().rstrip("."), name.lower().rstrip(".")
    first, _dot, rest = name.partition(".")
    return host == name or (first == "*" and host.partition(".")[2] == rest != "")


def check(certificate: str, key: str, hosts: t.Sequence[str], days: int, now: datetime.datetime) -> Report:
    """Look at a certificate with its chain, and at its key (both PEM).

    :param hosts: names that it will be served for
    :param days: warn when fewer days are left
    """
    report = Report()
    try:
        chain = [x509.load_pem_x509_certificate(block.encode()) for block in BLOCK.findall(certificate)]
    except ValueError as error:
        chain = []
        report.refusals.append(f"it is damaged ({error}): export it again, as PEM")
    if not chain:
        report.refusals.append("there is no certificate in PEM form (-----BEGIN CERTIFICATE-----) in it")
        return report
    leaf = chain[0]
    report.ends = leaf.not_valid_after_utc
    report.refusals += _key_problems(leaf, chain, key) + _name_problems(leaf, hosts)
    if now >= report.ends:
        report.refusals.append(f"it has expired on {report.ends:%Y-%m-%d}: get a new one")
    elif now < leaf.not_valid_before_utc:
        report.refusals.append(
            f"it is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: is a clock wrong?"
        )
    elif report.ends - now < soon(leaf.not_valid_before_utc, report.ends, days):
        report.warnings.append(
            f"it expires on {report.ends:%Y-%m-%d}, in {(report.ends - now).days} days: get a new one"
        )
    authorities = _access(leaf)
    report.ocsp = AuthorityInformationAccessOID.OCSP in authorities and len(chain) > 1
    report.warnings += _chain_problems(chain, AuthorityInformationAccessOID.CA_ISSUERS in authorities, now)
    return report


def _key_problems(leaf: t.Any, chain: t.Sequence[t.Any], key: str) -> list[str]:
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except TypeError:
        return [
            "its key is locked by a pass phrase, which nginx cannot ask for: unlock it (openssl pkey), and keep it in a vault"
        ]
    except ValueError:
        return ["its key is not a private key in PEM form"]
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size < RSA_BITS:
        return [f"its key is too short ({private.key_size} bits): make one with {RSA_BITS} bits or more"]
    public = private.public_key()
    if public == leaf.public_key():
        return []
    if any(public == other.public_key() for other in chain[1:]):
        return ["the server's own certificate must stand first in the file, then the one that signed it, and so on"]
    return ["its key belongs to another certificate: give the key that the certificate was requested with"]


def _name_problems(leaf: t.Any, hosts: t.Sequence[str]) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        known = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        known = []
    absent = [host for host in hosts if not any(matches(host, name) for name in known)]
    if not absent:
        return []
    return [
        f"it is not for {', '.join(absent)} but for {', '.join(known) or 'no host name at all'}: get one for the right name"
    ]


def _access(leaf: t.Any) -> set[t.Any]:
    """The kinds of addresses of its authority that a certificate names."""
    try:
        access = leaf.extensions.get_extension_for_oid(ExtensionOID.AUTHORITY_INFORMATION_ACCESS).value
    except x509.ExtensionNotFound:
        return set()
    return {description.access_method for description in access}


def _chain_problems(chain: t.Sequence[t.Any], intermediate: bool, now: datetime.datetime) -> list[str]:
    """Browsers often forgive these, other programs do not.

    :param intermediate: whether the authority says where its own certificate is to be had, as those with intermediate ones do
    """
    if len(chain) == 1 and intermediate:
        return [
            "the file holds no intermediate certificate, so not every program will trust it: append your authority's chain"
        ]
    problems = []
    for lower, upper in itertools.pairwise(chain):
        try:
            lower.verify_directly_issued_by(upper)
        except Exception:
            subject = upper.subject.rfc4514_string()
            problems.append(f"the chain is broken before {subject}: put each certificate's issuer behind it")
        if now >= upper.not_valid_after_utc:
            problems.append(f"the chain's certificate {upper.subject.rfc4514_string()} has expired: get a new chain")
    return problems
