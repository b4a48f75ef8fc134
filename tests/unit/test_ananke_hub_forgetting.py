# SPDX-License-Identifier: GPL-3.0-or-later
"""Homes that are emptied, on a real file system; which server runs is made up."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from ananke_hub_support import description, make_root

from ananke_hub import config, forgetting, units
from ananke_hub.description import parse
from ananke_hub.paths import Paths
from ananke_hub.spawner import AnankeSpawner, StartFailed, systemd


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    found = make_root(tmp_path, description(forget=True))
    monkeypatch.setenv("ANANKE_ROOT", str(tmp_path))
    monkeypatch.setattr(forgetting, "runs", lambda name: name == "urunning")
    for name in ("ualice", "ubob", "urunning"):
        (found.private / name).mkdir(parents=True)
        (found.private / name / "work").write_text(name)
    return found


def left(paths: Paths) -> list[str]:
    return sorted(str(path.relative_to(paths.private)) for path in paths.private.glob("*/*"))


def test_one_home_is_emptied_and_stays(paths: Paths) -> None:
    before = (paths.private / "ualice").stat()
    assert forgetting.main(["ualice"]) == 0
    assert left(paths) == ["ubob/work", "urunning/work"]
    after = (paths.private / "ualice").stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def test_at_a_container_s_start_all_are(paths: Paths) -> None:
    (paths.private / ".ananke-owner-ualice").symlink_to("61184:61184")
    (paths.private / "uelsewhere").symlink_to(paths.config_d)
    kept = list(paths.config_d.iterdir())
    assert forgetting.main([]) == 0
    assert [path for path in left(paths) if not path.startswith("uelsewhere")] == ["urunning/work"]
    assert list(paths.config_d.iterdir()) == kept
    assert (paths.private / ".ananke-owner-ualice").is_symlink()


@pytest.mark.parametrize("names", [["urunning"], []])
def test_who_works_keeps_everything(paths: Paths, names: list[str]) -> None:
    forgetting.main(names)
    assert (paths.private / "urunning/work").read_text() == "urunning"


def test_nothing_happens_where_it_was_switched_off(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting.description, "load", lambda path: parse(description()))
    assert forgetting.main(["ualice"]) == 0
    assert "ualice/work" in left(paths)


def test_links_lead_nowhere_and_nothing_is_too_odd(paths: Paths) -> None:
    home, kept = paths.private / "ualice", paths.private / "ubob/work"
    (home / "link").symlink_to(kept)
    (home / "folder").symlink_to(kept.parent)
    os.link(kept, home / "same")
    for name in ("-rf", "* \n", ".hidden", "ü" * 100, "\udcff"):
        (home / name).write_text("x")
    os.mkfifo(home / "pipe")
    (home / "closed").mkdir()
    (home / "closed/inner").write_text("x")
    (home / "closed").chmod(0o500 if os.geteuid() == 0 else 0o700)
    here = os.open(home, os.O_RDONLY)
    for _depth in range(3000):  # longer than any path can be written
        os.mkdir("deep", dir_fd=here)
        here, above = os.open("deep", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    assert forgetting.main(["ualice"]) == 0
    assert list(home.iterdir()) == []
    assert kept.read_text() == "ubob"


def test_a_home_that_is_a_link_is_not_followed(paths: Paths) -> None:
    (paths.private / "ulink").symlink_to(paths.private / "ubob")
    forgetting.main(["ulink"])
    assert "ubob/work" in left(paths)


def test_what_is_left_is_named(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = "find: cannot delete '/home/x': Operation not permitted\n"
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_options: subprocess.CompletedProcess(command, 1, "", refused)
    )
    assert forgetting.main(["ualice"]) == 1
    said = capfd.readouterr().err
    assert "Operation not permitted" in said
    assert "chattr -i" in said
    assert said.count("\n") == 1


def test_only_people_of_a_forgetful_hub_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.space, "announcement", lambda user: "Full.")
    person = SimpleNamespace(name="ualice", spawners={})
    assert config.announcement(parse(description(forget=True)))(person) == f"{forgetting.NOTICE} Full."
    assert config.announcement(parse(description(forget=True)))(None) == "Full."
    assert config.announcement(parse(description()))(person) == "Full."


async def test_a_server_starts_once_its_home_is_empty_and_names_what_follows(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Paths, "current", lambda: paths)
    done: list[str] = []

    class Process:
        async def wait(self) -> int:
            done.append("waited")
            return 1  # what is left of a home keeps nobody from working

    async def execute(*words: str, **_options: object) -> Process:
        done.append(" ".join(words[:3]))
        return Process()

    async def start(_unit: str, properties: dict[str, str], **_options: object) -> int:
        done.append(f"{properties['OnSuccess']} {properties['OnFailure']}")
        return 1

    monkeypatch.setattr(asyncio, "create_subprocess_exec", execute)
    monkeypatch.setattr(systemd, "start_transient_service", start)
    monkeypatch.setattr(units, "prepare", lambda unit: None)
    asked = AnankeSpawner(user=SimpleNamespace(name="ualice", id=1, url="/"), forget_homes=True, cmd=["true"])
    monkeypatch.setattr(asked, "server_environment", dict)
    monkeypatch.setattr(asked, "get_args", list)
    with pytest.raises(StartFailed):
        await asked._start_unit()
    follows = "ananke-forget@ualice.service"
    assert done[-3:] == [f"systemctl start {follows}", "waited", f"{follows} {follows}"]
