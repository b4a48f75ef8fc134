# SPDX-License-Identifier: GPL-3.0-or-later
"""The job leaves a result whatever happens, and records only what is there."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# as on a machine, where the two files lie side by side
sys.path.append(str(ROOT / "plugins" / "module_utils"))

import image_job  # noqa: E402
import image_store  # noqa: E402

REFERENCE = "localhost/ananke/standard:0123456789ab"
ENTRY = {"id": "e" * 64, "digest": "sha256:d", "created": "2026-11-21T12:00:00Z", "names": [REFERENCE]}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    for folder in ("overlay", "overlay-images", "overlay-layers"):
        (root / folder).mkdir(parents=True)
    (root / "overlay-images/images.json").write_text(json.dumps([ENTRY]))
    return root


def job(folder: Path, store: Path, **more: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "archive").write_bytes(b"image")
    described = {
        **{"source": "load", "archive": "archive", "checksum": "0" * 64, "environment": {}},
        **{
            "names": ["standard"],
            "references": [REFERENCE],
            "store": str(store),
            "records": str(folder.parent / "records"),
        },
        **more,
    }
    (folder / "job.json").write_text(json.dumps(described))
    return folder


def test_an_archive_with_another_checksum_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image_job, "LOCK", str(tmp_path / "run" / "lock"))
    monkeypatch.setattr(image_job, "podman", lambda *_arguments, **_options: pytest.fail("podman was called"))
    folder = job(tmp_path / "job", tmp_path / "store")
    assert image_job.main([str(folder)]) == 1
    result = json.loads((folder / "result.json").read_text())
    assert hashlib.sha256(b"image").hexdigest() in result["error"]
    assert sorted(path.name for path in folder.iterdir()) == ["result.json"]
    assert "==> Failed" in capsys.readouterr().out
    assert not (tmp_path / "records").exists()


def test_a_job_whose_image_is_there_only_records_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_job, "LOCK", str(tmp_path / "run" / "lock"))
    monkeypatch.setattr(image_job, "podman", lambda *_arguments, **_options: pytest.fail("podman was called"))
    folder = job(tmp_path / "job", store)
    assert image_job.main([str(folder)]) == 0
    assert json.loads((tmp_path / "records" / "standard.json").read_text())["id"] == ENTRY["id"]
    assert image_store.share(str(store)) == []


def test_a_job_that_stops_leaves_a_result(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    assert image_job.main([str(tmp_path)]) == 1
    assert json.loads((tmp_path / "result.json").read_text())["rc"] == 1


@pytest.mark.parametrize(
    "said", ["write /opt/x: no space left on device", "OSError: [Errno 28] No space left on device"]
)
def test_a_job_that_met_a_full_disk_says_so(
    said: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise image_store.StoreError("podman load failed with status 125")

    monkeypatch.setattr(image_job, "LOCK", str(tmp_path / "run" / "lock"))
    monkeypatch.setattr(image_job, "podman", fail)
    log = tmp_path / "image-standard.log"
    log.write_text(f"==> Loading the archive\nError: {said}\n")
    checksum = hashlib.sha256(b"image").hexdigest()
    more = {"references": ["localhost/ananke/standard:aaaaaaaaaaaa"], "checksum": checksum, "log": str(log)}
    folder = job(tmp_path / "builds/key", store, **more)
    assert image_job.main([str(folder)]) == 1
    error = json.loads((folder / "result.json").read_text())["error"]
    assert error.startswith("podman load failed with status 125: the disk is full")
    assert f"MiB are free at {store}/overlay" in error
    assert f"{tmp_path}/builds/storage.conf podman image rm" in error


@pytest.mark.parametrize(
    ("errors", "remedy"),
    [
        (
            'Get "https://r.example.org/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority',
            "/etc/containers/certs.d/r.example.org/ca.crt",
        ),
        ("x509: certificate is valid for a, not r.example.org", "not valid for r.example.org"),
        ("reading manifest sha256:0 in r.example.org/x: manifest unknown", "no image with this digest"),
        ("dial tcp 192.0.2.1:443: connect: connection refused", "nothing answers at r.example.org"),
        ("something else", "see the output"),
    ],
)
def test_a_failed_pull_says_what_to_do(errors: str, remedy: str) -> None:
    assert remedy in image_job.pull_remedy(errors, "r.example.org")
