# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands for hub users, as far as they can be judged without systemd: what is refused, and what systemd is told."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import user_command
from ansible_collections.ananke.jupyterhub.plugins.module_utils.user_command import Failure
from hypothesis import given
from hypothesis import strategies as st

from ananke_hub import units

PLAIN = {"User": "uanna", "InaccessiblePaths": ["-/a", "-/b"]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder with the home of uanna, a systemd-run that runs the command itself, and a systemctl that knows of no failure."""
    home = tmp_path / "var/lib/private/uanna"
    home.mkdir(parents=True)
    os.chown(home, 61200, 61200)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemd-run").write_text(
        f"#!/bin/bash\nprintf '%s\\n' \"$@\" > {tmp_path}/told\n"
        f'for a; do case $a in --property=EnvironmentFile=*) cp "${{a#*EnvironmentFile=}}" {tmp_path}/environment;'
        f' stat -c %a "${{a#*EnvironmentFile=}}" > {tmp_path}/mode ;; esac; done\n'
        'while [ "$1" != -- ]; do shift; done; shift; exec "$@"\n'
    )
    (programs / "systemctl").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/systemctl\n[ $1 = show ] && cat {tmp_path}/outcome 2>/dev/null\n[ $1 = stop ] && pkill -f sleep.3333\nexit 0\n'
    )
    (tmp_path / "outcome").write_text("Result=exit-code\nExecMainCode=1\nExecMainStatus=3\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(user_command, "properties", lambda user, unit: (dict(PLAIN), {"HOME": "/home"}))
    return tmp_path


def command(root: Path, **parameters: Any) -> dict[str, Any]:
    wanted = {"user": "uanna", "argv": None, "cmd": None, "chdir": None, "creates": None, "removes": None}
    return user_command.main(
        {**wanted, "environment": {}, "stdin": "", "timeout": 30, "check": False, "root": str(root), **parameters}
    )


def test_a_command_runs_in_a_unit_of_the_user(root: Path) -> None:
    result = command(root, argv=["printf", "%s|", "two words", "$HOME", "'"], environment={"SECRET": "s3cr3t"})
    assert result["stdout"] == "two words|$HOME|'|"
    assert result["rc"] == 0
    told = (root / "told").read_text().splitlines()
    assert "--property=User=uanna" in told
    assert {"--property=InaccessiblePaths=-/a", "--property=InaccessiblePaths=-/b"} <= set(told)
    assert "--property=WorkingDirectory=/var/lib/uanna/" in told
    assert "s3cr3t" not in (root / "told").read_text()
    assert (root / "environment").read_text() == 'HOME="/home"\nSECRET="s3cr3t"\n'
    assert (root / "mode").read_text().strip() == "600"
    assert not list((root / "run/ananke/commands").iterdir())
    assert "s3cr3t" not in str(result)


def test_a_line_for_the_shell_with_input(root: Path) -> None:
    result = command(root, cmd='read -r line; echo "got $line"; echo oh >&2; exit 3', stdin="it\n")
    assert (result["rc"], result["stdout"], result["stderr"]) == (3, "got it", "oh")


def test_a_missing_program_is_127(root: Path) -> None:
    assert command(root, argv=["no-such-program"])["rc"] == 127


def test_what_takes_too_long_is_stopped(root: Path) -> None:
    with pytest.raises(Failure, match="did not end within 1 s and was stopped") as caught:
        command(root, cmd="echo first; sleep 3333", timeout=1)
    assert caught.value.args[1]["stdout"] == "first"
    assert caught.value.args[1]["timed_out"]
    assert "stop ananke-command-uanna-" in (root / "systemctl").read_text()


def test_a_unit_that_does_not_start(root: Path) -> None:
    (root / "outcome").write_text("Result=exit-code\nExecMainCode=0\nExecMainStatus=0\n")
    with pytest.raises(Failure, match=r"systemd could not start the command: .*no dynamic user"):
        command(root, cmd="echo there is no dynamic user >&2; exit 1")


def test_much_output_is_cut(root: Path) -> None:
    result = command(root, cmd="yes 0123456789 | head -c 3000000; echo; echo last")
    assert result["truncated"]
    assert result["stdout"].endswith("last")
    assert len(result["stdout"]) <= user_command.MOST_OUTPUT


@pytest.mark.parametrize(
    ("parameters", "changed"),
    [
        ({"creates": "there"}, False),
        ({"creates": "absent"}, True),
        ({"removes": "there"}, True),
        ({"removes": "absent"}, False),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_what_is_done_already(root: Path, parameters: dict[str, str], changed: bool, check: bool) -> None:
    (root / "var/lib/private/uanna/there").write_text("")
    result = command(root, argv=["true"], check=check, **parameters)
    assert result["changed"] == changed
    assert (root / "told").exists() == (changed and not check)


@pytest.mark.parametrize("user", ["", "../x", "u a", "-u", "u" * 40, "ü", "u\n"])
def test_names_of_nobody(root: Path, user: str) -> None:
    with pytest.raises(Failure, match="no name of a hub user"):
        command(root, user=user, argv=["true"])


def test_users_for_whom_nothing_can_be_run(root: Path) -> None:
    with pytest.raises(Failure, match="root is an account of the system"):
        command(root, user="root", argv=["true"])
    with pytest.raises(Failure, match="unobody has no home here"):
        command(root, user="unobody", argv=["true"])
    os.chown(root / "var/lib/private/uanna", 0, 0)
    with pytest.raises(Failure, match="handed over to the container admin: give it back first"):
        command(root, argv=["true"])


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A-B", "Ä"])
def test_names_of_no_variable(root: Path, name: str) -> None:
    with pytest.raises(Failure, match="is no name of a variable"):
        command(root, argv=["true"], environment={name: "x"})


@given(st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=40))
def test_values_survive_the_file(value: str) -> None:
    """Inside double quotes systemd unescapes as a shell does."""
    line = user_command.quoted({"A": value}).encode()
    shell = ["/bin/bash", "--norc", "-c", 'eval "$1"; printf %s "$A"', "bash"]
    escaped = line.replace(b"\\`", b"`").replace(b"`", b"\\`")
    assert subprocess.run([*shell, escaped], capture_output=True, check=True).stdout == value.encode()


def test_no_nul() -> None:
    with pytest.raises(Failure, match="NUL"):
        user_command.quoted({"A": "a\0b"})


def test_a_command_is_closed_as_the_server_is() -> None:
    server = units.unit_properties("uanna")
    of_command = units.unit_properties("uanna", unit="ananke-command-uanna-1", description="Command for uanna")
    different = {name for name in server if server[name] != of_command[name]}
    assert different == {"Description", "RuntimeDirectory", "ExecStartPre", "BindReadOnlyPaths"}
    assert units.session("uanna", "ananke-command-uanna-1")["XDG_RUNTIME_DIR"] == "/run/ananke-command-uanna-1"


def test_a_command_trusts_whom_the_server_trusts(tmp_path: Path) -> None:
    bundle = tmp_path / "ca-certificates.crt"
    assert units.environment(bundle, {"COURSE": "math"}) == {"LANG": "C.UTF-8", "COURSE": "math"}
    bundle.touch()
    trusted = {"SSL_CERT_FILE": str(bundle), "REQUESTS_CA_BUNDLE": str(bundle)}
    assert units.environment(bundle, {"LANG": "de_DE.UTF-8"}) == {"LANG": "de_DE.UTF-8", **trusted}


def test_options_of_systemd_run() -> None:
    assert (
        shlex.join(user_command.options({"A": "b c", "D": ["e", "f"]}))
        == "'--property=A=b c' --property=D=e --property=D=f"
    )
