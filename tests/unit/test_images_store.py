# SPDX-License-Identifier: GPL-3.0-or-later
"""The store is understood, shared and recorded; the module says what it found and what it would do."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import image_store

REFERENCE = "localhost/ananke/standard:0123456789ab"
ENTRY = {"id": "e" * 64, "digest": "sha256:d", "created": "2026-11-21T12:00:00Z", "names": [REFERENCE, "x:1"]}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store as podman leaves it: readable for root alone."""
    root = tmp_path / "store"
    for folder in ("overlay/layer/diff", f"overlay-images/{ENTRY['id']}", "overlay-layers", "overlay/l"):
        (root / folder).mkdir(parents=True)
    (root / "overlay-images/images.json").write_text(json.dumps([ENTRY, {"id": "f" * 64}]))
    (root / f"overlay-images/{ENTRY['id']}/manifest").write_text("{}")
    (root / "overlay-layers/layers.json").write_text("[]")
    (root / "overlay/layer/diff/secret").write_text("x")
    for path in [root, *root.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    return root


def run_module(store: Path, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run the module as Ansible does on a machine; return its result."""
    tmp = store.parent
    wanted = {
        "images": [{"name": "standard", "reference": REFERENCE}],
        **{
            "store": str(store),
            "records": str(tmp / "records"),
            "builds": str(tmp / "builds"),
            "logs": str(tmp / "logs"),
        },
        **arguments,
        "_ansible_check_mode": check_mode,
        "_ansible_remote_tmp": str(tmp),
    }
    program = (
        "from ansible.module_utils.testing import patch_module_args\n"
        "import json, sys\n"
        "from ansible_collections.ananke.jupyterhub.plugins.modules import hub_image_store\n"
        "with patch_module_args(json.load(sys.stdin)):\n"
        "    hub_image_store.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(wanted),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_images_are_read_by_name(store: Path) -> None:
    images = image_store.read_images(str(store))
    assert sorted(images) == [REFERENCE, "x:1"]
    assert images[REFERENCE].id == ENTRY["id"]
    assert image_store.find(images, "standard", REFERENCE) == image_store.Image(
        "standard", REFERENCE, "e" * 64, "sha256:d", "2026-11-21T12:00:00Z"
    )
    assert image_store.find(images, "standard", "y") is None


def test_an_absent_store_is_empty(tmp_path: Path) -> None:
    assert image_store.read_images(str(tmp_path / "none")) == {}
    assert image_store.share(str(tmp_path / "none")) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"names": ["x"]}]'])
def test_a_damaged_store_is_told(text: str, store: Path) -> None:
    (store / "overlay-images/images.json").write_text(text)
    with pytest.raises(image_store.StoreError, match=r"images\.json"):
        image_store.read_images(str(store))


def test_sharing_opens_metadata_and_no_content(store: Path) -> None:
    foreseen = image_store.share(str(store), dry_run=True)
    assert image_store.share(str(store)) == foreseen
    assert image_store.share(str(store)) == []
    open_files = {
        str(path.relative_to(store)) for path in store.rglob("*") if path.is_file() and path.stat().st_mode & 0o044
    }
    assert open_files == {
        *("storage.lock", "overlay-images/images.lock", "overlay-layers/layers.lock"),
        *("overlay-images/images.json", f"overlay-images/{ENTRY['id']}/manifest", "overlay-layers/layers.json"),
    }
    assert (store / "overlay/layer").stat().st_mode & 0o777 == 0o755
    # what the image itself says about its files is not ours
    assert (store / "overlay/layer/diff").stat().st_mode & 0o777 == 0o700


def test_the_same_content_under_another_name() -> None:
    images = {name: image_store.Image("", name, "i", "", "") for name in ("localhost/ananke/a:1", "docker.io/x/b:2")}
    assert image_store.same_content(images, "localhost/ananke/b:1") == "localhost/ananke/a:1"
    assert image_store.same_content(images, "localhost/ananke/b:2") is None


def test_records(tmp_path: Path) -> None:
    image = image_store.Image("standard", REFERENCE, "i", "d", "c")
    assert image_store.read_record("standard", str(tmp_path)) is None
    image_store.write_record(image, str(tmp_path))
    path = tmp_path / "standard.json"
    assert json.loads(path.read_text()) == {
        "name": "standard",
        "reference": REFERENCE,
        "id": "i",
        "digest": "d",
        "created": "c",
        "previous": [],
    }
    assert image_store.recorded(image, str(tmp_path))
    assert path.stat().st_mode & 0o777 == 0o644
    path.write_text("half of it")
    assert image_store.read_record("standard", str(tmp_path)) is None


def test_the_fullest_file_system_is_told_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    devices = {str(tmp_path / "a"): 1, str(tmp_path / "b"): 2, str(tmp_path / "c"): 1}
    usages = {str(tmp_path / "a"): (9 << 20, 0, 5 << 20), str(tmp_path / "b"): (7 << 20, 0, 0)}
    for path in devices:
        Path(path).mkdir()
    real = os.stat

    def stat(path: str, **options: Any) -> Any:
        return SimpleNamespace(st_dev=devices[path]) if path in devices else real(path, **options)

    monkeypatch.setattr(image_store.os, "stat", stat)
    monkeypatch.setattr(image_store.os.path, "exists", lambda path: path in devices)
    monkeypatch.setattr(
        image_store.shutil,
        "disk_usage",
        lambda path: SimpleNamespace(**dict(zip(("total", "used", "free"), usages[path], strict=True))),
    )
    said = image_store.room([f"{tmp_path}/a/none/at/all", f"{tmp_path}/b", f"{tmp_path}/c"])
    assert said == (f"0 of 7 MiB are free at {tmp_path}/b, 5 of 9 MiB are free at {tmp_path}/a and {tmp_path}/c")


def test_only_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    assert image_store.told("podman failed", "manifest unknown", str(tmp_path), str(tmp_path)) == "podman failed"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "the disk is full" in image_store.told(str(full), "", str(tmp_path), str(tmp_path))


def test_a_record_names_what_was_before(tmp_path: Path) -> None:
    def record(tag: str) -> list[str]:
        image = image_store.Image("a", f"r:{tag}", "i", "d", "c", "layer")
        image_store.write_record(image, str(tmp_path))
        assert image_store.recorded(image, str(tmp_path))
        return image_store.former("a", f"r:{tag}", str(tmp_path))

    assert [record(tag) for tag in "112"] == [[], [], ["r:1"]]
    assert record("3") == ["r:2", "r:1"]
    assert record("2") == ["r:3", "r:1"]
    # as it will be when the definition stands for another image
    assert image_store.former("a", "r:4", str(tmp_path)) == ["r:2", "r:3", "r:1"]
    assert not image_store.recorded(image_store.Image("a", "r:4", "i", "d", "c"), str(tmp_path))
    for number in range(20):
        record(f"1{number}")
    assert len(record("x")) == image_store.HISTORY


def test_the_module_shares_and_records_and_then_changes_nothing(store: Path) -> None:
    foreseen = run_module(store, check_mode=True)
    assert not (store.parent / "records").exists()
    first = run_module(store)
    assert first["changed"]
    assert first["images"] == [
        {
            "state": "present",
            "name": "standard",
            "reference": REFERENCE,
            "id": "e" * 64,
            "digest": "sha256:d",
            "created": ENTRY["created"],
        }
    ]
    assert first["diff"] == {"before": {"standard": ""}, "after": {"standard": REFERENCE}}
    assert {key: foreseen[key] for key in ("changed", "images", "shared")} == {
        key: first[key] for key in ("changed", "images", "shared")
    }
    assert not run_module(store)["changed"]
    assert not run_module(store, check_mode=True)["changed"]


def test_the_module_says_what_is_absent_on_a_virgin_machine(tmp_path: Path) -> None:
    for check_mode in (True, False):
        result = run_module(tmp_path / "none", check_mode)
        assert not result["changed"]
        assert [image["state"] for image in result["images"]] == ["absent"]
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_the_module_foresees_a_second_name(store: Path) -> None:
    other = REFERENCE.replace("standard", "other")
    result = run_module(store, check_mode=True, images=[{"name": "other", "reference": other}])
    assert result["commands"] == [["podman", "tag", REFERENCE, other]]
    assert result["changed"]
    assert result["images"][0]["state"] == "present"
