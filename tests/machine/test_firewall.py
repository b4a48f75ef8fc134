"""What the network sees of the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from testbed.client import MACHINE4, MACHINE6, OTHERS, Client
from testbed.machine import Machine

OPEN = {80, 443, 986}


@pytest.fixture(scope="module")
def listening(machine: Machine) -> Iterator[set[int]]:
    """Ports where something listens on all addresses, which only the firewall hides."""
    machine.exec("systemd-run", "--quiet", "--unit=leaky", "python3", "-m", "http.server", "8080", "--bind", "::")
    machine.exec("sh", "-c", "until ss -ltn | grep -q :8080; do sleep 0.1; done")
    yield {8080}
    machine.exec("systemctl", "stop", "leaky.service")


@pytest.mark.parametrize("address", [MACHINE4, MACHINE6])
def test_a_scan_sees_only_what_was_opened(client: Client, listening: set[int], address: str) -> None:
    family = ["-6"] if ":" in address else []
    found = client.run(
        "nmap", *family, "-Pn", "-n", "--min-rate=8000", "--max-retries=1", "-p-", "-oG", "-", address
    ).stdout
    ports = {int(port): state for port, state in re.findall(r"(\d+)/(open|closed|unfiltered)/", found)}
    assert {port for port, state in ports.items() if state == "open"} == OPEN
    assert not listening & ports.keys()


def test_the_scan_would_see_it(client: Client, machine: Machine, listening: set[int]) -> None:
    machine.exec("nft", "insert", "rule", "inet", "ananke", "input", "tcp", "dport", "8080", "accept")
    try:
        found = client.run("nmap", "-Pn", "-n", "-p8080", MACHINE4).stdout
    finally:
        machine.exec("nft", "-f", "/etc/nftables.conf")
    assert listening == {8080}
    assert "8080/tcp open" in found


def test_ping_is_answered_and_limited(client: Client) -> None:
    calm = client.run("ping", "-c", "3", "-i", "0.3", MACHINE4).stdout
    assert " 0% packet loss" in calm
    flood = client.run("ping", "-q", "-f", "-c", "500", "-I", OTHERS[0], MACHINE4, check=False).stdout
    lost = re.search(r"([\d.]+)% packet loss", flood)
    assert lost is not None
    assert float(lost[1]) > 50, flood


def test_the_firewall_is_there_after_a_boot(machine: Machine) -> None:
    assert machine.exec("systemctl", "is-enabled", "nftables.service").stdout.strip() == "enabled"
