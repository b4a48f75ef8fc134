"""What one hub adds to its image: features, an environment, Debian packages; by an image, and in place until then."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from acting import INVENTORY, succeed
from browsing import Person
from conftest import Visit
from facts import Demo, Hub
from replace_image import PODMAN, RECORDS, share_store

import playbook

ALL = ["base_packages", "jupyterfs", "lsp", "myst", "nbgrader", "rtc", "scheduler"]
ADDED = {
    "hub_features": ALL,
    "hub_environments": [{"name": "optics", "conda": ["python=3.13", "pip", "ipykernel"], "kernel": "Optics"}],
    "hub_apt": ["tree"],
}
LOOK = "import os, sys; print(sys.prefix, os.environ['CONDA_DEFAULT_ENV'])"


@pytest.fixture
def sandbox(demo: Demo) -> Iterator[Hub]:
    """A hub that is as its inventory says again afterwards."""
    hub = demo.hubs["sandbox"]
    yield hub
    playbook.succeed("hubs", INVENTORY, "--limit", hub.name, timeout=500)
    left = f"{PODMAN} image rm $({PODMAN} images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep standard[.]); rm {RECORDS}/*.*.json"
    hub.machine.as_root(left, check=False)
    share_store(hub.machine)


def run(name: str, folder: Path, variables: dict[str, Any], *options: str) -> playbook.Outcome:
    """A playbook on the demo, with these variables of the sandbox."""
    more = folder / "hosts.yml"
    more.write_text(yaml.safe_dump({"hubs": {"hosts": {"sandbox": variables}}}))
    return playbook.succeed(name, INVENTORY, "--inventory", str(more), *options, timeout=1800)


def test_an_image_with_all_that_a_hub_adds(sandbox: Hub, students: list[Person], visit: Visit, tmp_path: Path) -> None:
    """Each feature has passed its check in the build, all of them together, with no extension that does not fit."""
    only = ("--tags", "hub_image,hub")
    done = run("site", tmp_path, ADDED, *only)
    assert (done.recap["demo"].changed, done.recap["sandbox"].changed) == (1, 1)
    assert run("site", tmp_path, ADDED, *only).changed == 0

    lab = visit(students[0]).enter(sandbox)
    assert "pylsp" in lab.api("GET", "lsp/status")["sessions"]
    assert lab.kernel("optics").run(LOOK).split() == ["/opt/conda/envs/optics", "optics"]
    lab.close_kernels()
    assert sandbox.exec("tree --version").stdout.startswith("tree v")
    said = succeed(sandbox, "hub_info", gather=["features", "drift"])
    assert [one["name"] for one in said["features"]] == ALL
    assert (said["drift"], said["problems"]) == ([], [])


def test_features_come_in_place_and_by_hand_is_told(
    sandbox: Hub, students: list[Person], visit: Visit, tmp_path: Path
) -> None:
    """The playbook leaves a student's kernel alone, and says what the student has to do."""
    kernel = visit(students[1]).enter(sandbox).kernel()
    kernel.run("kept = 7")
    done = run("features", tmp_path, {"hub_features": ["myst"]}, "--limit", "sandbox")
    assert done.recap["sandbox"].changed == 1
    assert "Stop My Server" in done.output
    assert run("features", tmp_path, {"hub_features": ["myst"]}, "--limit", "sandbox").changed == 0
    assert kernel.run("print(kept)").strip() == "7"

    sandbox.exec("/opt/conda/bin/conda install --yes --quiet --prefix /opt/conda/envs/python3 pyyaml")
    told = run("status", tmp_path, {"hub_features": ["myst"]}, "--limit", "sandbox")
    assert told.changed == 0
    assert re.search(r"sandbox demo healthy 1 \d+ \d+ ", " ".join(told.output.split())), told.output[-3000:]
    assert "package pyyaml of environment python3 was added" in told.output
    assert "feature myst" not in told.output
    assert "feature myst was added" in run("status", tmp_path, {}, "--limit", "sandbox").output

    again = run("features", tmp_path, {}, "--limit", "sandbox", "--extra-vars", "hub_features_restart=true")
    assert "have been started anew" in again.output
    assert succeed(sandbox, "hub_info", gather=["features"])["features"] == []
    sandbox.exec("/opt/conda/bin/conda remove --yes --quiet --prefix /opt/conda/envs/python3 pyyaml")
