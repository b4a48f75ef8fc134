"""A certificate authority with an intermediate one, as public ones have, that issues whatever a test wants."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Signer = tuple[x509.Name, ec.EllipticCurvePrivateKey]


def text(certificate: x509.Certificate) -> str:
    """A certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def sign(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    signer: Signer | None,
    days: int,
    age: int = 0,
    host: str | None = None,
) -> x509.Certificate:
    """A certificate; an authority's without `host`, one that signs itself without `signer`."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    begins = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=age)
    issuer, issuer_key = signer or (name, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
    )
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


class Issuer:
    """The authority, and what it has issued in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root_key, self.key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = sign("a site's root", root_key, None, 4000)
        self.certificate = sign("a site's intermediate", self.key, (root.subject, root_key), 2000, age=500)
        self.root = folder / "root.pem"
        self.root.write_text(text(root))

    def known(self, label: str) -> dict[str, str]:
        """What the role is told about a certificate."""
        path = self.folder / label
        return {"certificate": f"{path}.pem", "certificate_key": f"{path}.key"}

    def issue(self, label: str, host: str, age: int = 0, days: int = 398) -> dict[str, str]:
        """A certificate with its chain, `age` days old, of `days` days in all."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = sign(host, key, (self.certificate.subject, self.key), days, age, host)
        known = self.known(label)
        Path(known["certificate"]).write_text(text(leaf) + text(self.certificate))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        Path(known["certificate_key"]).write_bytes(pem)
        return known
