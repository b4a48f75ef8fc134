"""A virtual machine with one hub, made by the collection; see docs/developers/vm.md."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent)]

from disks import INVENTORY, NAME, store  # noqa: E402
from guest import Guest  # noqa: E402

import demo  # noqa: E402
import playbook  # noqa: E402
from testbed import vm as vms  # noqa: E402
from testbed.client import HARDENED  # noqa: E402
from testbed.common import BUILD  # noqa: E402

ROLES = os.environ.get("ANANKE_VM_ROLES", "auditing,baseline,cgroups,podman,quotas")
"""What is applied to the machine: by default what needs a kernel, and what its hub needs; "all" takes minutes more."""
SWAP = """
dd if=/dev/zero of=/swapfile bs=1M count=256 status=none
chmod 600 /swapfile
mkswap -q /swapfile
echo '/swapfile none swap defaults 0 0' >>/etc/fstab
swapon /swapfile
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is seen before the reboot comes first, in whatever file it is; last what ends everybody's servers."""
    items.sort(key=lambda item: ("rebooted" in getattr(item, "fixturenames", ())) + ("power_is_cut" in item.name))


@dataclass(frozen=True)
class Applied:
    """A machine to which the collection was applied."""

    guest: Guest
    machines: playbook.Outcome
    hubs: playbook.Outcome


@pytest.fixture(scope="session")
def seconds() -> Iterator[dict[str, float]]:
    """How long the parts took, printed at the end and kept in build/vm.json."""
    times: dict[str, float] = {}
    yield times
    (BUILD / "vm.json").write_text(json.dumps(times, indent=2) + "\n")


class Clock:
    """Times the parts one after the other."""

    def __init__(self, times: dict[str, float]) -> None:
        self.times = times
        self.began = time.monotonic()

    def lap(self, part: str) -> None:
        """A part has ended."""
        now = time.monotonic()
        self.times[part], self.began = round(now - self.began, 1), now
        print(f"{self.times[part]:7.1f} s  {part}", flush=True)


@pytest.fixture(scope="session")
def applied(seconds: dict[str, float]) -> Iterator[Applied]:
    """The collection on a virtual machine, as an admin applies it."""
    vms.down(NAME)
    try:
        clock = Clock(seconds)
        demo.channel()
        disks = {"/var/lib/ananke": str(store())}
        clock.lap("hub image")
        vms.root_disk()
        clock.lap("disk")
        guest = Guest(vms.up(NAME, publish=[f":{HARDENED}"], disks=disks))
        guest.root(SWAP)
        selected = []
        if ROLES != "all":
            # the role reverse_proxy would make it; and of auditing, what needs a kernel
            guest.root("mkdir -p /etc/nginx/ananke/locations.d")
            selected = [f"--tags={ROLES}", "--extra-vars={auditing_tools: [acct, auditd]}"]
        clock.lap("boot")
        on_machine = playbook.succeed("machines", INVENTORY, *selected, ANANKE_VM=NAME)
        clock.lap("machines.yml")
        on_hub = playbook.succeed("hubs", INVENTORY, ANANKE_VM=NAME)
        clock.lap("hubs.yml")
        yield Applied(guest, on_machine, on_hub)
    finally:
        vms.down(NAME)
        demo.release()


@pytest.fixture(scope="session")
def rebooted(applied: Applied, seconds: dict[str, float]) -> Guest:
    """The machine after a reboot; nobody has touched its hub since."""
    clock = Clock(seconds)
    applied.guest.open_api()
    vms.reboot(NAME)
    clock.lap("reboot")
    applied.guest.wait_healthy()
    clock.lap("hub after the reboot")
    return applied.guest


@pytest.fixture(scope="session")
def students(rebooted: Guest, seconds: dict[str, float]) -> Guest:
    """The same with servers of two students."""
    clock = Clock(seconds)
    rebooted.start("ualice", "ubob")
    clock.lap("two servers")
    return rebooted
