# SPDX-License-Identifier: GPL-3.0-or-later
"""What root tells the service of quotas, and what a machine cannot do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, quotas

G = 2**30
SMALL = quotas.Quota("small", 2 * G, {"ubob": 10 * G})
NONE = quotas.Quota("small", None, {})


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quotas, "SETTINGS", str(tmp_path / "quotas"))
    monkeypatch.setattr(quotas, "GROUP", str(tmp_path / "group"))
    monkeypatch.setattr(quotas, "PROGRAM", str(tmp_path / "program"))
    (tmp_path / "program").touch()
    return tmp_path


class Runner:
    def __init__(self, machine: Path, status: int = 0) -> None:
        self.machine, self.status, self.ran = machine, status, list[str]()

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        self.ran.append(" ".join(argv))
        if argv[:2] == ["systemctl", "start"]:
            (self.machine / "group").mkdir(exist_ok=True)
        return self.status, "no kernel"


def test_set_changed_and_taken_away(machine: Path) -> None:
    run = Runner(machine)
    assert quotas.foretell([SMALL], None) == ["quota of small set"]
    assert quotas.apply([SMALL], "/home/small", run) == ["quota of small set"]
    said = json.loads((machine / "quotas/small.json").read_text())
    assert said == {"home": "/home/small", "size": 2 * G, "users": {"ubob": 10 * G}}
    assert run.ran == ["systemctl start ananke-quotas.service", f"{machine}/program --apply"]
    assert quotas.foretell([SMALL], "/home/small") == []
    assert quotas.foretell([quotas.Quota("small", G, {})], "/home/small") == ["quota of small set"]
    assert quotas.apply([NONE], "/home/small", run) == ["quota of small taken away"]
    assert list((machine / "quotas").iterdir()) == []
    assert run.ran[2:] == [f"{machine}/program --apply"]
    assert quotas.foretell([NONE], "/home/small") == []


def test_a_service_that_does_not_run_is_started(machine: Path) -> None:
    run = Runner(machine)
    quotas.apply([SMALL], "/home/small", run)
    (machine / "group").rmdir()
    assert quotas.apply([SMALL], "/home/small", run) == ["ananke-quotas.service started"]


def test_without_the_role_and_when_it_fails(machine: Path) -> None:
    with pytest.raises(accounts.AccountError, match="no kernel"):
        quotas.apply([SMALL], "/home/small", Runner(machine, 1))
    (machine / "program").unlink()
    with pytest.raises(accounts.AccountError, match="--tags quotas"):
        quotas.apply([quotas.Quota("small", G, {})], "/home/small", Runner(machine))


def test_what_a_machine_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "kernel_counts", lambda _release: False)
    assert quotas.refusals([NONE], "small", None) == []
    (text,) = quotas.refusals([SMALL], "small", None)
    assert "set container_admin_home_size of small" in text
    (text,) = quotas.refusals([SMALL, NONE], "small", G)
    assert "has no quota_v2" in text
    assert "remove hub_user_quota" in text
    monkeypatch.setattr(quotas, "kernel_counts", lambda _release: True)
    assert quotas.refusals([SMALL], "small", G) == []


@pytest.mark.parametrize(
    ("name", "line", "counts"),
    [
        ("modules.dep", "kernel/fs/quota/quota_v2.ko.xz: kernel/fs/quota/quota_tree.ko.xz", True),
        ("modules.builtin", "kernel/fs/quota/quota_v2.ko", True),
        ("modules.dep", "kernel/fs/quota/quota_v1.ko:", False),
        ("mountinfo", "31 30 7:3 / /home/alice rw,nosuid - ext4 /dev/loop3 rw,discard,prjquota", True),
        ("mountinfo", "31 30 7:3 / /home/,prjquota rw,nosuid - ext4 /dev/loop3 rw,discard", False),
    ],
)
def test_whether_the_kernel_counts_projects(tmp_path: Path, name: str, line: str, counts: bool) -> None:
    (tmp_path / "6.12").mkdir()
    mounts = tmp_path / "mountinfo"
    (mounts if name == "mountinfo" else tmp_path / "6.12" / name).write_text(line + "\n")
    assert quotas.kernel_counts("6.12", str(tmp_path), str(mounts)) is counts
