"""An SMTP server that keeps what it gets: the smarthost of the tests, with STARTTLS and a login.

As a program it listens and writes each message as a line of JSON; `Sink` starts it as somebody else on the machine's network.
"""

from __future__ import annotations

import argparse
import datetime
import json
import ssl
import subprocess
import sys
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from testbed.client import Client
from testbed.waiting import until

HOST, PORT = "10.42.0.2", 2525
USER = "machine@example.org"


class Keeper:
    """Writes what arrives."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def handle_DATA(self, server: object, session: Session, envelope: Envelope) -> str:
        """Keep one message."""
        text = bytes(envelope.content or b"").decode(errors="replace")
        login = session.auth_data.login.decode() if session.auth_data else ""
        found = {"sender": envelope.mail_from, "recipients": envelope.rcpt_tos, "login": login, "text": text}
        with self.path.open("a") as kept:
            kept.write(json.dumps({**found, "encrypted": session.ssl is not None}) + "\n")
        return "250 kept"


def serve(folder: Path, password: str, encrypted: bool) -> None:
    """Listen until killed."""
    context = None
    if encrypted:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "sink.pem", folder / "sink.key")

    def check(_server: object, _session: object, _envelope: object, _mechanism: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), password.encode())
        with (folder / "logins").open("a") as logins:
            logins.write("accepted\n" if good else "refused\n")
        return AuthResult(success=good, handled=good, auth_data=data)

    Controller(
        Keeper(folder / "kept"),
        hostname=HOST,
        port=PORT,
        tls_context=context,
        require_starttls=encrypted,
        authenticator=check,
        auth_required=encrypted,
        auth_require_tls=True,
    ).start()
    print("listening", flush=True)
    threading.Event().wait()


class Sink:
    """The smarthost as a test sees it."""

    def __init__(self, client: Client, folder: Path, password: str) -> None:
        self.client, self.folder, self.password = client, folder, password
        self.process: subprocess.Popen[str] | None = None
        self.fingerprint = certificate(folder)

    def start(self, encrypted: bool = True) -> None:
        """Listen on the client's first address."""
        arguments = [
            *self.client.enter,
            sys.executable,
            __file__,
            str(self.folder),
            *([] if encrypted else ["--plain"]),
        ]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(self.password + "\n")
        self.process.stdin.close()
        assert self.process.stdout.readline() == "listening\n"

    def stop(self) -> None:
        """Listen no more."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def logins(self) -> list[str]:
        """The outcome of each login so far."""
        path = self.folder / "logins"
        return path.read_text().split() if path.exists() else []

    def messages(self) -> list[dict[str, Any]]:
        """All that has arrived."""
        path = self.folder / "kept"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, text: str, timeout: float = 120) -> dict[str, Any]:
        """Wait for the message that contains a text."""

        def found() -> list[dict[str, Any]]:
            return [message for message in self.messages() if text in message["text"]]

        return until(found, timeout, f"a mail with {text!r} arrives", told=lambda: str(self.messages()))[0]


def header(message: dict[str, Any], name: str) -> str:
    """A header of a message that has arrived."""
    parsed = message_from_bytes(message["text"].encode(), policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    return str(parsed[name])


def certificate(folder: Path) -> str:
    """Make a certificate that nobody has signed, and return its fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "smarthost.example.org")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "sink.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "sink.key").write_bytes(key.private_bytes(*encoding))
    return made.fingerprint(hashes.SHA256()).hex(":").upper()


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plain", action="store_true", help="offer no encryption, and ask for no login")
    arguments = parser.parse_args()
    serve(arguments.folder, sys.stdin.readline().rstrip("\n"), not arguments.plain)


if __name__ == "__main__":
    main()
