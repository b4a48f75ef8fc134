"""Owners of a home with many files, beside GNU chown in the same run: `python -m ownership_bench [FILES]`.

Writes build/ownership-bench.json and prints a table. Run as root on an idle computer.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ansible_collections.ananke.jupyterhub.plugins.module_utils import inside, user_ownership

ROOT = Path(__file__).resolve().parents[2]
FILES = 300_000
PER_FOLDER = 30
"""As in conda environments and git repositories: many small folders."""
ROUNDS = 5
USER, OTHER = 61300, 61400


def fill(home: Path, files: int) -> None:
    """Make that many empty files, folders not counted."""
    for number in range(0, files, PER_FOLDER):
        folder = home / f"{number % 17}" / f"{number % 101}" / str(number)
        folder.mkdir(parents=True)
        for name in range(min(PER_FOLDER, files - number)):
            (folder / str(name)).touch()


def ours(home: Path) -> None:
    """The program as it runs in a container: a Python of its own that gets it on standard input."""
    parameters = {
        "folder": str(home.parent),
        "users": [home.name],
        "state": "consistent",
        "unit": "none-{user}.service",
        "processes": 0,
        "check": False,
    }
    work = inside.work(user_ownership, parameters)
    command = [sys.executable, "-I", "-c", inside.BOOT]
    done = subprocess.run(command, input=work, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert "failure" not in result, result


def chown(home: Path) -> None:
    """The bare command."""
    subprocess.run(["chown", "-R", "-h", f"{USER}:{USER}", str(home)], check=True)


def all_wrong(home: Path) -> None:
    subprocess.run(["chown", "-R", "-h", f"{OTHER}:{OTHER}", str(home)], check=True)
    os.chown(home, USER, USER)


def all_right(home: Path) -> None:
    chown(home)


def one_in_hundred(home: Path) -> None:
    chown(home)
    for number, (folder, _folders, files) in enumerate(os.walk(home)):
        if number % 3 == 0 and files:
            os.chown(os.path.join(folder, files[0]), OTHER, OTHER)


def timed(act: Callable[[Path], None], prepare: Callable[[Path], None], home: Path) -> float:
    """Seconds of one act after its preparation."""
    prepare(home)
    os.sync()
    began = time.monotonic()
    act(home)
    return time.monotonic() - began


def main() -> None:
    """Measure and print."""
    files = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    folder = Path(tempfile.mkdtemp(prefix="ananke-owners-"))
    home = folder / "homes/uanna"
    home.mkdir(parents=True)
    found = []
    try:
        fill(home, files)
        for prepare in (all_wrong, all_right, one_in_hundred):
            pairs = [(timed(ours, prepare, home), timed(chown, prepare, home)) for _ in range(ROUNDS)]
            mine, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
            found.append(
                {
                    "case": prepare.__name__,
                    "ours": round(mine, 2),
                    "chown": round(bare, 2),
                    "ratio": round(mine / bare, 2),
                }
            )
            print("{case:16} {ours:6.2f} s, chown -R {chown:6.2f} s, ratio {ratio:.2f}".format(**found[-1]), flush=True)
    finally:
        shutil.rmtree(folder)
    target = ROOT / "build/ownership-bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"files": files, "processors": os.cpu_count(), "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
