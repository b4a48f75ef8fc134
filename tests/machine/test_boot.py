"""A boot: the machine is as hardened as before, and a change that is still on trial is taken back."""

from __future__ import annotations

import json

from conftest import Apply
from test_access import begin_and_kill, check_as_before, state

from testbed import machine as machines
from testbed.client import Client
from testbed.machine import Machine
from testbed.waiting import until


def boot(machine: Machine, client: Client) -> None:
    machines.reboot(machine.name)
    client.attach()
    until(lambda: client.ssh("true").returncode == 0, 120, "people can log in after the boot")


def test_a_boot_ends_a_trial(client: Client, machine: Machine) -> None:
    before = state(machine)
    change = {"ssh_listen_addresses": ["127.0.0.1"], "ssh_timeout": 600}
    listens = "ss --no-header -ltn 'sport = :986' | grep -q 127.0.0.1"
    begin_and_kill(machine, listens, "--tags=ssh", "--extra-vars", json.dumps(change))
    boot(machine, client)
    check_as_before(client, machine, before)


def test_the_machine_is_as_it_was(client: Client, machine: Machine, apply: Apply) -> None:
    del client
    assert (
        machine.exec("systemctl", "is-active", "fail2ban", "ssh", "nftables", check=False).stdout.split()
        == ["active"] * 3
    )
    again = apply("ssh,firewall")
    assert (again.status, again.changed) == (0, 0), again.output
