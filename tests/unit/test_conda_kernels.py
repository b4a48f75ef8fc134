# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels of conda environments: registered once, renamed, removed; with and without nb_conda_kernels."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import conda_kernels, images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

R = {"argv": ["R", "--slave", "{connection_file}"], "display_name": "R", "language": "R", "env": {"LC_ALL": "C"}}
OWN = {
    "argv": ["/x/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
    "metadata": {"debugger": True},
}


class Hub:
    """Environments of a hub."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.envs = base / "envs"
        self.kernels = self.envs / "jhub/share/jupyter/kernels"
        self.kernels.mkdir(parents=True)
        (self.envs / "jhub/conda-meta").mkdir()
        (base / "bin").mkdir()
        (base / "bin/activate").write_text(
            f'ACTIVE=$1; export ACTIVE; PATH="{base}/fake:$PATH"; [ $# = 1 ] || echo "got $*"\n'
        )

    def environment(self, name: str, ipykernel: bool = True, own: dict[str, Any] | None = None) -> Path:
        """Make an environment; ``own`` are its own kernelspecs."""
        prefix = self.envs / name
        (prefix / "conda-meta").mkdir(parents=True, exist_ok=True)
        site = prefix / "lib/python3.13/site-packages/ipykernel/resources"
        if ipykernel:
            site.mkdir(parents=True)
            (site / "logo-64x64.png").write_bytes(b"png")
            (site.parent.parent / "ipykernel_launcher.py").touch()
        for kernel, spec in (own or {}).items():
            put(prefix / "share/jupyter/kernels" / kernel, spec)
        return prefix

    def dynamic(self) -> None:
        """Install nb_conda_kernels."""
        (self.envs / "jhub/lib/python3.13/site-packages/nb_conda_kernels").mkdir(parents=True)

    def main(self, environment: str, **parameters: Any) -> dict[str, Any]:
        """Run the program; the result must be JSON."""
        usual = {"environment": environment, "prefix_folder": str(self.envs), "jhub": str(self.envs / "jhub")}
        return dict(json.loads(json.dumps(conda_kernels.main({**usual, **parameters}))))

    def failure(self, environment: str, **parameters: Any) -> str:
        """Run the program, which must fail, and return what it says."""
        with pytest.raises(conda_kernels.Failure) as error:
            self.main(environment, **parameters)
        return str(error.value)

    def spec(self, name: str) -> dict[str, Any]:
        """A kernelspec of jhub."""
        return dict(json.loads((self.kernels / name / "kernel.json").read_text()))

    def names(self) -> set[str]:
        """Kernelspecs of jhub."""
        return {one.parent.name for one in self.kernels.glob("*/kernel.json")}


def put(folder: Path, spec: dict[str, Any]) -> None:
    """Write a kernelspec as others do."""
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))


def state(folder: Path) -> dict[str, Any]:
    """All files of a folder."""
    paths = sorted(folder.rglob("*"))
    return {str(one): (one.stat().st_ino, one.is_file() and one.read_bytes()) for one in paths}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub as images make it, without environments for users."""
    launcher = tmp_path / "install/kernel"
    launcher.parent.mkdir()
    launcher.touch()
    launcher.chmod(0o755)
    monkeypatch.setattr(conda_kernels, "LAUNCHER", str(launcher))
    return Hub(tmp_path / "conda")


def test_a_kernel_is_registered_once(hub: Hub) -> None:
    prefix = hub.environment("data")
    first = hub.main("data", display_name="Data science")
    assert first["changed"]
    expected = {"name": "data", "display_name": "Data science", "environment": "data", "ours": True}
    assert first["kernels"] == [expected]
    assert hub.spec("data")["argv"] == [
        conda_kernels.LAUNCHER,
        str(prefix),
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
    ]
    assert (hub.kernels / "data/kernel.json").stat().st_mode & 0o777 == 0o644
    assert (hub.kernels / "data").stat().st_mode & 0o777 == 0o755
    assert {one.name for one in (hub.kernels / "data").iterdir()} == {"kernel.json", "logo-64x64.png"}
    assert first["diff"][0]["before"] == ""
    assert "Data science" in first["diff"][0]["after"]
    before = state(hub.base)
    again = hub.main("data", display_name="Data science")
    assert again == {**first, "changed": False, "diff": []}
    assert state(hub.base) == before


def test_it_is_what_images_bring(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the mark; so a kernel of the image is not changed."""
    prefix = hub.environment("python3")
    baked = images.kernel_spec("python3", "Python 3")
    baked = baked.replace("/opt/conda/envs/python3", str(prefix)).replace("/opt/install/kernel", conda_kernels.LAUNCHER)
    put(hub.kernels / "python3", json.loads(baked))
    same = hub.main("python3", display_name="Python 3")
    assert not same["changed"]
    assert same["kernels"][0]["ours"]
    shutil.rmtree(hub.kernels / "python3")
    hub.main("python3", display_name="Python 3")
    spec = hub.spec("python3")
    assert spec["metadata"].pop("ananke_environment") == str(prefix)
    assert spec == json.loads(baked)


def test_a_kernel_gets_another_name(hub: Hub) -> None:
    hub.environment("python3")
    assert hub.main("python3")["kernels"][0]["display_name"] == "python3"
    renamed = hub.main("python3", display_name="Mathematics")
    assert renamed["changed"]
    assert [one["display_name"] for one in renamed["kernels"]] == ["Mathematics"]
    assert '"display_name": "python3"' in renamed["diff"][0]["before"]
    assert '"display_name": "Mathematics"' in renamed["diff"][0]["after"]
    assert hub.names() == {"python3"}


@pytest.mark.parametrize(
    "name", ["Übung: Zahlen & Zeichen", "quoted \"x\" 'y'", "数学", "back\\slash", "{connection_file}"]
)
def test_any_words_may_be_shown(hub: Hub, name: str) -> None:
    hub.environment("data")
    assert hub.main("data", display_name=name)["kernels"][0]["display_name"] == name
    assert hub.spec("data")["display_name"] == name
    assert not hub.main("data", display_name=name)["changed"]


@given(name=st.text(min_size=1, max_size=30).filter(lambda text: text.strip() and text.isprintable()))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_printable_words_come_back(hub: Hub, name: str) -> None:
    hub.environment("data", ipykernel=not (hub.envs / "data").exists())
    assert hub.main("data", display_name=name)["kernels"][0]["display_name"] == name
    assert not hub.main("data", display_name=name)["changed"]


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "bell\a"])
def test_words_that_cannot_be_shown_are_refused(hub: Hub, name: str) -> None:
    hub.environment("data")
    assert "display_name" in hub.failure("data", display_name=name)
    assert hub.names() == set()


def test_a_second_kernelspec_of_an_environment_goes(hub: Hub) -> None:
    prefix = hub.environment("data")
    other = hub.environment("data2")
    put(hub.kernels / "conda-env-data-py", {**OWN, "argv": [f"{prefix}/bin/python", "-m", "ipykernel_launcher"]})
    put(hub.kernels / "two", {**OWN, "argv": ["/bin/sh", "-c", f". /x/activate {prefix} && exec python"]})
    put(hub.kernels / "neighbour", {**OWN, "argv": [f"{other}/bin/python", "-m", "ipykernel_launcher"]})
    put(hub.kernels / "bash", {"argv": ["bash"], "display_name": "Bash", "language": "bash"})
    put(hub.kernels / "r", {**R, "argv": [f"{prefix}/bin/R"]})
    (hub.kernels / "damaged").mkdir()
    (hub.kernels / "damaged/kernel.json").write_text("{not json")
    result = hub.main("data")
    assert result["removed"] == ["conda-env-data-py", "two"]
    assert hub.names() == {"data", "neighbour", "bash", "r", "damaged"}
    assert [(one["name"], one["environment"], one["ours"]) for one in result["kernels"]] == [
        ("bash", "", False),
        ("damaged", "", False),
        ("data", "data", True),
        ("neighbour", "data2", False),
        ("r", "data", False),
    ]
    assert not hub.main("data")["changed"]


def test_kernels_of_environments_that_are_gone_go_with_any_run(hub: Hub) -> None:
    for name in ("old", "older", "data"):
        hub.environment(name)
        hub.main(name)
    put(hub.kernels / "foreign", {**OWN, "argv": [f"{hub.envs}/gone/bin/python"]})
    old = hub.spec("old")
    del old["metadata"]["ananke_environment"]  # as an image has it
    (hub.kernels / "old/kernel.json").write_text(json.dumps(old))
    shutil.rmtree(hub.envs / "old")
    shutil.rmtree(hub.envs / "older")
    result = hub.main("data")
    assert result["changed"]
    assert result["removed"] == ["old", "older"]
    assert hub.names() == {"data", "foreign"}
    assert not hub.main("data")["changed"]


def test_a_kernel_is_no_longer_offered(hub: Hub) -> None:
    prefix = hub.environment("data")
    hub.environment("other")
    hub.main("data")
    hub.main("other")
    gone = hub.main("data", state="absent")
    assert gone["removed"] == ["data"]
    assert [one["name"] for one in gone["kernels"]] == ["other"]
    assert gone["diff"][0]["after"] == ""
    assert hub.names() == {"other"}
    assert (prefix / "conda-meta").is_dir()
    assert not hub.main("data", state="absent")["changed"]
    assert not hub.main("never-there", state="absent")["changed"]


@pytest.mark.parametrize("wish", [{}, {"state": "absent"}, {"display_name": "New"}])
def test_check_mode_foretells_and_changes_nothing(hub: Hub, wish: dict[str, Any]) -> None:
    hub.environment("data")
    prefix = hub.environment("twice")
    hub.main("data", display_name="Old")
    put(hub.kernels / "again", {**OWN, "argv": [f"{hub.envs}/data/bin/python"]})
    hub.main("twice")
    shutil.rmtree(prefix)
    before = state(hub.base)
    foretold = hub.main("data", check=True, **wish)
    assert foretold["changed"]
    assert state(hub.base) == before
    assert hub.main("data", **wish) == foretold
    assert not hub.main("data", check=True, **wish)["changed"]


def test_what_is_missing_is_said(hub: Hub) -> None:
    hub.environment("bare", ipykernel=False)
    for environment, words in (
        ("bare", "add ipykernel"),
        ("none", "make it with conda_environment"),
        ("jhub", "python3"),
        ("base", "python3"),
        ("../x", "is none for kernels"),
        ("", "is none for kernels"),
    ):
        assert words in hub.failure(environment), environment
    assert "name the hub's container" in hub.failure("bare", jhub="/nowhere")
    assert hub.names() == set()


def test_a_kernelspec_of_something_else_is_not_overwritten(hub: Hub) -> None:
    hub.environment("bash")
    put(hub.kernels / "bash", {"argv": ["bash_kernel"], "display_name": "Bash", "language": "bash"})
    before = state(hub.kernels)
    assert "the kernel of something else" in hub.failure("bash")
    assert state(hub.kernels) == before


# Without the launcher, and other languages


def test_without_the_launcher_conda_activates(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conda_kernels, "LAUNCHER", "/nowhere/kernel")
    prefix = hub.environment("data")
    hub.main("data")
    argv = hub.spec("data")["argv"]
    (hub.base / "fake").mkdir()
    (hub.base / "fake/python").write_text('#!/bin/sh\necho "$ACTIVE" "$@"\n')
    (hub.base / "fake/python").chmod(0o755)
    command = [word.replace("{connection_file}", "/run/a b.json") for word in argv]
    for shell in ("/bin/sh", "/bin/bash"):
        said = subprocess.run([shell, *command[1:]], capture_output=True, text=True, check=True).stdout
        assert said == f"{prefix} -m ipykernel_launcher -f /run/a b.json\n"
    assert not hub.main("data")["changed"]
    (hub.base / "bin/activate").unlink()
    assert "activates environments" in hub.failure("data")


def test_another_language_is_started_as_its_own_kernelspec_says(hub: Hub) -> None:
    prefix = hub.environment("stats", ipykernel=False, own={"ir": R})
    result = hub.main("stats", display_name="Statistics")
    assert result["kernels"] == [{"name": "stats", "display_name": "Statistics", "environment": "stats", "ours": True}]
    spec = hub.spec("stats")
    assert spec["argv"][:2] == ["/bin/sh", "-c"]
    assert f"activate {prefix} &&" in spec["argv"][2]
    assert spec["argv"][4:] == R["argv"]
    assert spec["env"] == R["env"]
    assert spec["language"] == "R"
    assert "debugger" not in spec["metadata"]
    assert not hub.main("stats", display_name="Statistics")["changed"]


def test_an_environment_with_two_languages_has_two_kernels(hub: Hub) -> None:
    prefix = hub.environment("both", own={"python3": OWN, "ir": R})
    result = hub.main("both", display_name="Both")
    assert [(one["name"], one["display_name"]) for one in result["kernels"]] == [
        ("both", "Both"),
        ("both-ir", "Both (R)"),
    ]
    assert not hub.main("both", display_name="Both")["changed"]
    shutil.rmtree(prefix / "share/jupyter/kernels/ir")
    assert hub.main("both", display_name="Both")["removed"] == ["both-ir"]
    assert hub.main("both", state="absent")["removed"] == ["both"]


# nb_conda_kernels


def test_nb_conda_kernels_reads_the_environments_own_kernelspec(hub: Hub) -> None:
    prefix = hub.environment("data", own={"python3": OWN})
    hub.main("data")
    hub.dynamic()
    result = hub.main("data", display_name="Data science")
    assert result["removed"] == ["data"], "it would be listed twice"
    assert hub.names() == set()
    expected = {"name": "conda-env-data-py", "display_name": "Data science", "environment": "data", "ours": True}
    assert result["kernels"] == [expected]
    own = json.loads((prefix / "share/jupyter/kernels/python3/kernel.json").read_text())
    assert own["display_name"] == "Data science"
    assert own["argv"] == OWN["argv"]
    assert not hub.main("data", display_name="Data science")["changed"]
    assert not hub.main("data")["changed"], "no wish, no change"


def test_a_file_that_conda_shares_between_environments_is_not_written_to(hub: Hub) -> None:
    prefix = hub.environment("data", own={"python3": OWN})
    cached = hub.base / "cached.json"
    cached.hardlink_to(prefix / "share/jupyter/kernels/python3/kernel.json")
    hub.dynamic()
    hub.main("data", display_name="Data science")
    assert json.loads(cached.read_text()) == OWN


def test_nb_conda_kernels_needs_a_kernelspec_that_images_leave_out(hub: Hub) -> None:
    prefix = hub.environment("python3")
    hub.dynamic()
    result = hub.main("python3")
    assert [one["name"] for one in result["kernels"]] == ["conda-env-python3-py"]
    own = json.loads((prefix / "share/jupyter/kernels/python3/kernel.json").read_text())
    assert own["argv"] == [f"{prefix}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert own["display_name"] == "Python"
    assert not hub.main("python3")["changed"]


def test_nb_conda_kernels_does_not_list_what_is_hidden(hub: Hub) -> None:
    hub.environment("both", own={"python3": OWN, "ir": R})
    hub.environment("other", own={"python3": OWN})
    hub.dynamic()
    gone = hub.main("both", state="absent", check=True)
    assert gone == hub.main("both", state="absent")
    assert gone["removed"] == ["conda-env-both-r", "conda-env-both-py"]
    assert [one["name"] for one in gone["kernels"]] == ["conda-env-other-py"]
    assert not hub.main("both", state="absent")["changed"]
    back = hub.main("both", check=True)
    assert back == hub.main("both")
    assert {(one["name"], one["display_name"]) for one in back["kernels"]} == {
        ("conda-env-both-r", "R"),
        ("conda-env-both-py", "Python 3 (ipykernel)"),
        ("conda-env-other-py", "Python 3 (ipykernel)"),
    }
    assert not list(hub.envs.rglob("*.hidden"))
