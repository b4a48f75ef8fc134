"""NVIDIA's GPUs: what is found, what is said, which toolkit fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import nvidia

PROPRIETARY = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.247.01  Mon May  5 22:53:17 UTC 2025\nGCC version:  gcc version 12.2.0\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\nGCC version:\n"
FOUND = nvidia.Look(["0000:01:00.0"], "535.247.01", False, "5.4.2")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, path in {"PCI": "pci", "DRIVER": "version", "MODULES": "modules"}.items():
        monkeypatch.setattr(nvidia, name, str(tmp_path / path))
    for address, vendor, kind in (
        ("0000:00:02.0", "0x8086", "0x030000"),
        ("0000:01:00.0", "0x10de", "0x030200"),
        ("0000:01:00.1", "0x10de", "0x040300"),  # its sound
    ):
        folder = tmp_path / "pci" / address
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    return tmp_path


def test_a_gpu_is_what_computes(machine: Path) -> None:
    (machine / "version").write_text(OPEN)
    assert nvidia.look("podman version 5.4.2\n") == nvidia.Look(["0000:01:00.0"], "580.95.05", False, "5.4.2")


def test_a_machine_without_a_bus_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "PCI", str(tmp_path / "none"))
    assert nvidia.look("").gpus == []


@pytest.mark.parametrize(("text", "version"), [(PROPRIETARY, "535.247.01"), (OPEN, "580.95.05"), ("", "")])
def test_the_driver_tells_its_version(text: str, version: str) -> None:
    assert nvidia.driver(text) == version


@pytest.mark.parametrize(
    ("podman", "toolkit"),
    [
        ("5.4.2", "1.19.1-1"),
        ("5.10.0", "1.19.1-1"),
        ("4.3.1", "1.17.8-1"),
        ("4.9.3", "1.17.8-1"),
        ("5.0.1", "1.17.8-1"),
        ("3.0.1", ""),
        ("", ""),
    ],
)
def test_the_toolkit_fits_podman(podman: str, toolkit: str) -> None:
    assert nvidia.toolkit(podman) == toolkit


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"gpus": []}, "no GPU of NVIDIA"),
        ({"driver": ""}, "apt install"),
        ({"driver": "", "nouveau": True}, "held by the driver nouveau"),
        ({"podman": ""}, "apply the role podman first"),
        ({"podman": "3.0.1"}, "upgrade the machine"),
    ],
)
def test_what_is_missing_is_said(changed: dict[str, object], says: str) -> None:
    found = FOUND._replace(**changed)  # type: ignore[arg-type]  # what a field's type is, only its name tells
    assert not nvidia.ready(found)
    assert says in nvidia.message(found)


def test_nothing_is_missing() -> None:
    assert nvidia.ready(FOUND)
    assert nvidia.message(FOUND) == "NVIDIA GPU at 0000:01:00.0, driver 535.247.01, podman 5.4.2"
