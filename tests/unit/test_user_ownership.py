# SPDX-License-Identifier: GPL-3.0-or-later
"""Owners of a home's files, with real files: what is followed, what is left alone, what is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import user_ownership
from ansible_collections.ananke.jupyterhub.plugins.module_utils.user_ownership import MARK, Failure

from ownership_support import NAME, act, everything, give, needs_root, owners

pytestmark = needs_root
UID, OTHER = 61300, 61400


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one home, all files of which belong to a hub user; nobody's server runs."""
    monkeypatch.setattr(user_ownership, "running", lambda units: {})
    home = tmp_path / "private" / NAME
    for name in ("a/b/c/deep", "a/file", "x y/ü", "new\nline", "-rf", ".hidden"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    os.chmod(home / "a", 0o500)
    (home / os.fsdecode(b"\xff\xfe")).write_text("no UTF-8")
    (home / "away").symlink_to(tmp_path)
    (home / "nowhere").symlink_to("/no/such")
    os.mkfifo(home / "pipe")
    give(home, UID)
    return tmp_path / "private"


def spoil(folder: Path, *names: str) -> None:
    for name in names:
        os.chown(folder / NAME / name, OTHER, OTHER, follow_symlinks=False)


def test_a_home_that_is_right_is_left_alone(folder: Path) -> None:
    before = {path: path.lstat().st_ctime_ns for path in everything(folder)}
    result = act(folder)
    assert not result["changed"]
    assert result["homes"][0]["seen"] == len(before)
    assert {path: path.lstat().st_ctime_ns for path in everything(folder)} == before
    assert os.listdir(folder) == [NAME]


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_what_is_wrong_is_put_right_and_named(folder: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(user_ownership, "SHARES", 2)
    spoil(folder, "a/b/c/deep", "new\nline", "away", os.fsdecode(b"\xff\xfe"), "a")
    (result,) = act(folder, processes=processes)["homes"]
    assert result["changed_files"] == 5
    assert sorted(result["paths"]) == ["\\xff\\xfe", "a", "a/b/c/deep", "away", "new\\nline"]
    assert result["former_owners"] == {str(OTHER): 5}
    assert result["owner"] == UID
    assert result["seen"] == len(list(everything(folder)))
    assert owners(folder / NAME) == {(UID, UID)}
    assert json.dumps(result)


def test_a_wrong_group_is_wrong(folder: Path) -> None:
    os.chown(folder / NAME / "a/file", UID, OTHER)
    assert act(folder)["homes"][0]["paths"] == ["a/file"]
    assert owners(folder / NAME) == {(UID, UID)}


def test_check_mode_says_the_same_and_changes_nothing(folder: Path) -> None:
    spoil(folder, "a/file", "-rf")
    os.link(folder / NAME / "a/file", folder / NAME / "second name")
    foretold = act(folder, check=True)
    assert (folder / NAME / "-rf").lstat().st_uid == OTHER
    assert os.listdir(folder) == [NAME]
    assert act(folder) == foretold
    assert foretold["homes"][0]["changed_files"] == 2


def test_no_link_is_followed_out_of_the_home(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("")
    spoil(folder, "away", "nowhere")
    act(folder)
    assert owners(outside) == {(0, 0)}
    assert Path("/etc/passwd").stat().st_uid == 0


@pytest.mark.parametrize(
    ("visited", "swapped", "outside_file"), [("a", "a", "b/file"), ("a/b/c", "a/b", "c/deep")], ids=["itself", "above"]
)
def test_a_folder_that_becomes_a_link_is_not_followed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visited: str, swapped: str, outside_file: str
) -> None:
    """Its user swaps a folder for a link while the program is on its way there."""
    outside = tmp_path / "outside"
    (outside / outside_file).parent.mkdir(parents=True)
    (outside / outside_file).write_text("")
    original = user_ownership.Task.visit

    def visit(self: Any, path: str, done: Any) -> list[str]:
        if path == visited:
            os.rename(folder / NAME / swapped, folder / NAME / "moved")
            (folder / NAME / swapped).symlink_to(outside)
        return original(self, path, done)

    monkeypatch.setattr(user_ownership.Task, "visit", visit)
    os.chown(folder / NAME, OTHER, OTHER)
    act(folder)
    assert owners(outside) == {(0, 0)}


def test_files_with_two_names_in_the_home(folder: Path) -> None:
    os.link(folder / NAME / "a/file", folder / NAME / "x y/again")
    spoil(folder, "a/file")
    (result,) = act(folder)["homes"]
    assert result["changed_files"] == 1
    assert (folder / NAME / "x y/again").stat().st_uid == UID


def test_a_file_with_a_name_elsewhere_stays_and_is_named(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of root")
    os.link(secret, folder / NAME / "a/mine")
    spoil(folder, "-rf")
    with pytest.raises(Failure, match=r"a/mine: it has another name outside of this home") as caught:
        act(folder)
    assert secret.stat().st_uid == 0
    assert (folder / NAME / "-rf").stat().st_uid == UID
    assert caught.value.args[1]["homes"][0]["changed_files"] == 1
    assert os.readlink(folder / f"{MARK}{NAME}") == f"consistent:{UID}:{UID}:half"
    (folder / NAME / "a/mine").unlink()
    assert act(folder)["homes"][0]["interrupted"]
    assert os.listdir(folder) == [NAME]


def test_files_that_vanish_meanwhile(folder: Path) -> None:
    busy, home = folder / NAME / "busy", folder / NAME
    busy.mkdir()
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            below = busy / str(number % 50)
            try:
                below.mkdir()
                (below / "file").write_text("")
            except FileExistsError:
                (below / "file").unlink(missing_ok=True)
                below.rmdir()

    worker = threading.Thread(target=churn)
    worker.start()
    try:
        for uid in (OTHER, UID) * 20:
            os.chown(home, uid, uid)
            act(folder)
    finally:
        stop.set()
        worker.join()
    act(folder)
    assert owners(home) == {(UID, UID)}


def test_an_immutable_file_is_named_and_the_rest_done(folder: Path) -> None:
    stuck = folder / NAME / "a/b/c/deep"
    spoil(folder, "a/b/c/deep", "-rf")
    if subprocess.run(["chattr", "+i", stuck], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(
            Failure, match=r"1 of its files could not be given .* a/b/c/deep: not permitted: it is immutable"
        ):
            act(folder)
        assert (folder / NAME / "-rf").stat().st_uid == UID
        assert (folder / f"{MARK}{NAME}").is_symlink()
    finally:
        subprocess.run(["chattr", "-i", stuck], check=True)
    act(folder)
    assert owners(folder / NAME) == {(UID, UID)}


def test_acls_and_times_stay(folder: Path) -> None:
    file = folder / NAME / "a/file"
    before = file.stat()
    value = bytes.fromhex("0200000001000600ffffffff02000400e903000004000400ffffffff10000600ffffffff20000000ffffffff")
    os.setxattr(file, "system.posix_acl_access", value)
    spoil(folder, "a/file")
    act(folder)
    assert os.getxattr(file, "system.posix_acl_access") == value
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_a_file_system_mounted_below_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(folder, "a/b/c", "a/b/c/deep", "-rf")
    monkeypatch.setattr(user_ownership, "mount_points", lambda: frozenset({str(folder / NAME / "a/b")}))
    (result,) = act(folder)["homes"]
    assert result["mounts"] == ["a/b"]
    assert (folder / NAME / "a/b/c/deep").stat().st_uid == OTHER
    assert result["changed_files"] == 1


def test_mount_points_are_read_with_odd_names(tmp_path: Path) -> None:
    assert "/proc" in user_ownership.mount_points()


def test_handed_over_and_given_back(folder: Path) -> None:
    (result,) = act(folder, "admin")["homes"]
    assert owners(folder / NAME) == {(0, 0)}
    assert result["owner"] == 0
    assert os.readlink(folder / f"{MARK}{NAME}") == f"admin:{UID}:{UID}:done"
    assert not act(folder, "admin")["changed"]
    assert not act(folder)["changed"]  # it is consistent with its being handed over
    (folder / NAME / "note").write_text("the admin writes something")
    (result,) = act(folder, "restored")["homes"]
    assert owners(folder / NAME) == {(UID, UID)}
    assert os.listdir(folder) == [NAME]
    assert not act(folder, "restored")["changed"]


def test_systemd_knows_better_than_an_old_mark(folder: Path) -> None:
    """The user's server was started while the home was handed over, and got another UID."""
    act(folder, "admin")
    give(folder / NAME, OTHER)
    act(folder, "admin")
    assert os.readlink(folder / f"{MARK}{NAME}") == f"admin:{OTHER}:{OTHER}:done"
    act(folder, "restored")
    assert owners(folder / NAME) == {(OTHER, OTHER)}


def test_a_mark_knows_better_than_a_hand(folder: Path) -> None:
    """What belongs to nobody whom a hub knows was not taken over by systemd."""
    act(folder, "admin")
    os.chown(folder / NAME, 1234, 1234)
    act(folder, "admin")
    assert os.readlink(folder / f"{MARK}{NAME}") == f"admin:{UID}:{UID}:done"


def test_a_running_server_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_ownership, "running", lambda units: {NAME: (OTHER, OTHER)})
    act(folder)
    assert owners(folder / NAME) == {(OTHER, OTHER)}
    with pytest.raises(Failure, match=r"server of uanna runs: stop it first"):
        act(folder, "admin")
    assert owners(folder / NAME) == {(OTHER, OTHER)}


def test_a_server_that_starts_meanwhile_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{}, {NAME: (OTHER, OTHER)}])
    monkeypatch.setattr(user_ownership, "running", lambda units: next(answers))
    with pytest.raises(Failure, match=r"uanna: its server was started meanwhile"):
        act(folder, "admin")


def test_one_bad_home_does_not_stop_the_others(folder: Path) -> None:
    for name, uid in (("ubad", 1234), ("uzoe", UID)):
        (folder / name).mkdir()
        (folder / name / "file").write_text("")
        os.chown(folder / name, uid, uid)
    with pytest.raises(Failure, match=r"ubad: its owner, UID 1234, is neither") as caught:
        act(folder)
    assert [home["user"] for home in caught.value.args[1]["homes"]] == [NAME, "uzoe"]
    assert owners(folder / "uzoe") == {(UID, UID)}


@pytest.mark.parametrize(
    ("users", "said"),
    [(["unobody"], "there is no such home"), (["file"], "is not a folder"), (["link"], "is not a folder")],
)
def test_homes_that_are_none(folder: Path, users: list[str], said: str) -> None:
    (folder / "file").write_text("")
    (folder / "link").symlink_to("/etc")
    with pytest.raises(Failure, match=said):
        act(folder, users=users)


def test_a_home_that_nobody_knows_cannot_be_given_back(folder: Path) -> None:
    give(folder / NAME, 0)
    with pytest.raises(Failure, match="nothing says whose it was"):
        act(folder, "restored")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="there is no such folder of homes"):
        act(tmp_path / "nothing")


def test_a_full_disk_does_not_stop_it(tmp_path: Path) -> None:
    """The mark needs no block of its own."""
    program = f"""
import os, sys
os.makedirs("{tmp_path}/private/{NAME}")
os.symlink("x", "{tmp_path}/private/slot"); os.unlink("{tmp_path}/private/slot")
for number in range(20):
    open(f"{tmp_path}/private/{NAME}/{{number}}", "w").close()
for path in [".", *map(str, range(20))]:
    os.chown(f"{tmp_path}/private/{NAME}/{{path}}", {UID}, {UID})
try:
    with open("{tmp_path}/private/filler", "wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 512)
except OSError as error:
    assert error.errno == 28, error
from ansible_collections.ananke.jupyterhub.plugins.module_utils import user_ownership
user_ownership.running = lambda units: {{}}
wanted = {{"folder": "{tmp_path}/private", "users": ["{NAME}"], "unit": "", "processes": 2, "check": False}}
print(user_ownership.main({{**wanted, "state": "admin"}})["homes"][0]["changed_files"])
assert os.readlink("{tmp_path}/private/{MARK}{NAME}").endswith(":done")
print(user_ownership.main({{**wanted, "state": "restored"}})["homes"][0]["changed_files"])
"""
    image = tmp_path.parent / f"{tmp_path.name}.img"
    with open(image, "wb") as stream:
        stream.truncate(2**21)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "1024", image], check=True)
    script = 'mount -o loop "$1" "$2" && exec "$3" -c "$4"'
    mounted = ["unshare", "--mount", "sh", "-c", script, "sh", str(image), str(tmp_path), sys.executable, program]
    result = subprocess.run(
        mounted, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    )
    assert result.stdout.split() == ["21", "21"], result.stderr


def test_whose_units_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = (
        "Id=jupyter-ua.service\nActiveState=active\nUID=61200\nGID=61200\n\nId=jupyter-ub.service\nActiveState=inactive\nUID=[not set]\nGID=[not set]\n"
        "\nId=jupyter-uc.service\nActiveState=activating\nUID=[not set]\nGID=[not set]\n\nId=jupyter-ud.service\nActiveState=active\nUID=0\nGID=0\n"
    )
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\ncat <<'E'\n{answer}E\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    units = {name: f"jupyter-{name}.service" for name in ("ua", "ub", "uc", "ud")}
    assert user_ownership.running(units) == {"ua": (61200, 61200)}
    assert user_ownership.running({}) == {}
