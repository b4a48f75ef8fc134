# SPDX-License-Identifier: GPL-3.0-or-later
"""Removal of accounts: who is removed at all, and what counts as still running; the rest needs a machine."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, removal


def entry(home: Path, uid: int = 1234, comment: str = removal.COMMENT, name: str = "math101") -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, comment, str(home), "/bin/bash"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of an account `math101`, which is the machine's only one."""
    home = tmp_path / "home/math101"
    (home / "hubs/math101").mkdir(parents=True)
    known = [entry(home)]
    monkeypatch.setattr(pwd, "getpwall", lambda: known)
    monkeypatch.setattr(accounts, "lookup", lambda name: next((one for one in known if one.pw_name == name), None))
    return home


def add(monkeypatch: pytest.MonkeyPatch, *more: pwd.struct_passwd) -> None:
    known = [*pwd.getpwall(), *more]
    monkeypatch.setattr(pwd, "getpwall", lambda: known)
    monkeypatch.setattr(accounts, "lookup", lambda name: next((one for one in known if one.pw_name == name), None))


def test_an_account_that_is_not_there_is_nothing_to_do(home: Path, tmp_path: Path) -> None:
    assert removal.foretell("nobody-knows", str(tmp_path)) == []
    assert removal.remove("nobody-knows", str(tmp_path), lambda _argv: pytest.fail("a command was run")) == ([], None)


def test_what_would_be_done(home: Path, tmp_path: Path) -> None:
    assert removal.foretell("math101", str(tmp_path)) == [
        f"home of math101 archived in {tmp_path}",
        "account math101 removed",
    ]


@pytest.mark.parametrize(("uid", "comment"), [(1234, "Debian,,,"), (1234, ""), (33, removal.COMMENT)])
def test_accounts_of_others_stay(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, comment: str
) -> None:
    add(monkeypatch, entry(tmp_path / "home/other", uid, comment, "other"))
    with pytest.raises(accounts.AccountError, match="usermod --comment 'container admin' other"):
        removal.foretell("other", str(tmp_path))


def test_a_former_home_is_not_left_behind(home: Path, tmp_path: Path) -> None:
    (home.parent / ".math101.before-image").mkdir()
    with pytest.raises(accounts.AccountError, match="before-image is the account's home of former times"):
        removal.foretell("math101", str(tmp_path))


def test_a_hub_that_two_accounts_claim_is_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "home/other"
    (other / "hubs/math101").mkdir(parents=True)
    add(monkeypatch, entry(other, 1235, name="other"))
    with pytest.raises(accounts.AccountError, match="one of them is no hub"):
        removal.foretell("other", str(tmp_path))


def test_hubs_are_folders(tmp_path: Path) -> None:
    assert removal.hubs_of(str(tmp_path)) == []
    (tmp_path / "hubs/b").mkdir(parents=True)
    (tmp_path / "hubs/a").mkdir()
    (tmp_path / "hubs/file").touch()
    (tmp_path / "hubs/link").symlink_to("a")
    assert removal.hubs_of(str(tmp_path)) == ["a", "b"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/hubs").symlink_to(tmp_path / "hubs")
    assert removal.hubs_of(str(tmp_path / "elsewhere")) == []


def test_ranges() -> None:
    text = "math101:100000:65536\nmath:165536:65536\nmath101:300000:10\n"
    assert removal.ranges(text, "math101") == ["100000:65536", "300000:10"]


def test_processes(tmp_path: Path) -> None:
    for pid, name, state, uid in [(10, "bash", "S", 1234), (11, "gone", "Z", 1234), (12, "jupyter", "R", 100_005)]:
        (tmp_path / str(pid)).mkdir()
        text = f"Name:\t{name}\nState:\t{state} (x)\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
        (tmp_path / str(pid) / "status").write_text(text)
    (tmp_path / "13").mkdir()  # it ended while we looked
    (tmp_path / "self").mkdir()
    assert removal.processes([range(1234, 1235)], str(tmp_path)) == {10: "bash"}
    assert removal.processes([range(1234, 1235), range(100_000, 165_536)], str(tmp_path)) == {10: "bash", 12: "jupyter"}
    assert removal.processes([range(os.getuid(), os.getuid() + 1)]), "not even this one is found"


def test_what_was_begun_is_foretold(home: Path, tmp_path: Path) -> None:
    record = removal.Record("math101", 1234, 1234, str(home), [], [], [], "math101-x.tar.zst", "0", "now")
    (tmp_path / ".math101.json").write_text(json.dumps(record.__dict__))
    assert removal.foretell("math101", str(tmp_path)) == ["the removal that was interrupted finished"]
