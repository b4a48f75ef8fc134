"""Certificates that would not work are refused, and the message says what to do."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import certificates
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
HOST = "hubs.example.org"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KEY, OTHER, AUTHORITY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def issue(
    subject: str = HOST,
    key: Key = KEY,
    issuer: str = "authority",
    names: tuple[str, ...] = (HOST,),
    left: float = 300,
    life: float = 398,
    access: tuple[x509.ObjectIdentifier, ...] = (),
) -> str:
    """A certificate in PEM, with so many days left of so many."""
    ends = NOW + datetime.timedelta(days=left)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(ends - datetime.timedelta(days=life))
        .not_valid_after(ends)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
    if access:
        place = x509.UniformResourceIdentifier("http://authority.example.org/")
        described = [x509.AccessDescription(kind, place) for kind in access]
        builder = builder.add_extension(x509.AuthorityInformationAccess(described), False)
    return builder.sign(AUTHORITY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def pem(key: Key, phrase: bytes = b"") -> str:
    lock = serialization.BestAvailableEncryption(phrase) if phrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock).decode()


def check(certificate: str, key: str = "", days: int = 30) -> certificates.Report:
    return certificates.check(certificate, key or pem(KEY), [HOST], days, NOW)


CHAIN = issue("authority", AUTHORITY, "root", names=())


def test_a_good_one() -> None:
    report = check(f"Bag Attributes\n{issue()}\n{CHAIN}")
    assert (report.refusals, report.warnings, report.ocsp) == ([], [], False)
    assert report.ends == NOW + datetime.timedelta(days=300)


@pytest.mark.parametrize("names", [("HUBS.example.org",), ("*.example.org",), ("wiki.example.org", HOST)])
def test_names_that_fit(names: tuple[str, ...]) -> None:
    assert check(issue(names=names)).refusals == []


@pytest.mark.parametrize("names", [(), ("example.org",), ("*.hubs.example.org",), ("*.org",), ("other.example.org",)])
def test_names_that_do_not_fit(names: tuple[str, ...]) -> None:
    (said,) = check(issue(names=names)).refusals
    assert said.startswith(f"it is not for {HOST} but for {', '.join(names) or 'no host name at all'}")


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        (issue(), pem(OTHER), "its key belongs to another certificate"),
        (issue(), pem(KEY, b"phrase"), "its key is locked by a pass phrase"),
        (issue(), CHAIN, "its key is not a private key in PEM form"),
        (CHAIN.replace("M", "?", 1), pem(KEY), "it is damaged"),
        (pem(KEY), pem(KEY), "there is no certificate in PEM form"),
        ("", pem(KEY), "there is no certificate in PEM form"),
        (issue(left=-1), pem(KEY), "it has expired on 2026-11-20: get a new one"),
        (issue(left=300, life=299), pem(KEY), "it is not valid before 2026-11-22 12:00 UTC"),
    ],
)
def test_what_is_refused(certificate: str, key: str, said: str) -> None:
    assert check(certificate, key).refusals[0].startswith(said)


def test_a_chain_with_the_wrong_beginning_is_refused() -> None:
    assert "must stand first in the file" in check(CHAIN + issue()).refusals[0]


def test_a_short_key_is_refused() -> None:
    short = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is to be refused
    assert "too short (1024 bits)" in check(issue(key=short), pem(short)).refusals[0]


@pytest.mark.parametrize(
    ("left", "life", "days", "warned"),
    [(31, 398, 30, False), (29, 398, 30, True), (29, 90, 30, False), (17, 90, 30, True), (29, 398, 7, False)],
)
def test_one_that_expires_soon(left: float, life: float, days: int, warned: bool) -> None:
    report = check(issue(left=left, life=life), days=days)
    assert report.refusals == []
    assert report.warnings == (
        ["it expires on 2026-12-20, in 29 days: get a new one"]
        if warned and left == 29
        else ["it expires on 2026-12-08, in 17 days: get a new one"]
        if warned
        else []
    )


def test_chains_that_not_every_program_trusts() -> None:
    issuers = (AuthorityInformationAccessOID.CA_ISSUERS,)
    assert "holds no intermediate certificate" in check(issue(access=issuers)).warnings[0]
    assert check(issue()).warnings == [], "an authority of one's own may sign by itself"
    assert "the chain is broken before CN=another" in check(issue() + issue("another", OTHER, names=())).warnings[0]
    old = issue("authority", AUTHORITY, "root", names=(), left=-3)
    assert "the chain's certificate CN=authority has expired" in check(issue() + old).warnings[0]


def test_where_the_authority_still_answers_questions() -> None:
    ocsp = (AuthorityInformationAccessOID.OCSP,)
    assert check(issue(access=ocsp) + CHAIN).ocsp
    assert not check(issue(access=ocsp)).ocsp, "stapling needs the issuer's certificate"
