# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When certbot has to be called, with which settings, and what its errors mean for an admin."""

from __future__ import annotations

import dataclasses
import datetime
import re
import typing as t

LIVE = "/etc/letsencrypt/live"
RENEWAL = "/etc/letsencrypt/renewal"
ACCOUNTS = "/etc/letsencrypt/accounts"
LOG = "/var/log/letsencrypt/letsencrypt.log"

MISSING = "there is none yet"
EXPIRED = "it has expired"
DUE = "its renewal is overdue"
OTHER_HOSTS = "it is for other names"
OTHER_DIRECTORY = "it is from another server"
OTHER_SETTINGS = "its renewal is set up otherwise"
OTHER_ADDRESS = "the server knows another address of yours"

REMEDIES = (
    (
        r"Type:\s+dns|could not resolve|NXDOMAIN",
        "let the name's A and AAAA records point to this machine; the server asks the public name servers, and a new record needs its time",
    ),
    (
        r"Type:\s+(connection|unauthorized|tls)",
        "the server must reach this machine on port 80 under that name: look at the name's A and AAAA records (both, if there are both),"
        " at firewalls before the machine, and at what else answers there",
    ),
    (
        r"rateLimited|too many (certificates|failed|new orders|currently pending)",
        "wait as long as the server says; meanwhile try with its staging directory (reverse_proxy_acme_directory)",
    ),
    (
        r"externalAccountRequired|[Ee]xternal [Aa]ccount [Bb]inding|EAB",
        "the server wants to know whose account this is, or does not know what it was told: set reverse_proxy_acme_eab_key_id and"
        " reverse_proxy_acme_eab_key to what the server's operator gave you",
    ),
    (
        r"accountDoesNotExist",
        "the server has forgotten its accounts: remove the one below /etc/letsencrypt/accounts on the machine, and run again",
    ),
    (r"rejectedIdentifier", "the server issues no certificates for that name: correct reverse_proxy_acme_names"),
    (
        r"invalidContact|unsupportedContact|invalidEmail|valid email",
        "correct reverse_proxy_acme_email, or leave it empty",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
        "the machine does not trust the ACME server: where that is one of your own, set reverse_proxy_acme_ca to its authority's certificate",
    ),
    (
        r"NameResolutionError|Name or service not known|name resolution|No address associated",
        "the machine cannot find the ACME server's name: correct reverse_proxy_acme_directory, or the machine's name servers",
    ),
    (
        r"Connection refused|Max retries exceeded|timed out|Network is unreachable|No route to host|RemoteDisconnected",
        "the ACME server does not answer: try again later, or correct reverse_proxy_acme_directory, or let the machine out to it",
    ),
    (
        r"KeyError|404|JSONDecodeError|Expecting value",
        "there is no ACME server behind reverse_proxy_acme_directory; the URL often ends with /directory",
    ),
)
NOISE = (
    "Saving debug log",
    "Ask for help",
    "See the logfile",
    "Account registered",
    "Requesting a certificate",
    "Hint:",
)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A certificate as the admin wants it."""

    name: str
    hosts: t.Sequence[str]
    directory: str
    webroot: str
    hook: str
    email: str = ""
    eab_key_id: str = ""
    eab_key: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True)
class Found:
    """What is there: the certificate, and how certbot is to renew it."""

    hosts: t.Sequence[str]
    begins: datetime.datetime
    ends: datetime.datetime
    renewal: t.Mapping[str, str]


def read_certificate(text: str) -> tuple[list[str], datetime.datetime, datetime.datetime]:
    """Names, beginning and end of a certificate, from what ``openssl x509 -noout -dates -ext subjectAltName`` prints."""
    moments = dict(re.findall(r"^(notBefore|notAfter)=(.+?)\s*$", text, re.MULTILINE))
    begins, ends = (
        datetime.datetime.strptime(moments[key], "%b %d %H:%M:%S %Y %Z").replace(tzinfo=datetime.UTC)
        for key in ("notBefore", "notAfter")
    )
    return re.findall(r"DNS:([^,\s]+)", text), begins, ends


def read_renewal(text: str) -> dict[str, str]:
    """The settings in certbot's file about a renewal."""
    return dict(re.findall(r"^(\w+) = (.*?),?\s*$", text, re.MULTILINE))


def reasons(wanted: Wanted, found: Found | None, now: datetime.datetime) -> list[str]:
    """Why certbot must be called, in words; empty when everything is as it should be.

    certbot's timer renews when a third of a certificate's life is left, or 30 days; with a fifth left, something is wrong.
    """
    if found is None:
        return [MISSING]
    because = []
    if found.ends <= now:
        because.append(EXPIRED)
    elif found.ends - now < (found.ends - found.begins) / 5:
        because.append(DUE)
    if sorted(found.hosts) != sorted(set(wanted.hosts)):
        because.append(OTHER_HOSTS)
    if found.renewal.get("server") != wanted.directory:
        because.append(OTHER_DIRECTORY)
    if found.renewal.get("renew_hook") != wanted.hook or found.renewal.get("webroot_path") != wanted.webroot:
        because.append(OTHER_SETTINGS)
    return because


def settings(wanted: Wanted, because: t.Sequence[str]) -> str:
    """A configuration file for ``certbot certonly``: secrets have no place on a command line, which everybody can read."""
    lines = {
        "authenticator": "webroot",
        "webroot-path": wanted.webroot,
        "cert-name": wanted.name,
        "domains": ",".join(dict.fromkeys(wanted.hosts)),
        "server": wanted.directory,
        "key-type": "ecdsa",
        "deploy-hook": wanted.hook,
        "agree-tos": "true",
        "non-interactive": "true",
        "renew-with-new-domains": "true",
    }
    # only a new certificate takes over another server or other settings
    anew = OTHER_DIRECTORY in because or OTHER_SETTINGS in because
    lines["force-renewal" if anew else "keep-until-expiring"] = "true"
    if wanted.email:
        lines["email"] = wanted.email
    else:
        lines["register-unsafely-without-email"] = "true"
    if wanted.eab_key_id:
        lines.update({"eab-kid": wanted.eab_key_id, "eab-hmac-key": wanted.eab_key})
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def explain(wanted: Wanted, output: str) -> str:
    """What went wrong and what to do, out of what certbot printed."""
    problems = re.findall(
        r"Domain:\s*(\S+)\s+Type:\s*(\S+)\s+Detail:\s*(.+?)\s*(?=\n\s*\n|\n\s*Domain:|\Z)", output, re.DOTALL
    )
    if problems:
        said = "; ".join(f"{host}: {' '.join(detail.split())} ({kind})" for host, kind, detail in problems)
    else:
        lines = [line.strip() for line in output.splitlines() if line.strip() and not line.strip().startswith(NOISE)]
        said = " ".join(lines)[-600:] or "certbot says nothing"
    remedy = next((text for pattern, text in REMEDIES if re.search(pattern, output)), "the log tells more")
    return f"no certificate from {wanted.directory} for {', '.join(wanted.hosts)}: {said}. What to do: {remedy}. Log on the machine: {LOG}"
