"""Logins: key and password, nothing less, nobody else."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import INVENTORY

import playbook
from testbed.client import CLIENT6, HARDENED, MACHINE6, Client
from testbed.machine import Machine, key_pair
from testbed.waiting import until

REFUSED = 255
"""Status of an ssh client that got no session."""
WRONG = "wrong"


@pytest.fixture(scope="module")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that nobody has let in."""
    key = tmp_path_factory.mktemp("keys") / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return key


def test_key_and_password_lead_in(client: Client) -> None:
    done = client.ssh("id -un")
    assert (done.returncode, done.stdout.strip()) == (0, "hostadmin"), done.stderr


def test_it_works_over_ipv6(client: Client) -> None:
    done = client.ssh("echo $SSH_CONNECTION", source=CLIENT6, to=MACHINE6)
    assert done.stdout.split()[0] == CLIENT6, done.stderr


@pytest.mark.parametrize(
    ("key", "password", "says"),
    [
        ("", None, "keyboard-interactive"),  # the key alone: it asks for more
        (None, "", "publickey"),  # the password alone
        ("", WRONG, "keyboard-interactive"),
    ],
    ids=["key-alone", "password-alone", "wrong-password"],
)
def test_less_does_not(client: Client, key: str | None, password: str | None, says: str) -> None:
    done = client.ssh("true", key=key, password=password)
    assert done.returncode == REFUSED
    assert f"Permission denied ({says})" in done.stderr


def test_another_key_does_not(client: Client, other_key: Path) -> None:
    done = client.ssh("true", key=str(other_key))
    assert done.returncode == REFUSED
    assert "Permission denied (publickey)" in done.stderr


@pytest.mark.parametrize("user", ["root", "nobody", "stranger"])
def test_others_do_not(client: Client, machine: Machine, user: str) -> None:
    # root has the host admin's key, and a password, for the time of this test
    machine.exec("install", "-D", "-m", "600", "/home/hostadmin/.ssh/authorized_keys", "/root/.ssh/authorized_keys")
    try:
        done = client.ssh("true", user=user)
    finally:
        machine.exec("rm", "-r", "/root/.ssh")
    assert done.returncode == REFUSED
    assert "Permission denied (publickey)" in done.stderr


def test_an_account_that_nobody_named_does_not(client: Client, machine: Machine) -> None:
    script = (
        "useradd --create-home visitor && install -d -o visitor -m 700 /home/visitor/.ssh && "
        "install -o visitor -m 600 /home/hostadmin/.ssh/authorized_keys /home/visitor/.ssh && chpasswd"
    )
    machine.exec("sh", "-c", script, input=f"visitor:{machine.password}")
    try:
        done = client.ssh("true", user="visitor")
    finally:
        machine.exec("userdel", "--remove", "visitor", check=False)
    assert done.returncode == REFUSED
    assert "Permission denied (publickey)" in done.stderr


def test_nobody_answers_on_the_former_port(client: Client) -> None:
    done = client.ssh("true", port=22)
    assert done.returncode == REFUSED
    assert "timed out" in done.stderr


def test_three_failures_ban_for_a_time(client: Client, machine: Machine) -> None:
    source = client.address()

    for _attempt in range(3):
        assert client.ssh("true", password=WRONG, source=source).returncode == REFUSED
        # sshd itself makes who fails wait, too, on Debian 13; this is about fail2ban
        machine.exec("sh", "-c", "systemctl restart ssh.service && systemctl reset-failed ssh.service")
    until(
        lambda: machine.exec("fail2ban-client", "get", "sshd", "banip").stdout,
        90,
        "the address is banned",
        lambda banned: source in banned,
        told=lambda: machine.exec("fail2ban-client", "status", "sshd").stdout,
    )
    refused = client.ssh("true", source=source)
    assert refused.returncode == REFUSED
    assert "Permission denied" not in refused.stderr, "sshd was asked, although the address is banned"
    assert client.ssh("true", source=client.address()).returncode == 0, "somebody else is banned as well"
    machine.exec("fail2ban-client", "unban", source)
    assert client.ssh("true", source=source).returncode == 0


NEWCOMER = "newcomer"
FIRST, OWN = (secrets.token_urlsafe(16) for _ in range(2))
TYPES = """#!/bin/sh
case "$1" in
    *[Nn]ew\\ password*) printf '%s\\n' "$OWN" ;;
    *) printf '%s\\n' "$TYPED" ;;
esac
echo "$1" >>"$SAID"
"""


class Newcomer:
    """A container admin whose password comes from the inventory, and who types what is asked for."""

    def __init__(self, machine: Machine, client: Client, folder: Path) -> None:
        self.machine, self.client, self.folder = machine, client, folder
        self.key = folder / "key"
        self.public = key_pair(self.key, NEWCOMER).strip()
        self.said = folder / "said"
        typist = folder / "typist"
        typist.write_text(TYPES)
        typist.chmod(0o700)
        hashed = subprocess.run(["openssl", "passwd", "-6", FIRST], capture_output=True, text=True, check=True)
        self.hash = hashed.stdout.strip()

    def grant(self, **options: object) -> dict[str, object]:
        """What the module `container_admin` says."""
        wanted = {"name": NEWCOMER, "authorized_keys": [self.public], **options}
        result = playbook.task(INVENTORY, self.machine.name, {"ananke.jupyterhub.container_admin": wanted})
        assert not result.get("failed"), result
        return result

    def login(self, password: str, new: str = "") -> tuple[int, str, str]:
        """Status and output of a login with the key and this password, and the questions that were asked."""
        self.said.write_text("")
        environment = {
            **self.client.types(password),
            **{"SSH_ASKPASS": str(self.folder / "typist"), "OWN": new, "SAID": str(self.said)},
        }
        options = self.client.settings(key=str(self.key), password=password)
        line = [
            "timeout",
            "30",
            "ssh",
            "-F",
            "none",
            "-p",
            str(HARDENED),
            "-l",
            NEWCOMER,
            *options,
            "10.42.0.1",
            "id -un",
        ]
        done = self.client.run(*line, check=False, env=environment, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout.strip(), done.stderr + self.said.read_text()


@pytest.fixture
def newcomer(machine: Machine, client: Client, tmp_path: Path) -> Iterator[Newcomer]:
    """Somebody who has no account yet."""
    yield Newcomer(machine, client, tmp_path)
    script = f"""
        loginctl disable-linger {NEWCOMER}; systemctl stop user@$(id -u {NEWCOMER}).service
        userdel --remove {NEWCOMER}; rm -f /etc/ssh/ananke.d/{NEWCOMER}.conf /var/lib/ananke/passwords/{NEWCOMER}
        systemctl reload ssh
    """
    machine.exec("sh", "-c", script, check=False)


def test_a_first_password_must_be_changed_and_stays_changed(newcomer: Newcomer) -> None:
    first = {"password_hash": newcomer.hash, "password_change": True}
    assert newcomer.grant(**first)["changed"]
    status, said, questions = newcomer.login(FIRST, "short")
    assert status == REFUSED, "a bad password was taken"
    status, said, questions = newcomer.login(FIRST, OWN)
    assert "change your password" in questions, questions
    assert (status, said) == (0, NEWCOMER), questions
    assert newcomer.login(FIRST)[0] == REFUSED
    assert newcomer.login(OWN)[:2] == (0, NEWCOMER)
    assert not newcomer.grant(**first)["changed"], "another run takes the account's own password away"
    assert newcomer.login(OWN)[:2] == (0, NEWCOMER)


def test_who_has_a_key_and_no_password_is_warned_of(newcomer: Newcomer) -> None:
    granted = newcomer.grant()
    assert "has keys and no password" in str(granted)
    assert newcomer.login("anything")[0] == REFUSED
