#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas of hub users inside a container admin's home: ext4's projects, which do not depend on owners.

ananke-quotas            what each hub user has and may have
ananke-quotas --apply    put the settings in force now
ananke-quotas --serve    the same, and again whenever a home, a mount or a setting appears

Each hub user's home has a project of its own, whose number what is made inside inherits. The folder around the homes has one, too:
a home that has just appeared counts there, with the limit of one user, until it gets its own.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import itertools
import json
import os
import select
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/ananke/quotas")
"""HUB.json for each hub with a quota; root writes them, by the module container_admin."""
TABLE = Path("/var/lib/ananke/quotas/projects.json")
LOCK = TABLE.with_name("lock")
FIRST = 1000
"""The first number of a project; those below are left to people."""
MOST_HOMES = 20_000
"""Homes of one hub that get a project. Whoever makes more folders there shares the limit of newcomers."""
MOST_DEPTH = 1000
"""Folders inside each other that are followed; each holds two file descriptors."""
FILE_BYTES = 8192
"""One file or folder may be made for each that many bytes; the file system itself has room for one per 16 KiB."""
REST = 0.05
"""Seconds between two looks, so that nobody keeps this busy by making folders."""
NEWCOMERS = ""
"""What stands for the folder around the homes where a user's name would be."""

# Numbers of the kernel's interface; sources: openat2(2), quotactl(2), linux/fs.h, linux/dqblk_*.h, inotify(7)
SYS_OPENAT2, SYS_QUOTACTL_FD = 437, 443
RESOLVE = 0x01 | 0x02 | 0x04 | 0x08  # no other mount, no magic links, no links, nothing above
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
FSXATTR = struct.Struct("=IIIII8x")
PROJINHERIT = 0x200
Q_GETQUOTA, Q_SETQUOTA, PRJQUOTA = 0x800007, 0x800008, 2
DQBLK = struct.Struct("=QQQQQQQQI4x")
QIF_LIMITS = 0x1 | 0x4
DQ_BLOCK = 1024
IN_CREATE, IN_MOVED_TO, IN_DELETE = 0x100, 0x80, 0x200
IN_CLOSE_WRITE, IN_ONLYDIR = 0x8, 0x01000000
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EACCES, errno.ESTALE)

_libc = ctypes.CDLL(None, use_errno=True)


class QuotaError(Exception):
    """Why quotas are not in force, and what to do."""


def _call(function: Any, *arguments: Any) -> int:
    result = int(function(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def open_beneath(folder: int, path: str, flags: int) -> int:
    """Open ``path`` below a folder, following no links and crossing no mounts: the account owns what is there."""
    how = struct.pack("=QQQ", flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0, RESOLVE)
    name = os.fsencode(path)
    return _call(_libc.syscall, SYS_OPENAT2, folder, name, how, ctypes.c_size_t(len(how)))


@contextlib.contextmanager
def folder_beneath(folder: int, path: str) -> Iterator[int]:
    """The same for a folder, closed again."""
    handle = open_beneath(folder, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


def project(handle: int) -> tuple[int, bool]:
    """Project of a file or folder, and whether what is made inside inherits it."""
    attributes = bytearray(FSXATTR.size)
    fcntl.ioctl(handle, FS_IOC_FSGETXATTR, attributes)
    flags, _extents, _count, number, _copy = FSXATTR.unpack(attributes)
    return number, bool(flags & PROJINHERIT)


def set_project(handle: int, number: int, inherit: bool) -> None:
    """Give a file or folder to a project; nothing is written where it belongs there already."""
    attributes = bytearray(FSXATTR.size)
    fcntl.ioctl(handle, FS_IOC_FSGETXATTR, attributes)
    flags, extents, count, former, copy = FSXATTR.unpack(attributes)
    wanted = flags | PROJINHERIT if inherit else flags & ~PROJINHERIT
    if (former, flags) != (number, wanted):
        fcntl.ioctl(handle, FS_IOC_FSSETXATTR, FSXATTR.pack(wanted, extents, count, number, copy))


def give(home: int, number: int) -> int:
    """Give a home and all in it to a project; returns how many things were left out because they went away or lie too deep.

    A folder is given before it is read, so what is made meanwhile inherits: nothing is missed.
    """
    left = 0
    set_project(home, number, inherit=True)
    stack = [(os.dup(home), os.scandir(home))]
    try:
        while stack:
            folder, entries = stack[-1]
            entry = next(entries, None)
            if entry is None:
                stack.pop()
                os.close(folder)
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if not is_folder and not entry.is_file(follow_symlinks=False):
                continue  # links, sockets and pipes take no space to speak of
            try:
                handle = open_beneath(folder, entry.name, os.O_RDONLY | (os.O_DIRECTORY if is_folder else 0))
            except OSError as error:
                if error.errno not in GONE:
                    raise
                left += 1
                continue
            keep = False
            try:
                if is_folder or stat.S_ISREG(os.fstat(handle).st_mode):
                    set_project(handle, number, inherit=is_folder)
                keep = is_folder and len(stack) < MOST_DEPTH
                left += is_folder and not keep
                if keep:
                    stack.append((handle, os.scandir(handle)))
            finally:
                if not keep:
                    os.close(handle)
    finally:
        for folder, entries in stack:
            entries.close()
            os.close(folder)
    return left


def usage(handle: int, number: int) -> tuple[int, int]:
    """Limit and use of a project in bytes, on the file system of an open file."""
    block = bytearray(DQBLK.size)
    _quotactl(Q_GETQUOTA, handle, number, block)
    hard, _soft, used, *_rest = DQBLK.unpack(block)
    return hard * DQ_BLOCK, used


def limit(handle: int, number: int, size: int) -> bool:
    """Limit a project to so many bytes, 0 for no limit; returns whether it had another limit."""
    block = bytearray(DQBLK.size)
    _quotactl(Q_GETQUOTA, handle, number, block)
    before = DQBLK.unpack(block)
    blocks, files = size // DQ_BLOCK, size // FILE_BYTES
    if (before[0], before[1], before[3], before[4]) == (blocks, 0, files, 0):
        return False
    _quotactl(Q_SETQUOTA, handle, number, bytearray(DQBLK.pack(blocks, 0, 0, files, 0, 0, 0, 0, QIF_LIMITS)))
    return True


def _quotactl(command: int, handle: int, number: int, block: bytearray) -> None:
    buffer = (ctypes.c_char * len(block)).from_buffer(block)
    # signed: the command's highest bit is set
    packed = ctypes.c_int((command << 8 | PRJQUOTA) & 0xFFFFFFFF)
    _call(_libc.syscall, SYS_QUOTACTL_FD, handle, packed, ctypes.c_uint(number), buffer)


@dataclass(frozen=True)
class Hub:
    """One hub with a quota."""

    name: str
    home: str
    """Where the account's own file system is mounted."""
    size: int
    """Bytes of each hub user."""
    users: dict[str, int] = field(default_factory=dict)
    """Bytes of hub users who have another limit."""

    @property
    def folder(self) -> str:
        """The folder of the homes, below the account's."""
        return f"hubs/{self.name}/private"

    def allowed(self, user: str) -> int:
        """Bytes of one hub user."""
        return self.users.get(user, self.size)


def settings(folder: Path) -> list[Hub]:
    """All hubs with a quota; a file that cannot be read is reported and does not end the others' quotas."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            known = json.loads(path.read_text())
            users = {str(name): int(size) for name, size in known["users"].items()}
            found.append(Hub(path.stem, str(known["home"]), int(known["size"]), users))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            print(f"{path} cannot be read ({error}): run playbooks/hubs.yml again, which writes it", file=sys.stderr)
    return found


@dataclass
class Projects:
    """Numbers of projects: of one file system's hubs and their users. A number is never given twice."""

    following: int = FIRST
    hubs: dict[str, dict[str, int]] = field(default_factory=dict)

    def number(self, hub: str, user: str) -> int:
        """The project of a user, a new one if need be."""
        users = self.hubs.setdefault(hub, {})
        if user not in users:
            users[user] = self.following
            self.following += 1
        return users[user]


def load(path: Path) -> dict[str, Projects]:
    """The table, by file system. A table that is lost or damaged costs new numbers, which all homes then get."""
    try:
        return {
            str(home): Projects(max(FIRST, int(known["next"])), {h: dict(u) for h, u in known["hubs"].items()})
            for home, known in json.loads(path.read_text()).items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"{path} is damaged ({error}); all homes get new numbers", file=sys.stderr)
        # beyond all numbers that may still be in use on disk
        return {hub.home: Projects(int(time.time())) for hub in settings(SETTINGS)}


def save(path: Path, table: dict[str, Projects]) -> None:
    """Write the table; what was there before, or all of it, is there after a crash."""
    content = {home: {"next": one.following, "hubs": one.hubs} for home, one in sorted(table.items())}
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".projects-")
    with os.fdopen(handle, "w") as stream:
        json.dump(content, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, path)


@contextlib.contextmanager
def own_file_system(home: str) -> Iterator[int]:
    """The open folder of an account's own file system.

    Raises:
        QuotaError: it is not mounted, or counts no projects.
    """
    try:
        handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise QuotaError(f"{home}: {error.strerror}: look whether its mount unit is active") from None
    try:
        if os.fstat(handle).st_dev == os.stat(os.path.dirname(home)).st_dev:
            raise QuotaError(f"{home} is not mounted: look at systemctl status of its mount unit")
        try:
            usage(handle, FIRST)
        except OSError as error:
            raise QuotaError(
                f"{home} counts no projects ({error.strerror}): look for prjquota in findmnt {home}; where it is missing, run"
                " playbooks/hubs.yml, which says what to do"
            ) from None
        yield handle
    finally:
        os.close(handle)


def settle(hub: Hub, root: int, projects: Projects) -> list[str]:
    """See that each home of a hub has its project and limit; returns what was done, in words."""
    done = []
    try:
        folder = open_beneath(root, hub.folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in GONE:
            return []  # the hub has never been started
        raise
    try:
        newcomers = projects.number(hub.name, NEWCOMERS)
        limit(root, newcomers, hub.size)
        set_project(folder, newcomers, inherit=True)
        with os.scandir(folder) as entries:
            folders = (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            names = list(itertools.islice(folders, MOST_HOMES + 1))
        if len(names) > MOST_HOMES:
            print(f"{hub.name}: more than {MOST_HOMES} folders beside each other: not all get a quota", file=sys.stderr)
        for name in names[:MOST_HOMES]:
            done += _settle_home(hub, root, folder, name, projects)
        for name in projects.hubs[hub.name].keys() - {NEWCOMERS, *names}:
            limit(root, projects.hubs[hub.name].pop(name), 0)
    finally:
        os.close(folder)
    return done


def _settle_home(hub: Hub, root: int, folder: int, name: str, projects: Projects) -> list[str]:
    number = projects.number(hub.name, name)
    try:
        with folder_beneath(folder, name) as home:
            changed = limit(root, number, hub.allowed(name))
            if project(home) != (number, True):
                left = give(home, number)
                changed = True
                if left:
                    print(f"{hub.name}: {name}: {left} things went away meanwhile, or lie too deep", file=sys.stderr)
    except OSError as error:
        if error.errno in GONE:
            return []
        raise
    return [f"{hub.name}: {name} may have {shown(hub.allowed(name))} (project {number})"] if changed else []


def release(name: str, root: int, projects: Projects) -> list[str]:
    """Take the limits away from a hub that has no quota any more; its homes keep their projects, which then mean nothing."""
    for number in projects.hubs.pop(name).values():
        limit(root, number, 0)
    with contextlib.suppress(FileNotFoundError), folder_beneath(root, f"hubs/{name}/private") as folder:
        set_project(folder, 0, inherit=False)
    return [f"{name}: no quota any more"]


def shown(size: int) -> str:
    """A size for people."""
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size / 1024:.0f} KiB"


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with open(LOCK, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def apply(hubs: list[Hub], everything: bool = True) -> list[str]:
    """Settle these hubs; returns what is wrong, and prints what was done.

    :param everything: whether these are all hubs, so that others lose their quotas
    """
    wrong = []
    with _locked():
        table = load(TABLE)
        before = json.dumps({home: [one.following, one.hubs] for home, one in table.items()})
        homes = {hub.home for hub in hubs} | (set(table) if everything else set())
        for home in sorted(homes):
            here = {hub.name: hub for hub in hubs if hub.home == home}
            projects = table.setdefault(home, Projects())
            former = projects.hubs.keys() - here.keys() if everything else set()
            try:
                with own_file_system(home) as root:
                    for hub in here.values():
                        for line in settle(hub, root, projects):
                            print(line, flush=True)
                    for name in former:
                        print(*release(name, root, projects), sep="\n", flush=True)
            except QuotaError as error:
                wrong += [str(error)] if here else []
            except OSError as error:
                wrong.append(f"{home}: {error.strerror}: look at the kernel's messages (journalctl -k)")
        if json.dumps({home: [one.following, one.hubs] for home, one in table.items()}) != before:
            save(TABLE, table)
    return wrong


class Watch:
    """Tells which hubs have something new."""

    def __init__(self) -> None:
        self.handle = _call(_libc.inotify_init1, os.O_CLOEXEC | os.O_NONBLOCK)
        self.hubs: dict[int, set[str]] = {}
        self._watch(str(SETTINGS), IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE)
        self.mounts = open("/proc/self/mountinfo")  # noqa: SIM115 - open as long as this lives
        self.poll = select.poll()
        self.poll.register(self.handle, select.POLLIN)
        self.poll.register(self.mounts, select.POLLPRI | select.POLLERR)

    def _watch(self, path: str, mask: int) -> int:
        return _call(_libc.inotify_add_watch, self.handle, os.fsencode(path), ctypes.c_uint32(mask | IN_ONLYDIR))

    def follow(self, hubs: list[Hub]) -> None:
        """Watch the folders on the way to the homes, as far as they exist; the same again changes nothing."""
        for hub in hubs:
            with contextlib.suppress(QuotaError), own_file_system(hub.home) as root:
                for path in (".", "hubs", f"hubs/{hub.name}", hub.folder):
                    try:
                        with folder_beneath(root, path) as folder:
                            number = self._watch(f"/proc/self/fd/{folder}", IN_CREATE | IN_MOVED_TO | IN_DELETE)
                            self.hubs.setdefault(number, set()).add(hub.name)
                    except OSError as error:
                        if error.errno not in GONE:
                            raise
                        break

    def wait(self) -> set[str] | None:
        """Wait for something new; returns the hubs that it is about, None for all."""
        about: set[str] = set()
        happened = {handle for handle, _what in self.poll.poll()}
        if self.handle not in happened:
            return None
        data = os.read(self.handle, 1 << 16)
        while data:
            number, _mask, _cookie, length = struct.unpack_from("=iIII", data)
            data = data[16 + length :]
            if number not in self.hubs:  # the settings, or more happened than could be told
                return None
            about |= self.hubs[number]
        return None if len(happened) > 1 else about


def serve() -> None:
    """Put settings in force whenever something is new."""
    watch = Watch()
    about: set[str] | None = None
    said: list[str] = []
    while True:
        hubs = settings(SETTINGS)
        mine = hubs if about is None else [hub for hub in hubs if hub.name in about]
        watch.follow(mine)  # before looking, so that nothing appears unseen in between
        wrong = apply(mine, everything=about is None)
        if wrong != said and wrong:
            print(*wrong, sep="\n", file=sys.stderr, flush=True)
        said = wrong
        time.sleep(REST)
        about = watch.wait()


def report() -> None:
    """Print what each hub user has."""
    table = load(TABLE)
    print(f"{'hub':20} {'user':32} {'used':>10} {'quota':>10}")
    for hub in settings(SETTINGS):
        with own_file_system(hub.home) as root:
            for user, number in sorted(table.get(hub.home, Projects()).hubs.get(hub.name, {}).items()):
                allowed, used = usage(root, number)
                print(f"{hub.name:20} {user or '(new homes)':32} {shown(used):>10} {shown(allowed):>10}")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--apply", action="store_true", help="put the settings in force now")
    what.add_argument("--serve", action="store_true", help="put them in force whenever something is new")
    chosen = parser.parse_args()
    try:
        if chosen.serve:
            serve()
        elif chosen.apply:
            wrong = apply(settings(SETTINGS))
            for line in wrong:
                print(line, file=sys.stderr)
            return 1 if wrong else 0
        else:
            report()
    except QuotaError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
