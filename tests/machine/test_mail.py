"""Mail leaves the machine as its admin wants it, and nobody else sends any."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from smtp_sink import HOST, PORT, USER, Sink, header

import playbook
from testbed.client import Client
from testbed.machine import USER as ADMIN
from testbed.machine import Machine
from testbed.waiting import until

# what a shell, a configuration file or a parser could trip over
PASSWORD = "p|a:ss #'\"$w %d"  # noqa: S105 - of the test
ADMINS = ["admins@example.org", "second@example.org"]
COLLEAGUE = "colleague@example.org"
INVENTORY = playbook.ROOT / "tests/machine/inventory"


def send(machine: Machine, user: str, to: str, text: str) -> subprocess.CompletedProcess[str]:
    message = f"Subject: {text}\n\n{text}\n"
    return machine.exec("runuser", "-u", user, "--", "/usr/sbin/sendmail", to, input=message, check=False)


def mailbox(machine: Machine, user: str) -> str:
    return str(machine.exec("sh", "-c", f"cat /var/mail/{user} 2>/dev/null || true").stdout)


def wait_in_mailbox(machine: Machine, user: str, text: str) -> str:
    return until(lambda: mailbox(machine, user), 120, f"a mail with {text!r} arrives", lambda box: text in box)


def queue(machine: Machine) -> str:
    return str(machine.exec("mailq").stdout)


def journal(machine: Machine) -> str:
    return str(machine.exec("journalctl", "--no-pager", "--output=cat", "--facility=mail", "--since=-5min").stdout)


def wait_in_journal(machine: Machine, text: str) -> None:
    until(lambda: journal(machine), 120, f"the journal has {text!r}", lambda lines: text in lines)


class Site:
    """An admin's variables of mail, with the login in a vault."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        self.folder, self.sink = folder, sink
        (folder / "vault-password").write_text("of the vault\n")
        self.first = self.apply("--diff")

    def apply(self, *more: str, password: str = PASSWORD, **settings: object) -> playbook.Outcome:
        vault, key = self.folder / "vault.yml", f"--vault-password-file={self.folder / 'vault-password'}"
        vault.write_text(json.dumps({"mail_smarthost_user": USER, "mail_smarthost_password": password}))
        subprocess.run(["ansible-vault", "encrypt", key, str(vault)], check=True, capture_output=True)
        variables = {
            "ananke_admin_mail": ADMINS,
            "mail_name": "machine1.example.org",
            "mail_masquerade": "hubs@example.org",
            "mail_aliases": {"colleague": COLLEAGUE},
            "mail_smarthost": HOST,
            "mail_smarthost_port": PORT,
            "mail_smarthost_fingerprint": self.sink.fingerprint,
            **settings,
        }
        more = (key, f"--extra-vars=@{vault}", f"--extra-vars={json.dumps(variables)}", *more)
        return playbook.run("machines", INVENTORY, "--tags=mail", *more)


@pytest.fixture(scope="module")
def people(machine: Machine) -> Iterator[None]:
    """A colleague who may send, and an outsider who may not."""
    machine.exec("sh", "-ec", "useradd --groups sudo colleague; useradd outsider")
    yield
    machine.exec("sh", "-c", "userdel colleague; userdel outsider; rm -f /var/mail/colleague /var/mail/outsider")


@pytest.fixture(scope="module")
def sink(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    sink = Sink(client, tmp_path_factory.mktemp("sink"), PASSWORD)
    sink.start()
    yield sink
    sink.stop()


@pytest.fixture(scope="module")
def site(machine: Machine, people: None, sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The machine with the smarthost; without it again afterwards."""
    site = Site(tmp_path_factory.mktemp("site"), sink)
    assert site.first.status == 0, site.first.output[-4000:]
    yield site
    machine.exec("sh", "-c", "rm -f /var/spool/dma/M* /var/spool/dma/Q*")
    playbook.succeed("machines", INVENTORY, "--tags=mail")


def test_without_a_smarthost_mail_stays_in_the_mailbox(machine: Machine, people: None) -> None:
    assert send(machine, "root", "postmaster", "stays here").returncode == 0
    assert "Subject: stays here" in wait_in_mailbox(machine, "root", "stays here")
    assert send(machine, "colleague", ADMIN, "for the admin").returncode == 0
    assert "\nFrom: " in wait_in_mailbox(machine, ADMIN, "for the admin")


def test_dma_is_what_it_was_but_for_who_may_run_it(machine: Machine, people: None) -> None:
    assert machine.exec("stat", "--format=%a %U %G", "/usr/sbin/dma").stdout == "2750 root mail\n"
    assert machine.exec("stat", "--format=%a %U %G", "/etc/dma/auth.conf").stdout == "640 root mail\n"
    # nobody is let in by being made a member of what owns the password and the queue
    assert machine.exec("getent", "group", "mail").stdout.strip().endswith(":")


def test_who_is_in_no_group_cannot_send(machine: Machine, people: None) -> None:
    before = mailbox(machine, "root")
    script = "echo from an outsider | /usr/sbin/sendmail root"
    refused = machine.exec("runuser", "-u", "outsider", "--", "sh", "-c", script, check=False)
    assert (refused.returncode, "Permission denied" in refused.stderr) == (126, True)
    for way in (["mail", "-s", "an outsider", "root"], ["/usr/lib/dma/dma-mbox-create", "colleague"]):
        assert machine.exec("runuser", "-u", "outsider", "--", *way, input="text\n", check=False).returncode != 0
    assert (
        "Permission denied"
        in machine.exec("runuser", "-u", "outsider", "--", "ls", "/var/spool/dma", check=False).stderr
    )
    assert queue(machine).strip() == "Mail queue is empty"
    assert mailbox(machine, "root") == before


def test_an_upgrade_of_dma_changes_nothing_of_that(machine: Machine, people: None) -> None:
    machine.exec("apt-get", "install", "--reinstall", "--yes", "dma")
    assert send(machine, "outsider", "root", "after an upgrade").returncode != 0
    assert send(machine, "colleague", "root", "a colleague after the upgrade").returncode == 0
    wait_in_mailbox(machine, "root", "a colleague after the upgrade")
    assert playbook.succeed("machines", INVENTORY, "--tags=mail").changed == 0


def test_system_services_can_send(machine: Machine) -> None:
    script = "printf '\\nfrom a service\\n' | /usr/sbin/sendmail root"
    machine.exec("systemd-run", "--quiet", "--wait", "--collect", "sh", "-c", script)
    # systemd has ended what was delivering it, with the service: the next round of the queue does it
    machine.exec("dma", "-q")
    wait_in_mailbox(machine, "root", "from a service")


def test_cron_mails_what_a_job_prints(machine: Machine, people: None) -> None:
    job = "* * * * * root echo printed by a job\n* * * * * outsider echo printed by an outsiders job\n"
    machine.exec("sh", "-c", "cat >/etc/cron.d/test-mail", input=job)
    try:
        wanted = "printed by a job"
        until(lambda: wanted in mailbox(machine, "root"), 100, "the job's mail is there", told=lambda: journal(machine))
    finally:
        machine.exec("rm", "/etc/cron.d/test-mail")


def test_mail_arrives_as_the_admins_want_it(machine: Machine, site: Site, sink: Sink) -> None:
    assert send(machine, "root", "root", "to the admins").returncode == 0
    arrived = sink.wait_for("to the admins")
    assert arrived["encrypted"]
    assert arrived["login"] == USER
    assert arrived["sender"] == "hubs@example.org"
    assert header(arrived, "Message-Id").endswith("@machine1.example.org>")
    time.sleep(1)
    recipients = [to for one in sink.messages() if "to the admins" in one["text"] for to in one["recipients"]]
    assert sorted(recipients) == ADMINS


def test_aliases_of_accounts(machine: Machine, site: Site, sink: Sink) -> None:
    send(machine, "root", "colleague", "for the colleague")
    assert sink.wait_for("for the colleague")["recipients"] == [COLLEAGUE]
    send(machine, "colleague", ADMIN, "for a host admin")
    assert sink.wait_for("for a host admin")["recipients"][0] in ADMINS
    assert send(machine, "outsider", COLLEAGUE, "out into the world").returncode != 0


def test_the_password_is_nowhere_but_where_dma_reads_it(machine: Machine, site: Site) -> None:
    assert PASSWORD in machine.exec("cat", "/etc/dma/auth.conf").stdout
    assert (
        "Permission denied"
        in machine.exec("runuser", "-u", "colleague", "--", "cat", "/etc/dma/auth.conf", check=False).stderr
    )
    output = site.first.output
    assert PASSWORD not in output
    assert json.dumps(PASSWORD)[1:-1] not in output
    found = machine.exec(
        "grep",
        "--recursive",
        "--files-with-matches",
        "--fixed-strings",
        PASSWORD,
        *("/etc", "/root", "/home", "/var"),
        check=False,
    )
    assert found.stdout.split() == ["/etc/dma/auth.conf"]


def test_a_second_run_changes_nothing(site: Site) -> None:
    outcome = site.apply()
    assert (outcome.status, outcome.changed) == (0, 0), outcome.output[-3000:]


def test_a_wrong_password_and_another_certificate_are_seen_and_cost_no_mail(
    machine: Machine, site: Site, sink: Sink
) -> None:
    assert site.apply(password="wrong").status == 0  # noqa: S106 - of the test
    send(machine, "root", "root", "refused at first")
    until(lambda: "refused" in sink.logins, 120, "a login is refused", told=lambda: journal(machine))
    until(lambda: "hubs@example.org" in queue(machine), 120, "the mail is given back", told=lambda: journal(machine))
    assert "remote delivery failed: SMTP login failed" in journal(machine)

    before = len(sink.logins)
    assert site.apply(mail_smarthost_fingerprint="00" * 32).status == 0
    send(machine, "root", "root", "for somebody in between")
    wait_in_journal(machine, "fingerprints do not match")
    assert "admins@example.org" in queue(machine)
    assert len(sink.logins) == before, "the password went to somebody else"

    site.apply()
    # what was refused was given back to its sender, and that goes now
    arrived = sink.wait_for("refused at first")
    assert arrived["recipients"] == ["hubs@example.org"]
    assert "SMTP login to 10.42.0.2 failed" in arrived["text"]
    sink.wait_for("for somebody in between")
    until(lambda: queue(machine), 120, "all mail has gone", lambda said: "Mail queue is empty" in said)


def test_a_smarthost_without_encryption_gets_nothing(machine: Machine, site: Site, sink: Sink) -> None:
    sink.stop()
    sink.start(encrypted=False)
    try:
        send(machine, "root", "root", "not in clear")
        wait_in_journal(machine, "STARTTLS not available")
        assert not any("not in clear" in one["text"] for one in sink.messages())
        assert "admins@example.org" in queue(machine)
    finally:
        sink.stop()
        sink.start()
    machine.exec("dma", "-q")  # wakes, within half a minute, what waits for the next attempt
    sink.wait_for("not in clear", timeout=90)


def test_a_group_that_the_machine_has_not_is_named(site: Site) -> None:
    outcome = site.apply("--check", mail_groups=["sudo", "nosuchgroup"])
    assert outcome.status != 0
    assert "the machine does not have: nosuchgroup" in " ".join(outcome.output.split())
    assert PASSWORD not in outcome.output
