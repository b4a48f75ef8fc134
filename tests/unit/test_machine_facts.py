# SPDX-License-Identifier: GPL-3.0-or-later
"""What machine_info finds, in a folder with files as on a machine, and at a server that shows a real certificate."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils.machine_facts import Machine, look
from ansible_collections.ananke.jupyterhub.plugins.modules.machine_info import _run
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "hubs.example.org"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine's files."""
    for path in ("proc", "run", "home", "var/lib/ananke"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       2048 kB\nMemFree:        10 kB\nMemAvailable:   1024 kB\n")
    (tmp_path / "proc/loadavg").write_text("0.10 0.20 3.30 1/200 1234\n")
    return tmp_path


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Where a certificate is shown that nobody trusts, with ten and a half days left."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=10.5))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "served.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    asked: list[str] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                context.wrap_socket(listening.accept()[0], server_side=True).close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)
    assert asked == [NAME]


def test_a_machine(root: Path, port: int) -> None:
    found = look(Machine(_run, str(root)), NAME, port)
    assert found["problems"] == []
    assert found["memory"] == {"size": 2048 * 1024, "available": 1024 * 1024}
    assert found["load"] == 3.3
    assert found["reboot"] == []
    assert found["certificate"]["host"] == NAME
    assert found["certificate"]["days"] == 10
    # here all is one file system
    assert [disk["path"] for disk in found["disks"]] == ["/var/lib/ananke"]
    assert found["disks"][0]["used"] + found["disks"][0]["free"] <= found["disks"][0]["size"]


def test_a_reboot_that_is_due(root: Path) -> None:
    (root / "run/reboot-required").touch()
    assert Machine(_run, str(root)).reboot() == ["unknown"]
    (root / "run/reboot-required.pkgs").write_text("linux-image-amd64\nlibc6\nlibc6\n")
    assert Machine(_run, str(root)).reboot() == ["libc6", "linux-image-amd64"]


def test_what_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = look(Machine(_run, str(tmp_path / "nothing")), NAME, port)
    assert found["memory"] == {"size": None, "available": None}
    assert (found["load"], found["disks"], found["certificate"]) == (None, [], None)
    (problem,) = found["problems"]
    assert f"no certificate for {NAME} on port {port}" in problem
    assert "systemctl status nginx" in problem


def test_backups(root: Path) -> None:
    folder = root / "var/lib/ananke/backup"
    (folder / "math101").mkdir(parents=True)
    machine = Machine(_run, str(root))
    assert machine.backups() == {}
    (folder / "math101.json").write_text(
        '{"time": "2026-11-22T02:00:00Z", "complete": true, "error": "", "repository": "x"}'
    )
    (folder / "physics.json").write_text('{"error": "gone"}')
    (folder / "damaged.json").write_text("{")
    assert machine.backups() == {
        "math101": {"time": "2026-11-22T02:00:00Z", "complete": True, "error": ""},
        "physics": {"time": None, "complete": None, "error": "gone"},
    }
    assert any("the next backup of that hub writes it anew" in problem for problem in machine.problems)
