# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's GPUs of a machine: which there are, whether a driver runs, and which toolkit fits podman."""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files

PCI = "/sys/bus/pci/devices"
DRIVER = "/proc/driver/nvidia/version"
MODULES = "/sys/module"
VENDOR = "0x10de"
CLASSES = ("0x0300", "0x0302")
"""VGA and 3D controllers; the sound of a graphics card has another class."""

TOOLKITS = (((5, 4), "1.19.1-1"), ((4, 3), "1.17.8-1"))
"""Oldest podman, and the newest toolkit whose CDI specification it reads: 0.7.0 from 1.19 on, 0.5.0 before.

1.17.8 is the first without CVE-2025-23266.
"""

INSTALL = (
    "On Debian: add contrib, non-free and non-free-firmware to its sources, `apt install linux-headers-amd64 nvidia-kernel-dkms nvidia-driver-cuda"
    " nvidia-modprobe`, reboot, and run again"
)


class Look(t.NamedTuple):
    """What a machine has."""

    gpus: list[str]
    """Addresses on the PCI bus."""
    driver: str
    """Version of the driver that runs; empty for none."""
    nouveau: bool
    """Whether the free driver holds the GPUs, which containers cannot use for computing."""
    podman: str
    """Version of podman; empty for none."""


def look(podman: str) -> Look:
    """What this machine has.

    :param podman: output of ``podman --version``, empty where there is none
    """
    version = re.search(r"\d+(\.\d+)+", podman)
    return Look(
        _gpus(), driver(files.read(DRIVER) or ""), os.path.isdir(f"{MODULES}/nouveau"), version[0] if version else ""
    )


def driver(text: str) -> str:
    """The version in ``/proc/driver/nvidia/version``."""
    match = re.search(r"^NVRM version:.*?\s(\d+\.\d+(\.\d+)?)\s", text, re.MULTILINE)
    return match[1] if match else ""


def toolkit(podman: str) -> str:
    """The newest version of the toolkit that is known to fit this podman, empty where none does."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", podman)[:2])
    return next((version for oldest, version in TOOLKITS if numbers >= oldest), "")


def message(found: Look) -> str:
    """What the machine has, and what to do where containers cannot use it."""
    if not found.gpus:
        return (
            "no GPU of NVIDIA. If it has one, the PCI bus does not show it (`lspci -d 10de:`): look at its seat, the firmware's settings,"
            " or the host that should pass it through"
        )
    seen = f"NVIDIA GPU at {', '.join(found.gpus)}"
    if not found.driver and found.nouveau:
        return f"{seen}, held by the driver nouveau, which cannot compute in containers. {INSTALL}"
    if not found.driver:
        return f"{seen}, and no driver that runs. {INSTALL}"
    if not found.podman:
        return f"{seen}, and no podman: apply the role podman first"
    if not toolkit(found.podman):
        return f"{seen}, and podman {found.podman}, which reads no CDI specifications: upgrade the machine to Debian 12 or later"
    return f"{seen}, driver {found.driver}, podman {found.podman}"


def ready(found: Look) -> bool:
    """Whether containers could use the GPUs."""
    return bool(found.gpus and found.driver and toolkit(found.podman))


def _gpus() -> list[str]:
    addresses = sorted(os.listdir(PCI)) if os.path.isdir(PCI) else []
    return [
        address
        for address in addresses
        if (files.read(f"{PCI}/{address}/vendor") or "").strip() == VENDOR
        and (files.read(f"{PCI}/{address}/class") or "").startswith(CLASSES)
    ]
