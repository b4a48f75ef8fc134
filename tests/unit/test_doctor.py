# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor sees, of a machine made of files and of an LMS that answers as it is told."""

from __future__ import annotations

import datetime
import email.utils
import ipaddress
import json
import os
import pwd
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import diagnosis, hub_symptoms
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ACCOUNT = pwd.getpwuid(os.getuid())


class Machine:
    """A machine on which all is well, until something is taken away."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fails: dict[str, tuple[int, str]] = {}
        for path, text in {
            "etc/subuid": f"{ACCOUNT.pw_name}:100000:65536\n",
            "etc/subgid": f"{ACCOUNT.pw_name}:100000:65536\n",
            f"var/lib/systemd/linger/{ACCOUNT.pw_name}": "",
            f"run/user/{ACCOUNT.pw_uid}/systemd/private": "",
            f"sys/fs/cgroup/user.slice/user-{ACCOUNT.pw_uid}.slice/user@{ACCOUNT.pw_uid}.service/cgroup.controllers": "cpu memory pids\n",
            "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
            "var/lib/ananke/images/standard.json": json.dumps({"reference": "localhost/ananke/standard:1"}),
            "etc/nginx/ananke/locations.d/small.conf": "location /small/ { proxy_pass http://127.0.0.1:{port}; }",
            f"{ACCOUNT.pw_dir.lstrip('/')}/.keep": "",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)

    def run(self, argv: Sequence[str]) -> tuple[int, str]:
        line = " ".join(argv)
        for words, result in self.fails.items():
            if words in line:
                return result
        if "show ananke-small.service" in line:
            return 0, "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nNRestarts=0\n"
        if "container inspect" in line:
            return 0, "running\n"
        if "is-active" in line:
            return 0, "active\n"
        return 0, "yes\n" if "timedatectl" in line else ""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(diagnosis.nginx, "LOCATIONS_DIR", "/etc/nginx/ananke/locations.d")
    return Machine(tmp_path)


class Server(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, str]]] = {}
    skew = 0.0

    def do_GET(self) -> None:
        status, text = self.answers.get(self.path.partition("?")[0], (404, ""))
        self.send_response_only(status)
        self.send_header("Date", email.utils.formatdate(time.time() + self.skew, usegmt=True))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_arguments: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Starts a server with these answers, whose clock is wrong by some seconds, and returns its port."""
    running = []

    def start(answers: dict[str, tuple[int, str]], skew: float = 0) -> int:
        handler = type("Handler", (Server,), {"answers": answers, "skew": skew})
        running.append(HTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=running[-1].serve_forever, args=(0.02,), daemon=True).start()
        return int(running[-1].server_port)

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def examine(machine: Machine, port: int, inside: Sequence[Sequence[Any]] = ()) -> dict[str, dict[str, Any]]:
    path = machine.root / "etc/nginx/ananke/locations.d/small.conf"
    if path.exists():
        path.write_text(path.read_text().replace("{port}", str(port)))
    hub = diagnosis.Hub(
        "small", ACCOUNT.pw_name, port, "/small/", "standard", "hubs.localhost", 1, str(machine.root), machine.run
    )
    return {one["check"]: one for one in diagnosis.examine(hub, lambda: list(inside))}


def test_from_the_ground_up_to_the_hub(machine: Machine, serve: Callable[..., int]) -> None:
    port = serve({"/small/hub/health": (200, "")})
    found = examine(machine, port, [("services", True, "all run"), ("lti_jwks", False, "no keys")])
    good = {name for name, one in found.items() if one["passed"]}
    assert good >= {
        "account",
        "subordinate_ids",
        "linger",
        "manager",
        "cgroups",
        "podman",
        "image",
        "room",
        "unit",
        "container",
        "health",
        "location",
    }
    assert found["lti_jwks"]["remedy"].startswith("correct hub_lti_jwks_endpoint")
    assert list(found).index("container") < list(found).index("services") < list(found).index("health")
    # there is no nginx in this test
    assert found["public"]["passed"] is False
    assert "Connection refused" in found["public"]["said"]
    assert found["cookies"] == {
        "check": "cookies",
        "passed": None,
        "said": "not looked at, as public has not passed",
        "remedy": "",
    }


@pytest.mark.parametrize(
    ("lost", "failing", "words"),
    [
        ("etc/subuid", "subordinate_ids", "usermod --add-subuids"),
        (f"var/lib/systemd/linger/{ACCOUNT.pw_name}", "linger", f"loginctl enable-linger {ACCOUNT.pw_name}"),
        (f"run/user/{ACCOUNT.pw_uid}/systemd/private", "manager", f"systemctl start user@{ACCOUNT.pw_uid}.service"),
        ("var/lib/ananke/images/standard.json", "image", "run playbooks/images.yml"),
        ("etc/nginx/ananke/locations.d/small.conf", "location", "hubs.yml --limit small"),
    ],
)
def test_one_cause_gives_one_failure(
    machine: Machine, serve: Callable[..., int], lost: str, failing: str, words: str
) -> None:
    (machine.root / lost).unlink()
    found = examine(machine, serve({"/small/hub/health": (200, "")}))
    ill = [name for name, one in found.items() if one["passed"] is False and name not in ("public", "certificate")]
    assert ill == [failing]
    assert words in found[failing]["remedy"]


@pytest.mark.parametrize(
    ("command", "result", "failing", "said"),
    [
        ("podman info", (125, "cannot find UID"), "podman", "cannot find UID"),
        ("image exists", (1, ""), "image", "does not see it"),
        ("show ananke-small", (0, "LoadState=not-found\nActiveState=inactive\n"), "unit", "is not there"),
        (
            "show ananke-small",
            (0, "LoadState=loaded\nActiveState=failed\nResult=exit-code\nNRestarts=5\n"),
            "unit",
            "Result exit-code",
        ),
        ("container inspect", (0, "exited\n"), "container", "exited"),
        ("nginx -t", (1, "unknown directive"), "web_server", "unknown directive"),
        ("is-active", (3, "failed\n"), "web_server", "nginx.service is failed"),
    ],
)
def test_commands_that_fail(
    machine: Machine, serve: Callable[..., int], command: str, result: tuple[int, str], failing: str, said: str
) -> None:
    machine.fails[command] = result
    found = examine(machine, serve({"/small/hub/health": (200, "")}))
    assert found[failing]["passed"] is False
    assert said in found[failing]["said"]
    assert found[failing]["remedy"]


def test_an_account_that_has_expired(machine: Machine, serve: Callable[..., int]) -> None:
    (machine.root / "etc/shadow").write_text(f"{ACCOUNT.pw_name}:!:1:0:99999:7::1:\n")
    (machine.root / f"var/lib/systemd/linger/{ACCOUNT.pw_name}").unlink()
    found = examine(machine, serve({"/small/hub/health": (200, "")}))
    assert f"usermod --unlock --expiredate '' {ACCOUNT.pw_name}" in found["expiry"]["remedy"]
    assert found["linger"]["passed"] is None, "one cause gives one failure"


def test_a_hub_that_answers_badly_or_not_at_all(machine: Machine, serve: Callable[..., int]) -> None:
    assert "status 503" in examine(machine, serve({"/small/hub/health": (503, "")}))["health"]["said"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "Connection refused" in examine(machine, port)["health"]["said"]


def test_controllers_that_are_missing_or_unknown(machine: Machine) -> None:
    (path,) = machine.root.glob("sys/fs/cgroup/user.slice/*/*/cgroup.controllers")
    path.write_text("memory pids\n")
    assert examine(machine, 1)["cgroups"]["said"] == "the account may use memory pids; cpu is missing"
    (machine.root / "sys/fs/cgroup/cgroup.controllers").write_text("hugetlb\n")
    assert examine(machine, 1)["cgroups"]["passed"] is None
    path.unlink()
    assert examine(machine, 1)["cgroups"]["passed"] is None


def test_an_account_that_is_not_there(machine: Machine) -> None:
    hub = diagnosis.Hub(
        "small", "nobody-of-this-name", 1, "/small/", "standard", "x", 1, str(machine.root), machine.run
    )
    found = {one["check"]: one for one in diagnosis.examine(hub, list)}
    assert found["account"]["passed"] is False
    assert [name for name in ("linger", "podman", "unit", "health") if found[name]["passed"] is not None] == []


def lms(port: int) -> dict[str, Any]:
    base = f"http://127.0.0.1:{port}"
    return {"issuer": base, "client_ids": ["a"], "jwks_endpoint": f"{base}/jwks", "authorize_url": f"{base}/auth"}


KEYS = json.dumps({"keys": [{"kty": "RSA", "kid": "1", "use": "sig"}, {"kty": "EC", "kid": "2"}]})


@pytest.mark.parametrize(
    ("answers", "skew", "failing", "words"),
    [
        ({"/jwks": (200, KEYS), "/auth": (400, "")}, 0, [], ""),
        ({"/jwks": (404, ""), "/auth": (400, "")}, 0, ["lti_jwks"], "status 404"),
        ({"/jwks": (200, "<html>"), "/auth": (400, "")}, 0, ["lti_jwks"], "something else than keys"),
        ({"/jwks": (200, '{"keys": []}'), "/auth": (400, "")}, 0, ["lti_jwks"], "0 RSA keys"),
        ({"/jwks": (200, KEYS), "/auth": (400, "")}, 605, ["lti_clock"], "differ by 60"),
        ({"/jwks": (200, KEYS), "/auth": (404, "")}, 0, ["lti_authorize"], "status 404"),
        ({"/jwks": (200, KEYS), "/auth": (502, "")}, 0, ["lti_authorize"], "status 502"),
    ],
)
def test_an_lms(
    serve: Callable[..., int], answers: dict[str, tuple[int, str]], skew: float, failing: list[str], words: str
) -> None:
    found = hub_symptoms.lms(lms(serve(answers, skew)))
    assert [name for name, passed, _said in found if passed is False] == failing
    assert words in " ".join(said for _name, passed, said in found if passed is False)


def test_an_lms_with_an_authority_of_the_site_s_own(tmp_path: Path) -> None:
    """Only what the hub itself trusts counts."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lms")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = made.add_extension(address, critical=False).sign(key, hashes.SHA256())
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    text = signed.public_bytes(encoding)
    served, authority = tmp_path / "served.pem", tmp_path / "authority.pem"
    served.write_bytes(key.private_bytes(encoding, private, serialization.NoEncryption()) + text)
    authority.write_bytes(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served)
    with HTTPServer(("127.0.0.1", 0), type("Handler", (Server,), {"answers": {"/jwks": (200, "{}")}})) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/jwks"
        stranger = hub_symptoms.ask(url)
        known = hub_symptoms.ask(url, ssl.create_default_context(cafile=str(authority)))
        server.shutdown()
    assert (known.status, known.body, known.error) == (200, b"{}", "")
    assert stranger.status == 0
    assert "certificate verify failed" in stranger.error


def test_an_lms_that_is_unknown_or_away() -> None:
    assert [one[:2] for one in hub_symptoms.lms(None)] == [("lti", False)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = {name: (passed, said) for name, passed, said in hub_symptoms.lms(lms(port))}
    assert "refused" in found["lti_jwks"][1]
    assert [found[name][0] for name in ("lti_clock", "lti_authorize")] == [None, None]
    away = {**lms(port), "jwks_endpoint": "https://no-such-host.invalid/jwks"}
    found = {name: (passed, said) for name, passed, said in hub_symptoms.lms(away)}
    assert found["lti_dns"][0] is False
    assert [found[name][0] for name in ("lti_jwks", "lti_clock", "lti_authorize")] == [None] * 3


def test_databases(tmp_path: Path) -> None:
    path = tmp_path / "jupyterhub.sqlite"
    assert hub_symptoms.database(str(path))[1] is None
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (a)")
        connection.executemany("insert into t values (?)", [("x" * 1000,)] * 100)
    connection.close()
    assert hub_symptoms.database(str(path))[1] is True
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * 4096 + whole[8192:])
    assert hub_symptoms.database(str(path))[1] is False
    path.write_text("no database")
    assert hub_symptoms.database(str(path))[1] is False


def test_each_check_has_a_remedy_and_a_line_of_documentation() -> None:
    names = [check.look.__name__ for check in diagnosis.CHECKS]
    assert len(set(names)) == len(names)
    for check in diagnosis.CHECKS:
        assert check.look.__doc__
        assert check.remedy
        assert set(check.needs) <= {*names[: names.index(check.look.__name__)], *diagnosis.INSIDE}


@pytest.mark.parametrize(
    ("states", "passed"), [("active active", True), ("active inactive", False), ("active", False), ("", False)]
)
def test_services_of_which_one_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: str, passed: bool
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\n" + "".join(f"echo {state}\n" for state in states.split()))
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert hub_symptoms.services()[1] is passed
