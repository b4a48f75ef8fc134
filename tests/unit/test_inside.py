# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs on their way into a container, with a podman that runs them here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import (
    conda_environments,
    conda_kernels,
    hub_api,
    hub_facts,
    hub_feature_sets,
    inside,
    user_command,
    user_ownership,
)

PROGRAMS = (conda_environments, conda_kernels, hub_api, hub_facts, hub_feature_sets, user_command, user_ownership)
ECHO = """
import sys
class Failure(Exception):
    pass
def main(parameters):
    print("chatter")
    if "fail" in parameters:
        raise Failure(parameters["fail"], {"changed": True, "commands": ["half"]})
    if "crash" in parameters:
        raise ZeroDivisionError("no reason")
    return {"changed": False, "got": parameters, "python": sys.executable, "isolated": sys.flags.isolated}
"""


class Failed(Exception):
    """fail_json was called."""


class Module:
    """As much of AnsibleModule as is needed."""

    check_mode = False

    def __init__(self, container: str | None, **options: Any) -> None:
        self.params = {"container": container, **options}

    def run_command(
        self, argv: list[str], data: str, environ_update: dict[str, str], **_options: Any
    ) -> tuple[int, str, str]:
        done = subprocess.run(
            argv, input=data, capture_output=True, text=True, check=False, env={**os.environ, **environ_update}
        )
        return done.returncode, done.stdout, done.stderr

    def fail_json(self, **result: Any) -> None:
        raise Failed(result)


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.setattr(inside, "source", lambda program: ECHO)
    return types.ModuleType("collection.echo")


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What podman does instead of running a program in container ananke-a; by default it does that here."""
    answer = tmp_path / "answer"
    answer.write_text(f'shift 3; shift; exec {sys.executable} "$@"\n')
    program = tmp_path / "podman"
    program.write_text(f"#!/bin/sh\n. {answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return answer


def test_into_a_container_and_back(podman: Path, echo: types.ModuleType) -> None:
    result = inside.act(Module("ananke-a", word="ü"), echo)  # type: ignore[arg-type]
    assert result["got"] == {"word": "ü", "check": False}
    assert result["isolated"] == 1
    assert result["commands"] == [f"podman exec --interactive ananke-a {inside.PYTHON} -I -c '(a program)'"]


def test_on_the_host(echo: types.ModuleType) -> None:
    result = inside.act(Module(None, word="left out"), echo, {"word": "ü"})  # type: ignore[arg-type]
    assert result["got"] == {"word": "ü", "check": False}
    assert result["python"] == sys.executable
    assert not result["commands"][0].startswith("podman")


def test_a_failure_comes_back_with_what_was_done(podman: Path, echo: types.ModuleType) -> None:
    with pytest.raises(Failed) as caught:
        inside.act(Module("ananke-a", fail="no room; delete something"), echo)  # type: ignore[arg-type]
    result = caught.value.args[0]
    assert result["msg"] == "no room; delete something"
    assert result["changed"]
    assert result["commands"][-1] == "half"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            'echo "Error: no container with name or ID \\"ananke-a\\" found: no such container" >&2; exit 125',
            r"has no such container\. If its hub is stopped, start it: systemctl --user start ananke-a\.service\. Else run the task as",
        ),
        (
            'echo "Error: can only create exec sessions on running containers: container state improper" >&2; exit 255',
            r"start it first: systemctl --user",
        ),
        (
            'echo "crun: executable file /opt/conda/bin/python not found" >&2; exit 127',
            r"it has no Python where images",
        ),
        ("echo 'no json'; exit 0", r"ended without a result in container ananke-a \(exit status 0\): no json"),
        ("kill -9 $$", r"ended without a result in container ananke-a \(exit status -9\): it said nothing"),
    ],
)
def test_what_podman_may_say_instead(podman: Path, echo: types.ModuleType, answer: str, said: str) -> None:
    podman.write_text(answer)
    with pytest.raises(Failed) as caught:
        inside.act(Module("ananke-a"), echo)  # type: ignore[arg-type]
    assert re.search(said, caught.value.args[0]["msg"]), caught.value.args[0]["msg"]


def test_a_crash_is_told_with_its_last_words(podman: Path, echo: types.ModuleType) -> None:
    with pytest.raises(Failed) as caught:
        inside.act(Module("ananke-a", crash=True), echo)  # type: ignore[arg-type]
    assert "ZeroDivisionError: no reason" in caught.value.args[0]["msg"]


def test_without_podman(echo: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed) as caught:
        inside.act(Module("ananke-a"), echo)  # type: ignore[arg-type]
    assert "podman cannot be run here" in caught.value.args[0]["msg"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__.rpartition(".")[2])
def test_programs_are_what_they_must_be(program: types.ModuleType) -> None:
    text = inside.source(program)
    assert "ansible" not in "".join(line for line in text.splitlines() if line.startswith(("import ", "from ")))
    assert issubclass(program.Failure, Exception)
    assert callable(program.main)
    assert isinstance(getattr(program, "PYTHON", ""), str)
