"""A change that would lock everybody out is taken back, and the run says why."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from conftest import INVENTORY, Apply

import playbook
from testbed.client import MACHINE4, Client
from testbed.machine import Machine
from testbed.waiting import until

TIMEOUT = 15
"""Seconds until the machine takes back what no login has confirmed; short, so that the tests are."""

WRONG = "wrong"


def state(machine: Machine) -> str:
    """What decides who gets in: files, and what the kernel filters by."""
    script = (
        "sha256sum /etc/ssh/sshd_config.d/* /etc/nftables.conf /etc/nftables.d/*;"
        "nft --stateless list table inet ananke; ss --no-header -ltn 'sport = :986'; test ! -e /var/lib/ananke/access/trial"
    )
    return str(machine.exec("sh", "-c", script).stdout)


def check_as_before(client: Client, machine: Machine, before: str) -> None:
    assert state(machine) == before
    assert client.ssh("true").returncode == 0
    timers = machine.exec("systemctl", "list-timers", "--plain", "--no-legend", "ananke-access-restore.timer").stdout
    assert not timers.strip()


def test_a_blocked_port_is_opened_again(client: Client, machine: Machine, apply: Apply) -> None:
    before = state(machine)
    # the rule comes before those that open ports
    outcome = apply("firewall", firewall_rules=["tcp dport 986 drop"])
    assert outcome.status != 0
    assert "a fresh login on port 986 failed" in outcome.output
    assert "The old state is back" in outcome.output
    check_as_before(client, machine, before)


def test_a_wrong_listen_address_is_taken_back(client: Client, machine: Machine, apply: Apply) -> None:
    before = state(machine)
    outcome = apply("ssh", ssh_listen_addresses=["127.0.0.1"])
    assert outcome.status != 0
    assert "a fresh login on port 986 failed" in outcome.output
    check_as_before(client, machine, before)


def test_an_address_that_the_machine_has_not_is_taken_back(client: Client, machine: Machine, apply: Apply) -> None:
    before = state(machine)
    outcome = apply("ssh", ssh_listen_addresses=["192.0.2.1"])
    assert outcome.status != 0
    assert "sshd does not listen on port 986" in outcome.output
    assert "Bind to port 986 on 192.0.2.1 failed" in outcome.output
    check_as_before(client, machine, before)


def test_a_wrong_password_of_ansible_is_noticed(client: Client, machine: Machine, apply: Apply) -> None:
    before = state(machine)
    # the present connection stays; the fresh login after the change is refused
    assert apply("always").status == 0
    outcome = apply("ssh", ssh_login_grace_time=59, ansible_password=WRONG)
    assert outcome.status != 0
    assert "a fresh login on port 986 failed" in outcome.output
    assert "Permission denied" in outcome.output
    check_as_before(client, machine, before)


def test_a_port_whose_host_key_is_unknown_is_taken_back(
    client: Client, machine: Machine, apply: Apply, tmp_path: Path
) -> None:
    before = state(machine)
    key = Path(machine.known_hosts).read_text().split(maxsplit=1)[1].splitlines()[0]
    known = tmp_path / "known_hosts"
    known.write_text(f"[{MACHINE4}]:986 {key}\n")
    way = f'-o ProxyCommand="{" ".join(client.enter)} nc %h %p" -o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes'
    outcome = apply("ssh", ssh_port=987, ansible_ssh_common_args=way)
    assert outcome.status != 0
    assert "a fresh login on port 987 failed: the machine's host key is not known for that port" in outcome.output
    assert "The old state is back" in outcome.output
    check_as_before(client, machine, before)


def test_what_sshd_and_nft_refuse_changes_nothing(client: Client, machine: Machine, apply: Apply) -> None:
    before = state(machine)
    refused = apply("ssh", ssh_ciphers=["rot13"])
    assert refused.status != 0
    assert "sshd refuses its configuration" in refused.output
    assert "rot13" in refused.output
    check_as_before(client, machine, before)
    refused = apply("firewall", firewall_rules=["tcp dport ssssh accept"])
    assert refused.status != 0
    assert "nft refuses the firewall" in refused.output
    check_as_before(client, machine, before)


def test_a_second_opinion_in_sshd_s_configuration_is_found(client: Client, machine: Machine, apply: Apply) -> None:
    before = state(machine)
    machine.exec("sh", "-c", "cp -p /etc/ssh/sshd_config /etc/ssh/kept && sed -i '1i Port 2222' /etc/ssh/sshd_config")
    try:
        outcome = apply("ssh", ssh_login_grace_time=59)
        assert outcome.status != 0
        assert "port: something else than /etc/ssh/sshd_config.d/00-ananke.conf says is in force" in outcome.output
    finally:
        machine.exec("mv", "/etc/ssh/kept", "/etc/ssh/sshd_config")
    check_as_before(client, machine, before)


def begin_and_kill(machine: Machine, in_force: str, *arguments: str) -> None:
    """Start a run and kill it, and the connections that it has, as soon as its change is in force, which this command tells."""
    line = playbook.arguments("machines", INVENTORY, *arguments)
    process = subprocess.Popen(
        line,
        env=playbook.environment(ANSIBLE_SSH_ARGS="-o ControlMaster=no"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 180
        while machine.exec("sh", "-c", in_force, check=False).returncode:
            assert process.poll() is None, "the run ended before its change was in force"
            assert time.monotonic() < deadline
    finally:
        subprocess.run(["kill", "-KILL", "--", f"-{process.pid}"], check=False)
        process.wait()


def test_a_run_that_dies_locks_nobody_out(client: Client, machine: Machine) -> None:
    before = state(machine)
    change = {"ssh_listen_addresses": ["127.0.0.1"], "ssh_timeout": TIMEOUT}
    listens = "ss --no-header -ltn 'sport = :986' | grep -q 127.0.0.1"
    begin_and_kill(machine, listens, "--tags=ssh", "--extra-vars", json.dumps(change))
    assert client.ssh("true").returncode != 0, "the change was not in force at all"
    until(lambda: client.ssh("true").returncode == 0, TIMEOUT + 30, "the machine has taken the change back")
    check_as_before(client, machine, before)
    assert "was taken back" in machine.exec("journalctl", "--unit=ananke-access-restore", "--no-pager").stdout


def test_the_port_moves_and_runs_find_it(client: Client, machine: Machine, apply: Apply, tmp_path: Path) -> None:
    before = state(machine)

    def now_at(port: int) -> list[str]:
        """Arguments of a run whose inventory says where the machine is."""
        path = tmp_path / f"{port}.ini"
        path.write_text(f"[machines]\nhardened ansible_port={port}\n")
        return ["--inventory", str(path)]

    lost = apply("always", ananke_ssh_port=987)
    assert lost.status != 0
    assert "answers neither on port 987 nor 22" in lost.output
    moved = apply("ssh,firewall", *now_at(986), ananke_ssh_port=987)
    assert moved.status == 0, moved.output
    assert client.ssh("true", port=987).returncode == 0
    assert client.ssh("true", port=986).returncode != 0
    again = apply("ssh,firewall", ananke_ssh_port=987)
    assert (again.status, again.changed) == (0, 0), again.output
    back = apply("ssh,firewall", *now_at(987))
    assert back.status == 0, back.output
    check_as_before(client, machine, before)
