# SPDX-License-Identifier: GPL-3.0-or-later
"""What hub users are told when there is no room."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ananke_hub import space
from ananke_hub.paths import Paths
from ananke_hub.spawner import AnankeSpawner

G = 2**30


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths.at(tmp_path)
    found.data.mkdir(parents=True)
    (found.private / "ualice").mkdir(parents=True)
    return found


def fill(monkeypatch: pytest.MonkeyPatch, hub: int, home: int) -> None:
    def room(folder: Path) -> tuple[int, int]:
        return (home, 2 * G) if folder.name == "ualice" else (hub, 50 * G)

    monkeypatch.setattr(space, "room", room)


def test_while_there_is_room_nothing_is_said(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    assert space.room(paths.private / "unobody") is None
    assert space.room(paths.data) is not None
    fill(monkeypatch, hub=G, home=G)
    assert space.notice("ualice", paths) == ""
    assert space.notice(None, paths) == ""


def test_a_full_home_is_its_user_s_matter(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(monkeypatch, hub=G, home=4096)
    assert "Your home folder is full: it may hold 2.0 GiB" in space.notice("ualice", paths)
    assert space.notice("ubob", paths) == ""
    assert space.notice(None, paths) == ""


def test_a_full_hub_is_told_to_everybody(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(monkeypatch, hub=4096, home=4096)
    for name in ("ualice", "ubob", None):
        assert "The disk of this hub is full" in space.notice(name, paths)


def test_pages_say_it_to_people_and_not_to_services(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Paths, "current", lambda: paths)
    fill(monkeypatch, hub=G, home=4096)
    assert "full" in space.announcement(SimpleNamespace(name="ualice", spawners={}))
    assert space.announcement(SimpleNamespace(name="ualice")) == ""
    assert space.announcement(None) == ""


@pytest.mark.parametrize(("home", "in_memory"), [(G, False), (4096, True)])
def test_a_server_in_a_full_home_starts_with_settings_in_memory(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, home: int, in_memory: bool
) -> None:
    monkeypatch.setattr(Paths, "current", lambda: paths)
    fill(monkeypatch, hub=G, home=home)
    asked = SimpleNamespace(
        user=SimpleNamespace(name="ualice"),
        unit_name="jupyter-ualice",
        default_shell="",
        extra_paths=[],
        server_paths=["/bin"],
        environment={},
        get_env=dict,
        has_assignments=lambda: False,
    )
    found = AnankeSpawner.server_environment(asked)
    assert found["HOME"] == "/var/lib/ualice"
    for name in ("JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        assert (found.get(name, "").startswith("/run/jupyter-ualice/")) is in_memory, name
