# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tools of upkeep say, what is made of it, and what is reported; tests/e2e/test_maintain.py does it for real."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import maintenance as tools
from ansible_collections.ananke.jupyterhub.plugins.module_utils import security_updates as program
from ansible_collections.ananke.jupyterhub.plugins.plugin_utils import maintenance as report
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Page

NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)

SIMULATED = """\
Inst base-files [12.4+deb12u11] (12.4+deb12u15 Debian:12.15/oldstable [amd64])
Conf base-files (12.4+deb12u15 Debian:12.15/oldstable [amd64])
Inst liblzma-dev [5.4.1-1] (5.4.1-1+deb12u2 Debian-Security:12/oldstable-security [amd64]) []
Inst liblzma5 [5.4.1-1] (5.4.1-1+deb12u2 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64])
Inst libc6:i386 [2.36-9+deb12u10] (2.36-9+deb12u13 Debian-Security:12/oldstable-security [i386])
Inst linux-image-6.1.0-41-amd64 (6.1.158-1 Debian-Security:12/oldstable-security [amd64])
Inst linux-image-amd64 [6.1.140-1] (6.1.158-1 Debian-Security:12/oldstable-security [amd64])
Inst curl [7.88.1-10+deb12u5] (7.88.1-10+deb12u15 Debian:12.15/oldstable [amd64])
Conf curl (7.88.1-10+deb12u15 Debian:12.15/oldstable [amd64])
"""
MADISON = """\
base-files | 12.4+deb12u15 | http://deb.debian.org/debian bookworm/main amd64 Packages
      curl | 7.88.1-10+deb12u15 | http://deb.debian.org/debian bookworm/main amd64 Packages
      curl | 7.88.1-10+deb12u14 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
"""
UPDATE = {"name": "libssl3", "old": "3.0.16-1", "new": "3.0.17-1"}


def test_what_apt_would_replace() -> None:
    found = {one["name"]: one for one in program.upgrades(SIMULATED)}
    assert list(found) == ["base-files", "curl", "libc6:i386", "liblzma-dev", "liblzma5", "linux-image-amd64"]
    assert {name for name, one in found.items() if one["security"]} == {
        "libc6:i386",
        "liblzma-dev",
        "liblzma5",
        "linux-image-amd64",
    }
    assert (found["liblzma5"]["old"], found["liblzma5"]["new"]) == ("5.4.1-1", "5.4.1-1+deb12u2")


def test_versions_of_the_security_archive() -> None:
    assert program.security_versions(MADISON) == {"curl": ["7.88.1-10+deb12u14"]}


NAMES = st.from_regex(r"[a-z0-9][a-z0-9.+-]{1,20}(:i386)?", fullmatch=True)
VERSIONS = st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~-]{0,12}", fullmatch=True)
ORIGINS = st.sampled_from(
    ["Debian:13.2/stable", "Debian-Security:13/stable-security", "nodesource:20.x/nodistro", "stand-in:1/x"]
)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, VERSIONS, VERSIONS, st.lists(ORIGINS, min_size=1, max_size=3)), max_size=6))
def test_every_line_of_apt_is_understood(waiting: list[tuple[str, str, str, list[str]]]) -> None:
    lines = [f"Inst {name} [{old}] ({new} {', '.join(origins)} [amd64]) []" for name, old, new, origins in waiting]
    found = {one["name"]: one for one in program.upgrades("\n".join(lines))}
    for name, old, new, origins in waiting[::-1]:
        if found[name]["old"] == old and found[name]["new"] == new and [one[0] for one in waiting].count(name) == 1:
            assert bool(found[name]["security"]) == any(one.startswith("Debian-Security") for one in origins)
    assert set(found) == {name for name, *_rest in waiting}


@pytest.mark.parametrize(
    ("name", "hold", "stays"),
    [
        ("podman", ["podman"], True),
        ("podman-docker", ["podman"], True),
        ("podman", ["podman$"], True),
        ("podman-docker", ["podman$"], False),
        ("libpodman", ["podman"], False),
        ("podman", [], False),
    ],
)
def test_packages_on_hold(name: str, hold: list[str], stays: bool) -> None:
    assert program.held(name, hold) is stays


class Fake(program.Apt):
    """A package manager that answers by the beginning of commands, and notes what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = {
            "apt-get -q --error-on=any update": (0, ""),
            "apt-get indextargets": (0, "bookworm http://x\nbookworm-security http://y\n"),
            "apt-get --simulate": (0, SIMULATED),
            "apt-cache madison": (0, MADISON),
            "dpkg --compare-versions": (0, ""),
            "dpkg --audit": (0, ""),
        }

    def run(self, *argv: str) -> tuple[int, str]:
        line = " ".join(argv)
        self.commands.append(line)
        if line.startswith("apt-get install"):
            self.answers["apt-get --simulate"] = (0, "")
        return next((answer for words, answer in self.answers.items() if line.startswith(words)), (0, ""))

    def asked(self, words: str) -> list[str]:
        """The commands that begin so."""
        return [line for line in self.commands if line.startswith(words)]


def wish(**more: Any) -> dict[str, Any]:
    """Parameters of a machine's run."""
    return {"check": False, "install": True, "inside": False, "hold": [], "restart": False, **more}


def test_what_waits_is_installed_and_nothing_else() -> None:
    apt = Fake()
    done = program.work(apt, wish(hold=["linux-"]))
    (line,) = apt.asked("apt-get install")
    assert "curl=7.88.1-10+deb12u15" in line, "the release itself has a later version than the security archive"
    assert "liblzma5=5.4.1-1+deb12u2" in line
    assert "base-files" not in line
    assert "linux-image" not in line
    assert "--no-remove" in line
    assert (done["changed"], done["pending"], len(done["installed"])) == (True, [], 4)


def test_a_report_changes_nothing() -> None:
    for options in ({"install": False}, {"install": True, "check": True}):
        apt = Fake()
        done = program.work(apt, wish(**options))
        assert not apt.asked("apt-get install")
        assert not apt.asked("dpkg --force")
        assert [one["name"] for one in done["pending"]] == [
            "curl",
            "libc6:i386",
            "liblzma-dev",
            "liblzma5",
            "linux-image-amd64",
        ]
        assert done["others"] == 1
        assert (done["changed"], len(done["installed"])) == ((True, 5) if options["install"] else (False, 0))


def test_what_a_killed_run_left_is_finished_first() -> None:
    apt = Fake()
    apt.answers["dpkg --audit"] = (0, "The following packages are only half configured\n")
    apt.answers["apt-get --simulate"] = (0, "")
    assert program.work(apt, wish())["changed"]
    assert apt.asked("dpkg --force-confdef --force-confold --configure -a")
    apt = Fake()
    apt.answers["apt-get --simulate"] = (0, "")
    assert not program.work(apt, wish())["changed"]


def test_failures_say_what_to_do() -> None:
    apt = Fake()
    apt.answers["apt-get -q --error-on=any update"] = (100, "Get:1 x\nE: The repository has no Release file.\n")
    with pytest.raises(program.Failure, match=r"no Release file\.: let it reach its mirrors, or correct /etc/apt"):
        program.work(apt, wish())
    apt = Fake()
    apt.answers["apt-get install"] = (100, "E: Packages need to be removed but remove is disabled.")
    with pytest.raises(program.Failure, match=r"remove is disabled.*run it there by hand"):
        program.work(apt, wish())


def test_a_lock_of_somebody_else_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    apt, naps = Fake(), list[float]()
    update = "apt-get -q --error-on=any update"
    apt.answers[update] = (100, "E: Could not get lock /var/lib/apt/lists/lock.")

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            apt.answers[update] = (0, "")

    monkeypatch.setattr(program.time, "sleep", nap)
    apt.fetch()
    assert len(naps) == 2


def test_no_source_of_security_updates_is_a_problem() -> None:
    apt = Fake()
    apt.answers["apt-get indextargets"] = (0, "trixie http://deb.debian.org/debian\n")
    assert "no security archive" in program.work(apt, wish(install=False))["problems"][0]


def test_a_containers_lists_lie_apart(tmp_path: Path) -> None:
    scratch = tmp_path / "apt"
    scratch.mkdir()
    (scratch / "left").touch()  # by a run that was killed
    options = program.Apt(str(scratch)).options
    with program.alone(str(tmp_path / "lock"), str(scratch)):
        assert [path.name for path in scratch.iterdir()] == ["archives"]
    assert not scratch.exists()
    assert sum(f"={scratch}/" in option for option in options) == 4


@pytest.mark.parametrize("before", [None, "#!/bin/sh\nexit 0\n"])
@pytest.mark.parametrize("killed", [False, True])
def test_the_policy_of_services(before: str | None, killed: bool, tmp_path: Path) -> None:
    """Whoever has a policy keeps it, also through a run that was killed."""
    policy, kept = tmp_path / "policy-rc.d", tmp_path / "kept"
    if before:
        policy.write_text(before)
    earlier = program.no_services(str(policy), str(kept))
    if killed:  # this one got as far as its work
        earlier.__enter__()
    with program.no_services(str(policy), str(kept)):
        assert policy.read_text() == program.REFUSAL
        assert policy.stat().st_mode & 0o777 == 0o755
        assert not killed or not before or kept.read_text() == before
    assert (policy.read_text() if policy.exists() else None) == before
    assert not kept.exists()


MAPS = "7f01-7f02 r-xp 00001000 00:2f 412 {}\n7f02-7f03 r--p 00002000 00:2f 413 /usr/lib/y.so (deleted)\n"


@pytest.mark.parametrize(
    ("program_file", "library", "cgroup", "found"),
    [
        ("/usr/bin/python3", "/usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)", "0::/system.slice/a.service", True),
        ("/usr/bin/python3 (deleted)", "/usr/lib/libssl.so.3", "0::/system.slice/a.service", True),
        ("/usr/bin/python3", "/usr/lib/libssl.so.3", "0::/system.slice/a.service", False),
        ("/usr/bin/python3", "/memfd:x (deleted)", "0::/system.slice/a.service", False),
        ("/usr/bin/python3", "/usr/lib/x.so (deleted)", "0::/init.scope", False),
        ("/usr/bin/python3", "/opt/x.so (deleted)", "4:pids:/p\n1:name=systemd:/c/system.slice/a.service", True),
    ],
)
def test_services_that_use_what_was_replaced(
    program_file: str, library: str, cgroup: str, found: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "17"
    folder.mkdir()
    (tmp_path / "self").mkdir()
    (tmp_path / "18").mkdir()  # a process that has ended meanwhile
    os.symlink(program_file, folder / "exe")
    (folder / "maps").write_text(MAPS.format(library))
    (folder / "cgroup").write_text(cgroup + "\n")
    assert program.outdated(str(tmp_path)) == (["a.service"] if found else [])


def test_only_the_hub_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    used = ["dbus.service", "jupyter-u1.service", "jupyterhub.service"]
    apt = Fake()
    assert program.renew(apt, used, check=False) == ["jupyterhub.service"]
    assert apt.commands == ["systemctl restart jupyterhub.service"]
    assert program.renew(Fake(), used[:2], check=False) == []


BATCH = """\
NEEDRESTART-VER: 3.11
NEEDRESTART-KCUR: 6.12.43+deb13-amd64
NEEDRESTART-KEXP: 6.12.57+deb13-amd64
NEEDRESTART-KSTA: 3
NEEDRESTART-UCSTA: 1
NEEDRESTART-UCCUR: 0x0
NEEDRESTART-UCEXP:
NEEDRESTART-SVC: nginx.service
NEEDRESTART-SVC: ssh.service
NEEDRESTART-SESS: math101 @ user manager service
"""


def test_needrestart() -> None:
    found = tools.restarts(BATCH)
    assert found["services"] == ["nginx.service", "ssh.service"]
    assert found["sessions"] == ["math101 @ user manager service"]
    assert (found["kernel"], found["microcode"]) == (True, False)
    assert found["kernels"] == {"running": "6.12.43+deb13-amd64", "newest": "6.12.57+deb13-amd64"}
    inside = tools.restarts("NEEDRESTART-VER: 3.6\n")
    assert (inside["services"], inside["kernel"], inside["microcode"]) == ([], None, None)


def test_debsecan() -> None:
    said = """\
CVE-2024-0001 libssl3 (fixed, remotely exploitable, high urgency)
CVE-2024-0001 openssl (fixed, remotely exploitable, high urgency)
CVE-2011-3389 libgnutls30 (remotely exploitable, medium urgency)
TEMP-0841856-B18BAF bash (low urgency)
CVE-2023-9999 python3.11
warning: something else
"""
    found = tools.holes(said)
    assert found == {"known": 4, "fixed": 1, "urgent": 1, "remote": 2, "packages": ["libssl3", "openssl"]}


def test_debsums() -> None:
    said = "debsums: missing file /usr/bin/gone (from nano package)\n/usr/share/nano/man.nanorc\n"
    assert tools.changed_files(said) == ["/usr/bin/gone", "/usr/share/nano/man.nanorc"]
    searched = "nano: /usr/share/nano/man.nanorc\nlibc6:amd64: /usr/lib/libc.so.6\ndpkg-query: no path found matching pattern /x\n"
    assert tools.owners(searched) == {"/usr/share/nano/man.nanorc": "nano", "/usr/lib/libc.so.6": "libc6"}


def test_aide() -> None:
    said = """\
Start timestamp: 2026-11-23 05:00:11 +0000 (AIDE 0.18.3)
AIDE found differences between database and filesystem!!

Summary:
  Total number of entries:	10400

---------------------------------------------------
Added entries:
---------------------------------------------------

f+++++++++++++++++: /usr/local/bin/new one

---------------------------------------------------
Changed entries:
---------------------------------------------------

f > ....    C.. . : /etc/hosts.allow
f   p.u...  . ..  : /usr/bin/nice

---------------------------------------------------
Detailed information about changes:
---------------------------------------------------

File: /etc/hosts.allow
 SHA256    : abc | def
"""
    assert tools.watched_files(said) == ["/etc/hosts.allow", "/usr/bin/nice", "/usr/local/bin/new one"]


@settings(deadline=None)
@given(st.text(max_size=300))
def test_whatever_tools_say_is_no_error(said: str) -> None:
    for parse in (tools.restarts, tools.holes, tools.changed_files, tools.owners, tools.watched_files):
        parse(said)
    tools.lynis_report(said)
    program.upgrades(said)
    program.security_versions(said)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine's files."""
    for path in ("etc", "run", "usr/local/sbin", "var/log", "var/lib/ananke/images"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text('NAME="Debian GNU/Linux"\nVERSION_CODENAME=trixie\n')
    (tmp_path / "usr/local/sbin/ananke-integrity").touch()
    (tmp_path / "var/log/lynis-report.dat").write_text(
        "hardening_index=87\nwarning[]=KRNL-1|reboot|\nsuggestion[]=A\nsuggestion[]=B\n"
    )
    image = {"name": "standard", "created": "2026-11-02T12:00:00.123456789Z"}
    (tmp_path / "var/lib/ananke/images/standard.json").write_text(json.dumps(image))
    return tmp_path


class Tools:
    """A machine's tools."""

    def __init__(self, **answers: tuple[int, str]) -> None:
        self.answers = {
            "needrestart": (0, BATCH),
            "debsecan": (0, "CVE-2024-0001 libssl3 (fixed)\n"),
            "debsums": (2, "/usr/share/nano/man.nanorc\n"),
            "dpkg": (0, "nano: /usr/share/nano/man.nanorc\n"),
            "ananke-integrity": (0, ""),
            **answers,
        }
        self.ran: list[str] = []

    def __call__(self, command: Sequence[str], given: bytes) -> tuple[int, str]:
        self.ran.append(" ".join(command))
        return self.answers[os.path.basename(command[0])]


def test_a_machine(root: Path) -> None:
    run = Tools()
    found = tools.look(tools.Upkeep(run, str(root)))
    assert found["problems"] == []
    assert found["reboot"] == ["kernel 6.12.57+deb13-amd64"]
    assert found["packaged"] == [{"path": "/usr/share/nano/man.nanorc", "package": "nano"}]
    assert (found["watched"], found["lynis"]["index"], found["lynis"]["suggestions"]) == ([], 87, 2)
    assert found["images"] == [{"name": "standard", "created": "2026-11-02T12:00:00.123456789Z"}]
    assert "debsecan --format summary --suite trixie" in run.ran
    assert json.loads(json.dumps(found)) == found


def test_tools_that_are_missing_or_cannot_look(root: Path) -> None:
    (root / "usr/local/sbin/ananke-integrity").unlink()
    (root / "var/log/lynis-report.dat").unlink()
    missing = (127, "No such file or directory")
    refused = (1, "error: while downloading https://security-tracker.debian.org/x:\nerror: timed out\n")
    run = Tools(needrestart=missing, debsecan=refused, debsums=missing)
    found = tools.look(tools.Upkeep(run, str(root)), "http://mirror/debsecan/")
    assert [found[key] for key in ("restart", "holes", "packaged", "watched", "lynis")] == [None] * 5
    assert [problem.partition(" ")[0] for problem in found["problems"]] == ["needrestart", "debsecan", "debsums"]
    assert (
        "timed out: let the machine reach security-tracker.debian.org, or set auditing_debsecan_source"
        in found["problems"][1]
    )
    assert "without --check installs it" in found["problems"][0]
    assert "debsecan --format summary --suite trixie --source http://mirror/debsecan/" in run.ran


def updates(*pending: dict[str, str], installed: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    """What security_updates returns."""
    return {"pending": list(pending), "installed": list(installed), "others": 3, "services": [], "problems": []}


def machine(**more: Any) -> dict[str, Any]:
    """What machine_maintenance returns of a machine on which nothing is to be done."""
    return {
        "restart": tools.restarts("NEEDRESTART-VER: 3.6\n"),
        "reboot": [],
        "holes": {"known": 12, "fixed": 0, "urgent": 0, "remote": 0, "packages": []},
        "packaged": [],
        "watched": [],
        "lynis": {"index": 87, "warnings": [], "suggestions": 2, "time": "2026-11-22T05:00:00+00:00"},
        "images": [],
        "problems": [],
        **more,
    }


def hub(**more: Any) -> dict[str, Any]:
    """What hub_info returns."""
    return {
        "versions": {"image_built": "2026-11-02T12:00:00+00:00"},
        "health": {"healthy": True},
        "drift": [],
        "problems": [],
        **more,
    }


DESCRIBED = {"hub": {"name": "math101", "machine": "north", "image": "standard.37b210c4"}}


def whole(north: dict[str, Any], waits: dict[str, Any], math: dict[str, Any], inside: dict[str, Any]) -> dict[str, Any]:
    """A report of one machine and its hub."""
    machines = [report.machine("north", waits, north, NOW)]
    return report.report([report.hub("math101", DESCRIBED, inside, math, NOW)], machines, NOW)


def test_nothing_to_do() -> None:
    found = whole(machine(), updates(), hub(), updates())
    assert report.table(found).splitlines() == [
        "machine  security updates  to restart  reboot  holes                changed files  Lynis",
        "north    none              0           no      12, 0 can be closed  0              87 (1 day ago)",
        "hub      machine  state    security updates  image",
        "math101  north    healthy  none              21 days",
        "0 security updates wait, 0 were installed, 0 machines wait for a reboot",
    ]
    assert "Nothing." in report.page(found)


def test_what_is_to_be_done() -> None:
    north = machine(
        restart=tools.restarts(BATCH),
        reboot=["linux-image-amd64"],
        holes={"known": 2, "fixed": 2, "urgent": 1, "remote": 1, "packages": ["libssl3", "bash"]},
        packaged=[{"path": "/usr/share/nano/man.nanorc", "package": "nano"}, {"path": "/usr/x", "package": None}],
        watched=["/etc/hosts.allow"],
        lynis={"index": 60, "warnings": ["KRNL-1"], "suggestions": 1, "time": "2026-11-23T05:00:00+00:00"},
    )
    inside = {**updates(UPDATE), "services": ["jupyterhub.service", "jupyter-u1.service"]}
    said = report.table(whole(north, updates(UPDATE), hub(), inside))
    for words in (
        "north: security update of libssl3 waits: ananke_maintain_update=true",
        "north: nginx.service, ssh.service use what was replaced: ananke_maintain_restart=true",
        "north: a reboot is needed for linux-image-amd64: ananke_maintain_reboot=true",
        "north: new versions of bash close known holes",
        "north: /usr/share/nano/man.nanorc not as Debian made it: see who changed it; `apt-get install --reinstall nano`",
        "`ananke-integrity accept`",
        "north: Lynis warns: KRNL-1",
        "math101: security update of libssl3 waits inside: ananke_maintain_containers=true",
        "math101: JupyterHub uses what was replaced",
        'image standard of north is 21 days old and lacks newer versions of libssl3: give its definition another revision (revision: "2026-11-23")',
        "2 security updates wait, 0 were installed, 1 machines wait for a reboot",
    ):
        assert words in said, said
    assert "user manager" not in said, "hubs run in these"


def test_an_image_stays_stale_when_its_hubs_are_ahead() -> None:
    drift = [
        {"kind": "debian", "name": "libssl3", "image": "1", "now": "2", "environment": None},
        {"kind": "debian", "name": "tree", "image": None, "now": "2", "environment": None},
        {"kind": "package", "name": "numpy", "image": "1", "now": "2", "environment": "python3"},
    ]
    found = whole(machine(), updates(), hub(drift=drift), updates(installed=[UPDATE]))
    assert [(one["image"], one["lacks"], one["hubs"]) for one in found["images"]] == [
        ("standard", ["libssl3"], ["math101"])
    ]
    assert found["summary"]["installed"] == 1


def test_who_could_not_be_asked() -> None:
    gone = {"unreachable": True, "msg": "ssh: connect to host\n north port 22"}
    found = whole(gone, gone, gone, gone)
    lines = report.table(found).splitlines()
    assert "north: it could not be asked: ssh: connect to host north port 22" in lines
    assert [line for line in lines if line.startswith("math101: ")] == [
        "math101: it could not be asked: ssh: connect to host north port 22"
    ]
    assert "NO ANSWER" in report.page(found)
    never = report.report([report.hub("math101", {}, {}, {}, NOW)], [report.machine("north", {}, {}, NOW)], NOW)
    assert "the run did not come so far" in report.table(never)


TEXT = st.text(st.sampled_from("<>&\"'{}%ab \n"), min_size=1, max_size=12)


@settings(deadline=None)
@given(TEXT, TEXT)
def test_nothing_that_is_told_becomes_markup(name: str, problem: str) -> None:
    def tags(name: str, problem: str) -> Page:
        one = {**UPDATE, "name": "a" + name}
        north = machine(problems=["a" + problem], packaged=[{"path": "/a" + name, "package": "a" + name}])
        return Page(report.page(whole(north, updates(one), hub(), updates(one, installed=[one]))))

    shown = tags(name, problem)
    assert (shown.tags, shown.references) == (tags("", "").tags, [])
    assert "script" not in shown.tags


def test_long_lists_are_counted() -> None:
    many = [{**UPDATE, "name": f"lib{number}"} for number in range(20)]
    said = report.table(whole(machine(), updates(*many), hub(), updates()))
    assert re.search(r"lib7 and 12 more waits", said)
