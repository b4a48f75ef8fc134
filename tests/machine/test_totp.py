"""One-time passwords as a third factor: who has a secret gets in with its code, who has none does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import struct
import subprocess
import time
from collections.abc import Iterator

import pytest
from conftest import Apply

from testbed.client import Client
from testbed.machine import Machine

NAME = "coder"
PASSWORD = secrets.token_urlsafe()
REFUSED = 255


def code(secret: str, now: float) -> str:
    """What an app shows (RFC 6238, with the parameters that all apps use)."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.digest(key, struct.pack(">Q", int(now) // 30), hashlib.sha1)
    number = struct.unpack_from(">I", digest, digest[-1] & 15)[0] & 0x7FFFFFFF
    return f"{number % 1_000_000:06}"


def test_the_codes_are_those_of_the_standard() -> None:
    """Vectors of RFC 6238, appendix B, of which apps show the last six digits."""
    secret = base64.b32encode(b"12345678901234567890").decode()
    assert [code(secret, now) for now in (59, 1111111109, 20000000000)] == ["287082", "081804", "353130"]


@pytest.fixture(scope="module")
def account(machine: Machine, apply: Apply) -> Iterator[str]:
    """An account of a group that needs codes."""
    script = (
        f"groupadd coders; useradd --create-home --groups coders {NAME} && install -d -o {NAME} -m 700 /home/{NAME}/.ssh && "
        f"install -o {NAME} -m 600 /home/hostadmin/.ssh/authorized_keys /home/{NAME}/.ssh && chpasswd"
    )
    machine.exec("sh", "-c", script, input=f"{NAME}:{PASSWORD}")
    named = apply("ssh", ssh_totp=["@coders"], ananke_host_admins=[machine.ssh_user, NAME])
    assert named.status == 0, named.output
    again = apply("ssh", ssh_totp=["@coders"], ananke_host_admins=[machine.ssh_user, NAME])
    assert (again.status, again.changed) == (0, 0), again.output
    yield NAME
    apply("ssh")
    machine.exec("sh", "-c", f"userdel --remove {NAME}; groupdel coders; rm -rf /var/lib/ananke/totp", check=False)


@pytest.fixture
def secret(machine: Machine, account: str) -> str:
    """What a host admin made for the account."""
    shown = machine.exec("ananke-totp", account).stdout
    assert "█" in shown, "no picture for the app"
    address = next(line for line in shown.splitlines() if line.startswith("otpauth://"))
    return address.partition("secret=")[2].partition("&")[0]


def enter(client: Client, typed: str) -> subprocess.CompletedProcess[str]:
    return client.ssh("id -un", user=NAME, password=PASSWORD, code=typed)


def test_without_a_secret_nobody_gets_in(client: Client, machine: Machine, account: str) -> None:
    machine.exec("rm", "-f", f"/var/lib/ananke/totp/{account}")
    assert enter(client, "123456").returncode == REFUSED
    journal = machine.exec("journalctl", "--since=-20s", "--unit=ssh.service", "--output=cat").stdout
    assert f'"/var/lib/ananke/totp/{account}"' in journal


def test_a_code_leads_in_once(client: Client, secret: str) -> None:
    typed = code(secret, time.time())
    done = enter(client, typed)
    assert done.stdout.strip() == NAME, done.stderr
    assert enter(client, typed).returncode == REFUSED, "somebody who has seen the code gets in with it"


@pytest.mark.parametrize("wrong", ["", "000000", "former"])
def test_another_one_does_not(client: Client, secret: str, wrong: str) -> None:
    assert enter(client, code(secret, time.time() - 600) if wrong == "former" else wrong).returncode == REFUSED


def test_a_code_does_not_replace_the_password(client: Client, secret: str) -> None:
    done = client.ssh("true", user=NAME, password="wrong", code=code(secret, time.time()))  # noqa: S106 - a wrong one
    assert done.returncode == REFUSED


def test_the_secret_is_roots(machine: Machine, secret: str, account: str) -> None:
    del secret
    assert machine.exec("stat", "-c", "%U %a", f"/var/lib/ananke/totp/{account}").stdout.strip() in (
        "root 400",
        "root 600",
    )
    assert machine.exec("stat", "-c", "%U %a", "/var/lib/ananke/totp").stdout.strip() == "root 700"


def test_ansibles_account_is_never_asked(client: Client, machine: Machine, account: str, apply: Apply) -> None:
    del account
    everybody = apply("ssh", ssh_totp=["*"], ananke_host_admins=[machine.ssh_user, NAME])
    assert everybody.status == 0, everybody.output
    assert client.ssh("true").returncode == 0
    assert enter(client, "000000").returncode == REFUSED


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ssh_totp": ["hostadmin"]}, "is in ssh_totp and in ssh_totp_exempt"),
        ({"ssh_totp": ["*"], "ssh_totp_exempt": []}, "add that account to ssh_totp_exempt"),
        ({"ssh_totp": ["*"], "ssh_password": False}, "ssh_totp needs ssh_password"),
    ],
    ids=["named", "not-exempt", "no-password"],
)
def test_nobody_locks_ansible_out(machine: Machine, apply: Apply, settings: dict[str, object], says: str) -> None:
    before = machine.exec("sha256sum", "/etc/pam.d/sshd", "/etc/ssh/sshd_config.d/00-ananke.conf").stdout
    refused = apply("ssh", **settings)
    assert refused.status != 0
    assert says in " ".join(refused.output.split())
    assert machine.exec("sha256sum", "/etc/pam.d/sshd", "/etc/ssh/sshd_config.d/00-ananke.conf").stdout == before


def test_it_goes_without_a_trace(machine: Machine, account: str, apply: Apply, client: Client) -> None:
    del account
    off = apply("ssh", ananke_host_admins=[machine.ssh_user, NAME])
    assert off.status == 0, off.output
    assert "google" not in machine.exec("cat", "/etc/pam.d/sshd").stdout
    assert enter(client, "").returncode == 0
