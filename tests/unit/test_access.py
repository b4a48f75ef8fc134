# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of how a machine is reached: what is compared, who is refused, what the machine keeps for the way back."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.action import machine_port
from ansible_collections.ananke.jupyterhub.plugins.module_utils import access, files

OWN = "port 986\nallowusers anna\nallowusers otto\nciphers a,b\npermitrootlogin no\n"


class Runs:
    """Commands that would be run; those that begin with a given word fail."""

    def __init__(self, failing: str = "", outputs: dict[str, str] | None = None) -> None:
        self.seen: list[str] = []
        self.failing, self.outputs = failing, outputs or {}

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        line = " ".join(argv)
        self.seen.append(line)
        if line == "systemctl is-active --quiet ssh.socket":
            return 3, ""
        failed = bool(self.failing) and line.startswith(self.failing)
        return int(failed), "it says why" if failed else self.outputs.get(line, "")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine below a folder."""
    for name in ("STATE_DIR", "TRIAL", "RESTORE", "FIREWALL", "FIREWALL_DIR", "FIREWALL_LOADED"):
        monkeypatch.setattr(access, name, f"{tmp_path}{getattr(access, name)}")
    monkeypatch.setattr(files, "RUN_DIR", f"{tmp_path}/run/ananke")
    monkeypatch.setattr(access, "UNIT", f"../../../{tmp_path}/unit.service")
    for folder in ("etc/ssh/sshd_config.d", "etc/nftables.d", "run/ananke", "usr/local/lib/ananke", "var/lib/ananke"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def test_only_what_stands_before_a_match_block_is_compared() -> None:
    text = "# Port 1\nPort 986\n\nInclude /etc/ssh/ananke.d/*.conf\n  Ciphers a\nMatch User x\n  ForceCommand y\n"
    assert access.keywords(text) == {"port", "ciphers"}


@pytest.mark.parametrize(
    ("whole", "wrong"),
    [
        (OWN, []),
        (OWN + "x11forwarding yes\n", []),
        ("permitrootlogin no\nallowusers otto\nallowusers anna\nciphers a,b\nport 986\n", []),
        (OWN + "port 22\n", ["port"]),
        (OWN + "allowusers eve\n", ["allowusers"]),
        (OWN.replace("a,b", "b,a"), ["ciphers"]),
        (OWN.replace("permitrootlogin no", "permitrootlogin yes"), ["permitrootlogin"]),
        ("", ["allowusers", "ciphers", "permitrootlogin", "port"]),
    ],
)
def test_what_another_file_overrides_is_named(whole: str, wrong: list[str]) -> None:
    assert access.unmatched(OWN, whole, {"port", "allowusers", "ciphers", "permitrootlogin"}) == wrong


@pytest.fixture
def accounts_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the machine accounts: name -> (UID, password field, keys)."""

    def give(**known: tuple[int, str, str]) -> None:
        entries = {}
        for name, (uid, _field, keys) in known.items():
            (tmp_path / name / ".ssh").mkdir(parents=True)
            (tmp_path / name / ".ssh/authorized_keys").write_text(keys)
            entries[name] = SimpleNamespace(pw_uid=uid, pw_dir=str(tmp_path / name))
        shadow = "".join(f"{name}:{field}:1::::::\n" for name, (_uid, field, _keys) in known.items())
        monkeypatch.setattr(access.pwd, "getpwnam", entries.__getitem__)
        real = files.read
        monkeypatch.setattr(access.files, "read", lambda path: shadow if path == "/etc/shadow" else real(path))

    return give


def test_admins_who_can_log_in_are_accepted(accounts_of: Any) -> None:
    accounts_of(anna=(1000, "$y$j9T$x", "ssh-ed25519 A\n"))
    access.check_admins(["anna"], password=True)


@pytest.mark.parametrize("field", ["", "!", "*", "!$y$j9T$x", "!!"])
def test_without_a_password_only_the_key_may_be_demanded(accounts_of: Any, field: str) -> None:
    accounts_of(anna=(1000, field, "ssh-ed25519 A\n"))
    access.check_admins(["anna"], password=False)
    with pytest.raises(access.AccessError, match=r"anna has no password.*passwd anna.*nothing was changed"):
        access.check_admins(["anna"], password=True)


@pytest.mark.parametrize(
    ("name", "says"),
    [("otto", "no account"), ("root", "root does not log in"), ("bare", "has no key.*authorized_keys")],
)
def test_admins_who_could_not_log_in_are_refused(accounts_of: Any, name: str, says: str) -> None:
    accounts_of(anna=(1000, "$y$", "k\n"), root=(0, "$y$", "k\n"), bare=(1001, "$y$", " \n"))
    with pytest.raises(access.AccessError, match=says):
        access.check_admins(["anna", name], password=True)


def test_nothing_begins_where_all_is_as_wanted(root: Path) -> None:
    path = root / "etc/ssh/a.conf"
    path.write_text("Port 986\n")
    path.chmod(0o644)
    runs = Runs()
    assert access.begin([access.Change(str(path), "Port 986\n")], "token", 10, runs) == []
    assert runs.seen == []
    assert not Path(access.TRIAL).exists()


def test_a_trial_keeps_the_old_state_and_arms_the_timer_before_it_writes(root: Path) -> None:
    old, new = root / "etc/ssh/old.conf", root / "etc/ssh/new.conf"
    old.write_text("Port 22\n")
    old.chmod(0o600)
    states = []

    def run(argv: Sequence[str]) -> tuple[int, str]:
        states.append((argv[0], old.read_text(), new.exists()))
        return (3 if "is-active" in argv else 0), ""

    changes = [access.Change(str(old), "Port 986\n"), access.Change(str(new), "x\n")]
    done = access.begin(changes, "token", 10, run)
    assert done == [f"{old} written", f"{new} written"]
    assert ("systemd-run", "Port 22\n", False) in states
    trial = Path(access.TRIAL)
    assert (trial / "0").read_text() == "Port 22\n"
    assert (trial / "manifest").read_text() == f"0 {old}\n1 {new}\n"
    assert old.read_text() == "Port 986\n"

    with pytest.raises(access.AccessError, match="taken back before this login came"):
        access.confirm("another", run)
    assert trial.exists()
    access.confirm("token", run)
    assert not trial.exists()
    assert list(Path(access.STATE_DIR).iterdir()) == []


def test_without_a_timer_nothing_is_written(root: Path) -> None:
    path = root / "etc/ssh/a.conf"
    with pytest.raises(access.AccessError, match=r"no timer could be started.*it says why.*nothing was changed"):
        access.begin([access.Change(str(path), "x\n")], "token", 10, Runs("systemd-run"))
    assert not path.exists()
    assert not Path(access.TRIAL).exists()


DEBIAN = """\
#!/usr/sbin/nft -f

flush ruleset

table inet filter {
\tchain input {
\t\ttype filter hook input priority filter;
\t}
}
"""


@pytest.mark.parametrize(
    "text", [None, "", DEBIAN, f"# ours\ntable {access.FIREWALL_TABLE} {{\n  chain input {{ tcp dport 1 accept\n}}}}\n"]
)
def test_a_firewall_without_rules_of_others_is_replaced(root: Path, text: str | None) -> None:
    if text is not None:
        Path(access.FIREWALL).write_text(text)
    access.begin([access.Change(access.FIREWALL, "new\n")], "token", 10, Runs())
    assert Path(access.FIREWALL).read_text() == "new\n"


@pytest.mark.parametrize(
    "text",
    [
        DEBIAN.replace("filter;", "filter; policy drop;"),
        DEBIAN.replace("\t\ttype", "\t\ttcp dport 22 accept\n\t\ttype"),
        'include "/etc/my.nft"\n',
    ],
)
def test_an_admin_s_own_firewall_is_not_overwritten(root: Path, text: str) -> None:
    Path(access.FIREWALL).write_text(text)
    with pytest.raises(access.AccessError, match=r"holds rules that are not ours.*firewall_rules.*nothing was changed"):
        access.begin([access.Change(access.FIREWALL, "new\n")], "token", 10, Runs())
    assert Path(access.FIREWALL).read_text() == text
    assert not Path(access.TRIAL).exists()


def test_the_script_puts_everything_back(root: Path) -> None:
    """The real script, on files of ours and without services."""
    changed, added = root / "etc/ssh/changed.conf", root / "etc/ssh/added.conf"
    changed.write_text("Port 22\n")
    changed.chmod(0o640)
    script = access.SCRIPT.replace("/run/ananke", f"{root}/run/ananke").replace("/var/lib/", f"{root}/var/lib/")
    script = script.replace("/etc/", f"{root}/etc/").replace("/usr/sbin/", f"{root}/nothing/")
    script = script.replace("systemctl ", "true ")
    changes = [access.Change(str(changed), "Port 986\n"), access.Change(str(added), "x\n")]
    access.begin(changes, "token", 10, Runs())
    assert added.exists()
    done = subprocess.run(["sh", "-uc", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert changed.read_text() == "Port 22\n"
    assert changed.stat().st_mode & 0o777 == 0o640
    assert not added.exists()
    assert not Path(access.TRIAL).exists()
    assert "taken back" in done.stdout
    again = subprocess.run(["sh", "-uc", script], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (0, "")


@pytest.mark.parametrize(
    ("known", "ports"),
    [
        ({}, [986, 22]),
        ({"ansible_port": 2222}, [986, 2222]),
        ({"ansible_port": 986}, [986]),
        ({"ananke_ssh_port": 22}, [22]),
        ({"ananke_ssh_port": 987, "ananke_ssh_reach_port": 20987, "ansible_port": 20022}, [20987, 20022]),
        ({"ssh_enabled": False}, [22]),
        ({"ssh_enabled": False, "ansible_port": "2222"}, [2222]),
    ],
)
def test_ports_that_come_into_question(known: dict[str, Any], ports: list[int]) -> None:
    assert machine_port.candidates(known) == ports
