"""What stands before the hubs, as somebody on the network sees it: TLS, names, redirects, certificates and their renewal."""

from __future__ import annotations

import datetime
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from acme_server import EAB_KEY, EAB_KEY_ID, AcmeServer, acme_server
from ansible_collections.ananke.jupyterhub.plugins.module_utils import nginx
from certificates import Issuer
from visitor import HOST, Visitor, WebSocket

import playbook
from testbed.client import MACHINE4, Client
from testbed.machine import Machine

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "tests/machine/inventory"
PORT = 8199
PROBE = "/etc/nginx/ananke/locations.d/probe.conf"
CERTIFICATES = "ananke-certificates.service"
MAIL = "/run/probe/mail"
Proxy = Callable[..., playbook.Outcome]


def proxy(*more: str, **variables: object) -> playbook.Outcome:
    """Apply the role, with settings of the test's own."""
    given = json.dumps({f"reverse_proxy_{name}": value for name, value in variables.items()})
    return playbook.run("machines", INVENTORY, "--tags", "reverse_proxy", "--extra-vars", given, *more, timeout=300)


def applied(**variables: object) -> playbook.Outcome:
    """The same; it must succeed."""
    outcome = proxy(**variables)
    assert outcome.status == 0, outcome.output[-4000:]
    return outcome


def said(outcome: playbook.Outcome) -> str:
    """What a run printed, as one line: Ansible breaks lines where it likes."""
    return " ".join(outcome.output.split())


@pytest.fixture(scope="module")
def visitor(client: Client, machine: Machine) -> Visitor:
    """Somebody who trusts the demo authority."""
    return Visitor(client, ROOT / "build" / machine.name / "ca/ca.pem")


@pytest.fixture(scope="module", autouse=True)
def hub(machine: Machine) -> Iterator[None]:
    """A stand-in for a hub behind nginx; in the end the machine is as it was."""
    program = (Path(__file__).parent / "upstream.py").read_text()
    machine.exec("sh", "-c", "mkdir -p /run/probe && cat >/run/probe/upstream.py", input=program)
    machine.exec("systemd-run", "--quiet", "--unit=probe", "python3", "/run/probe/upstream.py", str(PORT))
    machine.exec("sh", "-c", f"cat >{PROBE}", input=nginx.location("probe", "/probe/", PORT, "1m"))
    machine.exec("systemctl", "reload", "nginx.service")
    yield
    machine.exec("sh", "-c", f"systemctl stop probe; rm -rf {PROBE} /run/probe")
    applied()


# --- as the inventory has it: a certificate of the demo authority


@pytest.fixture(scope="module")
def scan(client: Client) -> ElementTree.Element:
    """What sslscan finds."""
    found = client.run(
        "sslscan", "--no-colour", "--show-certificate", f"--sni-name={HOST}", "--xml=-", f"{MACHINE4}:443"
    )
    test = ElementTree.fromstring(found.stdout).find("ssltest")  # noqa: S314 - our own scanner's
    assert test is not None
    return test


def test_versions_of_tls(scan: ElementTree.Element) -> None:
    enabled = {f"{one.get('type')} {one.get('version')}" for one in scan.iter("protocol") if one.get("enabled") == "1"}
    assert enabled == {"tls 1.2", "tls 1.3"}
    assert [one.attrib for one in scan.iter("renegotiation") if one.get("secure") == "0" != one.get("supported")] == []
    assert [one.attrib for one in scan.iter("heartbleed") if one.get("vulnerable") != "0"] == []


def test_ciphers(scan: ElementTree.Element) -> None:
    ciphers = {str(one.get("cipher")) for one in scan.iter("cipher")}
    assert {name for name in ciphers if name.startswith("TLS_")} == {
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    }
    older = {name for name in ciphers if not name.startswith("TLS_")}
    assert older
    assert [
        name for name in older if not re.fullmatch(r"ECDHE-(ECDSA|RSA)-(.+-GCM-SHA\d+|CHACHA20-POLY1305)", name)
    ] == []
    assert {str(one.get("name")).split()[0] for one in scan.iter("group")} == {"x25519", "secp256r1", "secp384r1"}


def test_no_session_tickets(visitor: Visitor) -> None:
    line = ["openssl", "s_client", "-connect", f"{MACHINE4}:443", "-servername", HOST, "-tls1_2"]
    shown = visitor.client.run(*line, "-CAfile", str(visitor.authority), input="").stdout
    assert "Protocol  : TLSv1.2" in shown
    assert "TLS session ticket" not in shown


def test_the_chain_leads_to_the_authority(visitor: Visitor) -> None:
    assert visitor.serial()
    stranger = Visitor(visitor.client, Path("/etc/ssl/certs/ca-certificates.crt"))
    assert stranger.curl(f"https://{HOST}/").returncode == 60  # curl: the authority is not known


@pytest.mark.parametrize("url", ["https://other.example.org/", f"https://{MACHINE4}/"])
def test_tls_under_another_name_is_refused(visitor: Visitor, url: str) -> None:
    refused = visitor.curl(url, "--insecure", host="other.example.org")
    assert refused.returncode == 35
    assert "unrecognized name" in refused.stderr


def test_another_name_within_a_connection_is_refused(visitor: Visitor) -> None:
    refused = visitor.curl(f"https://{HOST}/", "--header", "Host: other.example.org")
    # some versions of nginx say so by themselves, others hang up as they are told
    assert refused.stdout == "" or refused.stdout.startswith("HTTP/2 421")


def test_http_under_another_name_is_refused(visitor: Visitor) -> None:
    refused = visitor.curl("http://other.example.org/", host="other.example.org")
    assert refused.returncode == 52  # curl: an empty answer


def test_http_leads_to_https(visitor: Visitor) -> None:
    answer = visitor.get("/math101/hub?next=%2Flab", scheme="http")
    assert (answer.status, answer.headers["location"]) == (301, f"https://{HOST}/math101/hub?next=%2Flab")
    assert "strict-transport-security" not in answer.headers


def test_an_unknown_hub(visitor: Visitor) -> None:
    answer = visitor.get("/no-such-hub/")
    assert answer.status == 404
    assert "There is no hub at this address" in answer.body
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_headers(visitor: Visitor) -> None:
    for path in ("/no-such-hub/", "/probe/"):
        headers = visitor.get(path).headers
        assert headers["server"] == "nginx"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "strict-origin-when-cross-origin"
        assert "strict-transport-security" not in headers, "a demo is not to be remembered"
    assert visitor.get("/probe/").headers["content-security-policy"] == "frame-ancestors 'self'"


def test_http_2_and_websockets(visitor: Visitor) -> None:
    done = visitor.curl(f"https://{HOST}/probe/")
    assert done.stdout.startswith("HTTP/2 200")
    socket = WebSocket(visitor)
    assert socket.echoes("hello")
    socket.close()


def test_an_upload_beyond_the_hubs_limit(visitor: Visitor, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(b"x" * 900_000)
    accepted = visitor.get("/probe/", "--data-binary", f"@{upload}")
    assert (accepted.status, accepted.body) == (200, "900000")
    upload.write_bytes(b"x" * 1_100_000)
    assert visitor.get("/probe/", "--data-binary", f"@{upload}").status == 413


def test_what_the_firewall_is_told(machine: Machine) -> None:
    lines = machine.exec("cat", "/etc/nftables.d/https.nft").stdout.splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'tcp dport 443 accept comment "HTTPS"',
        'tcp dport 80 accept comment "HTTP"',
    ]


# --- certificates of the site's own


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """An authority with an intermediate one, as public ones have."""
    return Issuer(tmp_path)


@pytest.fixture
def mailbox(machine: Machine) -> Iterator[Callable[[], str]]:
    """What the daily look sends by mail."""
    drop_in = f"/run/systemd/system/{CERTIFICATES}.d"
    machine.exec(
        "sh",
        "-c",
        f"mkdir -p {drop_in} /run/probe/bin && printf '[Service]\\nEnvironment=PATH=/run/probe/bin:/usr/sbin:/usr/bin\\n'"
        f" >{drop_in}/probe.conf && printf '#!/bin/sh\\ncat >>{MAIL}\\n' >/run/probe/bin/sendmail"
        " && chmod 755 /run/probe/bin/sendmail && systemctl daemon-reload",
    )
    yield lambda: machine.exec("cat", MAIL, check=False).stdout
    machine.exec("sh", "-c", f"rm -rf {drop_in} {MAIL}; systemctl daemon-reload; systemctl reset-failed {CERTIFICATES}")


def look(machine: Machine) -> tuple[int, str]:
    """Let the daily look have its turn; its status, and what it wrote to the journal."""
    status = machine.exec("systemctl", "start", CERTIFICATES, check=False).returncode
    invocation = machine.exec("systemctl", "show", "--value", "--property=InvocationID", CERTIFICATES).stdout.strip()
    lines = ["journalctl", "--quiet", "--output=cat", "--priority=warning", f"_SYSTEMD_INVOCATION_ID={invocation}"]
    return status, machine.exec(*lines).stdout


def test_a_certificate_of_the_site_s_own(
    machine: Machine, client: Client, issuer: Issuer, mailbox: Callable[[], str]
) -> None:
    visitor = Visitor(client, issuer.root)
    settings = {"demo_ca": "", "mail": ["ops@example.org"], **issuer.issue("good", HOST)}
    applied(**settings)
    serial = visitor.serial()
    assert visitor.get("/probe/").headers["strict-transport-security"] == "max-age=31536000"
    assert look(machine) == (0, "")
    assert mailbox() == ""

    # what would not work is refused, and what works stays
    wrong = issuer.issue("wrong", "other.example.org", age=400, days=398)
    outcome = proxy(**{**settings, **wrong, "certificate_key": settings["certificate_key"]})
    assert outcome.status != 0
    assert "it is not for hubs.example.org but for other.example.org: get one for the right name" in said(outcome)
    assert "its key belongs to another certificate" in said(outcome)
    assert "it has expired on" in said(outcome)
    assert visitor.serial() == serial

    # what works for a few more days is taken with a warning, and the machine warns every day
    outcome = applied(**{**settings, **issuer.issue("old", HOST, age=380, days=398)})
    date = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=18)).strftime("%Y-%m-%d")
    assert f"it expires on {date}, in 17 days: get a new one" in said(outcome)
    assert visitor.other_serial(serial)
    status, journal = look(machine)
    assert status != 0
    assert f"{HOST}: the certificate expires on {date}, in 17 days. Get a new certificate" in journal
    mail = mailbox()
    assert "To: ops@example.org" in mail
    assert f"the certificate expires on {date}" in mail

    # what counts is what nginx shows, not what lies on the disk
    fresh = issuer.issue("fresh", HOST)
    for option, name in (("certificate", "server.pem"), ("certificate_key", "server.key")):
        text = Path(fresh[option]).read_text()
        machine.exec("sh", "-c", f"cat >/etc/nginx/ananke/tls/{name}", input=text)
    assert look(machine)[0] != 0
    machine.exec("systemctl", "reload", "nginx.service")
    assert look(machine) == (0, "")


# --- an ACME server


NAMES = [HOST, "wiki.example.org"]
FORGET = "rm -rf /etc/letsencrypt/{accounts,archive,live,renewal,ananke-ananke.json}"


@pytest.fixture(scope="module")
def acme(client: Client, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AcmeServer]:
    """An ACME server on the network that wants to know its accounts, and a machine that has not heard of it."""
    machine.exec("bash", "-c", FORGET)
    with acme_server(client, tmp_path_factory.mktemp("acme")) as server:
        server.start(eab=True)
        yield server
    machine.exec("bash", "-c", FORGET)


def settings(acme: AcmeServer, account: bool = True) -> dict[str, object]:
    """What an admin writes for that server."""
    key = {"acme_eab_key_id": EAB_KEY_ID, "acme_eab_key": EAB_KEY} if account else {}
    where = {"acme": True, "acme_directory": acme.directory, "acme_ca": str(acme.authority)}
    return {"demo_ca": "", "acme_names": NAMES, **where, **key}


@pytest.fixture(scope="module")
def served(acme: AcmeServer, client: Client) -> Visitor:
    """Somebody who trusts that server, once the machine has a certificate of it."""
    applied(**settings(acme))
    return Visitor(client, acme.root())


def test_certificates_that_are_not_issued(acme: AcmeServer, visitor: Visitor) -> None:
    before = visitor.serial(trust=False)
    outcome = proxy(**settings(acme, account=False))
    assert outcome.status != 0
    assert "What to do: the server wants to know whose account this is" in said(outcome)

    acme.forget_name(NAMES[1])
    outcome = proxy("-vvv", **settings(acme))
    acme.recall_name(NAMES[1])
    assert outcome.status != 0
    assert f"{NAMES[1]}: " in said(outcome)
    assert "A and AAAA records point to this machine" in said(outcome)
    assert EAB_KEY not in outcome.output
    assert visitor.serial(trust=False) == before, "meanwhile visitors see what they saw before"


def test_certificates_are_issued(acme: AcmeServer, served: Visitor, machine: Machine) -> None:
    assert served.serial()
    for name in NAMES:
        assert f"Attempting to validate w/ HTTP: http://{name}:80/.well-known/acme-challenge/" in acme.log()
    assert served.get("/probe/").headers["strict-transport-security"] == "max-age=31536000"
    assert served.get("/x", scheme="http").headers["location"] == f"https://{HOST}/x"
    assert look(machine) == (0, "")
    # how it is renewed later
    assert machine.exec("systemctl", "is-active", "certbot.timer").stdout.strip() == "active"
    assert "certbot.service" in machine.exec("systemctl", "show", "--property=Triggers", "certbot.timer").stdout


def test_certificates_renew_themselves(acme: AcmeServer, served: Visitor, machine: Machine) -> None:
    first = served.serial()
    nginx_process = machine.exec("cat", "/run/nginx.pid").stdout
    connection = WebSocket(served)
    machine.exec("systemctl", "start", "certbot.service")
    assert served.serial() == first, "a renewal that is not due"

    # it is due when fewer days are left than this
    renewal = "/etc/letsencrypt/renewal/ananke.conf"
    machine.exec("sed", "-i", "1s/.*/renew_before_expiry = 100 days/", renewal)
    machine.exec("systemctl", "start", "certbot.service")
    second = served.other_serial(first)

    line = ["certbot", "renew", "--quiet", "--force-renewal", "--no-random-sleep-on-renew"]
    machine.exec("env", "REQUESTS_CA_BUNDLE=/etc/ananke/acme-ca.pem", *line)
    third = served.other_serial(first, second)
    assert applied(**settings(acme)).changed == 0, "a renewal leaves work behind"

    acme.stop()
    assert machine.exec("systemctl", "start", "certbot.service", check=False).returncode != 0
    machine.exec("systemctl", "reset-failed", "certbot.service")
    outcome = proxy(**{**settings(acme), "acme_names": [HOST]})
    assert outcome.status != 0
    assert "the ACME server does not answer: try again later" in said(outcome)
    assert served.serial() == third

    assert connection.echoes("still there"), "a renewal closed a WebSocket"
    connection.close()
    assert machine.exec("cat", "/run/nginx.pid").stdout == nginx_process
