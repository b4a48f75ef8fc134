"""A real ACME server on the client's side of the network: Pebble, with name servers that say what a test wants."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from testbed.client import CONTROLLER, MACHINE4, Client
from testbed.waiting import until

ADDRESS = CONTROLLER
PORT, MANAGEMENT, DNS, NAMES = 14000, 15000, 8053, 8055
EAB_KEY_ID, EAB_KEY = "course-hubs", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


@dataclass
class AcmeServer:
    """The server while it runs, or is stopped for a while."""

    client: Client
    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def directory(self) -> str:
        """What clients are told."""
        return f"https://{ADDRESS}:{PORT}/dir"

    @property
    def authority(self) -> Path:
        """What signs the server's own address, not the certificates that it issues."""
        return self.folder / "server.pem"

    def start(self, days: float = 90, eab: bool = False) -> None:
        """Start it; certificates live for `days`, and accounts need a key if `eab` is set.

        Each start makes a new authority, and forgets accounts and certificates.
        """
        self.stop()
        settings = {
            "listenAddress": f"{ADDRESS}:{PORT}",
            "managementListenAddress": f"{ADDRESS}:{MANAGEMENT}",
            "certificate": str(self.authority),
            "privateKey": str(self.folder / "server.key"),
            "httpPort": 80,
            "tlsPort": 443,
            "externalAccountBindingRequired": eab,
            "externalAccountMACKeys": {EAB_KEY_ID: EAB_KEY} if eab else {},
            "certificateValidityPeriod": int(days * 86400),
            "profiles": {"default": {"description": "", "validityPeriod": int(days * 86400)}},
        }
        config = self.folder / "pebble.json"
        config.write_text(json.dumps({"pebble": settings}))
        self._run(
            "pebble-challtestsrv",
            "-management",
            f"127.0.0.1:{NAMES}",
            "-dns01",
            f"127.0.0.1:{DNS}",
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-defaultIPv4",
            MACHINE4,
            "-defaultIPv6",
            "",
        )
        self._run("pebble", "-config", str(config), "-dnsserver", f"127.0.0.1:{DNS}")
        log = self.folder / "pebble.log"
        until(lambda: self._curl(self.directory, check=False).returncode == 0, 60, "pebble answers", told=log.read_text)

    def stop(self) -> None:
        """End it."""
        for process in self.running:
            process.terminate()
            process.wait(10)
        self.running.clear()

    def root(self) -> Path:
        """The authority of the certificates that are issued now."""
        path = self.folder / "root.pem"
        path.write_text(self._curl(f"https://{ADDRESS}:{MANAGEMENT}/roots/0").stdout)
        return path

    def forget_name(self, host: str) -> None:
        """Let the name servers say that there is no such name, or that it has no address."""
        for kind in ("set-servfail",):
            self._curl("--data", json.dumps({"host": host}), f"http://127.0.0.1:{NAMES}/{kind}")

    def recall_name(self, host: str) -> None:
        """Let them know it again."""
        self._curl("--data", json.dumps({"host": host}), f"http://127.0.0.1:{NAMES}/clear-servfail")

    def log(self) -> str:
        """What pebble has written."""
        return (self.folder / "pebble.log").read_text()

    def _run(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}.log").open("wb")
        environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
        with log:
            self.running.append(
                subprocess.Popen([*self.client.enter, *command], stdout=log, stderr=subprocess.STDOUT, env=environment)
            )

    def _curl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.client.run("curl", "-sSf", "--cacert", str(self.authority), *arguments, check=check)


def certify(path: Path, address: str, days: float = 30) -> None:
    """Write a self-signed certificate for an address, and its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an ACME server's own authority")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@contextmanager
def acme_server(client: Client, folder: Path) -> Iterator[AcmeServer]:
    """An ACME server that is not started yet, and that does not outlive its test."""
    server = AcmeServer(client, folder)
    certify(server.authority, ADDRESS)
    try:
        yield server
    finally:
        server.stop()
