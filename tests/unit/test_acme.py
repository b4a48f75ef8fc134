"""When certbot is called, what it is told, and what its errors tell an admin."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import acme

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
WANTED = acme.Wanted(
    name="ananke",
    hosts=["hubs.example.org"],
    directory="https://acme.example.org/directory",
    webroot="/var/lib/ananke/acme",
    hook="nginx -t -q && systemctl reload nginx.service",
)
RENEWAL = """\
# renew_before_expiry = 30 days
version = 4.0.0
archive_dir = /etc/letsencrypt/archive/ananke

# Options used in the renewal process
[renewalparams]
account = 980ed564e97f90e224af11d7942bcb49
key_type = ecdsa
renew_hook = nginx -t -q && systemctl reload nginx.service
server = https://acme.example.org/directory
authenticator = webroot
webroot_path = /var/lib/ananke/acme,
[[webroot_map]]
hubs.example.org = /var/lib/ananke/acme
"""
SHOWN = """\
notBefore=Nov 21 23:02:41 2026 GMT
notAfter=Feb 19 23:02:40 2027 GMT
X509v3 Subject Alternative Name:
    DNS:hubs.example.org, DNS:wiki.example.org
"""


def found(left: float, life: float = 90, **changes: str) -> acme.Found:
    """The right certificate, with so many days left."""
    ends = NOW + datetime.timedelta(days=left)
    renewal = {**acme.read_renewal(RENEWAL), **changes}
    return acme.Found(["hubs.example.org"], ends - datetime.timedelta(days=life), ends, renewal)


def test_a_certificate_is_read() -> None:
    hosts, begins, ends = acme.read_certificate(SHOWN)
    assert hosts == ["hubs.example.org", "wiki.example.org"]
    assert begins.isoformat() == "2026-11-21T23:02:41+00:00"
    assert ends.isoformat() == "2027-02-19T23:02:40+00:00"


@pytest.mark.parametrize(
    ("there", "because"),
    [
        (None, [acme.MISSING]),
        (found(89), []),
        (found(29), []),  # certbot's timer has its turn first
        (found(18.1), []),
        (found(17.9), [acme.DUE]),
        (found(1.3, life=6), []),
        (found(1.1, life=6), [acme.DUE]),
        (found(-1), [acme.EXPIRED]),
        (found(80, server="https://staging.example.org/directory"), [acme.OTHER_DIRECTORY]),
        (found(80, webroot_path="/elsewhere"), [acme.OTHER_SETTINGS]),
        (found(80, renew_hook="true"), [acme.OTHER_SETTINGS]),
        (dataclasses.replace(found(80), hosts=["wiki.example.org"]), [acme.OTHER_HOSTS]),
    ],
)
def test_when_certbot_is_called(there: acme.Found | None, because: list[str]) -> None:
    assert acme.reasons(WANTED, there, NOW) == because


def test_the_order_of_names_is_nothing_to_ask_for_a_new_certificate() -> None:
    wanted = dataclasses.replace(WANTED, hosts=["b.example.org", "a.example.org", "b.example.org"])
    there = dataclasses.replace(found(80), hosts=["a.example.org", "b.example.org"])
    assert acme.reasons(wanted, there, NOW) == []
    assert "domains = b.example.org,a.example.org\n" in acme.settings(wanted, [])


def test_settings_for_certbot() -> None:
    plain = acme.settings(WANTED, [acme.MISSING])
    assert "register-unsafely-without-email = true\n" in plain
    assert "keep-until-expiring = true\n" in plain
    assert "eab" not in plain
    known = dataclasses.replace(WANTED, email="ops@example.org", eab_key_id="us", eab_key="secret")
    told = acme.settings(known, [acme.OTHER_DIRECTORY])
    assert "email = ops@example.org\n" in told
    assert "eab-kid = us\neab-hmac-key = secret\n" in told
    assert "force-renewal = true\n" in told
    assert "secret" not in repr(known)


DNS = """\
Saving debug log to /var/log/letsencrypt/letsencrypt.log
Requesting a certificate for hubs.example.org and lost.example.org

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: lost.example.org
  Type:   dns
  Detail: DNS problem: NXDOMAIN looking up A for lost.example.org - check that a
  DNS record exists for this domain

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org.
"""


def test_a_name_that_cannot_be_validated() -> None:
    text = acme.explain(WANTED, DNS)
    assert (
        "lost.example.org: DNS problem: NXDOMAIN looking up A for lost.example.org - check that a DNS record exists"
        in text
    )
    assert "let the name's A and AAAA records point to this machine" in text
    assert "Hint" not in text


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("Domain: a\n  Type:   unauthorized\n  Detail: 404", "on port 80 under that name"),
        (
            "Domain: a\n  Type:   connection\n  Detail: could not resolve URL",
            "A and AAAA records point to this machine",
        ),
        ("Domain: a\n  Type:   connection\n  Detail: Timeout during connect", "on port 80 under that name"),
        ("An unexpected error occurred:\ntoo many certificates (5) already issued", "its staging directory"),
        ("urn:ietf:params:acme:error:externalAccountRequired", "reverse_proxy_acme_eab_key_id"),
        ("Error: urn:ietf:params:acme:error:accountDoesNotExist", "/etc/letsencrypt/accounts"),
        ("SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "reverse_proxy_acme_ca"),
        ("Failed to resolve 'acme' ([Errno -2] Name or service not known)", "cannot find the ACME server's name"),
        ("Requesting 10.42.0.2/dir: Connection refused", "does not answer: try again later"),
        ("Expecting value: line 1 column 1 (char 0)", "no ACME server behind reverse_proxy_acme_directory"),
        ("something else", "the log tells more"),
    ],
)
def test_every_failure_says_what_to_do(output: str, remedy: str) -> None:
    assert f"{remedy}" in acme.explain(WANTED, output)
    assert acme.LOG in acme.explain(WANTED, output)
