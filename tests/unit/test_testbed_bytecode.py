# SPDX-License-Identifier: GPL-3.0-or-later
"""Test machines compile what comes in zip archives once, and never run anything else than what is in the archive."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from description_cases import ROOT

PLACE = ROOT / "tests/support/testbed/machine_image/root/usr/lib/python3/dist-packages"
RUN = """
import sys
import zip_bytecode
zip_bytecode.FOLDER = sys.argv[1]
compiled, compile_source = [], zip_bytecode.compile_source
zip_bytecode.compile_source = lambda path, source: compiled.append(path) or compile_source(path, source)
sys.path.insert(0, sys.argv[2])
import answer
print(answer.VALUE, len(compiled))
"""


def run(kept: Path, folder: Path, value: str) -> list[str]:
    """What a fresh Python imports from an archive with this value, and how much it compiled."""
    archive = folder / f"{value}.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("answer.py", f"VALUE = {value!r}\n")
    command = [sys.executable, "-c", RUN, str(kept), str(archive)]
    done = subprocess.run(command, env={"PYTHONPATH": str(PLACE)}, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_same_text_is_compiled_once_and_another_one_again(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert run(kept, tmp_path, "one") == ["one", "1"]
    assert run(kept, tmp_path, "one") == ["one", "0"]
    assert run(kept, tmp_path, "two") == ["two", "1"]
    assert kept.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"\xe3"])
def test_damaged_code_is_compiled_again(tmp_path: Path, damage: bytes) -> None:
    kept = tmp_path / "kept"
    run(kept, tmp_path, "one")
    (path,) = kept.iterdir()
    path.write_bytes(damage)
    assert run(kept, tmp_path, "one") == ["one", "1"]
    assert run(kept, tmp_path, "one") == ["one", "0"]


def test_where_nothing_can_be_kept_it_still_runs(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("in the way")
    assert run(tmp_path / "kept", tmp_path, "one")[0] == "one"
