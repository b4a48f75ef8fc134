"""The disks of the virtual machine, which are made at the computer's own speed: ``python tests/vm/disks.py`` makes them ahead."""

from __future__ import annotations

import json
import os
from pathlib import Path

import demo
import playbook
from testbed import machine as machines
from testbed import vm as vms
from testbed.common import BUILD, REPOSITORY, digest, extra_cas

NAME = os.environ.get("ANANKE_VM", "limits")
INVENTORY = REPOSITORY / "tests/vm/inventory"


def store() -> Path:
    """The disk with the hub's image, which the collection builds on a test machine unless it was built before."""
    roles = [path for name in ("hub_image", "podman") for path in (REPOSITORY / "roles" / name).rglob("*")]
    code = [path for path in (REPOSITORY / "plugins").rglob("*image*.py")]
    files = sorted(p for p in [*roles, *code, INVENTORY / "group_vars/all.yml", *extra_cas()] if p.is_file())
    channel = json.loads((BUILD / "channel/channel.json").read_text())["key"]
    name = f"store-{digest(channel, *(part for path in files for part in (path.name, path.read_bytes())))}"
    known = vms.DISKS / name / "disk.img"
    if known.exists():
        return known
    builder = machines.up(f"{NAME}-builder")
    try:
        group = "--extra-vars=ananke_machines_group=builders"
        playbook.succeed("machines", INVENTORY, "--tags=podman", group, ANANKE_VM=NAME)
        playbook.succeed("images", INVENTORY, group, ANANKE_VM=NAME)
        return vms.volume_disk(machines.volume_name(builder.container, "ananke"), name)
    finally:
        machines.down(builder.name)


def main() -> None:
    """Make what is missing."""
    demo.channel()
    print(store())
    print(vms.root_disk())


if __name__ == "__main__":
    main()
