# SPDX-License-Identifier: GPL-3.0-or-later
"""How the module hub starts a container and waits for its hub, with systemd's and the hub's answers made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_container
from ansible_collections.ananke.jupyterhub.plugins.module_utils.hub_container import Hub, HubError

SHOWN = "Id=ananke-init.service\nActiveState={init}\nNRestarts=0\n\nId=jupyterhub.service\nActiveState=activating\nNRestarts={ended}\n"


class Started(Hub):
    """A hub whose container's unit fails to start so many times."""

    def __init__(self, failures: int = 0, home: Path = Path("/nowhere"), **answers: Any) -> None:
        self.account: Any = SimpleNamespace(pw_dir=str(home))
        self.failures, self.service, self.name, self.quadlet = failures, "ananke-a.service", "ananke-a", True
        self.asked: list[str] = []
        self.answers = {
            "shown": (0, SHOWN.format(init="active", ended=0)),
            "probe": (0, "{}"),
            "healthy_at": 0,
            **answers,
        }
        self.wish = {"name": "a", "health_timeout": 100}
        self.waited, self.looks = 0.0, 0
        self.warnings: list[str] = []
        self.module: Any = SimpleNamespace(warn=self.warnings.append)

    def run(self, argv: Sequence[str], stdin: str | None = None, **environment: str) -> tuple[int, str]:
        self.asked.append(" ".join(argv[2:]))
        if argv[2] == "restart" and self.failures:
            self.failures -= 1
            return 1, "Job for ananke-a.service failed"
        if argv[2] == "stop":
            return tuple(self.answers["stopped"])
        if "show" in argv:
            return tuple(self.answers["shown"])
        return tuple(self.answers["probe"]) if argv[-1] == "ananke_hub.probe" else (0, "")

    def healthy(self) -> bool:
        self.looks += 1
        return self.looks > self.answers["healthy_at"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeping takes no time."""
    now = [0.0]
    monkeypatch.setattr(hub_container.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(hub_container.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


@pytest.mark.parametrize("failures", [0, 1])
def test_a_start_that_fails_once_is_tried_again(failures: int) -> None:
    started = Started(failures)
    started.restart_container()
    assert started.asked == ["daemon-reload", *["restart ananke-a.service"] * (failures + 1)]


def test_a_unit_from_before_quadlet_makes_place(tmp_path: Path) -> None:
    unit = tmp_path / ".config/systemd/user/ananke-a.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("former")
    Started(home=tmp_path).restart_container()
    assert not unit.exists()


def test_what_systemd_does_not_know_is_stopped() -> None:
    Started(stopped=(5, "Unit ananke-a.service not loaded.")).stop_container()
    with pytest.raises(HubError, match=r"stop ananke-a\.service failed: no bus"):
        Started(stopped=(1, "no bus")).stop_container()


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("healthy_at", "recovers"), [(3, True), (50, False)])
def test_a_hub_that_is_only_restarting_recovers(healthy_at: int, recovers: bool) -> None:
    assert Started(healthy_at=healthy_at).recovers() is recovers


def test_a_start_that_fails_twice_has_failed() -> None:
    with pytest.raises(HubError, match=r"restart ananke-a\.service failed: Job for"):
        Started(2).restart_container()


@pytest.mark.usefixtures("clock")
def test_a_slow_hub_is_waited_for() -> None:
    hub = Started(healthy_at=50)
    hub.wait()
    assert 5 < hub.waited < 100


@pytest.mark.usefixtures("clock")
def test_a_hub_that_is_too_slow_has_failed() -> None:
    with pytest.raises(HubError, match="not healthy after 100 s"):
        Started(healthy_at=10**9).wait()


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ({"ended": 3, "init": "active"}, "ended 3 times"),
        ({"ended": 0, "init": "failed"}, "prepares JupyterHub's start"),
    ],
)
def test_a_hub_that_will_never_start_is_given_up_early(shown: dict[str, Any], words: str) -> None:
    hub = Started(healthy_at=10**9, shown=(0, SHOWN.format(**shown)))
    with pytest.raises(HubError, match=words):
        hub.wait()
    assert hub_container.time.monotonic() < 2 * hub_container.LOOK


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("shown", [(125, "no container with name"), (0, SHOWN.format(init="active", ended=2)), (0, "")])
def test_what_says_nothing_of_the_kind_is_waited_for(shown: tuple[int, str]) -> None:
    Started(healthy_at=60, shown=shown).wait()


def test_a_proof_is_what_the_hub_prints_last() -> None:
    assert Started(probe=(0, 'a warning\n{"server": 1.5}\nlevel=warning msg="of podman"\n')).prove() == {"server": 1.5}


def test_a_hub_that_does_not_work_says_what() -> None:
    with pytest.raises(HubError, match="does not work: the kernel r ran no cell"):
        Started(probe=(1, "the kernel r ran no cell\n")).prove()


def test_an_image_without_the_proof_is_told_of() -> None:
    hub = Started(probe=(1, "/usr/bin/python: No module named ananke_hub.probe"))
    assert hub.prove() == {}
    assert "older than the proof" in hub.warnings[0]


def test_the_log_shows_how_it_failed_first() -> None:
    log = "\n".join([*(f"line {n}" for n in range(40)), "Main process exited, code=1", "again", "Main process exited"])
    assert hub_container.first_failure(log).splitlines() == [f"line {n}" for n in range(25, 40)]
    assert hub_container.first_failure("a\nb") == "a\nb"
    assert hub_container.first_failure("") == ""
