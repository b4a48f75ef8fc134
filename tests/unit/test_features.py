# SPDX-License-Identifier: GPL-3.0-or-later
"""Every feature is complete, and whichever are chosen, their packages fit together."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import features, hub_feature_sets, images, inside

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "roles" / "hub_image" / "files" / "locks"
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))
LOCKS = sorted(features.FOLDER.glob("*/*.txt"))
NAMES = features.names()


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the features that a test may change."""
    folder = Path(shutil.copytree(features.FOLDER, tmp_path / "features"))
    monkeypatch.setattr(features, "FOLDER", folder)
    return folder


def test_the_features_are_there() -> None:
    assert NAMES == ["base_packages", "jupyterfs", "lsp", "myst", "rtc", "scheduler"]
    folders = [path.name for path in features.FOLDER.iterdir() if path.is_dir() and not path.name.startswith("__")]
    assert sorted(folders) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_feature_is_complete(name: str) -> None:
    one = features.load(name)
    assert one.title
    assert one.description
    assert one.packages
    compile(one.check, "check.py", "exec")
    environment, package = one.main
    for python in PYTHONS:
        pinned = hub_feature_sets.pins(one.packages[environment], python)
        assert len(pinned[hub_feature_sets.normalised(package)]) == 1
    for path, file in one.files.items():
        assert path.startswith("/opt/conda/envs/jhub/"), path
        if path.endswith(".json"):
            json.loads(file["content"])
        if path.endswith(".py"):
            compile(file["content"], path, "exec")


def test_locks_have_their_sources_and_nothing_else_is_locked() -> None:
    assert {path.with_suffix(".in") for path in LOCKS} == set(features.FOLDER.glob("*/*.in"))
    assert {path.stem for path in LOCKS} <= set(features.LOCKS)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_locks_have_hashes_and_no_addresses(path: Path) -> None:
    assert images._check_requirements("x", str(path)) == []
    assert "://" not in path.read_text()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("environment", ["jhub", "python3"])
def test_a_package_has_one_version_everywhere(environment: str, python: tuple[int, int]) -> None:
    paths = [BASE / f"{environment}.txt", *(path for path in LOCKS if hub_feature_sets.LOCKS[path.stem] == environment)]
    found: dict[str, set[str]] = {}
    for path in paths:
        for package, versions in hub_feature_sets.pins(path.read_text(), python).items():
            found.setdefault(package, set()).update(versions)
    assert {package: versions for package, versions in found.items() if len(versions) > 1} == {}


@pytest.mark.parametrize("python", PYTHONS)
def test_both_halves_of_a_library_have_one_version(python: tuple[int, int]) -> None:
    folder = features.FOLDER / "base_packages"
    halves, whole = (hub_feature_sets.pins((folder / f"{n}.txt").read_text(), python) for n in ("jhub-only", "python3"))
    assert halves
    assert {package: whole.get(package) for package in halves} == halves


@pytest.mark.parametrize(
    ("marker", "python", "fits"),
    [
        ("", (3, 13), True),
        (" python_full_version < '3.12'", (3, 13), False),
        (" python_full_version >= '3.12'", (3, 13), True),
        (" python_full_version >= '3.12' and sys_platform == 'win32'", (3, 11), False),
        (" python_version == '3.9' or sys_platform == 'linux'", (3, 13), True),
        (" sys_platform == 'linux'", (3, 13), True),
    ],
)
def test_markers(marker: str, python: tuple[int, int], fits: bool) -> None:
    assert hub_feature_sets.fits(marker, python) is fits


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("lsp", ["features is 'lsp'", "list"]),
        (None, ["features is None"]),
        (["lps"], ["'lps' is no feature", "did you mean 'lsp'?"]),
        (["Base-Packages"], ["did you mean 'base_packages'?"]),
        (["quux"], ["there are base_packages, jupyterfs"]),
        ([7], ["7 is no feature"]),
        ([["lsp"]], ["is no feature"]),
        (["lsp", "myst", "lsp"], ["'lsp' is there twice"]),
    ],
)
def test_wrong_lists(wanted: Any, words: list[str]) -> None:
    found = features.check(wanted)
    assert len(found) == 1
    assert [word for word in words if word not in found[0]] == []


def test_right_lists() -> None:
    assert features.check([]) == features.check(NAMES) == features.check(tuple(NAMES)) == []


def test_parameters_are_what_json_can_hold_and_the_program_reads() -> None:
    parameters = features.parameters(NAMES)
    assert json.loads(json.dumps(parameters)) == parameters
    assert sorted(parameters["features"]) == NAMES
    for feature in parameters["features"].values():
        assert re.fullmatch(r"[0-9a-f]{64}", hub_feature_sets.digest(feature))
        assert set(feature["packages"]) <= set(hub_feature_sets.LOCKS)
    compile(parameters["checks"], "checks.py", "exec")


def test_the_program_can_travel() -> None:
    text = inside.source(hub_feature_sets)
    assert "ansible" not in "".join(line for line in text.splitlines() if line.startswith(("import ", "from ")))


def test_a_wrong_description_is_refused(copied: Path) -> None:
    path = copied / "lsp" / "feature.yml"
    path.write_text(path.read_text().replace("server", "tomorrow"))
    with pytest.raises(features.FeatureError, match="applies is one of reload, server, hub"):
        features.load("lsp")


def test_the_layer_of_a_feature_follows_from_its_files_and_the_program(
    copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def digest() -> str:
        return images._feature_step("rtc", str(BASE.parent)).digest()

    seen = {digest()}
    assert digest() in seen
    for path in sorted(path for path in [*(copied / "rtc").rglob("*"), copied / "checks.py"] if path.is_file()):
        if path.suffix == ".in" or path.name == "feature.yml":
            continue
        path.write_text(path.read_text() + "\n")
        now = digest()
        assert now not in seen, path
        seen.add(now)
    (copied / "rtc" / "rootfs" / "opt" / "further").write_text("")
    program = tmp_path / "program.py"
    program.write_text("pass\n")
    monkeypatch.setattr(hub_feature_sets, "__file__", str(program))
    last = digest()
    assert last not in seen
    (copied / "lsp" / "check.py").write_text("")
    assert digest() == last


def test_the_layer_has_what_its_script_starts() -> None:
    step = images._feature_step("rtc", str(BASE.parent))
    names = {entry.name for entry in step.entries}
    script = next(entry.content for entry in step.entries if entry.name == "step").decode()
    assert set(script.splitlines()[-1].split()[2:]) <= names
    wish = json.loads(next(entry.content for entry in step.entries if entry.name == "feature.json"))
    assert wish["exactly"] is False
    assert list(wish["features"]) == ["rtc"]
    assert dataclasses.asdict(features.load("rtc"))["check"] == wish["features"]["rtc"]["check"]
