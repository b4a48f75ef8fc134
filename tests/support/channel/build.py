"""Build the whole channel, or find that it is built already."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rattler.index import index_fs

from channel import conda_client, debian, wheels
from channel.common import HERE, PLATFORM, Suite, sha256, write
from channel.installer import write_installer
from channel.package import Package, write_package
from testbed.common import locked

FACTS = "channel.json"


def inputs_key(suite: Suite) -> str:
    """Return the digest of everything in the repository that decides what is built.

    Debian's own versions are not part of it: `build --force` takes in its updates.
    """
    digest = hashlib.sha256(suite.name.encode())
    paths = [*HERE.glob("*.py"), *(HERE / "files").iterdir(), suite.lock, HERE / "conda.lock.txt"]
    for path in sorted(path for path in paths if path.is_file()):
        digest.update(f"{path.name}\0{sha256(path)}\0".encode())
    return digest.hexdigest()


def facts(output: Path) -> dict[str, Any]:
    """Return what channel.json says; empty if there is none, or what it describes is gone or changed."""
    try:
        found: dict[str, Any] = json.loads((output / FACTS).read_text())
        complete = (
            Path(found["channel_dir"]) == output.resolve()
            and sha256(Path(found["installer"])) == found["installer_sha256"]
            and all((output / subdir / "repodata.json").is_file() for subdir in (PLATFORM, "noarch"))
        )
    except (OSError, ValueError, KeyError):
        return {}
    return found if complete else {}


class Clock:
    """Says what is done and how long it took."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()

    def lap(self, text: str) -> None:
        """Print one finished step with its seconds, on standard error."""
        now = time.monotonic()
        print(f"channel: {text} ({now - self.last:.1f} s)", file=sys.stderr, flush=True)
        self.last = now

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start


def _stage(suite: Suite, work: Path, clock: Clock) -> list[Package]:
    staged = work / "staged"
    staged.mkdir()
    with ThreadPoolExecutor(2) as pool:
        unpacking = pool.submit(debian.unpack, suite, work / "debian")
        conda_wheel = pool.submit(wheels.download, suite, HERE / "conda.lock.txt", work / "conda-wheel")
        locked = wheels.download(suite, suite.lock, work / "wheels")
        source, (carrier,) = unpacking.result(), conda_wheel.result()
    clock.lap(f"{len(locked) + 1} wheels fetched, Debian's packages unpacked")
    python = debian.stage_python(source, locked, staged / "python")
    clock.lap(f"Python {python.version} made relocatable")
    packages = [
        python,
        debian.stage_python_abi(suite, staged / "python_abi"),
        debian.stage_pycosat(source, staged / "pycosat"),
        conda_client.stage_conda(suite, carrier, staged / "conda"),
        *(wheels.stage_wheel(suite, wheel, staged / wheel.stem) for wheel in locked),
    ]
    clock.lap(f"{len(packages)} packages laid out")
    compiled = [package.root for package in packages if not package.noarch]
    debian.compile_all(source, python.root, compiled)
    clock.lap("byte-compiled")
    return packages


def index(channel: Path) -> None:
    """Write repodata.json for every platform; without the time of indexing, so that it follows from the packages."""
    asyncio.run(index_fs(channel, write_zst=False, write_shards=False, force=True))
    for path in channel.glob("*/repodata.json"):
        content = json.loads(path.read_text())
        for record in content["packages.conda"].values():
            record.pop("indexed_timestamp", None)
        write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(channel / ".tmp", ignore_errors=True)  # the indexer leaves it


def build(suite: Suite, output: Path, *, force: bool = False) -> dict[str, Any]:
    """Build the channel of a suite in `output`, unless it is there already, and return channel.json's content.

    The result replaces the old one at the end, so that a build that is stopped leaves the old one as it was.
    """
    key = inputs_key(suite)
    with locked(output.with_name(f".{output.name}.lock")):
        present = facts(output)
        if present.get("key") == key and not force:
            return present
        clock = Clock()
        prefix = f".{output.name}-work-"
        for stale in output.parent.glob(f"{prefix}*"):  # of a build that was killed
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=output.parent) as folder:
            work = Path(folder)
            packages = _stage(suite, work, clock)
            fresh = work / "channel"
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda package: write_package(package, fresh), packages))
            index(fresh)
            clock.lap("packed and indexed")
            installer = write_installer(suite, fresh, fresh / "installer.sh")
            clock.lap("installer written")
            if output.exists():
                output.rename(work / "old")
            fresh.rename(output)
        result = {
            "suite": suite.name,
            "python": packages[0].version,
            "installer": str(output.resolve() / installer.name),
            "installer_sha256": sha256(output / installer.name),
            "channel_dir": str(output.resolve()),
            "key": key,
            "seconds": round(clock.total, 1),
        }
        write(output / FACTS, json.dumps(result, indent=1) + "\n")
        return result
