"""File systems that fill up: what a hub, or the image store, writes goes to a small one for a while."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from facts import Hub, Machine

STORE = "/var/lib/ananke/store"
LAYERS = f"{STORE}/overlay"
ASIDE = "/run/ananke-narrow"
DISK = "/var/lib/ananke/narrow.img"
MAKE = f"truncate --size={{size}} {DISK} && mkfs.ext4 -q -F -m 0 -I 256 {DISK} && mkdir -p {ASIDE}"
PARENT = f"$(findmnt --noheadings --output TARGET --target {STORE})"
# the layers that are there stay where they are, and seen; new ones go to the small file system. Hubs' namespaces must not learn
# of it: they would keep these mounts
NARROW_STORE = f"""
set -e
mount --make-private {PARENT}
{MAKE.format(size="16M")}
mount --bind {LAYERS} {ASIDE}
mount --make-private {ASIDE}
mount -o loop {DISK} {LAYERS}
rmdir {LAYERS}/lost+found
cd {ASIDE}
for one in $(ls -A); do
    if [ -d $one ]; then mkdir {LAYERS}/$one && mount --bind $one {LAYERS}/$one; else cp -p $one {LAYERS}/; fi
done
"""
WIDE_STORE = f"""
while grep ' {LAYERS} ' /proc/self/mounts | tail -n 1 | grep -q '^/dev/loop'; do umount --lazy {LAYERS} || break; done
! mountpoint -q {ASIDE} || umount --lazy {ASIDE}
rm -f {DISK}
[ ! -d {ASIDE} ] || rmdir {ASIDE}
mount --make-shared {PARENT}
"""
NARROW_HUB = f"""
set -e
size=$(du -sm {{folder}} | cut -f 1)
{MAKE.format(size="$((size + size / 4 + 48))M")}
mount -o loop,nosuid,nodev {DISK} {ASIDE}
rmdir {ASIDE}/lost+found
cp -a {{folder}}/. {ASIDE}
umount {ASIDE}
mount -o loop,nosuid,nodev {DISK} {{folder}}
"""
# what the hub has written meanwhile is kept
WIDE_HUB = f"""
set -e
if mountpoint -q {{folder}}; then
    rm -rf {{folder}}/ballast {{folder}}.wide
    cp -a {{folder}} {{folder}}.wide
    umount --lazy {{folder}}
    rm -rf {{folder}}
    mv {{folder}}.wide {{folder}}
fi
rm -f {DISK}
[ ! -d {ASIDE} ] || rmdir {ASIDE}
"""


# the namespace that the account's containers share ends as well, as it would keep the mounts that it knows
STOP = "systemctl --user stop {unit} && podman system migrate"


@contextmanager
def narrow_store(machine: Machine) -> Iterator[None]:
    """The image store has room for 13 MiB more."""
    try:
        machine.as_root(NARROW_STORE)
        yield
    finally:
        machine.as_root(WIDE_STORE)


class NarrowHub:
    """A hub whose folder, with its database and all homes, is on a file system of its own with little room."""

    def __init__(self, hub: Hub) -> None:
        self.hub, self.folder = hub, shlex.quote(hub.folder)

    def fill(self) -> None:
        """Take all room, to the last byte."""
        self.hub.admin(f"head -c 1G /dev/zero >{self.folder}/ballast; sync", check=False)
        assert self.hub.admin(f"head -c 100000 /dev/zero >{self.folder}/more", check=False).returncode, "there is room"
        self.hub.admin(f"rm {self.folder}/more")

    def clear(self) -> None:
        """Give the room back."""
        self.hub.admin(f"rm {self.folder}/ballast")


@contextmanager
def narrow_hub(hub: Hub) -> Iterator[NarrowHub]:
    """Make a hub's folder narrow, and wide again with what was written meanwhile."""
    narrow = NarrowHub(hub)
    try:
        hub.admin(STOP.format(unit=hub.unit), timeout=300)
        hub.machine.as_root(NARROW_HUB.format(folder=narrow.folder), timeout=300)
        hub.admin(f"systemctl --user start {hub.unit}", timeout=300)
        hub.wait_healthy()
        yield narrow
    finally:
        hub.admin(STOP.format(unit=hub.unit), timeout=300)
        hub.machine.as_root(WIDE_HUB.format(folder=narrow.folder), timeout=300)
        hub.admin(f"systemctl --user start {hub.unit}", timeout=300)
        hub.wait_healthy()
