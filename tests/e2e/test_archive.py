"""An image from an archive that `podman save` has written."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from facts import ROOT, Demo
from replace_image import PODMAN, RECORDS, check_move, definitions, derive, record_of, share_store

import playbook

INVENTORY = ROOT / "inventories/demo"
REFERENCE = "localhost/ananke-e2e:archived"


@dataclass(frozen=True)
class Archive:
    """The hubs' image with a label, saved on the controller and no longer in the machine's store."""

    path: Path
    checksum: str
    image_id: str

    def definition(self, checksum: str) -> dict[str, str]:
        """The image definition that loads it."""
        return {"name": "loaded", "source": "load", "archive": str(self.path), "checksum": checksum}


@pytest.fixture(scope="module")
def archive(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    machine, path = demo.machine, tmp_path_factory.mktemp("archive") / "hub.tar"
    _path, record = record_of(machine, demo.hubs["sandbox"].image_id())
    image_id = derive(machine, record["id"], REFERENCE)
    machine.as_root(
        f"{PODMAN} save --quiet --output /root/hub.tar {REFERENCE} && {PODMAN} image rm {REFERENCE}", timeout=500
    )
    share_store(machine)
    fetch = [sys.executable, "-m", "testbed", "machine", "exec", machine.name, "cat", "/root/hub.tar"]
    with path.open("wb") as stream:
        subprocess.run(fetch, cwd=ROOT, stdout=stream, check=True, timeout=500)
    machine.as_root("rm /root/hub.tar")
    with path.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    yield Archive(path, checksum, image_id)
    path.unlink()


def test_an_archive_with_another_checksum_is_refused(archive: Archive, demo: Demo) -> None:
    failed = playbook.run("images", INVENTORY, *definitions(archive.definition("0" * 64)))
    assert failed.status != 0
    assert f"is {archive.checksum}, declared is {'0' * 64}: correct either" in " ".join(failed.output.split())
    assert failed.changed == 0
    assert demo.machine.as_root(f"ls {RECORDS}").stdout.split() == ["standard.json"]


def test_a_hub_runs_from_an_archive(archive: Archive, demo: Demo, tmp_path: Path) -> None:
    check_move(demo.hubs["sandbox"], archive.definition(archive.checksum), archive.image_id, tmp_path)
