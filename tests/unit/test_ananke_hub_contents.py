# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image consists of, and how a changed container is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ananke_hub_support import PACKAGE_PARENT
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_facts

from ananke_hub import contents

DEBIAN = """\
Package: git
Status: install ok installed
Priority: optional
Version: 1:2.47.3-0+deb13u1

Package: vim
Status: deinstall ok config-files
Version: 9.1

Package: zip
Status: install ok installed
Version: 3.0
Description: text
 Version: 7
"""


def conda(prefix: Path, name: str) -> None:
    (prefix / "conda-meta").mkdir(parents=True, exist_ok=True)
    (prefix / f"conda-meta/{name}-h1_0.json").write_text("{}")


def pip(prefix: Path, name: str, installer: str = "pip") -> None:
    folder = prefix / f"lib/python3.13/site-packages/{name}.dist-info"
    folder.mkdir(parents=True)
    (folder / "INSTALLER").write_text(installer)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A container as its image was built: a feature with a package in python3."""
    conda(tmp_path / "opt/conda", "conda-26.3.2")
    notebooks = tmp_path / "opt/conda/envs/python3"
    conda(notebooks, "python-3.13.5")
    conda(notebooks, "ruamel.yaml.clib-0.2.12")
    pip(notebooks, "ruamel.yaml.clib-0.2.12", "conda\n")
    pip(notebooks, "typing_extensions-4.15.0")
    pip(notebooks, "numpy-2.3.4")
    record = tmp_path / "opt/install/features/base.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"packages": {"python3": ["numpy"]}}))
    (record.parent / ".journal.json").write_text("{}")
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(DEBIAN)
    (tmp_path / contents.RECORD).write_text(json.dumps(contents.look(tmp_path)))
    return tmp_path


def test_what_there_is(root: Path) -> None:
    assert contents.look(root) == {
        "debian": {"git": "1:2.47.3-0+deb13u1", "zip": "3.0"},
        "environments": {
            "base": {"conda": "26.3.2"},
            "python3": {
                "python": "3.13.5",
                "ruamel-yaml-clib": "0.2.12",
                "typing-extensions": "4.15.0",
                "numpy": "2.3.4",
            },
        },
        "features": {"base": {"python3": ["numpy"]}},
    }
    assert contents.drift(root) == []


def upgrade(root: Path) -> None:
    """As pip does it to a package of conda's: the record of conda stays."""
    shutil.rmtree(root / "opt/conda/envs/python3/lib/python3.13/site-packages/ruamel.yaml.clib-0.2.12.dist-info")
    pip(root / "opt/conda/envs/python3", "ruamel_yaml_clib-0.3")


def feature(root: Path) -> None:
    pip(root / "opt/conda/envs/python3", "scipy-1.16")
    (root / "opt/install/features/more.json").write_text(json.dumps({"packages": {"python3": ["scipy"]}}))


def no_feature(root: Path) -> None:
    (root / "opt/install/features/base.json").unlink()
    shutil.rmtree(root / "opt/conda/envs/python3/lib/python3.13/site-packages/numpy-2.3.4.dist-info")


def security(root: Path) -> None:
    status = root / "var/lib/dpkg/status"
    status.write_text(status.read_text().replace("2.47.3", "2.47.4"))


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda root: conda(root / "opt/conda/envs/python3", "geos-3.14"), "package geos of environment python3 was added: 3.14"),
        (lambda root: conda(root / "opt/conda", "mamba-2.3"), "package mamba of environment base was added: 2.3"),
        (upgrade, "package ruamel-yaml-clib of environment python3 is 0.3, not 0.2.12"),
        (lambda root: conda(root / "opt/conda/envs/geo", "python-3.12"), "environment geo was added"),
        (lambda root: shutil.rmtree(root / "opt/conda/envs/python3"), "environment python3 was removed"),
        (feature, "feature more was added"),
        (no_feature, "feature base was removed"),
        (security, "Debian package git is 1:2.47.4-0+deb13u1, not 1:2.47.3-0+deb13u1"),
    ],
)  # fmt: skip
def test_a_change_is_told_in_words(act: Callable[[Path], None], said: str, root: Path) -> None:
    act(root)
    assert [one["text"] for one in contents.drift(root)] == [said]


def test_hub_info_uses_the_image_s_own_code(root: Path) -> None:
    container = hub_facts.Container(str(root), "", "")
    assert hub_facts.drift(container) is None
    assert "build the image anew" in container.problems[0]
    site = root / "opt/conda/envs/jhub/lib/python3.13/site-packages"
    shutil.copytree(PACKAGE_PARENT / "ananke_hub", site / "ananke_hub")
    found = hub_facts.drift(container)
    assert found == []
    conda(root / "opt/conda/envs/python3", "geos-3.14")
    found = hub_facts.drift(container)
    assert found == [
        {
            **{"kind": "package", "name": "geos", "environment": "python3", "image": None, "now": "3.14"},
            "text": "package geos of environment python3 was added: 3.14",
        }
    ]
    (root / contents.RECORD).unlink()
    assert hub_facts.drift(container) is None
