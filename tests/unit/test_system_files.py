"""Many files at once: settings, permissions that are only taken away, homes, and what check mode leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import system_files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.system_files import Wanted
from hypothesis import given
from hypothesis import strategies as st

DEFS = "# UMASK explains itself\nUMASK\t\t022\n#HOME_MODE\t0700\nUMASK 002\nPASS_MAX_DAYS   99999 # never\n"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_settings_are_set_once_and_the_rest_stays() -> None:
    text = system_files.with_settings(DEFS, {"UMASK": "027", "HOME_MODE": "0700", "PASS_MAX_DAYS": "99999"})
    assert text == (
        "# UMASK explains itself\nUMASK\t\t027\n#HOME_MODE\t0700\nPASS_MAX_DAYS   99999 # never\nHOME_MODE\t0700\n"
    )


@given(st.dictionaries(st.sampled_from(["UMASK", "HOME_MODE", "LOG"]), st.sampled_from(["1", "027"])), st.text())
def test_settings_that_are_set_stay_as_they_are(settings: dict[str, str], text: str) -> None:
    once = system_files.with_settings(text, settings)
    assert system_files.with_settings(once, settings) == once


def test_only_permissions_are_taken_away() -> None:
    assert system_files.tightened(0o644, 0o600) == 0o600
    assert system_files.tightened(0o400, 0o600) == 0o400
    assert system_files.tightened(0o2775, 0o750) == 0o2750


def test_homes_are_those_of_people() -> None:
    text = "root:x:0:0::/root:/bin/sh\na:x:1000:1000::/home/a:/bin/sh\nnobody:x:65534:65534::/nonexistent:/x\nbad\n"
    assert system_files.homes(text) == {"/home/a": 1000}


def test_files_are_written_removed_and_closed(tmp_path: Path) -> None:
    for name, bits in (("open", 0o644), ("gone", 0o644), ("defs", 0o640)):
        (tmp_path / name).write_text("UMASK 022\n")
        (tmp_path / name).chmod(bits)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    wanted = [
        Wanted(str(tmp_path / "new.d/file"), content="text\n"),
        Wanted(str(tmp_path / "open"), mode=0o600),
        Wanted(str(tmp_path / "link"), mode=0o600),
        Wanted(str(tmp_path / "missing"), mode=0o600),
        Wanted(str(tmp_path / "gone"), absent=True),
        Wanted(str(tmp_path / "defs"), settings={"UMASK": "027"}),
        Wanted(str(tmp_path / "no-defs"), settings={"UMASK": "027"}),
    ]
    foretold = system_files.ensure(wanted, None, "", check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["defs", "gone", "link", "open"]
    assert system_files.ensure(wanted, None, "", check=False) == foretold
    assert [Path(change.path).name for change in foretold] == ["file", "open", "gone", "defs"]
    assert (tmp_path / "new.d/file").read_text() == "text\n"
    assert (tmp_path / "defs").read_text() == "UMASK 027\n"
    assert [mode(tmp_path / name) for name in ("new.d/file", "open", "defs")] == [0o644, 0o600, 0o640]
    assert system_files.ensure(wanted, None, "", check=False) == []


def test_folders_are_readable_whatever_the_umask_is(tmp_path: Path) -> None:
    former = os.umask(0o077)
    try:
        system_files.ensure([Wanted(str(tmp_path / "a.d/b.d/file"), content="")], None, "", check=False)
    finally:
        os.umask(former)
    assert [mode(tmp_path / name) for name in ("a.d", "a.d/b.d", "a.d/b.d/file")] == [0o755, 0o755, 0o644]


def test_another_mode_is_a_change_as_well(tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text("text\n")
    file.chmod(0o644)
    (change,) = system_files.ensure([Wanted(str(file), mode=0o755, content="text\n")], None, "", check=False)
    assert change.after == "mode 0755\n"
    assert mode(file) == 0o755


def test_a_home_is_closed_only_where_it_is_its_account_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_files, "FIRST_UID", 0)
    own, other, link = tmp_path / "own", tmp_path / "other", tmp_path / "link"
    own.mkdir(mode=0o755)
    other.mkdir(mode=0o755)
    link.symlink_to(other)
    uid = os.getuid()
    passwd = (
        f"a:x:{uid}:0::{own}:/bin/sh\nb:x:{uid + 1}:0::{other}:/bin/sh\n"
        f"c:x:{uid}:0::{link}:/bin/sh\nd:x:{uid}:0::{tmp_path}/none:/bin/sh\n"
    )
    (change,) = system_files.ensure([], 0o750, passwd, check=False)
    assert change.path == str(own)
    assert mode(own) == 0o750
    assert mode(other) == 0o755
