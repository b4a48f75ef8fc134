"""Homes on file system images: mounted before the account's services, enlarged without loss, whole after a kill anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import INVENTORY

import playbook
from homes import IMAGE, NAME, Account
from testbed.machine import Machine


@pytest.fixture
def account(machine: Machine) -> Iterator[Account]:
    """An account that does not exist yet."""
    found = Account(machine, machine.name, INVENTORY)
    found.remove()
    yield found
    found.remove()


def test_a_new_account_gets_a_home_of_its_own(account: Account) -> None:
    foretold = account.one("256M", check=True)
    assert foretold["changed"]
    assert not account.run(f"ls -d {IMAGE} /home/{NAME} || true")
    made = account.one("256M")
    assert made["changed"], made
    mounted = account.run(f"findmnt --noheadings --output OPTIONS /home/{NAME}")
    assert {"nosuid", "nodev"} <= set(mounted.strip().split(","))
    assert ".bashrc" in account.own("ls -A")
    assert account.run(f"stat -c '%a %U' /home/{NAME}").split() == ["750", NAME]
    assert int(account.run(f"du --block-size=1M {IMAGE}").split()[0]) < 64, "the image is sparse"
    assert not account.one("256M")["changed"]


def test_a_full_home_harms_nobody_else(account: Account) -> None:
    account.one("256M")
    free = account.run("df --output=avail --block-size=1M /home | tail -1")
    assert "No space left" in account.own(
        "head -c 400M /dev/zero >full 2>&1 || dd if=/dev/zero of=more bs=1M count=9 2>&1 || true"
    )
    assert int(account.run("df --output=avail --block-size=1M /home | tail -1")) > int(free) - 300
    assert not account.one("256M")["changed"], "an account with a full home can be looked after"


def test_nothing_of_the_account_runs_without_its_home(account: Account) -> None:
    account.one("256M")
    manager = f"user@{account.run(f'id -u {NAME}').strip()}.service"
    account.own("echo kept >file; sync")
    account.run(f"systemctl stop {manager} home-{NAME}.mount; systemctl start {manager}")
    assert account.own("cat file") == "kept\n", "as at a boot, the manager brings the home"
    assert account.run(f"ls /etc/systemd/system/multi-user.target.wants/home-{NAME}.mount")
    account.run(f"systemctl stop {manager} home-{NAME}.mount; mv {IMAGE} {IMAGE}.away")
    started = account.machine.exec("systemctl", "start", manager, check=False)
    assert started.returncode != 0, "the account's hubs would start in an empty home"
    account.run(f"mv {IMAGE}.away {IMAGE}")
    back = account.one("256M")
    assert back["changed"], back
    assert account.own("cat file") == "kept\n"
    assert not account.one("256M")["changed"]


def test_a_home_that_holds_files_moves_only_when_asked(account: Account) -> None:
    account.run(
        f"useradd --create-home {NAME}; runuser -u {NAME} -- sh -c 'echo mine >/home/{NAME}/file; ln -s file /home/{NAME}/link'"
    )
    for check in (True, False):
        refused = account.one("256M", check=check)
        assert refused["failed"]
        assert "container_admin_home_offline=true" in str(refused["msg"])
    assert not account.run(f"ls -d {IMAGE}* || true")
    assert account.one("256M", offline=True, check=True)["changed"]
    moved = account.one("256M", offline=True)
    assert moved["changed"], moved
    assert account.own("cat link; readlink link; stat -c %U file").split() == ["mine", "file", NAME]
    assert account.run(f"findmnt --noheadings --output TARGET /home/{NAME}").strip() == f"/home/{NAME}"
    assert account.run(f"cat /home/.{NAME}.before-image/file") == "mine\n"


def test_what_cannot_be_is_refused(account: Account) -> None:
    account.one("512M")
    assert "not shrunk to 256M" in str(account.one("256M")["msg"])
    assert "enlarge that disk" in str(account.one("60T")["msg"])
    assert not account.one("512M")["changed"]


def test_twenty_enlargements_under_load_lose_nothing(account: Account) -> None:
    account.one("256M")
    account.start_writing()
    sizes = [f"{256 + 128 * step}M" for step in range(1, 21)]
    foretold = account.one(sizes[0], check=True)
    assert foretold["actions"] == ["home enlarged from 256M to 384M"]
    results = account.grant(*sizes, offline=True)
    assert [one.get("msg") for one in results if not one["changed"]] == []
    assert len(results) == 20
    account.nothing_lost()
    assert not account.one(sizes[-1])["changed"]
    account.run(f"systemctl stop user@$(id -u {NAME}).service home-{NAME}.mount; e2fsck -f -n {IMAGE}")


def test_a_move_that_is_killed_at_every_step_is_finished_by_the_next_run(account: Account) -> None:
    account.run(f"useradd --create-home {NAME}; runuser -u {NAME} -- sh -c 'echo mine >/home/{NAME}/file'")
    for number, last in enumerate(["mkfs.ext4", "cp", "umount", "daemon-reload", "enable"]):
        account.kill_at(last)
        # consent is given once: what has begun is finished without it
        assert account.one("256M", offline=number == 0).get("failed"), f"the module did not run {last}"
        account.kill_no_more()
    finished = account.one("256M")
    assert finished["changed"], finished
    assert account.own("cat file") == "mine\n"
    assert account.run(f"findmnt --noheadings --output TARGET /home/{NAME}").strip() == f"/home/{NAME}"
    assert not account.one("256M")["changed"]
    assert not account.run(f"ls -d {IMAGE}.* || true")


def test_an_enlargement_that_is_killed_at_every_step_is_finished_by_the_next_run(account: Account) -> None:
    account.one("256M")
    account.own("head -c 50M /dev/urandom >data; sha256sum data >sums; sync")
    for last in ("e2fsck", "resize2fs"):
        account.kill_at(last)
        assert account.one("512M", offline=True).get("failed"), f"the module did not run {last}"
        account.kill_no_more()
    finished = account.one("512M", offline=True)
    assert finished["changed"], finished
    account.own("sha256sum --quiet --check sums")
    assert not account.one("512M")["changed"]


def test_quotas_are_refused_where_the_kernel_counts_no_projects(machine: Machine) -> None:
    quota = {"hub": "math101", "size": 1 << 30}
    hub = {"name": "math101", "port": 8101, "container_admin": {"name": NAME, "home_size": "2G", "quotas": [quota]}}
    looked = playbook.task(INVENTORY, machine.name, {"ananke.jupyterhub.machine_preflight": {"hubs": [hub]}})
    assert looked["failed"]
    said = str(looked["msg"])
    assert "has no quota_v2" in said
    assert "remove hub_user_quota" in said
