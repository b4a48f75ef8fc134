# SPDX-License-Identifier: GPL-3.0-or-later
"""The user data file: harmless content, nothing lost, whoever writes and whatever crashes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import time
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ananke_hub import userdata
from ananke_hub.launches import REMEMBERED, UsedLaunches

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)


@given(st.text(max_size=2000))
def test_texts_become_one_harmless_line(text: str) -> None:
    cleaned = userdata.clean(text)
    assert len(cleaned) <= userdata.MAX_TEXT
    assert cleaned == cleaned.strip()
    assert "\n" not in cleaned
    assert all(unicodedata.category(c) not in {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"} for c in cleaned)
    assert userdata.clean(cleaned) == cleaned
    json.dumps(cleaned).encode()
    cleaned.encode()


def test_names_of_real_people_stay() -> None:
    for name in (
        "Zoë Saldaña",
        "Nguyễn Thị Minh",
        "王小明",
        "\u0645\u062d\u0645\u062f",
        "O'Neill-Smith",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "👩\u200d🔬 Ada",
    ):
        assert userdata.clean(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    ("given_text", "cleaned"),
    [
        ("Ada\nLovelace", "Ada Lovelace"),
        ("\x1b[31mAda\x00", "[31mAda"),
        ("adm\u202enimda", "admnimda"),
        ("a\ud800b", "ab"),
        (7, "7"),
        (True, ""),
        (None, ""),
        ({"a": 1}, ""),
        ("x" * 10**6, "x" * userdata.MAX_TEXT),
    ],
)
def test_odd_texts(given_text: Any, cleaned: str) -> None:
    assert userdata.clean(given_text) == cleaned


claims = st.dictionaries(
    st.sampled_from([*userdata.TEXT_FIELDS, userdata.ROLES_CLAIM]),
    st.none() | st.integers() | st.text() | st.lists(st.text() | st.integers() | st.none(), max_size=60),
)


@given(claims, st.text())
def test_an_entry_is_bounded_whatever_the_claims_are(given_claims: dict[str, Any], lms_id: str) -> None:
    entry = userdata.from_claims(given_claims, lms_id)
    assert set(entry) == {*userdata.TEXT_FIELDS, "lms_user_id", "roles"}
    assert len(entry["roles"]) <= userdata.MAX_ROLES
    assert len(json.dumps(entry)) < 12 * userdata.MAX_TEXT * (userdata.MAX_ROLES + 5)


def test_first_and_last_login(tmp_path: Path) -> None:
    file = tmp_path / "user_data.json"
    userdata.record(file, "u1", {"name": "Ada", "email": "a@example.org", "roles": []}, NOON)
    userdata.record(file, "u1", {"name": "Ada L.", "email": "", "roles": []}, NOON.replace(hour=13))
    entry = userdata.read(file)["u1"]
    assert (entry["first_login"], entry["last_login"]) == ("2026-10-01T12:00:00+00:00", "2026-10-01T13:00:00+00:00")
    assert entry["name"] == "Ada L."
    assert entry["email"] == "a@example.org"  # an LMS that stops sending it does not delete it
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    file = tmp_path / "user_data.json"
    for damage in ('{"u1": {"na', "[]", '{"u1": 1}', ""):
        file.write_text(damage)
        aside = userdata.record(file, "u2", {"name": "B"}, NOON)
        assert aside is not None
        assert aside.read_text() == damage
        assert list(userdata.read(file)) == ["u2"]


def test_a_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "user_data.json"
    userdata.record(file, "u1", {"name": "A"}, NOON)
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        userdata.record(file, "u2", {"name": "B"}, NOON)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["user_data.json", "user_data.json.lock"]


def _write(file: Path, number: int, count: int) -> None:
    for i in range(count):
        userdata.record(file, f"u{number}-{i}", {"name": f"{number}.{i}"})


def test_concurrent_logins_lose_nobody(tmp_path: Path) -> None:
    file = tmp_path / "user_data.json"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(file, number, 15)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(userdata.read(file)) == 60


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "user_data.json"
    userdata.record(file, "before", {"name": "A" * 200})
    context = multiprocessing.get_context("spawn")
    for delay in (0.0, 0.01, 0.05):
        writer = context.Process(target=_write, args=(file, 1, 10**6))
        writer.start()
        size, end = file.stat().st_size, time.monotonic() + 30
        while file.stat().st_size <= size and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(delay)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(10)
        assert "before" in userdata.read(file)
        userdata.record(file, "after", {"name": "B"})  # the lock died with its holder


def test_a_launch_can_be_used_once(tmp_path: Path) -> None:
    file = tmp_path / "lti_launches.sqlite"
    assert UsedLaunches(file).use("one")
    assert not UsedLaunches(file).use("one")
    assert UsedLaunches(file).use("two")
    assert not UsedLaunches(file).use("two")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_used_launches_are_forgotten_when_they_have_long_expired(tmp_path: Path) -> None:
    used = UsedLaunches(tmp_path / "lti_launches.sqlite")
    for i in range(200):
        assert used.use(f"n{i}", now=1000.0)
    assert not used.use("n1", now=1000.0 + REMEMBERED - 1)
    size = used.path.stat().st_size
    assert used.use("n1", now=1001.0 + REMEMBERED)
    for i in range(200):
        used.use(f"m{i}", now=1002.0 + REMEMBERED)
    assert used.path.stat().st_size <= size


def _use(file: Path, results: Any) -> None:
    results.put(sum(UsedLaunches(file).use(f"n{i}") for i in range(20)))


def test_two_processes_cannot_both_use_a_launch(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    users = [context.Process(target=_use, args=(tmp_path / "l.sqlite", results)) for _ in range(2)]
    for user in users:
        user.start()
    assert sum(results.get(timeout=60) for _ in users) == 20
    for user in users:
        user.join(10)
