"""Container admins: the pure parts, and files of a home that are written as their owner."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, sockets
from hypothesis import given
from hypothesis import strategies as st


def test_subordinate_ids_take_the_largest_single_range() -> None:
    text = "a:100000:65536\nb:165536:1000\nb:200000:65536\n# a comment\nbroken line\nb:x:y\n"
    assert accounts.subordinate_ids(text, "a") == 65536
    assert accounts.subordinate_ids(text, "b") == 65536
    assert accounts.subordinate_ids(text, "c") == 0


@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(1, 2**17)), max_size=8))
def test_next_range_overlaps_nobody(ranges: list[tuple[int, int]]) -> None:
    text = "".join(f"user{number}:{start}:{count}\n" for number, (start, count) in enumerate(ranges))
    first = accounts.next_range(text)
    assert first >= 100000
    assert all(first >= start + count for start, count in ranges)


def test_password_field() -> None:
    shadow = "root:*:1::::::\nmath101:$y$abc:1:0:99999:7:::\n"
    assert accounts.password_field(shadow, "math101") == "$y$abc"
    assert accounts.password_field(shadow, "nobody") is None


def test_a_password_never_shows() -> None:
    assert "secret" not in repr(accounts.Account(name="a", password_hash="secret"))  # noqa: S106


class Shadow:
    """Commands that change one account's line of /etc/shadow."""

    def __init__(self, field: str) -> None:
        self.field, self.ran = field, list[str]()
        self.killed_at = ""

    def __call__(self, argv: Sequence[str], stdin: str | None = None) -> str:
        if argv[0] == self.killed_at:
            raise KeyboardInterrupt
        self.ran.append(argv[0])
        if argv[0] == "chpasswd" and stdin:
            self.field = stdin.strip().partition(":")[2]
        return ""


@pytest.fixture
def shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shadow:
    found = Shadow("!")
    monkeypatch.setattr(accounts, "PASSWORDS", str(tmp_path / "passwords"))
    real = accounts.files.read
    monkeypatch.setattr(
        accounts.files, "read", lambda path: f"alice:{found.field}:1::::::\n" if path == "/etc/shadow" else real(path)
    )
    return found


def password(shadow: Shadow, hashed: str, change: bool = True) -> list[str]:
    account = accounts.Account("alice", password_hash=hashed, password_change=change)
    foretold = accounts._ensure_password(account, shadow, check=True)
    done = accounts._ensure_password(account, shadow, check=False)
    assert foretold == done
    return done


def test_a_first_password_is_given_once(shadow: Shadow) -> None:
    assert password(shadow, "$y$first") == ["password set", "password to be changed at the next login"]
    assert shadow.ran == ["chpasswd", "chage"]
    assert password(shadow, "$y$first") == []
    shadow.field = "$y$own"
    assert password(shadow, "$y$first") == [], "what the account has chosen is taken away"
    assert password(shadow, "$y$second")[0] == "password set"
    assert shadow.field == "$y$second"
    assert password(shadow, "$y$first")[0] == "password set"


@pytest.mark.parametrize("last", ["chpasswd", "chage"])
def test_a_first_password_is_first_after_a_kill_as_well(shadow: Shadow, last: str) -> None:
    shadow.killed_at = last
    with pytest.raises(KeyboardInterrupt):
        password(shadow, "$y$first")
    shadow.killed_at = ""
    assert password(shadow, "$y$first")[-1] == "password to be changed at the next login"
    assert shadow.field == "$y$first"
    assert shadow.ran[-1] == "chage"


def test_a_password_of_the_inventory_stays_that(shadow: Shadow) -> None:
    assert password(shadow, "$y$one", change=False) == ["password set"]
    shadow.field = "$y$own"
    assert password(shadow, "$y$one", change=False) == ["password set"]
    assert password(shadow, "$y$one", change=False) == []
    assert "chage" not in shadow.ran
    assert password(shadow, "$y$one") == ["password to be changed at the next login"]
    assert password(shadow, "$y$two", change=False) == ["password set"]
    assert password(shadow, "$y$one") == ["password set", "password to be changed at the next login"]


@pytest.mark.parametrize(
    ("field", "lacks"), [("!", True), ("*", True), ("", True), ("!$y$locked", True), ("$y$x", False)]
)
def test_who_has_no_password(field: str, lacks: bool) -> None:
    assert accounts.lacks_password(f"alice:{field}:1::::::\n", "alice") is lacks
    assert not accounts.lacks_password(f"alice:{field}:1::::::\n", "bob")


def test_system_accounts_are_refused() -> None:
    with pytest.raises(accounts.AccountError, match="system account"):
        accounts.create(accounts.Account(name="daemon"), run=lambda *_a, **_k: "", check=True)


@pytest.mark.parametrize(
    ("day", "gone"), [("", False), ("1", True), ("0", True), ("20000", True), ("99999", False), ("-1", False)]
)
def test_who_has_expired(day: str, gone: bool) -> None:
    assert accounts.has_expired(f"bob:!:1::::::\nalice:!:1:0:99999:7::{day}:\n", "alice") is gone
    assert not accounts.has_expired("alice:!:1\n", "alice")


@pytest.mark.parametrize("check", [True, False])
def test_an_account_whose_removal_stopped_half_way_is_refused(monkeypatch: pytest.MonkeyPatch, check: bool) -> None:
    entry = pwd.struct_passwd(("alice", "x", 1001, 1001, "container admin", "/home/alice", "/bin/bash"))
    monkeypatch.setattr(accounts, "lookup", lambda name: entry)
    monkeypatch.setattr(accounts.files, "read", lambda path: "alice:!:1:0:99999:7::1:\n")
    with pytest.raises(accounts.AccountError, match=r"alice has expired.*remove_account.*usermod --unlock"):
        accounts.create(accounts.Account(name="alice"), run=lambda *_a, **_k: "", check=check)
    monkeypatch.setattr(accounts.files, "read", lambda path: "alice:!:1:0:99999:7:::\n")
    assert accounts.create(accounts.Account(name="alice"), run=lambda *_a, **_k: "", check=check) == []


def test_check_mode_says_what_a_new_account_gets() -> None:
    def run(*_arguments: object, **_options: object) -> str:
        raise AssertionError("check mode ran a command")

    account = accounts.Account(name="nobody-has-this-name", password_hash="x")  # noqa: S106
    assert accounts.create(account, run=run, check=True) == ["account nobody-has-this-name created"]
    done = accounts.furnish(account, run=run, check=True)
    assert "lingering enabled" in done
    assert "password set" in done


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account; CI is root")
def test_files_of_a_home_are_written_as_their_owner(tmp_path: Path) -> None:
    daemon = pwd.getpwnam("daemon")
    home = tmp_path / "home"
    home.mkdir()
    for folder in (home, *home.parents):
        if folder.stat().st_mode & 0o005 != 0o005 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o005)
    os.chown(home, daemon.pw_uid, daemon.pw_gid)
    wanted = {str(home / ".ssh/authorized_keys"): ("key\n", 0o600)}
    assert accounts.as_user(daemon, lambda: accounts._write_own(wanted, False)) == [
        f"{home}/.ssh/authorized_keys written"
    ]
    status = (home / ".ssh/authorized_keys").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (daemon.pw_uid, 0o600)
    # A link that leads out of the home ends at what the owner may write.
    (home / "bait").symlink_to(tmp_path / "roots")
    (tmp_path / "roots").mkdir(mode=0o755)
    with pytest.raises(accounts.AccountError, match="PermissionError"):
        accounts.as_user(daemon, lambda: accounts._write_own({str(home / "bait/file"): ("x", 0o600)}, False))


def test_listeners_are_read_from_the_kernels_table() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1FA5 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 1 1 0 100 0 0 10 0\n"
        "   1: 0100007F:1FA6 0100007F:0050 01 00000000:00000000 00:00000000 00000000  1002        0 1 1 0 100 0 0 10 0\n"
    )
    assert sockets.parse(table) == {8101: 1001}


def test_who_begins_to_listen_anew_has_another_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        before = sockets.inodes([port])
        assert len(before) == 1
        assert sockets.inodes([port]) == before
    assert sockets.inodes([port]) == set()
    with socket.create_server(("127.0.0.1", port)):
        assert len(sockets.inodes([port]) - before) == 1


def test_a_taken_port_names_hub_key_value_and_remedy() -> None:
    hubs = [{"name": "math101", "port": 8101, "container_admin": "math101"}]
    (problem,) = sockets.taken(hubs, {8101: 0})
    assert problem.startswith("math101: hub_port: 8101 is in use by a process of root; choose another port")
    assert sockets.taken([{**hubs[0], "container_admin": "root"}], {8101: 0}) == []
    assert sockets.taken(hubs, {}) == []
