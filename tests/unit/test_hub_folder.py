"""The container definition folder and the unit: what a difference entails."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import container, hub_folder, time_zone

CONTAINER = container.Container(
    name="ananke-math101", image="localhost/ananke/standard:1", folder="/home/m/hubs/math101", port=8101
)


def wanted(folder: Path, **changes: object) -> list[hub_folder.Wanted]:
    values: dict[str, object] = {
        "description": {"name": "math101"},
        "config_files": {"00_base.py": "base\n"},
        "ca_certificates": {"lms.crt": "PEM\n"},
        "lms_sheet": "sheet\n",
        **changes,
    }
    unit = hub_folder.Wanted(str(folder.parent / "unit"), "unit\n", 0o644, hub_folder.UNIT)
    return [*hub_folder.wanted_files(str(folder), "ananke-math101", **values), unit]  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is as wanted, and in force."""
    path = tmp_path / "math101"
    files = wanted(path)
    hub_folder.write(str(path), hub_folder.plan(str(path), files))
    hub_folder.note_applied(str(path), hub_folder.digests(files))
    return path


def test_a_new_folder_is_complete_and_then_needs_nothing(folder: Path) -> None:
    assert hub_folder.plan(str(folder), wanted(folder)).empty
    assert (folder / "data").stat().st_mode & 0o777 == 0o700
    assert (folder / "description/hub.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        ({"description": {"name": "other"}}, {hub_folder.DESCRIPTION}),
        ({"config_files": {"00_base.py": "new\n"}}, {hub_folder.DESCRIPTION}),
        ({"ca_certificates": {}}, {hub_folder.DESCRIPTION}),
        ({"lms_sheet": "new"}, set()),
    ],
)
def test_only_what_changed_is_stale(folder: Path, changes: dict[str, object], stale: set[str]) -> None:
    plan = hub_folder.plan(str(folder), wanted(folder, **changes))
    assert not plan.empty
    assert plan.stale == stale


def test_what_a_killed_run_wrote_but_did_not_apply_stays_stale(folder: Path) -> None:
    files = wanted(folder, description={"name": "other"})
    hub_folder.write(str(folder), hub_folder.plan(str(folder), files))
    plan = hub_folder.plan(str(folder), files)
    assert not plan.write
    assert plan.stale == {hub_folder.DESCRIPTION}


def test_a_damaged_note_means_nothing_is_in_force(folder: Path) -> None:
    (folder / hub_folder.APPLIED).write_text("[not json")
    assert hub_folder.plan(str(folder), wanted(folder)).stale == {hub_folder.UNIT, hub_folder.DESCRIPTION}


def test_the_admins_own_files_are_never_touched(folder: Path) -> None:
    own = folder / "jupyterhub_config.d/90_own.py"
    own.write_text("c.Spawner.debug = True\n")
    plan = hub_folder.plan(str(folder), wanted(folder))
    hub_folder.write(str(folder), plan)
    assert plan.empty
    assert own.read_text() == "c.Spawner.debug = True\n"


def test_a_ca_that_is_no_longer_described_goes(folder: Path) -> None:
    hub_folder.write(str(folder), hub_folder.plan(str(folder), wanted(folder, ca_certificates={})))
    assert os.listdir(folder / "description/ca") == []


def test_modes_that_somebody_opened_are_closed_again(folder: Path) -> None:
    (folder / "data").chmod(0o777)
    plan = hub_folder.plan(str(folder), wanted(folder))
    assert plan.folders == [str(folder / "data")]
    hub_folder.write(str(folder), plan)
    assert (folder / "data").stat().st_mode & 0o777 == 0o700


def test_both_units_tell_podman_the_same() -> None:
    described = dataclasses.replace(
        CONTAINER,
        memory=2**30,
        cpus=1.5,
        pids=1000,
        devices=("nvidia.com/gpu=all",),
        volumes=(container.Volume("/data/sets", "/data", True), container.Volume("/srv/a", "/a", False, True)),
        hosts=(("lms.localhost", "host-gateway"),),
    )
    quadlet, plain = container.quadlet(described), container.plain(described)
    for text in (
        "127.0.0.1:8101:8000",
        "/home/m/hubs/math101/data:/var/lib/jupyterhub",
        "/home/m/hubs/math101/description:/etc/ananke:ro",
        "/data/sets:/data:ro",
        "/srv/a:/a:rslave",
        "nvidia.com/gpu=all",
        "--memory=1073741824",
        "--cpus=1.5",
        "--pids-limit=1000",
        "--add-host=lms.localhost:host-gateway",
        "localhost/ananke/standard:1",
        "Restart=always",
        "TasksMax=infinity",
        "RestartSec=10",
        "WantedBy=default.target",
    ):
        assert text in quadlet
        assert text in plain
    assert "SYS_ADMIN" in quadlet
    assert "SYS_ADMIN" in plain
    assert quadlet.count("[Service]") == plain.count("[Service]") == 1


def test_without_limits_there_are_none() -> None:
    for text in (container.quadlet(CONTAINER), container.plain(CONTAINER)):
        assert "--memory" not in text
        assert "--cpus" not in text
        assert "--pids-limit=0" in text


def test_limits_that_the_machine_cannot_hold_are_named() -> None:
    limits = {"memory": 1, "cpus": 2.0, "pids": None}
    assert container.limit(limits, {"memory", "cpu", "pids"}) == ({"memory": 1, "cpus": 2.0}, [])
    assert container.limit(limits, {"pids"}) == ({}, ["memory", "cpus"])


def test_the_shell_script_is_a_shell_script() -> None:
    subprocess.run(["/bin/sh", "-n"], input=container.shell_script("ananke-math101"), text=True, check=True)


def test_a_diff_hides_values_of_the_users_environment(folder: Path) -> None:
    servers = {"environment": {"TOKEN": "s3cret"}, "tasks": 512}
    plan = hub_folder.plan(str(folder), wanted(folder, description={"servers": servers}))
    text = str(plan.diff)
    assert "s3cret" not in text
    assert "TOKEN" in text
    assert "512" in text


def test_who_has_a_home_and_whether_the_hub_forgets(folder: Path) -> None:
    assert hub_folder.homes(str(folder)) == []
    for name in ("ubob", "ualice", ".ananke-owner-ubob"):
        (folder / "private" / name).mkdir()
    assert hub_folder.homes(str(folder)) == ["ualice", "ubob"]
    assert hub_folder.homes(str(folder / "nothing")) == []
    for text, forgets in (("", False), ("{}", False), ("[]", False), ('{"forget": true}', True)):
        (folder / "description/hub.json").write_text(text)
        assert hub_folder.forgets(str(folder)) is forgets


@pytest.mark.parametrize(
    ("target", "zone"),
    [
        ("/usr/share/zoneinfo/Europe/Berlin", "Europe/Berlin"),
        ("../usr/share/zoneinfo/Etc/UTC", "Etc/UTC"),
        ("/usr/share/zoneinfo/", "UTC"),
        ("/srv/clock", "UTC"),
        (None, "UTC"),
    ],
)
def test_the_machine_s_time_zone(tmp_path: Path, target: str | None, zone: str) -> None:
    (tmp_path / "etc").mkdir()
    if target:
        (tmp_path / "etc/localtime").symlink_to(target)
    assert time_zone.of_machine(str(tmp_path)) == zone
