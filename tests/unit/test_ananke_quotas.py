# SPDX-License-Identifier: GPL-3.0-or-later
"""The service that keeps hub users to quotas, as far as it goes without a kernel that counts projects; tests/vm/test_quota.py does it for real."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from programs import load

G = 2**30


quotas = load("quotas/files/ananke_quotas.py")


class Kernel:
    """What the kernel keeps: projects of files by their inode, and limits by project."""

    def __init__(self) -> None:
        self.projects: dict[int, tuple[int, bool]] = {}
        self.limits: dict[int, int] = {}
        self.gone: set[int] = set()

    def project(self, handle: int) -> tuple[int, bool]:
        return self.projects.get(os.fstat(handle).st_ino, (0, False))

    def set_project(self, handle: int, number: int, inherit: bool) -> None:
        self.projects[os.fstat(handle).st_ino] = number, inherit

    def limit(self, _handle: int, number: int, size: int) -> bool:
        before, self.limits[number] = self.limits.get(number), size
        return before != size

    def of(self, path: Path) -> tuple[int, bool] | None:
        return self.projects.get(path.lstat().st_ino)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel()
    for name in ("project", "set_project", "limit"):
        monkeypatch.setattr(quotas, name, getattr(found, name))
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    (folder / "hubs/small/private/ualice/deep/er").mkdir(parents=True)
    (folder / "hubs/small/private/ubob").mkdir()
    (folder / "hubs/small/private/ualice/deep/file").write_text("x")
    return folder


def settle(hub: Any, home: Path, projects: Any) -> list[str]:
    root = os.open(home, os.O_RDONLY)
    try:
        return list(quotas.settle(hub, root, projects))
    finally:
        os.close(root)


def test_each_home_gets_its_own_project_and_limit(kernel: Kernel, home: Path) -> None:
    hub, projects = quotas.Hub("small", str(home), 2 * G, {"ubob": 10 * G}), quotas.Projects()
    done = settle(hub, home, projects)
    assert len(done) == 2
    private = home / "hubs/small/private"
    alice, bob = projects.hubs["small"]["ualice"], projects.hubs["small"]["ubob"]
    newcomers = projects.hubs["small"][""]
    assert len({alice, bob, newcomers}) == 3
    assert kernel.limits == {newcomers: 2 * G, alice: 2 * G, bob: 10 * G}
    assert kernel.of(private) == (newcomers, True)
    assert kernel.of(private / "ualice") == kernel.of(private / "ualice/deep/er") == (alice, True)
    assert kernel.of(private / "ualice/deep/file") == (alice, False)
    assert kernel.of(private / "ubob") == (bob, True)
    assert settle(hub, home, projects) == []


def test_a_quota_that_is_raised_and_a_home_that_appears_and_goes(kernel: Kernel, home: Path) -> None:
    projects = quotas.Projects()
    settle(quotas.Hub("small", str(home), 2 * G), home, projects)
    alice, bob = projects.hubs["small"]["ualice"], projects.hubs["small"]["ubob"]
    (home / "hubs/small/private/ucarol").mkdir()
    (home / "hubs/small/private/ubob").rmdir()
    done = settle(quotas.Hub("small", str(home), 3 * G), home, projects)
    carol = projects.hubs["small"]["ucarol"]
    assert [line.split()[1] for line in sorted(done)] == ["ualice", "ucarol"]
    assert (kernel.limits[alice], kernel.limits[carol], kernel.limits[bob]) == (3 * G, 3 * G, 0)
    assert "ubob" not in projects.hubs["small"]
    (home / "hubs/small/private/ubob").mkdir()
    settle(quotas.Hub("small", str(home), 3 * G), home, projects)
    assert projects.hubs["small"]["ubob"] > max(alice, bob, carol), "a number was given twice"


def test_links_lead_nowhere(kernel: Kernel, home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    private = home / "hubs/small/private"
    (private / "ualice/link").symlink_to(outside)
    (private / "ueve").symlink_to(outside)
    os.mkfifo(private / "ualice/pipe")
    settle(quotas.Hub("small", str(home), G), home, quotas.Projects())
    assert kernel.of(outside) is None
    assert kernel.of(outside / "folder") is None
    # nor does a link in place of a folder on the way
    private.rename(home / "elsewhere")
    private.symlink_to(outside)
    kernel.projects.clear()
    assert settle(quotas.Hub("small", str(home), G), home, quotas.Projects()) == []
    assert kernel.projects == {}


def test_paths_are_opened_beneath_or_not_at_all(home: Path) -> None:
    (home / "link").symlink_to("hubs")
    root = os.open(home, os.O_RDONLY)
    try:
        os.close(quotas.open_beneath(root, "hubs/small", os.O_RDONLY | os.O_DIRECTORY))
        for path, number in (("..", errno.EXDEV), ("/etc", errno.EXDEV), ("link/small", errno.ELOOP)):
            with pytest.raises(OSError, match=re.escape(os.strerror(number))):
                quotas.open_beneath(root, path, os.O_RDONLY)
    finally:
        os.close(root)


def test_what_lies_too_deep_is_told_and_costs_no_descriptors(
    kernel: Kernel, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "MOST_DEPTH", 2)
    alice = home / "hubs/small/private/ualice"
    before = os.listdir("/proc/self/fd")
    handle = os.open(alice, os.O_RDONLY)
    assert quotas.give(handle, 1234) == 1
    os.close(handle)
    assert os.listdir("/proc/self/fd") == before
    assert kernel.of(alice / "deep/er") == (1234, True)


def test_more_folders_than_anybody_needs(
    kernel: Kernel, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quotas, "MOST_HOMES", 1)
    projects = quotas.Projects()
    settle(quotas.Hub("small", str(home), G), home, projects)
    assert len(projects.hubs["small"]) == 2
    assert "not all get a quota" in capsys.readouterr().err
    assert len(kernel.limits) == 2


def test_a_hub_without_quota_again(kernel: Kernel, home: Path) -> None:
    projects = quotas.Projects()
    settle(quotas.Hub("small", str(home), G), home, projects)
    numbers = list(projects.hubs["small"].values())
    root = os.open(home, os.O_RDONLY)
    quotas.release("small", root, projects)
    os.close(root)
    assert [kernel.limits[number] for number in numbers] == [0, 0, 0]
    assert kernel.of(home / "hubs/small/private") == (0, False)
    assert projects.hubs == {}


def test_the_table_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "projects.json"
    assert quotas.load(path) == {}
    projects = quotas.Projects()
    assert [projects.number("small", name) for name in ("", "ualice", "", "\udcff")] == [1000, 1001, 1000, 1002]
    quotas.save(path, {"/home/small": projects})
    assert quotas.load(path) == {"/home/small": projects}
    assert os.listdir(tmp_path) == ["projects.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"/home/a": 1}', '{"/home/a": {"next": "x", "hubs": {}}}'])
def test_a_damaged_table_costs_new_numbers(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quotas, "SETTINGS", tmp_path)
    (tmp_path / "small.json").write_text(json.dumps({"home": "/home/small", "size": G, "users": {}}))
    (tmp_path / "table").write_text(text)
    (known,) = quotas.load(tmp_path / "table").values()
    assert known.following > 10**9
    assert "damaged" in capsys.readouterr().err


def test_settings_of_one_hub_do_not_end_those_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.json").write_text(json.dumps({"home": "/home/good", "size": G, "users": {"u1": 2 * G}}))
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / ".ananke-draft").write_text("{")
    (hub,) = quotas.settings(tmp_path)
    assert (hub.name, hub.folder, hub.allowed("u1"), hub.allowed("u2")) == ("good", "hubs/good/private", 2 * G, G)
    assert "bad.json cannot be read" in capsys.readouterr().err


def test_a_home_that_is_not_mounted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(quotas.QuotaError, match="is not mounted"), quotas.own_file_system(str(tmp_path)):
        pass
    with pytest.raises(quotas.QuotaError, match="mount unit"), quotas.own_file_system(str(tmp_path / "none")):
        pass


def test_structures_have_the_kernel_s_sizes() -> None:
    assert (quotas.FSXATTR.size, quotas.DQBLK.size) == (28, 72)
