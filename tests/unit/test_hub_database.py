# SPDX-License-Identifier: GPL-3.0-or-later
"""The database that a failed change gives back."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import files, hub_database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hub with a database of version 1."""
    (tmp_path / "data").mkdir()
    write(tmp_path, 1)
    return tmp_path


def connection(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "data/jupyterhub.sqlite")


def write(folder: Path, version: int) -> None:
    with connection(folder) as database:
        database.execute(f"PRAGMA user_version = {version}")


def version(folder: Path) -> int:
    return int(connection(folder).execute("PRAGMA user_version").fetchone()[0])


def test_what_a_new_image_made_of_it_is_undone(folder: Path) -> None:
    assert hub_database.keep(str(folder))
    write(folder, 2)
    (folder / "data/jupyterhub.sqlite-wal").write_text("of the new one")
    assert hub_database.give_back(str(folder))
    assert version(folder) == 1
    assert not (folder / "data/jupyterhub.sqlite-wal").exists()
    hub_database.forget(str(folder))
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_what_a_killed_run_kept_is_not_replaced_by_what_it_left(folder: Path) -> None:
    hub_database.keep(str(folder))
    write(folder, 2)
    assert not hub_database.keep(str(folder))
    hub_database.give_back(str(folder))
    assert version(folder) == 1


def test_a_copy_of_a_change_that_is_over_is_replaced(folder: Path) -> None:
    hub_database.keep(str(folder))
    write(folder, 2)
    hub_database.forget(str(folder))
    assert hub_database.keep(str(folder))
    write(folder, 3)
    hub_database.give_back(str(folder))
    assert version(folder) == 2


def test_half_a_copy_is_none(folder: Path) -> None:
    hub_database.keep(str(folder))
    (folder / "before" / hub_database.NOTE).unlink()
    write(folder, 2)
    assert not hub_database.give_back(str(folder))
    assert version(folder) == 2
    assert hub_database.keep(str(folder))


def test_a_hub_without_a_database_has_none_to_keep(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert not hub_database.keep(str(tmp_path))
    assert not hub_database.give_back(str(tmp_path))


def test_a_copy_is_the_container_admin_s_alone(folder: Path) -> None:
    hub_database.keep(str(folder))
    assert (folder / "before").stat().st_mode & 0o777 == 0o700


def full(*_arguments: object, **_options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_copy_for_which_there_is_no_room_leaves_no_half(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "write", full)
    with pytest.raises(OSError, match="No space left"):
        hub_database.keep(str(folder))
    assert list((folder / "before").iterdir()) == []


def test_a_database_that_cannot_be_given_back_is_still_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_database.keep(str(folder))
    write(folder, 2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            hub_database.give_back(str(folder))
    assert version(folder) == 2
    assert hub_database.give_back(str(folder))
    assert version(folder) == 1
    assert [path.name for path in (folder / "data").iterdir()] == ["jupyterhub.sqlite"]


def test_its_size_is_known_before_it_is_copied(folder: Path) -> None:
    assert hub_database.size(str(folder)) == (folder / "data/jupyterhub.sqlite").stat().st_size
    assert hub_database.size(str(folder / "none")) == 0
