"""What the role `cgroups` does to a machine. Limits themselves need a kernel of their own: tests/vm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import playbook
from testbed.machine import Machine

INVENTORY = playbook.ROOT / "tests/machine/inventory"
PROBE = "cgroups-probe"
OLD = '#!/bin/sh\ncase "$*" in */sys/fs/cgroup) echo tmpfs;; *) exec /usr/bin/stat "$@";; esac\n'


@pytest.fixture(scope="module")
def manager(machine: Machine) -> Iterator[str]:
    """The manager of an account that nobody is logged in to, as container admins have one."""
    machine.exec("useradd", "--create-home", PROBE)
    machine.exec("loginctl", "enable-linger", PROBE)
    unit = f"user@{machine.exec('id', '--user', PROBE).stdout.strip()}.service"
    machine.exec("systemctl", "start", unit)
    yield unit
    machine.exec("loginctl", "disable-linger", PROBE)
    machine.exec("systemctl", "stop", unit)
    machine.exec("userdel", "--remove", PROBE, check=False)


def shown(machine: Machine, unit: str, name: str) -> str:
    """A property of a unit."""
    return str(machine.exec("systemctl", "show", unit, f"--property={name}", "--value").stdout).strip()


def test_controllers_are_handed_to_accounts(machine: Machine, manager: str) -> None:
    assert shown(machine, manager, "Delegate") == "yes"
    assert shown(machine, manager, "DelegateControllers") == "cpu cpuset io memory pids"


def test_an_account_may_run_most_of_what_the_kernel_holds_and_the_system_keeps_its_share(
    machine: Machine, manager: str
) -> None:
    account = f"user-{manager.removeprefix('user@').removesuffix('.service')}.slice"
    one, all_of_them = int(shown(machine, account, "TasksMax")), int(shown(machine, "user.slice", "TasksMax"))
    assert one / all_of_them == pytest.approx(80 / 90, rel=0.01)
    assert one > 2 * 16384, "there is no room for two hubs"


def test_an_expired_password_does_not_end_an_account_s_containers(machine: Machine, manager: str) -> None:
    machine.exec("chage", "--lastday", "0", PROBE)
    try:
        machine.exec("systemctl", "restart", manager)
        assert shown(machine, manager, "ActiveState") == "active"
    finally:
        machine.exec("chage", "--lastday", "-1", PROBE)


def test_in_a_container_old_control_groups_are_refused_with_what_to_do(machine: Machine) -> None:
    machine.exec("install", "-m", "755", "/dev/stdin", "/usr/local/sbin/stat", input=OLD)
    try:
        refused = playbook.run("machines", INVENTORY, "--tags=cgroups", "--check")
    finally:
        machine.exec("rm", "/usr/local/sbin/stat")
    assert refused.status != 0
    assert "set it on the machine around it" in " ".join(refused.output.split())


def test_a_run_that_was_killed_after_writing_is_finished_by_the_next(machine: Machine, manager: str) -> None:
    machine.exec("touch", "/etc/systemd/system/user@.service.d/60-ananke.conf")
    assert shown(machine, manager, "NeedDaemonReload") == "yes"
    main = shown(machine, manager, "MainPID")
    finished = playbook.succeed("machines", INVENTORY, "--tags=cgroups")
    assert finished.changed == 1, finished.output[-3000:]
    assert shown(machine, manager, "NeedDaemonReload") == "no"
    assert (shown(machine, manager, "ActiveState"), shown(machine, manager, "MainPID")) == ("active", main)
    assert playbook.succeed("machines", INVENTORY, "--tags=cgroups").changed == 0
