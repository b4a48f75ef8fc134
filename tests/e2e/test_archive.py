"""An image from an archive that `podman save` has written."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from facts import ROOT, Demo
from replace_image import PODMAN, RECORDS, derive, record_of, share_store

import playbook

INVENTORY = ROOT / "inventories/demo"
REFERENCE = "localhost/ananke-e2e:archived"


@dataclass(frozen=True)
class Archive:
    """The hubs' image with a label, saved on the controller and no longer in the machine's store."""

    path: Path
    checksum: str
    image_id: str

    def definitions(self, checksum: str) -> tuple[str, ...]:
        """Options that add it to the standard image."""
        loaded = {"name": "loaded", "source": "load", "archive": str(self.path), "checksum": checksum}
        images = {"hub_image_definitions": [{"name": "standard"}, loaded]}
        return ("--tags", "hub_image,hub", "--extra-vars", json.dumps(images))


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
    failed = playbook.run("images", INVENTORY, *archive.definitions("0" * 64))
    assert failed.status != 0
    assert f"is {archive.checksum}, declared is {'0' * 64}: correct either" in " ".join(failed.output.split())
    assert failed.changed == 0
    assert demo.machine.as_root(f"ls {RECORDS}").stdout.split() == ["standard.json"]


def test_a_hub_runs_from_an_archive(archive: Archive, demo: Demo, tmp_path: Path) -> None:
    machine, sandbox = demo.machine, demo.hubs["sandbox"]
    moved = tmp_path / "hosts.yml"
    moved.write_text("hubs: {hosts: {sandbox: {hub_image: loaded}}}\n")
    options = ("--inventory", str(moved), *archive.definitions(archive.checksum))
    try:
        outcome = playbook.succeed("site", INVENTORY, *options)
        assert {name for name, host in outcome.recap.items() if host.changed} == {"demo", "sandbox"}
        assert sandbox.image_id() == archive.image_id
        sandbox.wait_healthy()
        assert playbook.succeed("site", INVENTORY, *options).changed == 0
    finally:
        playbook.succeed("site", INVENTORY, "--tags", "hub_image,hub")
        machine.as_root(
            f"{PODMAN} image rm $({PODMAN} images --quiet localhost/ananke/loaded); rm {RECORDS}/loaded.json"
        )
        share_store(machine)
