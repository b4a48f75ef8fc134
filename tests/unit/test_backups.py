# SPDX-License-Identifier: GPL-3.0-or-later
"""What root tells the program that backs up hubs, and what that makes of it; tests/e2e/test_backup.py does it for real."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, backups
from hypothesis import given
from hypothesis import strategies as some
from programs import load

WANTED = backups.Backup("small", "/srv/backup", "correct horse battery", keep={"daily": 7}, schedule="*-*-* 02:00")
NONE = backups.Backup("small")


program = load("backup/files/ananke_backup.py")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, place in (("SETTINGS", "settings"), ("UNITS", "units"), ("STATE", "state"), ("PROGRAM", "program")):
        monkeypatch.setattr(backups, name, str(tmp_path / place))
    (tmp_path / "program").touch()
    return tmp_path


class Runner:
    """Notes what is run, and fails where a command begins with some words."""

    def __init__(self, machine: Path, failing: str = "") -> None:
        self.machine, self.failing, self.ran = machine, failing, list[str]()

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        self.ran.append(" ".join(argv))
        if self.failing and self.failing in self.ran[-1]:
            return 1, "no such luck"
        if argv[1] == "enable":
            link = self.machine / "units/timers.target.wants" / argv[-1]
            link.parent.mkdir(exist_ok=True)
            link.symlink_to("/nowhere")
        return 0, ""


def test_set_changed_and_ended(machine: Path) -> None:
    run = Runner(machine)
    assert backups.foretell([WANTED], "small") == ["backups of small set"]
    assert backups.apply([WANTED], "small", run) == ["backups of small set"]
    settings = machine / "settings/small.json"
    assert settings.stat().st_mode & 0o777 == 0o600
    assert json.loads(settings.read_text())["password"] == "correct horse battery"  # noqa: S105
    assert "correct" not in " ".join(run.ran)
    timer = machine / "units/ananke-backup@small.timer.d/schedule.conf"
    assert timer.read_text() == "[Timer]\nOnCalendar=\nOnCalendar=*-*-* 02:00\n"
    assert backups.foretell([WANTED], "small") == []
    (machine / "units/timers.target.wants/ananke-backup@small.timer").unlink()
    assert backups.foretell([WANTED], "small") == ["ananke-backup@small.timer started"]
    assert backups.apply([NONE], "small", run) == ["backups of small ended"]
    assert not settings.exists()
    assert not timer.parent.exists()
    assert backups.foretell([NONE], "small") == []


@pytest.mark.parametrize(
    ("failing", "words"),
    [
        ("calendar", "correct hub_backup_schedule"),
        ("prepare", "backups of small are as before"),
        ("daemon-reload", "run again"),
        ("restart", "systemctl status ananke-backup@small.timer says why"),
    ],
)
def test_what_fails_is_tried_again_by_the_next_run(machine: Path, failing: str, words: str) -> None:
    with pytest.raises(accounts.AccountError, match=words):
        backups.apply([WANTED], "small", Runner(machine, failing))
    assert not (machine / "settings/small.json").exists()
    assert [path.name for path in (machine / "settings").glob("*")] == []
    assert backups.foretell([WANTED], "small") == ["backups of small set"]


def test_without_the_role(machine: Path) -> None:
    (machine / "program").unlink()
    with pytest.raises(accounts.AccountError, match="apply the role backup"):
        backups.apply([WANTED], "small", Runner(machine))


def test_owners_are_those_that_containers_see() -> None:
    text = "root:1:2\nmath101:200000:65536\n2345:600000:10\nmath1:5:5\nmath101:x:y\n"
    found = program.ranges(text, "math101", 2345)
    assert found == [(200000, 65536), (600000, 10)]
    assert program.mapping(2345, found) == "2345 0 1\n200000 1 65536\n600000 65537 10\n"


@given(
    own=some.integers(1000, 59999),
    ranges=some.lists(some.tuples(some.integers(10**5, 10**9), some.integers(1, 10**6)), max_size=5),
)
def test_each_id_of_a_container_has_one_place(own: int, ranges: list[tuple[int, int]]) -> None:
    lines = [tuple(map(int, line.split())) for line in program.mapping(own, ranges).splitlines()]
    assert [(first, count) for first, _shown, count in lines] == [(own, 1), *ranges]
    following = 0
    for _first, shown, count in lines:
        assert shown == following
        following += count


def test_what_restic_says_and_what_to_do() -> None:
    assert "hub_backup_password" in program.told("Fatal: wrong password or no key found")
    assert "make room there" in program.told("write /srv/x: no space left on device")
    assert program.told("something new").endswith("run again when that is mended")
    assert len(program.told("x " * 5000)) < 1000


def test_a_database_in_use_is_copied_as_it_is_at_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as writer:
        writer.execute("pragma journal_mode=wal")
        writer.execute("create table t (a)")
        writer.execute("insert into t values (1)")
        writer.commit()
        writer.execute("insert into t values (2)")  # not committed
        (tmp_path / "copy.sqlite").write_bytes(program._snapshot(str(path)))
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
        assert copy.execute("select a from t").fetchall() == [(1,)]


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", "-x"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(program.BackupError, match="no hub's name"):
        program.Settings.load(name)


def test_settings_say_what_to_do_where_they_are_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(program.BackupError, match="set hub_backup_repository"):
        program.Settings.load("small", tmp_path / "none")
    for text in ("{", "[]", '{"account": "a"}', '{"bogus": 1}'):
        (tmp_path / "small.json").write_text(text)
        with pytest.raises(program.BackupError, match=r"run playbooks/hubs\.yml"):
            program.Settings.load("small", tmp_path / "small.json")


def test_what_the_module_writes_the_program_reads(machine: Path) -> None:
    backups.apply([WANTED], "small", Runner(machine))
    settings = program.Settings.load("small", machine / "settings/small.json")
    assert (settings.account, settings.repository, settings.keep) == ("small", "/srv/backup", {"daily": 7})


def test_notes_are_for_everybody_and_keep_what_was_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "STATE", tmp_path)
    program.note("small", snapshot="abc", error="")
    program.note("small", error="gone")
    assert program.noted("small") == {"snapshot": "abc", "error": "gone"}
    assert os.stat(tmp_path / "small.json").st_mode & 0o777 == 0o644
    (tmp_path / "small.json").write_text("{")
    assert program.noted("small") == {}


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    top = os.open(tmp_path, os.O_RDONLY)
    try:
        with program.beneath(top, "real", "inner") as found:
            assert os.fstat(found).st_ino == (tmp_path / "real/inner").stat().st_ino
        for parts in (("link", "inner"), ("file",), ("real", "none")):
            with pytest.raises(program.BackupError, match=f"{'/'.join(parts)[:4]}"), program.beneath(top, *parts):
                pytest.fail("it was followed")
    finally:
        os.close(top)


def test_a_repository_that_is_busy_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time another one has it locked; a lock that stays is an error at last."""
    monkeypatch.setattr(program, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(program, "LOCK_PAUSE", 0.01)
    tried = tmp_path / "tried"
    restic = tmp_path / "restic"
    restic.write_text(
        f"#!/bin/sh\n[ -e {tried} ] && exec echo done\ntouch {tried}\necho 'already locked' >&2\nexit 1\n"
    )
    restic.chmod(0o755)
    runner = program.Restic(
        program.Settings("small", "small", "/srv/x", "pw", environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert runner.run("check") == (0, "done\n")
    tried.unlink()
    monkeypatch.setattr(program, "LOCK_PATIENCE", -1)
    with pytest.raises(program.BackupError, match="another machine works on it"):
        runner.run("check")
