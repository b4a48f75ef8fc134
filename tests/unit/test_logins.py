# SPDX-License-Identifier: GPL-3.0-or-later
"""Container admins' logins: a file for each, sshd asked before and told after, and a killed run made good."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import files, logins


class Sshd:
    """What would be run, and how it ends."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.refuses = False

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        self.seen.append(argv[0])
        return (1, "bad line") if self.refuses and argv[0].endswith("sshd") else (0, "")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "ananke.d"
    folder.mkdir()
    monkeypatch.setattr(logins, "DIRECTORY", str(folder))
    monkeypatch.setattr(logins, "APPLIED", str(tmp_path / "applied"))
    monkeypatch.setattr(files, "RUN_DIR", str(tmp_path))
    logins.note()
    return folder


def test_without_the_role_ssh_there_is_nothing_to_do(folder: Path) -> None:
    folder.rmdir()
    sshd = Sshd()
    assert logins.foretell("anna", True) == logins.apply("anna", True, sshd) == []
    assert sshd.seen == []


def test_allowed_once_and_taken_again(folder: Path) -> None:
    sshd = Sshd()
    assert logins.apply("anna", True, sshd) == ["login by SSH allowed to anna", "sshd reloaded"]
    assert (folder / "anna.conf").read_text().splitlines()[1:] == ["AllowUsers anna"]
    assert sshd.seen == ["/usr/sbin/sshd", "systemctl"]
    assert logins.apply("anna", True, sshd) == logins.foretell("anna", True) == []
    assert logins.foretell("otto", False) == []
    assert logins.apply("anna", False, sshd) == ["login by SSH taken from anna", "sshd reloaded"]
    assert list(folder.iterdir()) == []


def test_what_sshd_refuses_does_not_stay(folder: Path) -> None:
    sshd = Sshd()
    sshd.refuses = True
    with pytest.raises(logins.LoginError, match="bad line"):
        logins.apply("anna", True, sshd)
    assert list(folder.iterdir()) == []
    assert sshd.seen == ["/usr/sbin/sshd"]


def test_a_reload_that_a_killed_run_owed_is_made_good(folder: Path) -> None:
    (folder / "anna.conf").write_text(logins._content("anna"))
    os.chmod(folder / "anna.conf", 0o644)
    sshd = Sshd()
    assert logins.foretell("anna", True) == ["sshd reloaded"]
    assert logins.apply("anna", True, sshd) == ["sshd reloaded"]
    assert logins.foretell("anna", True) == []
