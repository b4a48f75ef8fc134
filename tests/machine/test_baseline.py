"""What the role `baseline` does to a machine, seen from its accounts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

import playbook
from testbed.machine import Machine

INVENTORY = playbook.ROOT / "tests/machine/inventory"
PROBE = "baseline-probe"
GOOD, BETTER = "zesty-Walnut-orbit-41", "quiet-Harbor-lantern-72"
LOOSENED = """
chmod 755 /home/baseline-probe /etc/cron.d
chmod 644 /etc/ssh/sshd_config
sed -i 's/^UMASK.*/UMASK 022/' /etc/login.defs
rm /etc/issue.net
"""
MAILED = "/run/baseline-mail"
SENDMAIL = f"#!/bin/sh\ncat >{MAILED}\n"


def apply(*more: str) -> playbook.Outcome:
    """The role alone, as an admin applies it."""
    return playbook.run("machines", INVENTORY, "--tags=baseline", *more)


@pytest.fixture(scope="module")
def probe(machine: Machine) -> Iterator[str]:
    """An account made after the role was applied."""
    machine.exec("useradd", "--create-home", "--shell", "/bin/bash", PROBE)
    machine.exec("chpasswd", input=f"{PROBE}:{GOOD}\n")
    yield PROBE
    machine.exec("userdel", "--remove", PROBE, check=False)


def as_probe(machine: Machine, command: str, stdin: str = "") -> tuple[int, str]:
    """Status and output of a command of the account, in a session of its own."""
    done = machine.exec("su", "--login", PROBE, "--command", command, check=False, input=stdin)
    return done.returncode, f"{done.stdout}{done.stderr}".strip()


def test_the_journal_outlives_its_service_and_is_bounded(machine: Machine) -> None:
    said = f"baseline probe {time.time_ns()}"
    machine.exec("systemd-cat", "--identifier=baseline-probe", "echo", said)
    machine.exec("journalctl", "--sync")
    machine.exec("systemctl", "restart", "systemd-journald.service")
    kept = machine.exec("journalctl", "--directory=/var/log/journal", "--identifier=baseline-probe", "--output=cat")
    assert said in kept.stdout.splitlines()
    started = machine.exec("journalctl", "--unit=systemd-journald.service", "--grep=System Journal", "--output=cat")
    assert re.search(r"System Journal \(/var/log/journal/.*\) is .*, max 1(\.0)?G", started.stdout.splitlines()[-1])


def modes(machine: Machine, *paths: str) -> list[str]:
    """Permissions of paths."""
    return str(machine.exec("stat", "--format=%a", *paths).stdout).split()


def check_new_files(machine: Machine) -> None:
    status, shown = as_probe(machine, "rm -rf new && mkdir new && touch new/file && stat --format=%A new new/file")
    assert status == 0, shown
    for mode in shown.splitlines():
        assert mode.endswith("---"), f"others may do something with {shown}"


def test_an_account_s_files_are_its_own(machine: Machine, probe: str) -> None:
    assert modes(machine, f"/home/{probe}") == ["700"]
    check_new_files(machine)


def test_nobody_else_reads_what_is_root_s(machine: Machine, probe: str) -> None:
    for path in ("/etc/crontab", "/etc/cron.d", "/etc/cron.daily", "/etc/ssh/sshd_config", "/etc/sudoers.d", "/root"):
        machine.exec("test", "-r", path)
        status, _output = as_probe(machine, f"test -r {path}")
        assert status == 1, f"{probe} reads {path}"


def test_a_new_password_must_be_good(machine: Machine, probe: str) -> None:
    for bad, why in (("sh0rt-One", "shorter than 12"), (f"{probe}-1", "user name"), ("aaaaaaaaaaaaaaaa", "")):
        status, said = as_probe(machine, "LC_ALL=C passwd", f"{GOOD}\n" + f"{bad}\n{bad}\n" * 3)
        assert status != 0, f"{bad} was taken"
        assert "BAD PASSWORD" in said
        assert why in said
    status, said = as_probe(machine, "LC_ALL=C passwd", f"{GOOD}\n{BETTER}\n{BETTER}\n")
    assert status == 0, said


def test_no_core_is_left(machine: Machine, probe: str) -> None:
    status, limit = as_probe(machine, "ulimit -Hc")
    assert (status, limit) == (0, "0"), f"{probe} may leave cores of {limit}"


def test_a_banner_is_shown_before_login(machine: Machine) -> None:
    for path in ("/etc/issue", "/etc/issue.net"):
        shown = machine.exec("cat", path).stdout
        assert "authorized" in shown
        assert "Debian" not in shown


def test_security_updates_come_by_themselves(machine: Machine) -> None:
    suite = machine.exec("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME").stdout.strip()
    said = machine.exec("unattended-upgrade", "--dry-run", "--debug", timeout=300)
    allowed = next(line for line in said.stdout.splitlines() if line.startswith("Allowed origins are:"))
    assert allowed.partition(": ")[2] == f"origin=Debian,codename={suite}-security,label=Debian-Security"
    known = machine.exec("apt-config", "dump", "--format=%f=%v%n").stdout.splitlines()
    assert "APT::Periodic::Unattended-Upgrade=1" in known
    assert "Unattended-Upgrade::Automatic-Reboot=false" in known


def test_updates_come_at_the_time_that_is_set(machine: Machine) -> None:
    # the test bed masks the timer, so that apt's lock is never taken at random
    mask = "/etc/systemd/system/apt-daily-upgrade.timer"
    machine.exec("mv", mask, "/run/timer-mask")
    try:
        machine.exec("systemctl", "daemon-reload")
        show = machine.exec(
            "systemctl", "show", "apt-daily-upgrade.timer", "--property=TimersCalendar,RandomizedDelayUSec"
        )
    finally:
        machine.exec("mv", "/run/timer-mask", mask)
        machine.exec("systemctl", "daemon-reload")
    assert re.findall(r"OnCalendar=(\S+ \S+)", show.stdout) == ["*-*-* 04:00:00"]
    assert "RandomizedDelayUSec=1h" in show.stdout


def test_no_update_restarts_hubs(machine: Machine) -> None:
    script = """
        our %nrconf = (override_rc => {});
        for my $file (</etc/needrestart/conf.d/*.conf>) { eval do { local(@ARGV, $/) = $file; <> }; die $@ if $@ }
        print "$nrconf{restart}\\n";
        for my $unit ('user@1001.service', 'nginx.service') {
            my @rules = grep { $unit =~ /$_/ } keys %{$nrconf{override_rc}};
            print @rules ? $nrconf{override_rc}{$rules[0]} : 'restart', "\\n";
        }
    """
    assert machine.exec("perl", "-e", script).stdout.split() == ["a", "0", "restart"]


def test_what_somebody_has_loosened_is_closed_again(machine: Machine, probe: str) -> None:
    machine.exec("sh", "-ec", LOOSENED)
    foretold = apply("--check")
    assert foretold.recap["hardened"].changed == 1, foretold.output[-3000:]
    assert modes(machine, f"/home/{probe}") == ["755"]
    again = apply()
    assert again.recap["hardened"].changed == 1, again.output[-3000:]
    assert modes(machine, f"/home/{probe}", "/etc/cron.d", "/etc/ssh/sshd_config") == ["750", "700", "600"]
    check_new_files(machine)
    test_a_banner_is_shown_before_login(machine)


def test_updates_can_wait_for_the_admin(machine: Machine) -> None:
    sendmail = "/usr/sbin/sendmail"
    machine.exec("sh", "-ec", f"if test -e {sendmail}; then mv {sendmail} {sendmail}.aside; fi")
    try:
        changed = apply(
            "--extra-vars", '{"baseline_updates": "download", "baseline_updates_mail": ["admin@example.org"]}'
        )
        assert changed.status == 0, changed.output[-3000:]
        known = machine.exec("apt-config", "dump", "--format=%f=%v%n").stdout.splitlines()
        assert "APT::Periodic::Unattended-Upgrade=0" in known
        machine.exec("install", "-m", "755", "/dev/stdin", sendmail, input=SENDMAIL)
        # an apt that knows of one update
        fake = "#!/bin/sh\necho 'Inst bash [1] (2 Debian)'\n"
        machine.exec("install", "-m", "755", "/dev/stdin", "/usr/local/bin/apt-get", input=fake)
        machine.exec("env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin", "/usr/local/sbin/ananke-updates")
        mail = machine.exec("cat", MAILED).stdout
        assert mail.startswith("To: admin@example.org\nSubject: Updates wait on ")
        assert "bash" in mail
        shown = machine.exec("systemctl", "show", "apt-daily-upgrade.service", "--property=ExecStartPost").stdout
        assert "/usr/local/sbin/ananke-updates" in shown
    finally:
        machine.exec("rm", "-f", "/usr/local/bin/apt-get", sendmail, MAILED)
        machine.exec("sh", "-ec", f"if test -e {sendmail}.aside; then mv {sendmail}.aside {sendmail}; fi")
        back = apply()
    assert back.status == 0, back.output[-3000:]
    machine.exec("test", "!", "-e", "/usr/local/sbin/ananke-updates")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('{"baseline_updates_time": 750}', "write hours and minutes in quotes"),
        ('{"baseline_kernel_modules_off": ["overlay"]}', "hubs need overlay"),
        ('{"baseline_sysctls": {"kernel.unprivileged_userns_clone": 0}}', "rootless containers need user namespaces"),
        ('{"baseline_sysctls": {"user.max_user_namespaces": 0}}', "rootless containers need user namespaces"),
    ],
)
def test_settings_that_would_break_hubs_are_refused(settings: str, said: str) -> None:
    refused = apply("--check", "--extra-vars", settings)
    assert refused.status != 0
    assert said in " ".join(refused.output.split())
