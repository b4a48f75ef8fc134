# SPDX-License-Identifier: GPL-3.0-or-later
"""What others must read is readable, whatever root's umask is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import files, turns


@pytest.fixture(autouse=True)
def hardened() -> Iterator[None]:
    """The umask that the role baseline gives to sessions."""
    former = os.umask(0o027)
    yield
    assert os.umask(former) == 0o027, "the code under test has left another umask behind"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_folders_and_those_above_them(tmp_path: Path) -> None:
    files.folder(str(tmp_path / "a/b"))
    files.folder(str(tmp_path / "c"), 0o700)
    assert [mode(tmp_path / name) for name in ("a", "a/b", "c")] == [0o755, 0o755, 0o700]


def test_the_folder_of_locks(tmp_path: Path) -> None:
    with files.lock("x", str(tmp_path / "run")):
        assert mode(tmp_path / "run") == 0o755


def test_turns_can_be_taken_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BOOT", "UNIT", "PROGRAM"):
        monkeypatch.setattr(turns, name, str(tmp_path / "system" / name))
    turns.provide(str(tmp_path / "run/turns"))
    assert mode(tmp_path / "run/turns") == 0o755
    assert {mode(path) for path in (tmp_path / "run/turns").iterdir()} == {0o644}
    assert [mode(tmp_path / "system" / name) for name in ("BOOT", "UNIT", "PROGRAM")] == [0o644, 0o644, 0o755]
