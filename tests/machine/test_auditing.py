"""What changes on the machine is reported, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import playbook
from testbed.machine import Machine
from testbed.waiting import until

INVENTORY = playbook.ROOT / "tests/machine/inventory"
PACKAGED = "/usr/share/nano/man.nanorc"
BOX = "/var/mail/root"


def report(machine: Machine, *arguments: str) -> str:
    return str(machine.exec("ananke-report", "--print", *arguments).stdout)


@pytest.fixture
def accepted(machine: Machine) -> Iterator[None]:
    """System files are as they were accepted, before and after; rkhunter knows the accounts."""
    machine.exec("ananke-integrity", "accept")
    machine.exec("rkhunter", "--check", "--cronjob", "--enable", "passwd_changes,group_changes", check=False)
    yield
    machine.exec("ananke-integrity", "accept")


@pytest.fixture
def mailbox(machine: Machine) -> Iterator[None]:
    """Root's mailbox, empty at first."""
    machine.exec("sh", "-c", f"! [ -e {BOX} ] || : >{BOX}")
    yield
    machine.exec("sh", "-c", f"! [ -e {BOX} ] || : >{BOX}")


def mails(machine: Machine, count: int = 1) -> str:
    """Root's mailbox when that many mails have arrived."""

    def box() -> tuple[str, str]:
        waiting = machine.exec("mailq").stdout  # first: what has left the queue is in the mailbox
        return waiting, machine.exec("sh", "-c", f"cat {BOX} 2>/dev/null || true").stdout

    def arrived(found: tuple[str, str]) -> bool:
        return "Mail queue is empty" in found[0] and found[1].count("\nSubject: ") >= count

    return until(box, 120, f"{count} mails have arrived", arrived)[1]


def test_the_unit_mails_one_report_and_a_changed_file_is_in_it(machine: Machine, accepted: None, mailbox: None) -> None:
    machine.exec("sh", "-c", "echo '# by the test' >>/etc/hosts.allow; chmod u+s /usr/bin/nice")
    try:
        before = time.monotonic()
        machine.exec("systemctl", "start", "ananke-report.service")
        print(f"the report took {time.monotonic() - before:.0f} s")
        text = mails(machine)
        time.sleep(2)
        assert mails(machine).count("\nSubject: ") == 1
    finally:
        machine.exec("sh", "-c", "sed -i '$d' /etc/hosts.allow; chmod u-s /usr/bin/nice")
    head = text.split("\n\n")[0]
    assert "Subject: [hardened] findings: aide" in head
    assert "/etc/hosts.allow" in text
    assert "/usr/bin/nice" in text
    assert "ananke-integrity accept" in text
    states = dict(
        line.split()[1::-1] for line in text.splitlines() if line.startswith(("quiet ", "FINDING ", "FAILED "))
    )
    # the tracker of holes is out of the tests' reach: said, not passed over
    assert states.pop("debsecan") in ("quiet", "FINDING", "FAILED")
    assert states.pop("aide") == "FINDING"
    # no false alarms
    assert set(states) >= {"debsums", "rkhunter", "chkrootkit", "auditd", "logwatch"}
    assert set(states.values()) == {"quiet"}, text


def test_rkhunter_warns_of_a_hidden_folder_below_dev(machine: Machine) -> None:
    machine.exec("sh", "-c", "mkdir /dev/.hidden && echo text >/dev/.hidden/file")
    look = ("rkhunter", "--check", "--cronjob", "--report-warnings-only", "--enable", "filesystem")
    try:
        found = machine.exec(*look, check=False)
    finally:
        machine.exec("rm", "-r", "/dev/.hidden")
    assert (found.returncode, "Hidden directory found: /dev/.hidden" in found.stdout) == (1, True)
    assert machine.exec(*look).stdout == ""


def test_what_chkrootkit_finds_is_reported(machine: Machine) -> None:
    machine.exec("sh", "-c", "mkdir -p /usr/lib/.fx && touch /usr/lib/.fx/file")
    try:
        text = report(machine, "--only", "chkrootkit")
    finally:
        machine.exec("rm", "-r", "/usr/lib/.fx")
    assert text.startswith("FINDING chkrootkit")
    assert "/usr/lib/.fx" in text


def test_debsums_notices_a_changed_file_of_a_package(machine: Machine) -> None:
    machine.exec("sh", "-c", f"cp -a {PACKAGED} /root/original && echo changed >>{PACKAGED}")
    try:
        text = report(machine, "--only", "debsums")
    finally:
        machine.exec("mv", "/root/original", PACKAGED)
    assert text.startswith("FINDING debsums")
    assert PACKAGED in text
    assert report(machine, "--only", "debsums").startswith("quiet debsums")


def test_logwatch_reports_an_error_of_any_program(machine: Machine) -> None:
    for number in (1, 2):
        machine.exec("logger", "--priority", "daemon.err", "--tag", f"someprogram[{number}]", "the disk is on fire")
    machine.exec("logger", "--priority", "daemon.info", "--tag", "someprogram", "all is well")
    text = report(machine, "--only", "logwatch", "--today")
    errors = text.partition("Errors in the journal Begin")[2].partition("Errors in the journal End")[0]
    assert "2 times  someprogram: the disk is on fire" in errors
    assert "all is well" not in text


def test_logwatch_reads_logins_from_the_journal(machine: Machine) -> None:
    machine.exec("runuser", "-u", machine.ssh_user, "--", "sudo", "-n", "/usr/bin/true", check=False)
    machine.exec(
        "logger", "--priority", "authpriv.info", "--tag", "sshd[77]", "Invalid user mallory from 192.0.2.7 port 22"
    )
    text = report(machine, "--only", "logwatch", "--today")
    assert "192.0.2.7" in text
    sudo = text.partition("Sudo (secure-log) Begin")[2].partition("Sudo (secure-log) End")[0]
    assert "/usr/bin/true" in sudo


def test_what_apt_changes_is_accepted_and_nothing_else_with_it(machine: Machine, accepted: None, mailbox: None) -> None:
    machine.exec("sh", "-c", "echo '# by somebody else' >>/etc/hosts.deny")
    try:
        machine.exec("apt-get", "install", "--yes", "--no-install-recommends", "acl")
        text = mails(machine)
        assert "findings: aide" in text
        assert "/etc/hosts.deny" in text
        assert "setfacl" not in text
        assert report(machine, "--only", "aide").startswith("quiet aide")
    finally:
        machine.exec("sh", "-c", "sed -i '$d' /etc/hosts.deny; apt-get purge --yes acl")


def test_no_tool_mails_by_itself(machine: Machine, mailbox: None) -> None:
    for folder in ("cron.daily", "cron.weekly"):
        machine.exec("run-parts", f"/etc/{folder}", check=False)
    machine.exec("sh", "-c", "systemctl start chkrootkit.service || true; /usr/bin/debsecan --cron || true")
    time.sleep(3)
    assert machine.exec("sh", "-c", f"cat {BOX} 2>/dev/null || true").stdout == ""
    timers = machine.exec("systemctl", "list-timers", "--no-pager", "--plain", "--no-legend").stdout
    assert "ananke-report.timer" in timers
    assert "lynis" not in timers


def test_what_needs_a_kernel_is_configured_but_not_started(machine: Machine) -> None:
    for unit in ("auditd.service", "acct.service"):
        assert machine.exec("systemctl", "is-enabled", unit, check=False).stdout == "disabled\n"
        assert machine.exec("systemctl", "is-failed", unit, check=False).stdout == "inactive\n"
    # auditctl reads rules only where it can load them: the VM's tests do
    assert "-F key=identity" in machine.exec("cat", "/etc/audit/rules.d/50-ananke.rules").stdout


def test_sysstat_measures(machine: Machine) -> None:
    machine.exec("systemctl", "start", "sysstat-collect.service")
    machine.exec("sh", "-c", "sleep 1; systemctl start sysstat-collect.service")
    assert "Average:" in machine.exec("sar").stdout


def test_a_report_that_cannot_be_sent_fails_and_says_why(machine: Machine) -> None:
    machine.exec("mv", "/usr/sbin/dma", "/usr/sbin/dma.away")
    try:
        done = machine.exec("ananke-report", "--only", "debsums", check=False)
    finally:
        machine.exec("mv", "/usr/sbin/dma.away", "/usr/sbin/dma")
    assert done.returncode == 1
    assert "the mail could not be sent" in done.stderr
    assert "journalctl --facility=mail" in done.stderr


def test_a_run_that_was_killed_before_the_database_was_made_is_finished(machine: Machine) -> None:
    machine.exec("rm", "/var/lib/aide/aide.db")
    failed = report(machine, "--only", "aide")
    assert failed.startswith("FAILED aide")
    assert "`ananke-integrity accept` makes it" in failed
    foretold = playbook.succeed("machines", INVENTORY, "--tags=auditing", "--check")
    assert foretold.changed == 1
    playbook.succeed("machines", INVENTORY, "--tags=auditing")
    assert report(machine, "--only", "aide").startswith("quiet aide")


def test_without_mail_the_role_says_what_to_do(machine: Machine) -> None:
    machine.exec("mv", "/usr/sbin/sendmail", "/usr/sbin/sendmail.away")
    try:
        outcome = playbook.run("machines", INVENTORY, "--tags=auditing")
    finally:
        machine.exec("mv", "/usr/sbin/sendmail.away", "/usr/sbin/sendmail")
    assert outcome.status != 0
    assert "apply the role mail first (--tags mail,auditing)" in " ".join(outcome.output.split())


def test_fewer_tools_are_fewer_parts(machine: Machine) -> None:
    tools = '--extra-vars={"auditing_tools": ["debsums", "sysstat"]}'
    playbook.succeed("machines", INVENTORY, "--tags=auditing", tools)
    try:
        text = report(machine)
        assert [line.split()[1] for line in text.splitlines() if line.startswith(("quiet  ", "FINDING "))] == [
            "debsums"
        ]
    finally:
        playbook.succeed("machines", INVENTORY, "--tags=auditing")
