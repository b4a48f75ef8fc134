# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels of environments in a home, as a user's JupyterLab lists them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ananke_hub_support import ROOTFS
from jupyter_client.kernelspec import NoSuchKernel

from ananke_hub import kernels
from ananke_hub.kernels import UserKernels


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home as users see it: behind a link, as systemd makes it."""
    (tmp_path / "private/ualice").mkdir(parents=True)
    (tmp_path / "ualice").symlink_to("private/ualice")
    monkeypatch.setenv("HOME", str(tmp_path / "ualice"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "hub"))
    return tmp_path / "ualice"


def kernelspec(folder: Path, **values: Any) -> None:
    folder.mkdir(parents=True)
    spec = {"argv": ["python", "-m", "ipykernel_launcher"], "display_name": "Python 3", "language": "python", **values}
    (folder / "kernel.json").write_text(json.dumps(spec))


def environment(prefix: Path, *languages: str) -> Path:
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta/history").write_text("")
    for language in languages:
        folder = prefix / "share/jupyter/kernels" / ("python3" if language == "python" else language)
        kernelspec(folder, argv=[f"{prefix}/bin/{language}", "start"], language=language)
    return prefix


def manager() -> UserKernels:
    return UserKernels(ensure_native_kernel=False)


def listed() -> dict[str, str]:
    return {name: found["spec"]["display_name"] for name, found in manager().get_all_specs().items()}


def test_environments_with_a_kernel_are_kernels(home: Path) -> None:
    kernelspec(home.parent / "hub/kernels/python3", display_name="Course")
    mine = environment(home / ".conda/envs/mine", "python", "R")
    environment(home / ".conda/envs/bare")
    (home / ".conda/envs/no-environment").mkdir()
    assert listed() == {"python3": "Course", "own-mine-python3": "mine (own)", "own-mine-R": "mine (own, R)"}
    spec = manager().get_kernel_spec("own-mine-R")
    assert spec.argv == [kernels.ACTIVATED, str(mine), f"{mine}/bin/R", "start"]
    (mine / "conda-meta/history").unlink()
    assert listed() == {"python3": "Course"}
    with pytest.raises(NoSuchKernel):
        manager().get_kernel_spec("own-mine-R")


def test_environments_with_a_path_are_found_by_conda_s_note(home: Path) -> None:
    inside = environment(home / "envs/own env", "python")
    outside = environment(home.parent / "shared", "python")
    (home / ".conda").mkdir()
    notes = [inside, inside.resolve(), outside, home.parent / "private/../shared", home / "gone", ""]
    (home / ".conda/environments.txt").write_text("\n".join(map(str, notes)))
    ((name, title),) = listed().items()
    assert (name[:21], title) == ("own-own-env-python3-" + name[20], "own env (own)")
    assert manager().get_kernel_spec(name).argv[1] == str(inside)


def test_a_kernel_that_the_user_offers_is_listed_once(home: Path) -> None:
    mine = environment(home / ".conda/envs/mine", "python")
    kernelspec(home.parent / "hub/kernels/hand", argv=[f"{mine}/bin/python", "-m", "x"], display_name="Hand")
    assert listed() == {"hand": "Hand"}
    assert "own-mine-python3" not in manager().find_kernel_specs()


@pytest.mark.parametrize("text", ["", "[]", '{"argv": 1}', "{", "\udcff"])
def test_damaged_files_hide_nothing_else(home: Path, text: str) -> None:
    environment(home / ".conda/envs/good", "python")
    bad = environment(home / ".conda/envs/bad", "python")
    (bad / "share/jupyter/kernels/python3/kernel.json").write_bytes(text.encode(errors="surrogateescape"))
    (home / ".conda/environments.txt").write_bytes(b"\xff\n")
    assert "own-good-python3" in listed()
    with pytest.raises(NoSuchKernel):
        manager().get_kernel_spec("own-bad-python3")


def test_a_command_runs_with_the_environment_activated(home: Path) -> None:
    mine = environment(home / ".conda/envs/mine", "python")
    (mine / "etc/conda/activate.d").mkdir(parents=True)
    (mine / "etc/conda/activate.d/own.sh").write_text("export OWN_WORD=$CONDA_DEFAULT_ENV\n")
    show = 'echo "$CONDA_PREFIX $OWN_WORD ${PATH%%:*} $1"'
    command = [str(ROOTFS / "usr/local/lib/ananke/activated"), str(mine), "sh", "-c", show, "sh", "a b"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{mine} mine {mine}/bin a b\n"
