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
OWN = sorted(features.FOLDER.glob("*/environment*.txt"))
NAMES = features.names()
WISHES = [wish for name in NAMES for wish in [f"{name}:{one}" for one in features.variants(name)] or [name]]


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the features that a test may change."""
    folder = Path(shutil.copytree(features.FOLDER, tmp_path / "features"))
    monkeypatch.setattr(features, "FOLDER", folder)
    return folder


def test_the_features_are_there() -> None:
    assert NAMES == ["base_packages", "jupyterfs", "lsp", "myst", "nbgrader", "rtc", "scheduler", "tensorflow"]
    folders = [path.name for path in features.FOLDER.iterdir() if path.is_dir() and not path.name.startswith("__")]
    assert sorted(folders) == NAMES


@pytest.mark.parametrize("wish", WISHES)
def test_a_feature_is_complete(wish: str) -> None:
    one = features.load(wish)
    assert one.title
    assert one.description
    assert one.packages
    compile(one.check, "check.py", "exec")
    environment, package = one.main
    assert (environment == one.environment.get("name")) == bool(one.environment)
    own = tuple(int(part) for part in one.environment.get("python", "0").split("."))
    for python in [own] if one.environment else PYTHONS:
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
    assert {path.stem for path in LOCKS if path not in OWN} <= set(features.LOCKS)


def test_environments_of_features_are_their_own() -> None:
    """Each has another name than all others, and a kernel of that name which activates it."""
    brought = features.environments(NAMES)
    assert sorted(brought.values()) == sorted({path.parent.name for path in OWN})
    assert not {"base", "jhub", "python3"} & brought.keys()
    for environment, name in brought.items():
        found = features.load(features.for_devices([name])[0]).files
        kernel = json.loads(found[f"/opt/conda/envs/jhub/share/jupyter/kernels/{environment}/kernel.json"]["content"])
        assert kernel == json.loads(images.kernel_spec(environment, kernel["display_name"]))


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_own_environments_can_run_kernels(path: Path) -> None:
    python = tuple(
        int(part)
        for part in features.load(features.for_devices([path.parent.name])[0]).environment["python"].split(".")
    )
    assert {"ipykernel", "ipywidgets"} <= hub_feature_sets.pins(path.read_text(), python).keys()


def test_only_the_variant_for_gpus_has_cuda() -> None:
    cpu, gpu = (
        hub_feature_sets.pins(features.load(f"tensorflow:{one}").packages["tensorflow"], (3, 13))
        for one in ("cpu", "gpu")
    )
    assert not [package for package in cpu if package.startswith("nvidia")]
    assert {"nvidia-cudnn-cu12", "nvidia-cuda-runtime-cu12"} <= gpu.keys()
    both = cpu.keys() & gpu.keys()
    assert {package: cpu[package] for package in both} == {package: gpu[package] for package in both}
    assert cpu["tensorflow-cpu"] == gpu["tensorflow"]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_locks_have_hashes_and_no_addresses(path: Path) -> None:
    assert images._check_requirements("x", str(path)) == []
    assert "://" not in path.read_text()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("environment", ["jhub", "python3"])
def test_a_package_has_one_version_everywhere(environment: str, python: tuple[int, int]) -> None:
    paths = [
        BASE / f"{environment}.txt",
        *(path for path in LOCKS if hub_feature_sets.LOCKS.get(path.stem) == environment),
    ]
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


def test_the_hub_chooses_the_variant_where_none_is_named() -> None:
    """What an older record of the other variant says is no longer what is wanted, and so it is updated."""
    open_, gpu = (features.parameters([wish])["features"]["tensorflow"] for wish in ("tensorflow", "tensorflow:gpu"))
    chosen = hub_feature_sets.chosen
    assert [chosen(open_, gpus)["variant"] for gpus in (True, False)] == ["gpu", "cpu"]
    assert [chosen(gpu, gpus)["variant"] for gpus in (True, False)] == ["gpu", "gpu"]
    assert len({hub_feature_sets.digest(chosen(open_, gpus)) for gpus in (True, False)}) == 2


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", {}),
        ("[1]\n", {}),
        ('warning\n{"devices": ["CPU:0"]}\n\n', {"devices": ["CPU:0"]}),
        ('{"devices": []}\nno more\n', {}),
    ],
)
def test_reports_of_checks(text: str, reported: dict[str, Any]) -> None:
    assert hub_feature_sets.report(text) == reported


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
        (["tensorflow:cpu", "tensorflow"], ["'tensorflow' is there twice"]),
        (["tensorflow:tpu"], ["'tensorflow:tpu' names a variant", "tensorflow or tensorflow:cpu or tensorflow:gpu"]),
        (["tensorflow:"], ["names a variant that tensorflow has not"]),
        (["lsp:gpu"], ["'lsp:gpu' names a variant that lsp has not: write lsp"]),
        (["tensorflw:gpu"], ["'tensorflw:gpu' is no feature: did you mean 'tensorflow'?"]),
    ],
)
def test_wrong_lists(wanted: Any, words: list[str]) -> None:
    found = features.check(wanted)
    assert len(found) == 1
    assert [word for word in words if word not in found[0]] == []


def test_right_lists() -> None:
    assert (
        features.check([])
        == features.check(NAMES)
        == features.check(tuple(NAMES))
        == features.check(["tensorflow:gpu"])
        == []
    )


@pytest.mark.parametrize(
    ("devices", "variant"),
    [
        ([], "cpu"),
        (["/dev/kvm", "amd.com/gpu=all"], "cpu"),
        (["/dev/kvm", "nvidia.com/gpu=0"], "gpu"),
        (["/dev/nvidia0"], "gpu"),
    ],
)
def test_devices_decide_which_variant_is_taken_where_none_is_named(devices: list[str], variant: str) -> None:
    assert features.for_devices(["tensorflow", "lsp"], devices) == [f"tensorflow:{variant}", "lsp"]
    named = ["tensorflow:cpu", "tensorflow:gpu", "lsp"]
    assert features.for_devices(named, devices) == named


def test_parameters_are_what_json_can_hold_and_the_program_reads() -> None:
    parameters = features.parameters(NAMES)
    assert json.loads(json.dumps(parameters)) == parameters
    assert sorted(parameters["features"]) == NAMES
    for feature in parameters["features"].values():
        for gpus in (True, False):
            one = hub_feature_sets.chosen(feature, gpus)
            assert re.fullmatch(r"[0-9a-f]{64}", hub_feature_sets.digest(one))
            assert set(one["packages"]) <= {*hub_feature_sets.LOCKS, one["environment"].get("name")}
            assert one["main"][0] in {*one["packages"]}
    compile(parameters["checks"], "checks.py", "exec")


def test_the_program_can_travel() -> None:
    text = inside.source(hub_feature_sets)
    assert "ansible" not in "".join(line for line in text.splitlines() if line.startswith(("import ", "from ")))


def test_a_wrong_description_is_refused(copied: Path) -> None:
    path = copied / "lsp" / "feature.yml"
    path.write_text(path.read_text().replace("server", "tomorrow"))
    with pytest.raises(features.FeatureError, match="applies is one of reload, server, hub"):
        features.load("lsp")


@pytest.mark.parametrize(
    ("old", "new"),
    [('  python: "3.13"', "  python: 3.13"), ("  name: ", "  kernel: "), ("environment:", "environments:")],
)
def test_a_wrong_environment_is_refused(copied: Path, old: str, new: str) -> None:
    path = copied / "tensorflow" / "feature.yml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(features.FeatureError, match="and environment with name and python"):
        features.load("tensorflow:cpu")


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


@pytest.mark.parametrize(
    ("wish", "variant"), [("tensorflow", "cpu"), ("tensorflow:cpu", "cpu"), ("tensorflow:gpu", "gpu")]
)
def test_a_layer_has_one_variant(wish: str, variant: str) -> None:
    content = json.loads(features.entries(wish)["feature.json"])
    assert list(content["features"]["tensorflow"]["variants"]) == [variant]
    assert content["building"] is True
