"""ssh-audit has nothing to say about the machine's sshd."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from testbed.client import MACHINE4, Client
from testbed.machine import Machine

POLICY = "Hardened Debian 13 (version 1)"
SSH_AUDIT = [sys.executable, "-c", "import sys; from ssh_audit.ssh_audit import main; sys.exit(main())"]


@pytest.fixture
def audited(client: Client, machine: Machine) -> Iterator[Client]:
    """Scans in a row trip sshd's penalties for who connects and says nothing, so sshd forgets them before and after."""
    forget = ("sh", "-c", "systemctl restart ssh.service && systemctl reset-failed ssh.service")
    machine.exec(*forget)
    yield client
    machine.exec(*forget)


def audit(client: Client, *arguments: str) -> subprocess.CompletedProcess[str]:
    return client.run(*SSH_AUDIT, "--no-colors", "--port=986", *arguments, MACHINE4, check=False)


def test_the_policy_for_the_release_passes(audited: Client) -> None:
    done = audit(audited, "--policy", POLICY)
    assert done.returncode == 0, done.stdout
    assert "Passed" in done.stdout


def test_there_is_no_failure_and_no_warning(audited: Client) -> None:
    done = audit(audited)
    # 2 would be warnings, 3 failures
    assert done.returncode == 0, done.stdout
    assert "(key) ssh-ed25519" in done.stdout


def test_it_would_find_something(audited: Client, machine: Machine) -> None:
    path = "/etc/ssh/sshd_config.d/00-ananke.conf"
    machine.exec("sh", "-c", f"cp -p {path} /root/kept && sed -i '/^KexAlgorithms/s/$/,ecdh-sha2-nistp256/' {path}")
    machine.exec("systemctl", "reload", "ssh.service")
    try:
        found = audit(audited)
        policy = audit(audited, "--policy", POLICY)
    finally:
        machine.exec("mv", "/root/kept", path)
        machine.exec("systemctl", "reload", "ssh.service")
    assert found.returncode in (2, 3), found.stdout
    assert policy.returncode != 0, policy.stdout
