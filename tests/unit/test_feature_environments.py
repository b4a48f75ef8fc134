# SPDX-License-Identifier: GPL-3.0-or-later
"""Environments that features bring come and go as a whole, in the variant that the hub's devices need."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_feature_sets
from test_feature_sets import LSP, Hub, build, feature

REPORT = """echo loading; echo '{"devices": ["CPU:0"]}'"""


def tensors(cpu: str = "tensors==1 pip==1", gpu: str = "tensors==1 cuda==1", check: str = REPORT) -> dict[str, Any]:
    """A feature with an environment of its own, and variants for both kinds of hubs."""
    whole = feature("tensors", cpu, "tensors", check=check)["tensors"]
    variants = {
        variant: feature("tensors", lock, "tensors")["tensors"]["variants"][""]
        for variant, lock in (("cpu", cpu), ("gpu", gpu))
    }
    return {"tensors": {**whole, "environment": {"name": "tensors", "python": "3.13"}, "variants": variants}}


def only(variant: str, **more: Any) -> dict[str, Any]:
    """The same where one variant is asked for."""
    whole = tensors(**more)["tensors"]
    return {"tensors": {**whole, "variants": {variant: whole["variants"][variant]}}}


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


def plug(hub: Hub) -> None:
    """Give the hub a GPU."""
    (hub.root / "dev").mkdir()
    (hub.root / "dev/nvidiactl").touch()


def test_an_environment_comes_and_goes_with_its_feature(hub: Hub) -> None:
    before = hub.tree()
    result = hub.run(LSP, tensors())
    assert result["features"][1] == {
        "name": "tensors",
        "title": "TENSORS",
        "variant": "cpu",
        "version": "1",
        "report": {"devices": ["CPU:0"]},
    }
    assert hub.packages("tensors") == {"tensors": "1", "pip": "1"}
    assert hub.packages("python3") == {"old": "1"}
    downloads, *command = hub.log("conda")[0].split()
    assert command == ["create", "--yes", "--quiet", "--prefix", str(hub.prefix("tensors")), "python=3.13", "pip"]
    assert downloads.startswith(f"{hub.root}/opt/install/features/scratch/")
    settled = hub.tree()
    result = hub.run(LSP, tensors())
    assert (result["changed"], result["commands"], hub.tree()) == (False, [], settled)
    assert result["features"][1]["report"] == {"devices": ["CPU:0"]}
    assert hub.run(LSP, tensors(), check=True)["features"] == result["features"]

    assert hub.run(LSP)["removed"] == ["tensors"]
    assert not hub.prefix("tensors").exists()
    hub.run()
    assert hub.tree() == before


def test_its_check_finds_what_checks_share(hub: Hub) -> None:
    """That is so although nobody looks at Jupyter's extensions, which such a feature cannot break."""
    result = hub.run(tensors(check="""test -s "${0%/*}/checks.py" && echo '{"devices": []}'"""))
    assert result["features"][0]["report"] == {"devices": []}
    assert not any(command.endswith("checks.py") for command in result["commands"])


def test_other_features_do_not_touch_it(hub: Hub) -> None:
    hub.run(tensors())
    made = (hub.prefix("tensors") / "conda-meta/history").stat()
    hub.run(tensors(), LSP)
    hub.run(tensors())
    assert (hub.prefix("tensors") / "conda-meta/history").stat() == made
    assert len(hub.log("conda")) == 1
    assert not [line for line in hub.log()[1:] if "tensors" in line]


def test_another_lock_changes_packages_in_it(hub: Hub) -> None:
    hub.run(tensors())
    assert hub.run(tensors("tensors==2"))["updated"] == ["tensors"]
    assert hub.packages("tensors") == {"tensors": "2"}
    assert len(hub.log("conda")) == 1


def test_what_somebody_removed_is_made_again(hub: Hub) -> None:
    hub.run(tensors())
    settled = hub.tree()
    shutil.rmtree(hub.prefix("tensors"))
    assert hub.run(tensors())["updated"] == ["tensors"]
    assert hub.tree() == settled


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "CondaHTTPError: HTTP 000 CONNECTION FAILED for url <https://u:secret@channel>",
            "network, the proxy or the channels",
        ),
        ("NoSpaceLeftError: No space left on devices.", "the disk is full"),
    ],
)
def test_a_failing_conda_leaves_no_environment(hub: Hub, said: str, words: str) -> None:
    (hub.root / "conda").write_text(said)
    why = hub.fails(LSP, tensors())
    assert words in why
    assert "secret" not in why
    assert not hub.prefix("tensors").exists()
    (hub.root / "conda").write_text("")
    assert hub.run(LSP, tensors())["added"] == ["lsp", "tensors"]


def test_a_failing_check_leaves_no_environment(hub: Hub) -> None:
    hub.fails(tensors(check="echo it does not add >&2; exit 1"))
    assert not hub.prefix("tensors").exists()


def test_a_failing_check_leaves_the_environment_that_was_there(hub: Hub) -> None:
    hub.run(tensors())
    hub.fails(tensors("tensors==2 fresh==1", check="exit 1"))
    assert hub.packages("tensors") == {"tensors": "1", "pip": "1"}
    # taken away together with something that fails
    hub.fails(feature("bad", "bad==1", check="exit 1"))
    assert hub.packages("tensors") == {"tensors": "1", "pip": "1"}
    assert hub.run(tensors())["changed"] is False


def test_the_next_run_removes_what_a_killed_one_was_making(hub: Hub, tmp_path: Path) -> None:
    hub.uv("kill")
    assert build(hub, tmp_path, features=tensors()).returncode == -9
    hub.uv("")
    assert hub.prefix("tensors").exists()
    before = {path for path in hub.tree() if "/envs/" in path}
    assert hub.run(check=True)["changed"] is True
    assert {path for path in hub.tree() if "/envs/" in path} == before
    assert hub.run()["changed"] is True
    assert not hub.prefix("tensors").exists()


def test_the_next_run_finishes_what_a_killed_one_was_removing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.run(LSP, tensors())

    class KilledError(BaseException):
        """As if nothing came after it."""

    def killed(_work: hub_feature_sets.Work, _environment: str) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(hub_feature_sets.Work, "_delete", killed)
        with pytest.raises(KilledError):
            hub.run(LSP)
    assert hub.prefix("tensors").exists()
    assert hub.run(LSP, check=True)["changed"] is True
    result = hub.run(LSP)
    assert (result["changed"], [one["name"] for one in result["features"]]) == (True, ["lsp"])
    assert not hub.prefix("tensors").exists()
    assert hub.run(LSP)["changed"] is False


def test_an_environment_of_somebody_else_is_refused(hub: Hub) -> None:
    (hub.prefix("tensors") / "conda-meta").mkdir(parents=True)
    (hub.prefix("tensors") / "conda-meta/history").write_text("mine")
    why = hub.fails(tensors())
    assert "feature tensors would make /opt/conda/envs/tensors, which is there, and no feature has made it" in why


def test_another_python_needs_another_environment(hub: Hub) -> None:
    hub.run(tensors())
    later = tensors()
    later["tensors"]["environment"]["python"] = "3.14"
    assert "needs Python 3.14, its environment /opt/conda/envs/tensors has another one: take" in hub.fails(later)


def test_devices_that_come_change_the_variant(hub: Hub) -> None:
    hub.run(tensors())
    plug(hub)
    result = hub.run(tensors())
    assert (result["updated"], result["features"][0]["variant"]) == (["tensors"], "gpu")
    assert hub.packages("tensors") == {"tensors": "1", "cuda": "1"}
    # what only the former variant had goes first: the new one may have files in its place
    assert [("uninstall" in line, "install" in line.split()) for line in hub.log()[1:]] == [
        (True, False),
        (False, True),
    ]
    assert hub.run(only("cpu"))["features"][0]["variant"] == "cpu"
    assert hub.run(only("cpu"))["changed"] is False


def test_what_an_image_brought_is_proven_once_there_are_gpus(hub: Hub, tmp_path: Path) -> None:
    done = build(hub, tmp_path, features=only("gpu"), exactly=False, building=True)
    assert done.stdout == 'TENSORS (tensors 1)\ntensors: {"devices": ["CPU:0"]}\n', done.stderr
    plug(hub)
    seen = only("gpu", check="""echo '{"devices": ["GPU:0"]}'""")
    assert hub.run(seen)["features"][0]["report"] == {"devices": ["GPU:0"]}
    assert hub.run(seen)["changed"] is False


def test_a_hub_without_gpus_is_refused_the_variant_for_them(hub: Hub) -> None:
    assert (
        "tensors:gpu needs GPUs, but there is no /dev/nvidiactl: give the hub hub_devices, or choose tensors:cpu"
        in (hub.fails(only("gpu")))
    )
    assert hub.log("conda") == []
