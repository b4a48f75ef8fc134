# SPDX-License-Identifier: GPL-3.0-or-later
"""A change for which a hub's disk has no room is refused before anything was changed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.hub_container import HubError
from ansible_collections.ananke.jupyterhub.plugins.modules import hub

MIB = 1 << 20


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes that a disk with 4 MiB was asked for."""
    sizes: list[int] = []

    def allocate(_handle: int, _offset: int, size: int) -> None:
        sizes.append(size)
        if size > 4 * MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    return sizes


def made(home: Path) -> Any:
    return SimpleNamespace(wish={"name": "a"}, folder=str(home / "hubs/a"), account=SimpleNamespace(pw_dir=str(home)))


def test_settings_need_little_room(asked: list[int], tmp_path: Path) -> None:
    hub.see_room(made(tmp_path), False)
    assert asked == [hub.SETTINGS_ROOM]
    assert list(tmp_path.iterdir()) == []


def test_a_container_needs_room_for_two_copies_of_the_database(asked: list[int], tmp_path: Path) -> None:
    (tmp_path / "hubs/a/data").mkdir(parents=True)
    (tmp_path / "hubs/a/data/jupyterhub.sqlite").write_bytes(bytes(1000))
    with pytest.raises(
        HubError, match=r"hub a: the disk is full: .*/hubs/a has no room for the 5 MiB .* Nothing was changed"
    ):
        hub.see_room(made(tmp_path), True)
    assert asked == [hub.SETTINGS_ROOM + hub.CONTAINER_ROOM + 2000]


def test_what_else_goes_wrong_is_no_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.fits(str(tmp_path), 1)


def test_room_is_found_by_taking_it(tmp_path: Path) -> None:
    assert files.fits(str(tmp_path), MIB)
