# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a hub that fail, and runs that are killed in the middle of one: what is in force then, and what the next run makes of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import files, hub_change, hub_database, hub_folder
from ansible_collections.ananke.jupyterhub.plugins.module_utils.hub_container import HubError
from ansible_collections.ananke.jupyterhub.plugins.modules import hub as module

A, B, C = {"image": "a"}, {"image": "b"}, {"image": "c"}


class Killed(BaseException):
    """The run ends here, and nothing of it goes on."""


class Hub:
    """A hub whose container is made up: its unit's text is its image; a JupyterHub notes in the database who worked with it last."""

    def __init__(self, home: Path, wish: dict[str, Any], world: dict[str, Any]) -> None:
        self.home, self.world, self.wish = (
            home,
            world,
            {"name": "x", "port": 1, "prove": True, "forget_homes": False, **wish},
        )
        self.folder, self.name, self.service, self.runtime = (
            str(home / "hubs/x"),
            "ananke-x",
            "ananke-x.service",
            str(home),
        )
        self.unit_path, self.description, self.module = str(home / "unit"), {"x": 1}, SimpleNamespace(check_mode=False)
        self.account = SimpleNamespace(pw_dir=str(home))

    def wanted(self) -> list[hub_folder.Wanted]:
        unit = hub_folder.Wanted(self.unit_path, self.wish["image"], 0o644, hub_folder.UNIT)
        described = {"setting": self.wish.get("setting", 0)}
        authorities = self.wish.get("authorities", {})
        return [*hub_folder.wanted_files(self.folder, self.name, described, {}, authorities, None), unit]

    @property
    def database(self) -> Path:
        return Path(self.folder, "data/jupyterhub.sqlite")

    def step(self, name: str) -> None:
        if self.world.get("killed_at") == name:
            raise Killed(name)

    def wait_for_manager(self) -> None:
        pass

    def validate_unit(self) -> None:
        pass

    def validate_description(self) -> None:
        pass

    def running(self) -> bool:
        return self.world["running"] is not None

    def healthy(self) -> bool:
        return self.running() and self.world["running"] not in self.world["broken"]

    def recovers(self) -> bool:
        return self.healthy()

    def stop_container(self) -> None:
        self.step("stop")
        self.world["running"] = None

    def restart_container(self) -> None:
        self.step("start")
        self.boot()

    def boot(self) -> None:
        """Start what the files say; each JupyterHub reads databases of those before it, and of no later one."""
        image = Path(self.unit_path).read_text()
        made_by = self.database.read_text() if self.database.exists() else ""
        self.world["running"] = image if made_by <= image else f"{image} cannot read {made_by}"
        self.world["setting"] = json.loads(Path(self.folder, "description/hub.json").read_text())["setting"]
        if self.world["running"] == image:
            self.database.write_text(image)
        else:
            self.world["broken"].add(self.world["running"])

    def restart_hub(self) -> None:
        self.step("restart")
        self.world["setting"] = json.loads(Path(self.folder, "description/hub.json").read_text())["setting"]

    def wait(self) -> None:
        self.step("wait")
        if not self.healthy():
            raise HubError("it was not healthy")

    def prove(self) -> dict[str, Any]:
        self.step("prove")
        if self.world["running"] in self.world["unproven"]:
            raise HubError("it does not work")
        return {}

    def log(self, since: float) -> str:
        return ""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A hub that runs A, in force."""
    monkeypatch.setattr(module, "see_room", lambda *_arguments: None)

    @contextmanager
    def free(*_arguments: object, **_options: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(module.turns, "take", free)
    monkeypatch.setattr(module.turns, "by_run", free)
    world: dict[str, Any] = {"running": None, "broken": set(), "unproven": set(), "home": tmp_path, "setting": None}
    run(world, A)
    return world


def run(world: dict[str, Any], wish: dict[str, Any], killed_at: str = "") -> str:
    """One run; returns what it says."""
    world["killed_at"] = killed_at
    try:
        done = module.converge(Hub(world["home"], wish, world))  # type: ignore[arg-type]
    except HubError as error:
        return str(error)
    except Killed as error:
        return f"killed: {error}"
    return ", ".join(done.actions) or "nothing"


def state(world: dict[str, Any]) -> tuple[str, str, bool]:
    """What runs, whose database it has, and whether something is left of a change."""
    folder = world["home"] / "hubs/x"
    return world["running"], (folder / "data/jupyterhub.sqlite").read_text(), (folder / "before").exists()


def test_a_change_leaves_nothing_behind(world: dict[str, Any]) -> None:
    assert "ananke-x.service started" in run(world, B)
    assert state(world) == ("b", "b", False)
    assert run(world, B) == "nothing"


@pytest.mark.parametrize("fault", ["broken", "unproven"])
def test_what_fails_brings_back_files_and_database(world: dict[str, Any], fault: str) -> None:
    world[fault].add("b")
    assert "the state before is back" in run(world, B)
    assert state(world) == ("a", "a", False)
    assert run(world, A) == "nothing"


MOMENTS = ["stop", "start", "wait", "prove"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_same_change_is_finished_by_the_next_run(world: dict[str, Any], moment: str) -> None:
    assert run(world, B, moment) == f"killed: {moment}"
    run(world, B)
    assert state(world) == ("b", "b", False)
    assert run(world, B) == "nothing"


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", ["broken", "unproven"])
def test_the_same_change_may_fail_after_it_was_killed(world: dict[str, Any], moment: str, fault: str) -> None:
    world[fault].add("b")
    run(world, B, moment)
    assert "the state before is back" in run(world, B)
    assert state(world) == ("a", "a", False)
    assert run(world, A) == "nothing"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_change_that_was_killed_may_be_taken_back(world: dict[str, Any], moment: str) -> None:
    """The inventory says again what it said before. The former JupyterHub cannot read the later one's database."""
    run(world, B, moment)
    for _attempt in range(2):
        said = run(world, A)
    assert said == "nothing"
    assert state(world) == ("a", "a", False)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", ["broken", "unproven"])
def test_another_change_after_one_that_was_killed(world: dict[str, Any], moment: str, fault: str) -> None:
    """It fails: what worked before it is back, which is the killed one's where that came so far."""
    run(world, B, moment)
    worked = world["running"] or "a"
    world[fault].add("c")
    assert "the state before is back" in run(world, C)
    assert state(world)[:2] == (worked, worked)
    assert Path(world["home"], "unit").read_text() == worked


def test_a_return_that_was_slow_is_not_repeated_and_its_copy_is_not_used_later(world: dict[str, Any]) -> None:
    world["broken"] |= {"a", "b"}
    assert "not healthy either" in run(world, B)
    world["broken"].clear()  # it only took longer
    running = world["running"] = "a"
    assert run(world, A) == "nothing"
    assert state(world) == (running, "a", False)
    (world["home"] / "hubs/x/data/jupyterhub.sqlite").write_text("a, weeks later")
    world["broken"].add("c")
    run(world, C)
    assert state(world)[1] == "a, weeks later"


def test_what_was_over_when_the_run_was_killed_is_not_taken_back(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(hub_change, "over", lambda _folder: Hub(world["home"], B, {"killed_at": "over"}).step("over"))
        assert run(world, B) == "killed: over"
    world["broken"] |= {"b", "c"}  # nothing works any more, for a reason of its own
    run(world, C)
    assert Path(world["home"], "unit").read_text() == "b"
    assert state(world)[1] == "b"


def test_settings_that_a_killed_run_brought_are_taken_back(world: dict[str, Any]) -> None:
    assert run(world, {**A, "setting": 1}, "wait") == "killed: wait"
    assert world["setting"] == 1
    assert run(world, A).endswith("JupyterHub restarted")
    assert world["setting"] == 0
    assert run(world, A) == "nothing"


def test_a_return_that_was_killed_is_finished(world: dict[str, Any]) -> None:
    """The files say what is wanted, the container does not."""
    world["unproven"].add("b")
    hub = Hub(world["home"], B, world)
    begun = hub_change.begin(hub.folder, hub.wanted(), True)
    hub_folder.write(hub.folder, hub_folder.plan(hub.folder, hub.wanted()))
    hub_database.keep(hub.folder)
    hub.boot()
    hub_change.undo(begun)
    assert state(world) == ("b", "b", True)
    for _attempt in range(2):
        said = run(world, A)
    assert said == "nothing"
    assert state(world) == ("a", "a", False)


def test_authorities_come_back(world: dict[str, Any]) -> None:
    run(world, {**A, "authorities": {"old.crt": "OLD"}})
    world["broken"].add("b")
    assert "is back" in run(world, {**B, "authorities": {"new.crt": "NEW"}})
    folder = world["home"] / "hubs/x/description/ca"
    assert {name: (folder / name).read_text() for name in os.listdir(folder)} == {"old.crt": "OLD"}


@pytest.mark.parametrize("text", ["", "[", "{}", "[]", '{"files": {"a": 1}, "applied": {}, "target": {}}'])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    hub_database.provide(str(tmp_path))
    files.write(str(tmp_path / hub_change.RECORD), text, 0o600)
    assert hub_change.begun(str(tmp_path)) is None


def test_a_record_is_the_container_admin_s_alone(world: dict[str, Any]) -> None:
    run(world, B, "wait")
    record = world["home"] / "hubs/x" / hub_change.RECORD
    assert (record.stat().st_mode & 0o777, record.parent.stat().st_mode & 0o777) == (0o600, 0o700)
