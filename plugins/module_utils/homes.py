# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Homes on file system images of their own: an account that fills its home harms nobody else.

Nothing here hangs on what an earlier run remembered. The names of files say how far it came::

    NAME.img          the home; its mount unit knows only this name
    NAME.img.new      being filled, with an admin's consent to stop hubs for it; filled again from the beginning after a kill
    NAME.img.offline  taken out of its mount unit's reach, to be enlarged; checked and put back after a kill
"""

from __future__ import annotations

import contextlib
import dataclasses
import filecmp
import os
import pwd
import re
import shutil
import time

from ansible_collections.ananke.jupyterhub.plugins.module_utils import ext4, files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.accounts import AccountError, must
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Run

IMAGES = "/var/lib/ananke/homes"
UNITS = "/etc/systemd/system"
WANTS = "multi-user.target.wants"
DROP_IN = "50-ananke-home.conf"
WORK = os.path.join(files.RUN_DIR, "homes")
"""Where images that are being filled are mounted; nobody but root can enter it."""
SKELETON = "/etc/skel"
PATIENCE = 10.0
"""Seconds until the kernel lets go of an image after it was unmounted."""
AGAIN = "ansible-playbook ananke.jupyterhub.grow --limit HUB --extra-vars container_admin_home_offline=true"
COUNT_AGAIN = AGAIN.replace(".grow ", ".hubs ")

# Without a limit of starts: logins while the image is away, or enlargements one after the other, must not use it up.
MOUNT = """\
# Managed by ananke.jupyterhub
[Unit]
Description=Home of {name}
StartLimitIntervalSec=0

[Mount]
What={image}
Where={path}
Type=ext4
Options={options}

[Install]
WantedBy=multi-user.target
"""
# Requires and After: neither the account's hubs nor its logins' services start without the home, or write beneath it.
MANAGER = """\
# Managed by ananke.jupyterhub
[Unit]
RequiresMountsFor={path}
"""


@dataclasses.dataclass(frozen=True)
class Home:
    """The home that is wanted for an account that exists."""

    name: str
    uid: int
    gid: int
    path: str
    size: int
    """Bytes, rounded down to whole groups of blocks, so that each size can be reached exactly."""
    offline: bool = False
    """Whether the account's hubs may be stopped where there is no other way."""
    projects: bool = False
    """Whether it must count the space of projects."""

    @property
    def image(self) -> str:
        """The image's path."""
        return os.path.join(IMAGES, f"{self.name}.img")

    @property
    def unit(self) -> str:
        """The mount unit's name."""
        return unit_name(self.path)

    @property
    def former(self) -> str:
        """Where a home goes whose files were copied onto an image."""
        return os.path.join(os.path.dirname(self.path), f".{os.path.basename(self.path)}.before-image")

    @property
    def manager(self) -> str:
        """The account's systemd manager, which its hubs belong to."""
        return f"user@{self.uid}.service"


def wanted(entry: pwd.struct_passwd, size: int, offline: bool, projects: bool = False) -> Home:
    """The home of an account, with a size that can be reached exactly.

    Raises:
        AccountError: the size is too small for a file system.
    """
    whole = size // ext4.GROUP * ext4.GROUP
    if whole < ext4.SMALLEST:
        raise AccountError(f"container_admin_home_size of {entry.pw_name} is too small: write at least 256M")
    return Home(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, whole, offline, projects)


def unit_name(path: str) -> str:
    """Name of the mount unit for ``path``, as ``systemd-escape --path --suffix=mount`` makes it."""
    text = re.sub(r"[^A-Za-z0-9:_./]", lambda match: f"\\x{ord(match[0]):02x}", path.strip("/"))
    return re.sub(r"^\.", r"\\x2e", text).replace("/", "-") + ".mount"


def shown(size: int) -> str:
    """A size as an admin writes it."""
    return f"{size >> 30}G" if size % (1 << 30) == 0 else f"{size >> 20}M"


def ensure(home: Home, run: Run, check: bool) -> list[str]:
    """Bring the home to the wanted state and return what was (with ``check``: would be) done, in words.

    With ``check`` no command is run.

    Raises:
        AccountError: the home cannot be as it is wanted; says what to do.
    """
    done: list[str] = []
    device = _mounted(home)
    if device is None:
        done += _provide(home, run, check)
        if check and not os.path.exists(home.image):
            return done
    units = _units(home, device)
    stale = [path for path, content in units.items() if files.differs(path, content, 0o644)]
    link = os.path.join(UNITS, WANTS, home.unit)
    if stale or device is None or not os.path.lexists(link):
        done.append(f"{home.unit} {'mounted' if device is None else 'written'}")
        if not check:
            _mount(home, units, run)
            device = _mounted(home)
    done += _grow(home, device, run, check)
    done += _count_projects(home, device, run, check)
    if os.path.isdir(home.former) and pristine(home.former):
        done.append(f"{home.former} removed")
        if not check:
            shutil.rmtree(home.former)
    return done


def hidden(home: Home) -> bool:
    """Whether the home's files cannot be seen: they are on an image that is not mounted."""
    return _mounted(home) is None and any(map(os.path.exists, (home.image, f"{home.image}.offline")))


def overcommitted() -> str | None:
    """What an admin should know when all homes together could outgrow the disk below them."""
    promised = sum(_missing(os.path.join(IMAGES, name)) for name in os.listdir(IMAGES) if name.endswith(".img"))
    free = _free()
    if promised <= free:
        return None
    return (
        f"homes in {IMAGES} may still grow by {shown(promised)}, and the disk below has {shown(free)} free. When it is full, all"
        " these homes become read-only: watch it with df, and enlarge it or move accounts in time"
    )


def pristine(path: str) -> bool:
    """Whether a home holds nothing but what useradd puts there, so that nobody misses it."""
    for folder, folders, names in os.walk(path):
        model = os.path.join(SKELETON, os.path.relpath(folder, path))
        if any(os.path.islink(os.path.join(folder, name)) for name in folders) or not os.path.isdir(model):
            return False
        for name in names:
            ours, theirs = os.path.join(folder, name), os.path.join(model, name)
            if os.path.islink(ours) or not os.path.isfile(ours) or not os.path.isfile(theirs):
                return False
            if not filecmp.cmp(ours, theirs, shallow=False):
                return False
    return True


def mount_at(mountinfo: str, path: str) -> tuple[str, set[str]] | None:
    """Source and options of what is mounted at ``path``, from the text of /proc/self/mountinfo."""
    found = None
    for line in mountinfo.splitlines():
        left, _dash, right = line.partition(" - ")
        fields = left.split()
        if fields[4] == path:
            found = right.split()[1], set(fields[5].split(","))
    return found


def _mounted(home: Home) -> str | None:
    """The loop device by which the home is mounted; None where it is not.

    Raises:
        AccountError: something else is mounted there.
    """
    found = mount_at(files.read("/proc/self/mountinfo") or "", home.path)
    if found is None:
        return None
    source, options = found
    if not os.path.exists(home.image) or ext4.backing_inode(source) != os.stat(home.image).st_ino:
        raise AccountError(
            f"{source} is mounted at {home.path}, not {home.image}: unmount it, or remove container_admin_home_size of {home.name}"
        )
    if not {"nosuid", "nodev"} <= options:
        raise AccountError(
            f"{home.path} is mounted without nosuid and nodev: somebody remounted it;"
            f" stop {home.manager} and {home.unit}, then run again"
        )
    return source


def _units(home: Home, device: str | None) -> dict[str, str]:
    """Path and content of the home's units."""
    options = ["loop", "nosuid", "nodev", "discard", f"resuid={home.uid}"]
    if ext4.read(device or home.image).quota:
        options.append("prjquota")
    mount = MOUNT.format(name=home.name, image=home.image, path=home.path, options=",".join(options))
    return {
        os.path.join(UNITS, f"{home.manager}.d", DROP_IN): MANAGER.format(path=home.path),
        os.path.join(UNITS, home.unit): mount,
    }


def _mount(home: Home, units: dict[str, str], run: Run) -> None:
    os.makedirs(home.path, mode=0o700, exist_ok=True)
    _write_units(units, run)
    hint = f"journalctl --unit={home.unit} says why; run again when that is repaired"
    must(run, ["systemctl", "enable", "--now", home.unit], hint)


def _write_units(units: dict[str, str], run: Run) -> None:
    for path, content in units.items():
        files.folder(os.path.dirname(path))
        files.write(path, content, 0o644)
    must(run, ["systemctl", "daemon-reload"], "look at systemd's journal and run again")


def _provide(home: Home, run: Run, check: bool) -> list[str]:
    """An image that can be mounted, and a place to mount it."""
    aside = f"{home.image}.offline"
    if os.path.exists(aside):
        if not check:
            _fsck(aside, run)
            os.rename(aside, home.image)
        return [f"{home.image} put back after an interrupted enlargement"]
    if not os.path.exists(home.image):
        return _make(home, run, check)
    if os.path.isdir(home.path) and os.listdir(home.path):
        raise AccountError(
            f"{home.image} is not mounted, and {home.path}, where it belongs, holds files: compare them with the image's,"
            f" move them away (mv {home.path} {home.path}.strays) and run again"
        )
    if ext4.read(home.image).errors:
        if not check:
            _fsck(home.image, run)
        return [f"{home.image} checked"]
    return []


def _make(home: Home, run: Run, check: bool) -> list[str]:
    """Copy the home onto a new image; until the very end the home is where it was."""
    source = home.path
    if not os.path.exists(home.path) and os.path.isdir(home.former):
        source = home.former  # a run was killed before the image had its name
    keep = not pristine(source)
    draft = f"{home.image}.new"
    if keep and not (home.offline or os.path.exists(draft)):
        raise AccountError(
            f"the home {home.path} of {home.name} holds files and is not moved onto an image of its own unasked. To move it, run"
            " the same playbook with --limit HUB --extra-vars container_admin_home_offline=true: it stops the account's hubs,"
            f" copies all files and keeps the old home as {home.former}. To leave it as it is, remove container_admin_home_size"
        )
    _refuse_without_room(home, home.size)
    kept = f"; its files are also in {home.former}, remove that when all is well" if keep else ""
    done = [f"home put onto {home.image} of {shown(home.size)}{kept}"]
    if check:
        return done
    if source != home.path:
        os.rename(source, home.path)
    work = os.path.join(WORK, home.name)
    if os.path.ismount(work):
        must(run, ["umount", work], "unmount it and run again")
    files.folder(IMAGES, 0o700)
    os.makedirs(work, mode=0o700, exist_ok=True)
    os.chmod(WORK, 0o700)
    try:
        _allot(draft, home.size)
        _stop(home, run)
        _format(home, draft, work, run)
        hint = f"the home is where it was; make room in {IMAGES} or choose a larger container_admin_home_size, and run again"
        must(run, ["cp", "--archive", "--one-file-system", f"{home.path}/.", f"{work}/"], hint)
        os.chown(work, home.uid, home.gid)
        os.chmod(work, files.mode_of(home.path) or 0o700)
        must(run, ["umount", work], hint)
    except BaseException:
        run(["umount", work])
        os.unlink(draft)
        run(["systemctl", "start", home.manager])
        raise
    os.rmdir(work)
    _sync(draft)
    os.rename(home.path, home.former)
    os.rename(draft, home.image)
    _sync(IMAGES)
    return done


def _format(home: Home, draft: str, work: str, run: Run) -> None:
    """Make a file system with project quotas, or without where the kernel has none, and mount it."""
    mount = ["mount", "-o", "loop,nosuid,nodev", draft, work]
    variants: list[list[str]] = [ext4.QUOTA, []]
    for features in variants:
        must(run, [*ext4.MKFS, *features, draft], "install the package e2fsprogs and run again")
        status, output = run(mount)
        if status == 0:
            os.rmdir(os.path.join(work, "lost+found"))  # e2fsck makes another when it needs one
            return
    raise AccountError(
        f"{draft} cannot be mounted: {output.strip()}; the machine needs loop devices (modprobe loop) and ext4, or remove"
        f" container_admin_home_size of {home.name}"
    )


def _allot(draft: str, size: int) -> None:
    """An empty sparse file; what a run that was killed has left in it goes."""
    handle = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    os.ftruncate(handle, size)
    os.close(handle)


def _grow(home: Home, device: str | None, run: Run, check: bool) -> list[str]:
    """Enlarge the file system; ``device`` is None with ``check`` where it is not mounted."""
    now = ext4.read(device or home.image).size
    if now == home.size:
        return []
    if now > home.size:
        raise AccountError(
            f"the home of {home.name} has {shown(now)} and is not shrunk to {shown(home.size)}, which could lose files:"
            f" set container_admin_home_size to {shown(now)} or more"
        )
    _refuse_without_room(home, home.size - os.stat(home.image).st_blocks * 512)
    done = [f"home enlarged from {shown(now)} to {shown(home.size)}"]
    if check or device is None:
        return done
    _extend(home.image, home.size)
    must(run, ["losetup", "--set-capacity", device], "run again")
    status, output = run(["resize2fs", device, _kibibytes(home)])
    if status:
        if not home.offline:
            run(["systemctl", "start", home.manager])  # a run may have been killed after it stopped it
            raise AccountError(
                f"the kernel does not enlarge the home of {home.name} while it is in use ({' '.join(output.split())}). Its hubs"
                f" go on with {shown(now)}. To enlarge it while they are stopped, about a minute: {AGAIN}"
            )
        _change_offline(home, ["resize2fs"], [_kibibytes(home)], run)
        done.append("the account's hubs were stopped meanwhile")
    return done


def _count_projects(home: Home, device: str | None, run: Run, check: bool) -> list[str]:
    """Have a file system count projects that was made without; ``device`` is None with ``check`` where it is not mounted."""
    if not home.projects or ext4.read(device or home.image).quota:
        return []
    if not home.offline:
        raise AccountError(
            f"the home of {home.name} was made where nothing counted projects, so its hubs' users cannot have quotas yet. To change that"
            f" while its hubs are stopped, about a minute: {COUNT_AGAIN}"
        )
    if not check:
        _change_offline(home, ext4.COUNT, [], run)
    return ["home counts projects; the account's hubs were stopped meanwhile"]


def _change_offline(home: Home, command: list[str], rest: list[str], run: Run) -> None:
    """Change the image by a command while it is not mounted, under a name that nobody else can mount."""
    aside = f"{home.image}.offline"
    _stop(home, run)
    hint = f"end what uses {home.path} (fuser --mount --verbose {home.path}) and run again"
    try:
        must(run, ["systemctl", "stop", home.unit], hint)
        _wait_for_release(home, run)
        os.rename(home.image, aside)
        _fsck(aside, run)
        status, output = run([*command, aside, *rest])
        if status:
            _fsck(aside, run)
        os.rename(aside, home.image)
        _sync(IMAGES)
        if status:
            raise AccountError(f"{command[0]} failed for {home.image}: {output.strip()}; all files are as they were")
    finally:
        if os.path.exists(home.image):
            _write_units(_units(home, None), run)  # how it is mounted depends on what it counts
            run(["systemctl", "start", home.unit])
            run(["systemctl", "start", home.manager])
    if _mounted(home) is None:
        raise AccountError(f"{home.unit} does not start again: journalctl --unit={home.unit} says why; then run again")


def _wait_for_release(home: Home, run: Run) -> None:
    """Until no loop device holds the image: it could still be mounted where another mount namespace keeps it."""
    deadline = time.monotonic() + PATIENCE
    while must(run, ["losetup", "--noheadings", "--output=NAME", "--associated", home.image], "run again").strip():
        if time.monotonic() > deadline:
            raise AccountError(
                f"{home.image} is unmounted and still in use, by a service or container with mounts of its own:"
                " grep the home in /proc/*/mountinfo, end that one, or reboot, and run again"
            )
        time.sleep(0.2)


def _stop(home: Home, run: Run) -> None:
    """Stop the account's hubs, and refuse while somebody is logged in."""
    must(run, ["systemctl", "stop", home.manager], "look at its journal and run again")
    busy = _processes(home.uid)
    if busy:
        run(["systemctl", "start", home.manager])
        raise AccountError(
            f"{home.name} has processes beside its hubs ({', '.join(busy[:5])}): ask for a logout, or end them with"
            f" loginctl terminate-user {home.name}, and run again"
        )


def _processes(uid: int) -> list[str]:
    """Processes of an account: number and name."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # not the owner of /proc/PID, which is root for what has changed its user
            owner = re.search(
                r"^Name:\t(.*)\n(?s:.*)^Uid:\t(\d+)", files.read(f"/proc/{pid}/status") or "", re.MULTILINE
            )
            if owner and int(owner[2]) == uid:
                found.append(f"{pid} {owner[1]}")
    return found


def _fsck(path: str, run: Run) -> None:
    status, output = run(["e2fsck", "-f", "-p", path])
    if status > 1:  # 1: errors were corrected
        raise AccountError(
            f"e2fsck found errors in {path} that it does not correct unasked: {output.strip()}. Copy the file, run"
            f" e2fsck -f {path}, look at what it says, and run the playbook again, which puts the home back"
        )


def _refuse_without_room(home: Home, needed: int) -> None:
    free = _free()
    if needed > free:
        raise AccountError(
            f"the home of {home.name} with {shown(home.size)} could need {shown(needed)} more in {IMAGES}, which has"
            f" {shown(free)} free: enlarge that disk, or set a smaller container_admin_home_size"
        )


def _free() -> int:
    folder = IMAGES
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _missing(image: str) -> int:
    """Bytes that an image may still take from the disk."""
    status = os.stat(image)
    return max(0, status.st_size - status.st_blocks * 512)


def _extend(image: str, size: int) -> None:
    with open(image, "r+b") as stream:
        if os.fstat(stream.fileno()).st_size < size:
            stream.truncate(size)
            os.fsync(stream.fileno())


def _kibibytes(home: Home) -> str:
    return f"{home.size >> 10}K"


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    os.fsync(handle)
    os.close(handle)
