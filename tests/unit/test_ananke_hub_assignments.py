# SPDX-License-Identifier: GPL-3.0-or-later
"""The exchange of assignments: who sees what of it, and that root is led nowhere by what lies there."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from ananke_hub import assignments
from ananke_hub.spawner import AnankeSpawner


def modes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): oct(stat.S_IMODE(path.stat().st_mode))[2:]
        for path in folder.rglob("*")
        if path.is_dir()
    }


FOLDERS = {
    "math": "755",
    "math/outbound": "777",
    "math/feedback": "733",
    "math/inbound": "755",
    "math/inbound/u1": "777",
}


def test_folders_are_made_and_put_right(tmp_path: Path) -> None:
    assignments.prepare("math", "u1", tmp_path)
    assert modes(tmp_path) == FOLDERS
    (tmp_path / "math/inbound/u1/u1+sheet+now").mkdir()
    (tmp_path / "math/inbound").chmod(0o777)
    if os.geteuid() == 0:
        os.chown(tmp_path / "math/inbound", 61234, 61234)
    assignments.prepare("math", "u1", tmp_path)
    assert modes(tmp_path).items() >= FOLDERS.items()
    assert (tmp_path / "math/inbound").stat().st_uid == os.geteuid()


@pytest.mark.parametrize("place", ["math", "math/outbound", "math/inbound", "math/inbound/u1"])
def test_root_follows_no_link(tmp_path: Path, place: str) -> None:
    exchange, victim = tmp_path / "exchange", tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (exchange / place).parent.mkdir(parents=True)
    (exchange / place).symlink_to(victim)
    with pytest.raises(OSError, match=place.rpartition("/")[2]):
        assignments.prepare("math", "u1", exchange)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o700
    assert list(victim.iterdir()) == []


def test_a_student_sees_nobody_else_s() -> None:
    seen = assignments.view("math", "u1", False)
    assert seen["TemporaryFileSystem"] == ["/opt/nbgrader_exchange:ro"]
    assert seen["BindPaths"] == ["/opt/nbgrader_exchange/math/inbound/u1:/opt/nbgrader_exchange/math/inbound"]
    assert all(path.endswith(("outbound", "feedback")) for path in seen["BindReadOnlyPaths"])
    assert assignments.view("math", "u1", True) == {"ReadWritePaths": ["/opt/nbgrader_exchange"]}


@pytest.mark.parametrize(("admin", "limited"), [(True, False), (False, True)])
def test_formgrader_is_for_teachers(admin: bool, limited: bool) -> None:
    found = assignments.environment("math", admin)
    assert found["ANANKE_COURSE"] == "math"
    assert ("JUPYTER_CONFIG_PATH" in found) == limited


def test_a_server_starts_without_what_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = SimpleNamespace(name="u1", id=1, url="/", admin=False)
    spawner = AnankeSpawner(user=user, course="math")
    assert spawner._share_assignments() == {}, "the feature is not there"
    monkeypatch.setattr(assignments, "installed", lambda: True)
    monkeypatch.setattr(assignments.prepare, "__defaults__", (tmp_path / "none",))
    assert spawner._share_assignments() == {}
    monkeypatch.setattr(assignments.prepare, "__defaults__", (tmp_path,))
    assert spawner._share_assignments() == assignments.view("math", "u1", False)
    assert AnankeSpawner(user=user)._share_assignments() == {}
