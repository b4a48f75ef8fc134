# SPDX-License-Identifier: GPL-3.0-or-later
"""An image's name follows from everything that it is made of, and from nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import images

FILES = Path(__file__).resolve().parents[2] / "roles" / "hub_image" / "files"
SHA = "ab" * 32
SITE = {"installer": "https://mirror.example.org/installer.sh", "checksum": SHA, "channels": ["conda-forge"]}
SETTINGS = images.Settings(conda=SITE)


@pytest.fixture
def files(tmp_path: Path) -> str:
    """A copy of the role's files that a test may change."""
    return str(shutil.copytree(FILES, tmp_path / "files"))


def plan(definition: dict[str, Any] | None = None, files: str | Path = FILES, **settings: Any) -> images.Plan:
    return images.plan(
        {"name": "standard", **(definition or {})}, dataclasses.replace(SETTINGS, **settings), str(files)
    )


def steps(one: images.Plan) -> list[str]:
    """The layers of a plan with their digests."""
    text = next(entry.content for entry in one.entries if entry.name == "Containerfile").decode()
    return [line for line in text.splitlines() if line.startswith("RUN ")]


def archive(one: images.Plan) -> bytes:
    target = io.BytesIO()
    images.write_archive(one.entries, target)
    return target.getvalue()


def test_the_same_definition_has_the_same_name() -> None:
    assert plan().reference == plan().reference
    assert re.fullmatch(r"localhost/ananke/standard:[0-9a-f]{12}", plan().reference)


def test_equal_definitions_share_their_key() -> None:
    assert plan({"name": "other"}).key == plan().key
    assert plan({"name": "other"}).reference != plan().reference


def test_what_is_not_given_is_what_is_given_as_none() -> None:
    assert plan({"source": "build", "base": None, "apt": None, "environments": None}).key == plan().key


def test_the_proxy_is_no_part_of_the_image() -> None:
    proxied = plan(proxy="http://me:correcthorse@proxy.example.org:3128", no_proxy="example.org")
    assert proxied.key == plan().key
    assert b"correcthorse" not in archive(proxied)


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "2"},
        {"jupyterhub": 6},
        {"base": {"suite": "bookworm"}},
        {"base": {"reference": f"registry.example.org/debian@sha256:{SHA}"}},
        {"apt": ["graphviz"]},
        {"conda": {"channels": ["other"]}},
        {"conda": {"checksum": "cd" * 32}},
        {"environments": [{"name": "python3", "kernel": "Python"}]},
        {"environments": [{"name": "further"}]},
        {"features": ["myst"]},
        {"environments": [{"name": "jhub", "conda": ["python=3.12", "pip"]}]},
    ],
    ids=str,
)
def test_every_change_of_the_definition_is_another_image(change: dict[str, Any]) -> None:
    assert plan(change).key != plan().key


@pytest.mark.parametrize(
    "change",
    [
        {"apt_mirror": "http://mirror.example.org/debian"},
        {"apt_security_mirror": ""},
        {"pip_index": "https://mirror.example.org/simple"},
        {"npm_registry": "https://mirror.example.org/npm"},
    ],
    ids=str,
)
def test_every_change_of_the_sources_is_another_image(change: dict[str, Any]) -> None:
    assert plan(**change).key != plan().key


@pytest.mark.parametrize(
    "name",
    sorted(
        str(path.relative_to(FILES))
        for path in FILES.rglob("*")
        if path.is_file() and path.suffix not in (".in", ".pyc") and path.name not in ("Makefile", "image_job.py")
    ),
)
def test_every_file_of_the_role_counts(name: str, files: str) -> None:
    whole = {"features": ["myst"], "apt": ["graphviz"], "jupyterhub": 6 if "jhub-6" in name else 5}
    before = plan(whole, files=files).key
    with Path(files, name).open("ab") as handle:
        handle.write(b"\n")
    assert plan(whole, files=files).key != before


def test_a_change_of_the_hubs_code_builds_the_last_layer_only(files: str) -> None:
    before = steps(plan(files=files))
    Path(files, "ananke_hub", "more.py").write_text("")
    after = steps(plan(files=files))
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


def test_a_further_environment_leaves_the_layers_before_it() -> None:
    assert steps(plan({"environments": [{"name": "further"}]}))[:5] == steps(plan())[:5]


def test_features_are_layers_between_python3_and_further_environments() -> None:
    further = {"environments": [{"name": "further"}]}
    one = plan({**further, "features": ["myst", "lsp"]})
    folders = [line.split("/")[3] for line in steps(one)]
    assert folders[4:] == ["40-python3", "40-feature-lsp", "40-feature-myst", "41-further", "90-hub"]
    assert steps(one)[:5] + steps(one)[7:] == steps(plan(further))
    assert one.key == plan({**further, "features": ["lsp", "myst"]}).key
    assert one.job["steps"][5:7] == ["feature lsp", "feature myst"]
    assert one.summary.endswith("; environments jhub, python3, further; features lsp, myst")


def test_a_feature_with_an_environment_brings_a_kernel_and_one_variant() -> None:
    cpu, gpu = plan({"features": ["tensorflow"]}), plan({"features": ["tensorflow:gpu"]})
    assert [line.split("/")[3] for line in steps(gpu)][5:] == ["40-feature-tensorflow-gpu", "90-hub"]
    parameters = next(entry for entry in cpu.entries if entry.name == "context/90-hub/parameters").content.decode()
    assert "KERNELS='python3 tensorflow'" in parameters
    assert cpu.key == plan({"features": ["tensorflow:cpu"]}).key != gpu.key


def test_caches_of_python_do_not_count(files: str) -> None:
    before = plan(files=files).key
    cache = Path(files, "ananke_hub", "__pycache__")
    cache.mkdir(exist_ok=True)
    (cache / "x.cpython-313.pyc").write_bytes(b"x")
    assert plan(files=files).key == before


def test_certificates_count_by_content_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "a.crt", tmp_path / "b.crt"
    first.write_text("-----BEGIN CERTIFICATE-----1")
    second.write_text("-----BEGIN CERTIFICATE-----2")
    moved = tmp_path / "c c.crt"
    moved.write_text(first.read_text())
    assert plan(ca_certificates=(str(first), str(second))).key == plan(ca_certificates=(str(second), str(moved))).key
    assert plan(ca_certificates=(str(first),)).key != plan(ca_certificates=(str(second),)).key


def test_a_channel_on_the_controller_counts_with_its_content_and_is_used_from_the_image(tmp_path: Path) -> None:
    package = tmp_path / "channel" / "noarch" / "a-1-0.conda"
    package.parent.mkdir(parents=True)
    package.write_bytes(b"1")
    definition = {"conda": {"channels": [str(tmp_path / "channel"), "conda-forge"]}}
    before = plan(definition)
    parameters = next(entry for entry in before.entries if entry.name == "context/20-conda/parameters").content.decode()
    assert "CHANNELS='file:///opt/install/channels/0 conda-forge'" in parameters
    assert str(tmp_path) not in parameters
    package.write_bytes(b"2")
    assert plan(definition).key != before.key


def test_the_archive_depends_on_the_content_alone(files: str) -> None:
    before = archive(plan(files=files))
    for path in Path(files).rglob("*"):
        if path.is_file():
            path.touch()
    assert archive(plan(files=files)) == before


def test_the_archive_has_what_the_containerfile_runs() -> None:
    one = plan({"environments": [{"name": "further"}], "features": ["myst"]})
    with tarfile.open(fileobj=io.BytesIO(archive(one))) as opened:
        members = {member.name: member for member in opened}
    assert all(member.uid == member.gid == 0 and member.mode in (0o644, 0o755) for member in members.values())
    scripts = [line.split()[2] for line in steps(one)]
    assert [script.rpartition("/")[0].rpartition("/")[2] for script in scripts] == [
        *["10-base", "20-conda", "30-jhub", "35-proxy", "40-python3", "40-feature-myst", "41-further", "90-hub"],
    ]
    assert [script for script in scripts if script.replace(images.CONTEXT, "context") not in members] == []
    assert f'CONTEXT = "{images.CONTEXT}"' in (FILES / "image_job.py").read_text()


def test_what_is_added_shares_the_layers_of_jupyter() -> None:
    before, after = steps(plan()), steps(plan({"apt": ["graphviz"], "features": ["lsp"]}))
    shared = [line for line, other in zip(before, after, strict=False) if line == other]
    assert [line.split("/")[3] for line in shared] == ["10-base", "20-conda", "30-jhub", "35-proxy"]
    assert [line.split("/")[3] for line in after[4:]] == ["38-apt", "40-python3", "40-feature-lsp", "90-hub"]


def test_links_stay_links(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to("/dev/null")
    target = io.BytesIO()
    images.write_archive(images.read_tree(str(tmp_path / "tree"), "rootfs"), target)
    with tarfile.open(fileobj=io.BytesIO(target.getvalue())) as opened:
        assert [(member.name, member.linkname) for member in opened] == [("rootfs/link", "/dev/null")]


def test_parameters_are_data_for_the_shell(tmp_path: Path) -> None:
    hostile = "'; touch hacked; $(touch hacked) `touch hacked` \"\n"
    (tmp_path / "step").mkdir()
    step = images._step("10-x", "x", str(FILES), "base", {"TITLE": hostile}, [])
    parameters = next(entry.content for entry in step.entries if entry.name == "parameters")
    (tmp_path / "parameters").write_bytes(parameters)
    shown = subprocess.run(
        ["sh", "-c", '. ./parameters; printf %s "$TITLE"'], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout == hostile
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("script", sorted(path.name for path in (FILES / "steps").iterdir() if not path.suffix))
def test_steps_are_valid_shell(script: str) -> None:
    subprocess.run(["sh", "-n", str(FILES / "steps" / script)], check=True)


def test_environments_are_merged_by_name() -> None:
    merged = images.environments({"environments": [{"name": "python3", "kernel": "Python"}, {"name": "r"}]}, "/f")
    assert [environment["name"] for environment in merged] == ["jhub", "python3", "r"]
    assert merged[1]["kernel"] == "Python"
    assert merged[1]["requirements"] == "/f/locks/python3.txt"
    assert merged[2] == {"name": "r", "kernel": "r", "requirements": "", "check": []}


def test_another_installer_does_not_inherit_the_checksum() -> None:
    assert images._merged_conda({"installer": "/x"}, SETTINGS) == {"installer": "/x", "channels": ["conda-forge"]}


def test_kernels_run_in_their_environment() -> None:
    spec = json.loads(images.kernel_spec("r", "Größe"))
    assert spec["argv"][:2] == ["/opt/install/kernel", "/opt/conda/envs/r"]
    assert spec["display_name"] == "Größe"


def test_the_kernel_launcher_activates_the_environment(tmp_path: Path) -> None:
    prefix = tmp_path / "my env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "etc/conda/activate.d").mkdir(parents=True)
    (prefix / "etc/conda/activate.d/x.sh").write_text('export FROM_SCRIPT="$CONDA_PREFIX"\n')
    python = prefix / "bin/python"
    python.write_text('#!/bin/sh\nprintf "%s|" "$CONDA_DEFAULT_ENV" "$FROM_SCRIPT" "${PATH%%:*}" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run([str(FILES / "kernel"), str(prefix), "-m", "a b"], capture_output=True, text=True, check=True)
    assert done.stdout == f"my env|{prefix}|{prefix}/bin|-m|a b|"


def test_load_and_pull_are_named_after_their_content(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(b"image")
    checksum = hashlib.sha256(b"image").hexdigest()
    loaded = plan({"source": "load", "archive": str(path), "checksum": checksum})
    assert loaded.key == plan({"name": "x", "source": "load", "archive": "/elsewhere", "checksum": checksum}).key
    assert [entry.name for entry in loaded.entries] == ["archive"]
    reference = f"registry.example.org/hub@sha256:{SHA}"
    pulled = plan({"source": "pull", "reference": reference})
    assert pulled.job == {"source": "pull", "reference": reference}
    assert pulled.entries == ()
    assert len({loaded.key, pulled.key, plan().key}) == 3


def test_proxy_variables() -> None:
    settings = dataclasses.replace(SETTINGS, proxy="http://p:1", no_proxy="localhost")
    assert images.proxy_environment(settings) == {
        **{"http_proxy": "http://p:1", "https_proxy": "http://p:1", "no_proxy": "localhost"},
        **{"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:1", "NO_PROXY": "localhost"},
    }
    assert images.proxy_environment(SETTINGS) == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", []),
        ("a\nb\n", ["    b"]),
        ("x\n==> conda\nSTEP 3/4: RUN\n--> 0123\n", ["==> conda"]),
        ("==> a\nold\rnew\n==> b\n", ["==> a", "==> b"]),
        ("\x1b[32mgreen\x1b[0m\a\n", ["    green"]),
        ("y" * 300, ["    " + "y" * 110]),
    ],
)
def test_output_is_condensed(text: str, shown: list[str]) -> None:
    assert images.condense(text) == shown


def _packages(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==([^\s;]+)", (FILES / "locks" / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    ("package", "fits"),
    [
        ("jupyterhub", lambda v: v[:1] == (5,) and v >= (5, 5)),
        ("jupyterlab", lambda v: v[:2] == (4, 5)),
        ("jupyterhub-ltiauthenticator", lambda v: (1, 6, 3) <= v < (2,)),
    ],
)
def test_locked_versions_are_safe_ones(package: str, fits: Callable[[tuple[int, ...]], bool]) -> None:
    assert fits(tuple(int(part) for part in _packages("jhub.txt")[package].split(".")))


@pytest.mark.parametrize("name", ["jhub.txt", "python3.txt", "uv.txt"])
def test_our_locks_have_hashes_and_no_addresses(name: str) -> None:
    path = FILES / "locks" / name
    assert images._check_requirements("x", str(path)) == []
    assert "://" not in path.read_text()


def test_the_proxys_lock_has_checksums_and_only_the_public_registry() -> None:
    lock = json.loads((FILES / "proxy" / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages["node_modules/configurable-http-proxy"]["version"].startswith("5.")
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert package["resolved"].startswith("https://registry.npmjs.org/"), name


def test_a_file_is_compared_with_its_checksum(tmp_path: Path) -> None:
    (tmp_path / "hub.tar").write_bytes(b"image")
    right = hashlib.sha256(b"image").hexdigest()
    assert images.compare(str(tmp_path / "hub.tar"), right) == ""
    assert f"is {right}, declared is {'0' * 64}: correct either" in images.compare(str(tmp_path / "hub.tar"), "0" * 64)
