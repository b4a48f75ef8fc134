# SPDX-License-Identifier: GPL-3.0-or-later
"""Homes on images: what is looked at, what is refused, and in which order things happen. tests/machine/test_homes.py does it for real."""

from __future__ import annotations

import dataclasses
import pwd
import shutil
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, ext4, homes

M = 2**20
MOUNTINFO = """\
30 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 30 7:3 / /home/alice rw,nosuid,nodev,relatime shared:2 - ext4 /dev/loop3 rw,discard
32 30 7:4 / /home/alice/data rw shared:3 - ext4 /dev/loop4 rw
"""


def superblock(blocks: int = 65536, features: int = 0, state: int = 1) -> bytes:
    block = bytearray(1024)
    struct.pack_into("<I", block, 0x04, blocks & 0xFFFFFFFF)
    struct.pack_into("<I", block, 0x18, 2)
    struct.pack_into("<HH", block, 0x38, ext4.MAGIC, state)
    struct.pack_into("<II", block, 0x60, ext4.LARGE, features)
    struct.pack_into("<I", block, 0x150, blocks >> 32)
    return bytes(block)


def test_a_superblock_tells_size_quota_and_errors() -> None:
    assert ext4.parse(superblock()) == ext4.FileSystem(256 * M, False, False)
    assert ext4.parse(superblock(2**33, ext4.PROJECTS, 2)) == ext4.FileSystem(2**45, True, True)
    assert ext4.parse(bytes(1024)).size == 0


@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="e2fsprogs is not installed; test machines have it")
@pytest.mark.parametrize("features", [[], ext4.QUOTA])
def test_what_mkfs_makes_is_read_right(tmp_path: Path, features: list[str]) -> None:
    image = tmp_path / "a.img"
    with image.open("wb") as stream:
        stream.truncate(3 * ext4.GROUP)
    subprocess.run([*ext4.MKFS, *features, str(image)], check=True)
    assert ext4.read(str(image)) == ext4.FileSystem(3 * ext4.GROUP, bool(features), False)


def test_a_file_is_no_loop_device(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert ext4.backing_inode(str(tmp_path / "file")) is None
    assert ext4.backing_inode(str(tmp_path / "none")) is None


def test_units_are_named_as_systemd_wants_them() -> None:
    assert homes.unit_name("/home/alice") == "home-alice.mount"
    assert homes.unit_name("/home/a-b_c") == "home-a\\x2db_c.mount"
    assert homes.unit_name("/.h/ä") == "\\x2eh-\\xe4.mount"


def test_mounts_are_found_by_their_exact_place() -> None:
    assert homes.mount_at(MOUNTINFO, "/home/alice") == ("/dev/loop3", {"rw", "nosuid", "nodev", "relatime"})
    assert homes.mount_at(MOUNTINFO, "/home") is None


def test_sizes_are_whole_groups_of_blocks() -> None:
    entry = pwd.getpwnam("daemon")
    assert homes.wanted(entry, 300 * M, False).size == 256 * M
    assert homes.shown(50 << 30) == "50G"
    assert homes.shown(384 * M) == "384M"
    with pytest.raises(accounts.AccountError, match="at least 256M"):
        homes.wanted(entry, 255 * M, False)


def test_a_manager_that_was_stopped_leaves_its_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "private")
    assert not accounts.manager_runs(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert not accounts.manager_runs(path)
        server.listen()
        assert accounts.manager_runs(path)


class Machine:
    """A machine of which files are real and commands are not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran: list[str] = []
        self.failing = ""
        self.device: str | None = None
        self.busy: list[str] = []

    def run(self, argv: Sequence[str]) -> tuple[int, str]:
        self.ran.append(" ".join(argv))
        if self.failing and self.failing in self.ran[-1]:
            return 1, "Permission denied"
        if argv[0] == "mkfs.ext4":
            self.write(argv[-1], ext4.PROJECTS if "quota,project" in argv else 0)
        elif argv[0] == "mount":
            (Path(argv[-1]) / "lost+found").mkdir()
        elif argv[0] == "cp":
            shutil.copytree(argv[-2], argv[-1], dirs_exist_ok=True)
        elif argv[0] == "umount":
            shutil.rmtree(argv[1])
            Path(argv[1]).mkdir()
        elif argv[0] == "tune2fs":
            self.write(argv[-1], ext4.PROJECTS)
        elif argv[0] == "resize2fs":
            self.write(argv[1], 0, int(argv[2].rstrip("K")) // 4)
        elif argv[:2] == ["systemctl", "stop"] and argv[2].endswith(".mount"):
            self.device = None
        elif argv[0] == "systemctl" and argv[-1].endswith(".mount"):
            self.device = str(self.folder / "homes/alice.img")
        return 0, ""

    def write(self, path: str, features: int, blocks: int = 65536) -> None:
        with open(path, "r+b") as stream:
            stream.seek(1024)
            stream.write(superblock(blocks, features))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    for name, folder in {"IMAGES": "homes", "UNITS": "units", "WORK": "work", "SKELETON": "skel"}.items():
        monkeypatch.setattr(homes, name, str(tmp_path / folder))
    for folder in ("units/multi-user.target.wants", "skel", "home/alice"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "units/multi-user.target.wants" / homes.unit_name(str(tmp_path / "home/alice"))).touch()
    for folder in ("skel", "home/alice"):
        (tmp_path / folder / ".profile").write_text("umask 027\n")
    monkeypatch.setattr(homes, "_mounted", lambda _home: found.device)
    monkeypatch.setattr(homes, "_processes", lambda _uid: found.busy)
    monkeypatch.setattr(homes.os, "chown", lambda *_arguments: None)
    return found


def home(machine: Machine, size: int = 256 * M, offline: bool = False) -> homes.Home:
    return homes.Home("alice", 4242, 4242, str(machine.folder / "home/alice"), size, offline)


def never(argv: Sequence[str]) -> tuple[int, str]:
    raise AssertionError(f"a look ran {argv}")


def test_a_new_home_and_then_nothing_more(machine: Machine) -> None:
    assert homes.ensure(home(machine), never, check=True)
    done = homes.ensure(home(machine), machine.run, check=False)
    assert "home put onto" in done[0]
    assert not (machine.folder / "home/.alice.before-image").exists()
    unit = (machine.folder / "units" / home(machine).unit).read_text()
    assert "Options=loop,nosuid,nodev,discard,resuid=4242,prjquota\n" in unit
    drop_in = machine.folder / "units/user@4242.service.d/50-ananke-home.conf"
    assert f"RequiresMountsFor={machine.folder}/home/alice\n" in drop_in.read_text()
    assert homes.ensure(home(machine), never, check=True) == []


def test_without_project_quotas_in_the_kernel(machine: Machine) -> None:
    real, tried = machine.run, []

    def run(argv: Sequence[str]) -> tuple[int, str]:
        if argv[0] == "mount":
            tried.append(argv)
            if len(tried) == 1:
                return 32, "wrong fs type"
        return real(argv)

    homes.ensure(home(machine), run, check=False)
    assert "prjquota" not in (machine.folder / "units" / home(machine).unit).read_text()


def test_a_home_that_counts_no_projects_learns_it_only_when_asked(machine: Machine) -> None:
    real, tried = machine.run, []

    def run(argv: Sequence[str]) -> tuple[int, str]:
        if argv[0] == "mount" and not tried:
            tried.append(argv)
            return 32, "the kernel then had no quotas"
        return real(argv)

    homes.ensure(home(machine), run, check=False)
    image = machine.folder / "homes/alice.img"
    assert not ext4.read(str(image)).quota
    machine.ran.clear()
    for check in (True, False):
        with pytest.raises(accounts.AccountError, match=r"playbook ananke\.jupyterhub\.hubs .*home_offline=true"):
            homes.ensure(dataclasses.replace(home(machine), projects=True), machine.run, check=check)
    assert machine.ran == []
    wanted = dataclasses.replace(home(machine, offline=True), projects=True)
    assert homes.ensure(wanted, never, check=True) == [
        "home counts projects; the account's hubs were stopped meanwhile"
    ]
    homes.ensure(wanted, machine.run, check=False)
    assert machine.ran.index("systemctl stop user@4242.service") < machine.ran.index(
        f"tune2fs -O quota,project -Q prjquota {image}.offline"
    )
    assert ext4.read(str(image)).quota
    assert "prjquota" in (machine.folder / "units" / home(machine).unit).read_text()
    assert homes.ensure(wanted, never, check=True) == []


def test_a_home_with_files_is_moved_only_when_asked(machine: Machine) -> None:
    (machine.folder / "home/alice/thesis").write_text("x")
    for check in (True, False):
        with pytest.raises(accounts.AccountError, match="not moved onto an image of its own unasked"):
            homes.ensure(home(machine), machine.run, check=check)
    assert machine.ran == []
    homes.ensure(home(machine, offline=True), machine.run, check=False)
    assert (machine.folder / "home/.alice.before-image/thesis").read_text() == "x"


def test_a_copy_that_fails_leaves_the_home_and_its_hubs_as_they_were(machine: Machine) -> None:
    (machine.folder / "home/alice/thesis").write_text("x")
    machine.failing = "cp --archive"
    with pytest.raises(accounts.AccountError, match="make room"):
        homes.ensure(home(machine, offline=True), machine.run, check=False)
    assert (machine.folder / "home/alice/thesis").exists()
    assert list((machine.folder / "homes").iterdir()) == []
    assert machine.ran[-1] == "systemctl start user@4242.service"


def test_whoever_is_logged_in_is_not_thrown_out(machine: Machine) -> None:
    machine.busy = ["77 vim"]
    with pytest.raises(accounts.AccountError, match=r"77 vim.*loginctl terminate-user alice"):
        homes.ensure(home(machine), machine.run, check=False)
    assert machine.ran[-1] == "systemctl start user@4242.service"


def test_enlarged_in_use_where_the_kernel_does_that(machine: Machine) -> None:
    homes.ensure(home(machine), machine.run, check=False)
    larger = home(machine, 512 * M)
    assert homes.ensure(larger, never, check=True) == ["home enlarged from 256M to 512M"]
    machine.ran.clear()
    assert homes.ensure(larger, machine.run, check=False) == ["home enlarged from 256M to 512M"]
    assert [line.split()[0] for line in machine.ran] == ["losetup", "resize2fs"]
    with pytest.raises(accounts.AccountError, match="set container_admin_home_size to 512M or more"):
        homes.ensure(home(machine), machine.run, check=False)


def test_hubs_are_stopped_only_when_asked(machine: Machine) -> None:
    homes.ensure(home(machine), machine.run, check=False)
    machine.failing = "resize2fs " + str(machine.folder / "homes/alice.img") + " "
    with pytest.raises(accounts.AccountError, match="container_admin_home_offline=true"):
        homes.ensure(home(machine, 512 * M), machine.run, check=False)
    assert not any("stop user@" in line for line in machine.ran[machine.ran.index("systemctl daemon-reload") :])
    done = homes.ensure(home(machine, 512 * M, offline=True), machine.run, check=False)
    assert done[-1] == "the account's hubs were stopped meanwhile"
    assert ext4.read(str(machine.folder / "homes/alice.img")).size == 512 * M


def test_an_interrupted_enlargement_is_put_back(machine: Machine) -> None:
    homes.ensure(home(machine), machine.run, check=False)
    image = machine.folder / "homes/alice.img"
    image.rename(f"{image}.offline")
    machine.device = None
    assert homes.hidden(home(machine))
    assert "put back" in homes.ensure(home(machine), never, check=True)[0]
    homes.ensure(home(machine), machine.run, check=False)
    assert f"e2fsck -f -p {image}.offline" in machine.ran
    assert image.exists()


def test_files_beneath_the_mount_are_not_covered_silently(machine: Machine) -> None:
    homes.ensure(home(machine), machine.run, check=False)
    machine.device = None
    (machine.folder / "home/alice/stray").touch()
    with pytest.raises(accounts.AccountError, match="move them away"):
        homes.ensure(home(machine), machine.run, check=False)


def test_more_than_the_disk_holds_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(accounts.AccountError, match="enlarge that disk"):
        homes.ensure(home(machine, 2**50), machine.run, check=False)
    homes.ensure(home(machine), machine.run, check=False)
    assert homes.overcommitted() is None
    monkeypatch.setattr(homes, "_free", lambda: 10 * M)
    assert "become read-only" in str(homes.overcommitted())


@pytest.mark.parametrize(
    ("change", "is_pristine"),
    [(None, True), ("empty", True), ("other", False), ("more", False), ("link", False), ("folder", False)],
)
def test_a_home_that_nobody_has_used(machine: Machine, change: str | None, is_pristine: bool) -> None:
    folder = machine.folder / "home/alice"
    if change == "empty":
        (folder / ".profile").unlink()
    elif change == "other":
        (folder / ".profile").write_text("umask 022\n")
    elif change == "more":
        (folder / "file").touch()
    elif change == "link":
        (folder / "link").symlink_to("/etc")
    elif change == "folder":
        (folder / "data").mkdir()
    assert homes.pristine(str(folder)) == is_pristine
