"""An account goes, and all that was in its home is in the archive, wherever the run is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import INVENTORY

import playbook
from homes import IMAGE, NAME, Account
from testbed.machine import Machine

ARCHIVES = "/var/lib/ananke/archives"
LISTING = "cd {folder} && find . -printf '%p %y %m %U %G %s %l\\n' | grep -v '^. d' | sort; find . -type f -exec sha256sum {{}} + | sort"
FILES = f"""
cd /home/{NAME}
mkdir -p hubs/course/private/ualice .local/share/containers/storage/overlay/layer .local/share/containers/storage/volumes/data
echo layer >.local/share/containers/storage/overlay/layer/file
echo volume >.local/share/containers/storage/volumes/data/file
echo work >'hubs/course/private/ualice/a name with
a line break'
ln -s /etc/passwd hubs/course/private/ualice/link
ln hubs/course/private/ualice/a* hubs/course/private/ualice/second
truncate --size=100M hubs/course/private/ualice/holes
mkfifo hubs/course/private/ualice/pipe
chown -hR {NAME}: .
first=$(sed -n 's/^{NAME}:\\([0-9]*\\):.*/\\1/p' /etc/subuid)
chown -hR $((first + 61234)):$((first + 61234)) hubs/course/private/ualice
setfacl -m u:{NAME}:rx hubs/course/private/ualice
chmod 0700 hubs/course/private
"""


@pytest.fixture
def account(machine: Machine) -> Iterator[Account]:
    """An account with a home on an image, with files of hub users and something that runs."""
    found = Account(machine, machine.name, INVENTORY)
    found.remove()
    found.run(f"rm -rf {ARCHIVES}")
    found.one("256M")
    found.run("DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends acl zstd >/dev/null")
    found.run(FILES)
    found.own("systemd-run --user --unit=sleeper --quiet sleep infinity")
    found.run(f"printf 'AllowUsers {NAME}\\n' >/etc/ssh/ananke.d/{NAME}.conf; systemctl reload ssh")
    yield found
    found.kill_no_more()
    found.remove()
    found.run(f"rm -rf {ARCHIVES} /etc/ssh/ananke.d/{NAME}.conf; systemctl reload ssh")


def remove(account: Account, *more: str, name: str = NAME) -> playbook.Outcome:
    chosen = json.dumps({"container_admin_remove": name})
    return playbook.run(
        "remove_account", account.inventory, "--limit", account.host, "--extra-vars", chosen, *more, timeout=300
    )


def listing(account: Account, folder: str) -> str:
    lines = account.run(LISTING.format(folder=folder)).splitlines(keepends=True)
    return "".join(line for line in lines if "storage/overlay" not in line)


def check_gone(account: Account, before: str) -> None:
    """Nothing of the account is left, and the newest archive is what was there before."""
    left = f"""
        getent passwd {NAME}; getent group {NAME}; grep ^{NAME}: /etc/subuid /etc/subgid; ls -d {IMAGE}* /home/{NAME}
        ls /etc/ssh/ananke.d/{NAME}.conf /etc/systemd/system/home-{NAME}.mount /etc/systemd/system/*/home-{NAME}.mount
        ls {ARCHIVES}/.??*
        findmnt /home/{NAME}
    """
    assert account.run(f"({left}) 2>/dev/null || true") == ""
    archive = account.run(f"ls -t {ARCHIVES}/*.tar.zst | head -n 1").strip()
    record = json.loads(account.run(f"cat {archive}.json"))
    assert (record["name"], record["hubs"]) == (NAME, ["course"])
    assert account.run(f"sha256sum {archive}").split()[0] == record["sha256"]
    assert account.run(f"stat -c '%a %U' {archive} {ARCHIVES}").split() == ["600", "root", "700", "root"]
    unpack = f"mkdir -p /root/unpacked && tar --extract --zstd --numeric-owner --acls --xattrs --file {archive} --directory /root/unpacked"
    try:
        account.run(unpack)
        assert listing(account, "/root/unpacked") == before
        assert account.run("ls -A /root/unpacked/.local/share/containers/storage").split() == ["volumes"]
        acl = account.run("getfacl --numeric --omit-header /root/unpacked/hubs/course/private/ualice")
        assert f"user:{record['uid']}:r-x" in acl
        assert int(account.run("du --block-size=1M /root/unpacked/hubs/course/private/ualice/holes").split()[0]) < 10
    finally:
        account.run("rm -rf /root/unpacked")


def test_an_account_is_archived_and_removed(account: Account) -> None:
    account.own("systemctl --user stop sleeper")
    before = listing(account, f"/home/{NAME}")
    account.own("systemd-run --user --unit=sleeper --quiet sleep infinity")
    foretold = remove(account, "--check")
    assert (foretold.status, foretold.changed) == (0, 1), foretold.output
    assert account.own("systemctl --user is-active sleeper") == "active\n"
    done = remove(account)
    assert (done.status, done.changed) == (0, 1), done.output
    check_gone(account, before)
    again = remove(account)
    assert (again.status, again.changed) == (0, 0), again.output


def test_a_removal_that_is_killed_at_every_step_is_finished_by_the_next_run(account: Account) -> None:
    before = listing(account, f"/home/{NAME}")
    for last in ("usermod", "--create", "--compare", "daemon-reload", "userdel"):
        account.kill_at(last)
        assert remove(account).status != 0, f"the module did not run {last}"
        account.kill_no_more()
        if last == "--create":
            assert f"account {NAME} has expired" in account.one("256M")["msg"]
    done = remove(account)
    assert (done.status, done.changed) == (0, 1), done.output
    check_gone(account, before)


def test_who_must_stay_stays(account: Account, machine: Machine, tmp_path: Path) -> None:
    refused = remove(account, name=machine.ssh_user)
    assert refused.status != 0
    assert "was not made for hubs" in refused.output
    hub = {"hub_machine": account.host, "hub_container_admin": NAME}
    hubs = tmp_path / "hubs.json"
    hubs.write_text(json.dumps({"hubs": {"hosts": {"course": hub}}}))
    needed = remove(account, "--inventory", str(hubs))
    assert needed.status != 0
    assert "take them out of the inventory first" in needed.output
    unnamed = playbook.run("remove_account", account.inventory, "--limit", account.host)
    assert unnamed.status != 0
    assert "--limit MACHINE --extra-vars container_admin_remove=NAME" in unnamed.output
    assert account.own("systemctl --user is-active sleeper") == "active\n"
    assert not account.run(f"ls {ARCHIVES} 2>/dev/null || true")


def test_what_the_archive_s_disk_cannot_hold_is_not_removed(account: Account) -> None:
    account.run(f"mkdir -p {ARCHIVES}; mount -t tmpfs -o size=64k tmpfs {ARCHIVES}")
    account.own("head -c 2M /dev/urandom >random")
    try:
        refused = remove(account)
    finally:
        account.run(f"umount {ARCHIVES}")
    assert refused.status != 0
    assert "nothing was deleted; make room" in refused.output
    assert account.run(f"stat -c %s /home/{NAME}/random").strip() == str(2 << 20)
