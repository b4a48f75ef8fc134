# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with an image definition is said with its place, its value and the remedy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import images

SHA = "ab" * 32
SITE = {"installer": "https://mirror.example.org/installer.sh", "checksum": SHA, "channels": ["conda-forge"]}
SETTINGS = images.Settings(conda=SITE)
LOCKED = f"numpy==2.3.1 \\\n    --hash=sha256:{SHA}\n"


def problems(definition: dict[str, Any], settings: images.Settings = SETTINGS) -> list[str]:
    return images.check([{"name": "standard", **definition}], settings)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text(LOCKED)
    return path


def test_the_smallest_definition_is_accepted() -> None:
    assert images.check([{"name": "standard"}], SETTINGS) == []


def test_a_full_definition_is_accepted(lock: Path, tmp_path: Path) -> None:
    channel = tmp_path / "channel" / "noarch"
    channel.mkdir(parents=True)
    (channel / "repodata.json").write_text("{}")
    explicit = tmp_path / "explicit.txt"
    explicit.write_text(f"@EXPLICIT\nhttps://conda.example.org/noarch/a-1-0.conda#{'0' * 32}\n")
    definition = {
        "revision": "2026-11",
        "jupyterhub": 6,
        "base": {"reference": f"registry.example.org/debian@sha256:{SHA}"},
        "conda": {"channels": [str(channel.parent), "https://conda.example.org/main", "conda-forge"]},
        "apt": ["graphviz", "g++"],
        "features": ["base_packages", "lsp"],
        "environments": [
            {
                "name": "r",
                "conda": ["python=3.12", "numpy>=2,<3"],
                "requirements": str(lock),
                "kernel": "Daten",
                "check": ["numpy"],
            },
            {"name": "fixed", "conda_lock": str(explicit), "kernel": ""},
        ],
    }
    assert problems(definition) == []


def test_ansible_may_fill_in_what_was_not_given() -> None:
    nothing = dict.fromkeys(
        [
            "revision",
            "base",
            "jupyterhub",
            "conda",
            "environments",
            "features",
            "apt",
            "archive",
            "checksum",
            "reference",
        ]
    )
    assert problems({"source": "build", **nothing}) == []


# (definition, words that the message must have: the key, the value, the remedy)
BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": "Standard"}, ["name", "'Standard'", "lower case"]),
    ({"name": "../etc"}, ["name", "'../etc'"]),
    ({"name": "base"}, ["name", "'base'"]),
    ({"name": "a" * 64}, ["at most 63"]),
    ({"name": None}, ["name is None"]),
    ({"source": "make"}, ["source", "'make'", "build, load, pull"]),
    ({"pakages": ["git"]}, ["unknown key 'pakages'"]),
    ({"environment": []}, ["'environment'", "did you mean 'environments'"]),
    ({"archive": "/x"}, ["unknown key 'archive'"]),
    ({"revision": "a b"}, ["revision", "'a b'"]),
    ({"jupyterhub": 4}, ["jupyterhub is 4", "5 or 6"]),
    ({"jupyterhub": "6"}, ["jupyterhub is '6'", "5 or 6"]),
    ({"base": "trixie"}, ["base", "'trixie'", "{suite: trixie}"]),
    ({"base": {"suite": "13; rm"}}, ["base.suite", "'13; rm'"]),
    ({"base": {"reference": "debian:trixie"}}, ["base.reference", "'debian:trixie'", "digest"]),
    ({"base": {"suite": "trixie", "reference": f"debian@sha256:{SHA}"}}, ["both suite and reference"]),
    ({"apt": "git"}, ["apt is 'git'", "list"]),
    ({"apt": ["git; reboot"]}, ["apt", "'git; reboot'"]),
    ({"apt": ["-y"]}, ["apt", "'-y'"]),
    ({"conda": []}, ["conda is []", "mapping"]),
    ({"conda": {"url": "x"}}, ["conda", "unknown key 'url'"]),
    ({"conda": {"installer": "ftp://x/y"}}, ["conda.installer", "'ftp://x/y'", "https://"]),
    ({"conda": {"installer": "https://example.org/other.sh"}}, ["conda.checksum is None", "sha256sum"]),
    ({"conda": {"installer": "/does/not/exist"}}, ["conda.installer", "/does/not/exist", "create the file"]),
    ({"conda": {"checksum": "123"}}, ["conda.checksum", "'123'"]),
    ({"conda": {"channels": []}}, ["conda.channels is []", "conda-forge"]),
    ({"conda": {"channels": ["/does/not/exist"]}}, ["/does/not/exist", "repodata.json"]),
    ({"conda": {"channels": ["$(id)"]}}, ["'$(id)'", "channel"]),
    ({"conda": {"channels": ["https://user:secret@conda.example.org"]}}, ["user name or password"]),
    ({"environments": {"name": "x"}}, ["environments", "list"]),
    ({"environments": ["x"]}, ["'x' is not an environment"]),
    ({"environments": [{"name": "../x"}]}, ["'../x'"]),
    ({"environments": [{"name": "base"}]}, ["'base'"]),
    ({"environments": [{"name": "x"}, {"name": "x"}]}, ["x is there twice"]),
    ({"environments": [{"name": "x", "pip": ["y"]}]}, ["x: unknown key 'pip'"]),
    ({"environments": [{"name": "x", "conda": ["a b"]}]}, ["x: conda: 'a b'"]),
    ({"environments": [{"name": "x", "conda": ["--yes"]}]}, ["'--yes'"]),
    ({"environments": [{"name": "x", "conda": ["a"], "conda_lock": "/y"}]}, ["both conda and conda_lock"]),
    ({"environments": [{"name": "x", "conda_lock": "lock"}]}, ["'lock' is not an absolute path"]),
    ({"environments": [{"name": "x", "requirements": "/does/not/exist"}]}, ["/does/not/exist"]),
    ({"environments": [{"name": "x", "kernel": "a\nb"}]}, ["kernel", "JupyterLab"]),
    ({"environments": [{"name": "x", "kernel": "a" * 81}]}, ["at most 80"]),
    ({"environments": [{"name": "x", "check": ["import os"]}]}, ["check", "'import os'"]),
    ({"environments": [{"name": "jhub", "kernel": "Hub"}]}, ["jhub", "no kernel"]),
    ({"features": "lsp"}, ["features is 'lsp'", "list"]),
    ({"features": ["lps"]}, ["'lps' is no feature", "did you mean 'lsp'"]),
    ({"features": ["lsp", "lsp"]}, ["'lsp' is there twice"]),
    (
        {"features": ["tensorflow:gpu"], "environments": [{"name": "tensorflow"}]},
        ["'tensorflow' is what the feature tensorflow brings", "name yours otherwise"],
    ),
    ({"source": "load"}, ["archive", "None", "absolute path"]),
    ({"source": "load", "archive": "/does/not/exist", "checksum": SHA}, ["/does/not/exist"]),
    ({"source": "load", "archive": "/etc/hostname", "checksum": "x"}, ["checksum", "'x'", "64 hexadecimal"]),
    ({"source": "load", "apt": ["git"]}, ["unknown key 'apt'"]),
    ({"source": "pull", "reference": "registry.example.org/hub:latest"}, ["reference", ":latest", "digest"]),
    ({"source": "pull", "reference": f"-v@sha256:{SHA}"}, ["reference"]),
]


@pytest.mark.parametrize(("definition", "words"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_bad_definitions_are_refused(definition: dict[str, Any], words: list[str]) -> None:
    found = " | ".join(problems(definition))
    assert "hub_image_definitions[0]" in found
    assert [word for word in words if word not in found] == []


def test_all_problems_are_told_at_once() -> None:
    assert len(problems({"apt": ["A"], "revision": " ", "conda": {"checksum": "1"}})) == 3


def test_two_definitions_of_one_name() -> None:
    found = images.check([{"name": "a"}, {"name": "a"}], SETTINGS)
    assert len(found) == 1
    assert "hub_image_definitions[1]" in found[0]


@pytest.mark.parametrize("definitions", [None, [], "standard", {}, [1]])
def test_no_list_of_definitions(definitions: Any) -> None:
    assert "name: standard" in images.check(definitions, SETTINGS)[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"apt_mirror": ""}, ["hub_image_apt_mirror", "http://"]),
        ({"apt_mirror": "http://mirror example.org"}, ["hub_image_apt_mirror"]),
        ({"apt_mirror": "http://x\nDeb http://evil"}, ["hub_image_apt_mirror"]),
        ({"pip_index": "mirror.example.org"}, ["hub_image_pip_index", "'mirror.example.org'"]),
        ({"pip_index": "https://me:secret@mirror.example.org/simple"}, ["hub_image_pip_index", "every hub user"]),
        ({"npm_registry": "http://[::1"}, ["hub_image_npm_registry"]),
        ({"proxy": "proxy:3128"}, ["hub_image_proxy", "http://"]),
        ({"ca_certificates": ("/does/not/exist",)}, ["hub_image_ca_certificates", "/does/not/exist"]),
        ({"ca_certificates": ("/etc/hostname",)}, ["hub_image_ca_certificates", "BEGIN CERTIFICATE"]),
        ({"ca_certificates": ("ca.crt",)}, ["'ca.crt' is not an absolute path"]),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], words: list[str]) -> None:
    found = " | ".join(problems({}, dataclasses.replace(SETTINGS, **changes)))
    assert [word for word in words if word not in found] == []


def test_secrets_are_not_repeated() -> None:
    for changes in ({"proxy": "me:secret@proxy"}, {"pip_index": "https://me:secret@mirror.example.org/simple"}):
        found = problems({}, dataclasses.replace(SETTINGS, **changes))
        assert found
        assert "secret" not in " ".join(found)


def test_a_proxy_may_have_a_password() -> None:
    assert problems({}, dataclasses.replace(SETTINGS, proxy="http://me:secret@proxy.example.org:3128")) == []


@pytest.mark.parametrize("text", ["numpy==2.3.1\n", f"--index-url https://x\n{LOCKED}", "-r other.txt\n"])
def test_requirements_without_hashes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(text)
    found = problems({"environments": [{"name": "x", "requirements": str(path)}]})
    assert "--generate-hashes" in found[0]


@pytest.mark.parametrize("text", ["", "numpy\n", "@EXPLICIT\nhttps://x/a-1-0.conda\n"])
def test_conda_locks_without_checksums(text: str, tmp_path: Path) -> None:
    path = tmp_path / "explicit.txt"
    path.write_text(text)
    found = problems({"environments": [{"name": "x", "conda_lock": str(path)}]})
    assert "conda list --explicit --md5" in found[0]
