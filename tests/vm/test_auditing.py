"""auditd and acct record on a real kernel, and after a reboot."""

from __future__ import annotations

import re

from conftest import Applied
from guest import Guest

from testbed.machine import USER


def records(guest: Guest, key: str) -> str:
    """What auditd has recorded with a key since the last boot, in words; it is written with a short delay."""
    return guest.root(f"sleep 3; ausearch --interpret --input-logs --start boot --key {key} 2>&1 || true")


def check_rules(guest: Guest) -> None:
    loaded = guest.root("auditctl -l")
    written = guest.root("cat /etc/audit/rules.d/50-ananke.rules")
    keys = set(re.findall(r"key=(\S+)", written))
    assert keys >= {"identity", "sudoers", "sshd", "time", "modules", "mounts", "root"}
    # what watches a path that the machine has not is left out; each key has something left to watch
    assert keys <= set(re.findall(r"(?:key=|-k )(\S+)", loaded)), loaded
    assert guest.root("auditctl -s | sed -n 's/^enabled //p'") == "1"
    assert guest.root("systemctl is-active auditd.service acct.service").split() == ["active", "active"]


def test_the_rules_are_in_force(applied: Applied) -> None:
    check_rules(applied.guest)


def test_a_new_account_is_recorded(applied: Applied) -> None:
    applied.guest.root("useradd auditprobe; userdel auditprobe")
    found = records(applied.guest, "identity")
    assert "/usr/sbin/useradd" in found
    assert "/etc/shadow" in found


def test_who_ran_what_as_root_is_recorded(applied: Applied) -> None:
    applied.guest.root("chmod --version >/dev/null")
    found = records(applied.guest, "root")
    assert f"auid={USER}" in found
    assert "chmod --version" in found


def test_a_set_clock_is_recorded(applied: Applied) -> None:
    applied.guest.root('date --set="$(date --rfc-3339=ns)" >/dev/null')
    assert "/usr/bin/date" in records(applied.guest, "time")


def test_the_report_counts_the_records(applied: Applied) -> None:
    applied.guest.root("useradd auditprobe2; userdel auditprobe2; sleep 3")
    assert re.search(r"\d+ identity", applied.guest.root("ananke-report --print --today --only auditd"))


def test_programs_that_ended_are_recorded(applied: Applied) -> None:
    applied.guest.root("uname >/dev/null")
    assert "uname" in applied.guest.root("lastcomm uname")


def test_after_a_reboot_all_that_is_so_again(rebooted: Guest) -> None:
    check_rules(rebooted)
    rebooted.root("touch /etc/sudoers.d/auditprobe; rm /etc/sudoers.d/auditprobe")
    assert "/etc/sudoers.d/auditprobe" in records(rebooted, "sudoers")
