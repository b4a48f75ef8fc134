#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of hubs, by restic.

ananke-backup run HUB        back up the hub now, while it runs; then let old snapshots go and, once a week, look whether all is whole
ananke-backup list HUB       its snapshots, as JSON
ananke-backup prepare HUB    make its repository, or look whether it can be used
ananke-backup check HUB      read all of the repository and compare it with its checksums
ananke-backup restore HUB    put a snapshot's files in place of the hub's, which has to be stopped; see --help

A snapshot has owners as the hub's container sees them, so that it fits any account of any machine. Root's view of the hub's folder
is an idmapped mount that nobody else sees; no link inside is followed, as what lies there belongs to others.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/ananke/backup")
"""HUB.json for each hub with backups, for root alone; the module hub_backup writes them."""
STATE = Path("/var/lib/ananke/backup")
"""HUB/ for each hub: copies of its databases while a backup runs; HUB.json: how its last backup went, for everybody."""
CACHE = Path("/var/cache/ananke/backup")
RUN = Path("/run/ananke/backup")
CHECK_EVERY = 7 * 24 * 3600
"""Seconds after which a backup also looks whether the repository is whole."""
ANSWER_PATIENCE = 30
"""Seconds for a repository to answer."""
LOCK_PATIENCE, LOCK_PAUSE = 4 * 3600, 20
"""Seconds that another machine may work on a shared repository in such a way that it must be alone, and between two looks."""
NO_UNIT = 5
"""systemctl's status where there is no such unit."""
DATABASE_PATIENCE = 120
"""Seconds that a database may be locked."""
KEPT_APART = "removed"
"""Folder of the account's home for what a restored hub or home replaced."""
EXCLUDED = ("files/.restore-*", "files/data/*.sqlite", "files/data/*.sqlite-*")
"""Never backed up as files: databases are copied by SQLite."""

# Numbers of the kernel's interface; sources: prctl(2), linux/mount.h, mount_setattr(2), open_tree(2), move_mount(2)
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
PR_SET_PDEATHSIG = 1
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_PRIVATE, MS_REC, MS_NOSUID, MS_NODEV = 1 << 18, 0x4000, 2, 4
OPEN_TREE_CLONE, AT_EMPTY_PATH, MOVE_MOUNT_F_EMPTY_PATH, AT_FDCWD = 1, 0x1000, 4, -100
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_IDMAP = 1, 2, 4, 0x100000
ATTRIBUTES = struct.Struct("=QQQQ")
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

REMEDIES = {
    "wrong password": "the password is not this repository's: correct hub_backup_password, or name another repository",
    "no space left": "make room there, or keep less (hub_backup_keep)",
    "permission denied": "give this machine's login there the right to read and write, and to delete",
    "connection refused": "nothing answers there: start it, or correct hub_backup_repository",
    "could not resolve": "the host's name is unknown: correct hub_backup_repository, or the machine's name servers",
    "host key verification failed": "root on this machine does not know its host key: look whether it is the right one, then ssh there once as root",
    "timeout": "it does not answer: look at the way there",
    "bucket does not exist": "make it there, or give these keys the right to",
    "already locked": "another machine works on it: run again when that is done",
}
"""Words of restic, in lower case, and what to do."""
NOTHING_THERE = ("is there a repository", "unable to open config", "bucket does not exist")
"""Words of restic, in lower case, where there is no repository yet."""

_libc = ctypes.CDLL(None, use_errno=True)


class BackupError(Exception):
    """What went wrong, and what to do."""


def check_name(name: str, what: str) -> str:
    """The name, which becomes part of paths. Raises BackupError."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise BackupError(f"{name!r} is no {what}'s name")
    return name


@dataclass(frozen=True)
class Settings:
    """What the inventory says of one hub's backups."""

    hub: str
    account: str
    repository: str
    password: str
    environment: dict[str, str] = field(default_factory=dict)
    """Further variables of restic, for example keys of S3."""
    keep: dict[str, int] = field(default_factory=dict)
    """How many snapshots stay: last, hourly, daily, weekly, monthly, yearly."""
    exclude: list[str] = field(default_factory=list)
    """Patterns of restic, below the hub's folder."""
    schedule: str = ""
    """When the timer starts this; for systemd."""
    compare: str = "2%"
    """How much of the data is read when the repository is looked at."""

    @classmethod
    def load(cls, hub: str, path: Path | None = None) -> Settings:
        """The settings of a hub. Raises BackupError."""
        check_name(hub, "hub")
        path = path or SETTINGS / f"{hub}.json"
        try:
            return cls(hub=hub, **json.loads(path.read_text()))
        except FileNotFoundError:
            raise BackupError(
                f"hub {hub} has no backups: set hub_backup_repository and run playbooks/hubs.yml"
            ) from None
        except (ValueError, TypeError) as error:
            raise BackupError(f"{path} cannot be read ({error}): run playbooks/hubs.yml, which writes it") from None

    @property
    def mark(self) -> str:
        """What tells the repository from others, without saying what it is."""
        return hashlib.sha256(self.repository.encode()).hexdigest()[:16]

    @property
    def view(self) -> Path:
        """Where the hub's files are seen meanwhile; snapshots name it."""
        return RUN / self.hub


def _call(function: Any, *arguments: Any) -> int:
    result = int(function(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def ranges(text: str, account: str, uid: int) -> list[tuple[int, int]]:
    """Subordinate IDs of an account in /etc/subuid or /etc/subgid: first and count of each range."""
    found = []
    for line in text.splitlines():
        name, _colon, rest = line.partition(":")
        first, _colon, count = rest.partition(":")
        if name in (account, str(uid)) and first.isdigit() and count.isdigit():
            found.append((int(first), int(count)))
    return found


def mapping(own: int, subordinate: Sequence[tuple[int, int]]) -> str:
    """The map of a mount that shows IDs of the machine as the account's containers see them."""
    lines, following = [f"{own} 0 1"], 1
    for first, count in subordinate:
        lines.append(f"{first} {following} {count}")
        following += count
    return "".join(f"{line}\n" for line in lines)


def _user_namespace(uids: str, gids: str) -> int:
    """A user namespace with these maps, as a descriptor."""
    ready, begun = os.pipe()
    over, end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _call(_libc.unshare, CLONE_NEWUSER)
            os.write(begun, b"1")
            os.close(end)
            os.read(over, 1)
        finally:
            os._exit(0)
    try:
        os.close(begun)
        if os.read(ready, 1) != b"1":
            raise BackupError("this kernel makes no user namespace: see sysctl user.max_user_namespaces")
        Path(f"/proc/{child}/uid_map").write_text(uids)
        Path(f"/proc/{child}/gid_map").write_text(gids)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for handle in (ready, over, end):
            os.close(handle)
        os.waitpid(child, 0)


def alone() -> None:
    """From now on, nobody else sees what this process and its children mount."""
    _call(_libc.unshare, CLONE_NEWNS)
    _call(_libc.mount, b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    RUN.mkdir(parents=True, exist_ok=True, mode=0o700)
    RUN.chmod(0o700)
    _call(_libc.mount, b"ananke", os.fsencode(RUN), b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=0700,size=1m")


def attach(folder: int, target: Path, account: pwd.struct_passwd, attributes: int = 0) -> None:
    """Show an open folder at a path, with owners as the account's containers see them."""
    own = f"{account.pw_name}"
    uids = mapping(account.pw_uid, ranges(Path("/etc/subuid").read_text(), own, account.pw_uid))
    gids = mapping(account.pw_gid, ranges(Path("/etc/subgid").read_text(), own, account.pw_uid))
    target.mkdir(parents=True, exist_ok=True)
    tree = _call(_libc.syscall, SYS_OPEN_TREE, folder, b"", AT_EMPTY_PATH | OPEN_TREE_CLONE | os.O_CLOEXEC)
    try:
        with contextlib.closing(os.fdopen(_user_namespace(uids, gids))) as namespace:
            wanted = ATTRIBUTES.pack(
                attributes | MOUNT_ATTR_IDMAP | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0, 0, namespace.fileno()
            )
            _call(_libc.syscall, SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, wanted, ctypes.c_size_t(len(wanted)))
        _call(_libc.syscall, SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def _walk(folder: int, parts: Sequence[str], remedy: str) -> int:
    handle = os.dup(folder)
    for number, part in enumerate(parts, 1):
        try:
            following = os.open(part, FOLDER, dir_fd=handle)
        except OSError as error:
            raise BackupError(f"{'/'.join(parts[:number])}: {error.strerror}: {remedy}") from None
        finally:
            os.close(handle)
        handle = following
    return handle


@contextlib.contextmanager
def beneath(
    folder: int, *parts: str, remedy: str = "the snapshot has no such folder; choose another one"
) -> Iterator[int]:
    """A folder below an open one, without following links. Raises BackupError if it is not there, or is none."""
    handle = _walk(folder, parts, remedy)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def opened(account: pwd.struct_passwd, *parts: str) -> Iterator[int]:
    """A folder in the account's home, likewise."""
    home = os.open(account.pw_dir, FOLDER)
    try:
        handle = _walk(home, parts, f"look at that in {account.pw_dir}; playbooks/hubs.yml makes what is missing")
    finally:
        os.close(home)
    try:
        yield handle
    finally:
        os.close(handle)


def account_of(settings: Settings) -> pwd.struct_passwd:
    """The hub's account. Raises BackupError if there is none."""
    try:
        return pwd.getpwnam(settings.account)
    except KeyError:
        raise BackupError(
            f"account {settings.account} does not exist: run playbooks/hubs.yml, which makes it"
        ) from None


def databases(account: pwd.struct_passwd, hub: str) -> list[str]:
    """Names of the hub's databases."""
    try:
        with opened(account, "hubs", hub, "data") as folder:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".sqlite"))
            return [name for name in names if stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode)]
    except BackupError:
        return []


def copy_database(account: pwd.struct_passwd, hub: str, name: str, target: Path) -> None:
    """Copy a database as it is at one moment, by a process with the account's rights. Raises BackupError."""
    path = os.path.join(account.pw_dir, "hubs", hub, "data", name)
    given, taken = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(given)
            os.setgroups([])
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
            os.chdir("/")
            with os.fdopen(taken, "wb") as stream:
                stream.write(_snapshot(path))
            status = 0
        except (sqlite3.Error, OSError) as error:
            print(f"{path}: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    os.close(taken)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(given, "rb") as stream, target.open("wb") as copy:
        os.fchmod(copy.fileno(), os.lstat(path).st_mode & 0o777)
        shutil.copyfileobj(stream, copy, 1 << 20)
    if os.waitpid(child, 0)[1]:
        raise BackupError(f"{path} cannot be copied: see above; run again when that is mended")


def _snapshot(path: str) -> bytes:
    """The whole database, waiting for whoever has locked it."""
    with (
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=DATABASE_PATIENCE)) as source,
        contextlib.closing(sqlite3.connect(":memory:")) as copy,
    ):
        source.backup(copy)
        return copy.serialize()


class Restic:
    """restic on a hub's repository."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        CACHE.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "RESTIC_REPOSITORY": settings.repository,
            "RESTIC_PASSWORD": settings.password,
            "RESTIC_CACHE_DIR": str(CACHE),
            "RESTIC_PROGRESS_FPS": "0.1",
            **settings.environment,
        }

    def run(self, *arguments: str, fine: Sequence[int] = (0,), patience: float | None = None) -> tuple[int, str]:
        """Status and output of restic, which is ended after ``patience`` seconds. Raises BackupError with what to do."""
        end = time.monotonic() + LOCK_PATIENCE
        while True:
            done, said = self._once(*arguments, patience=patience)
            if "already locked" not in said or time.monotonic() > end:
                break
            time.sleep(LOCK_PAUSE)
        if said:
            print(said, end="", file=sys.stderr)
        if done.returncode not in fine:
            raise BackupError(f"restic {arguments[0]} failed: {told(said)}")
        return done.returncode, done.stdout

    def _once(self, *arguments: str, patience: float | None) -> tuple[subprocess.CompletedProcess[str], str]:
        with tempfile.TemporaryFile("w+") as errors:
            try:
                done = subprocess.run(
                    ["restic", *arguments],
                    env=self.environment,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    check=False,
                    timeout=patience,
                    preexec_fn=_end_together,
                )
            except subprocess.TimeoutExpired as error:
                done = subprocess.CompletedProcess(error.cmd, 1, "")
            errors.seek(0)
            return done, errors.read()

    def prepare(self) -> None:
        """Make the repository if it is not there, and take away locks of processes that are no more. Raises BackupError."""
        try:
            # an S3 server that does not answer, or that has no such bucket, would be asked for a quarter of an hour
            self.run("cat", "config", "--quiet", patience=ANSWER_PATIENCE)
        except BackupError as error:
            if not any(words in str(error).lower() for words in NOTHING_THERE):
                raise
            if noted(self.settings.hub).get("repository") == self.settings.mark:
                raise BackupError(
                    "the repository, in which there were backups, is gone: bring it back, or name another one in hub_backup_repository;"
                    f" to begin anew in the same place, remove {STATE}/{self.settings.hub}.json"
                ) from None
            parent = os.path.dirname(self.settings.repository.rstrip("/"))
            if parent.startswith("/") and not os.path.isdir(parent):
                raise BackupError(
                    f"{parent} is not there: mount it, or make the folder in which the repository is to be"
                ) from None
            with _private():
                self.run("init", "--quiet")
        self.run("unlock", "--quiet")

    def sparse(self) -> list[str]:
        """Arguments by which holes stay holes, where restic has them: since 0.15, not in Debian 12."""
        version = re.search(r"restic (\d+)\.(\d+)", self.run("version")[1])
        return ["--sparse"] if version and (int(version[1]), int(version[2])) >= (0, 15) else []

    def snapshots(self, hub: str) -> list[dict[str, Any]]:
        """A hub's snapshots, oldest first."""
        found = json.loads(self.run("snapshots", "--no-lock", "--json", f"--tag=hub={hub}")[1] or "[]")
        return sorted(found or [], key=lambda one: str(one["time"]))

    def latest(self, hub: str) -> str:
        """ID of a hub's latest snapshot: of this machine, if it has one, else of another. Raises BackupError if there is none."""
        known = self.snapshots(hub)
        own = [one for one in known if one["hostname"] == socket.gethostname()]
        if not known:
            raise BackupError(
                f"the repository has no snapshot of hub {hub}: name the hub that had been backed up, see --of"
            )
        return str((own or known)[-1]["id"])


def told(said: str) -> str:
    """The last words of restic, and what to do about them."""
    words = " ".join(said.split())[-600:]
    remedy = next(
        (remedy for known, remedy in REMEDIES.items() if known in said.lower()), "run again when that is mended"
    )
    return f"{words}; {remedy}"


def _end_together() -> None:
    """Whoever kills this program ends restic, too, which would go on writing otherwise."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def _private() -> Iterator[None]:
    former = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(former)


@contextlib.contextmanager
def turn(hub: str) -> Iterator[None]:
    """One act at a time for each hub; the second waits."""
    folder = RUN.with_name("backup-locks")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(folder / hub, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def back_up(settings: Settings) -> dict[str, Any]:
    """Make a snapshot, and say how that went. Raises BackupError."""
    account, began = account_of(settings), time.time()
    restic = Restic(settings)
    restic.prepare()
    copies = STATE / settings.hub
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(parents=True, mode=0o700)
    try:
        for name in databases(account, settings.hub):
            copy_database(account, settings.hub, name, copies / name)
        alone()
        with opened(account, "hubs", settings.hub) as folder:
            attach(folder, settings.view / "files", account, MOUNT_ATTR_RDONLY)
        shown = settings.view / "databases"
        shown.mkdir()
        _call(_libc.mount, os.fsencode(copies), os.fsencode(shown), None, 0x1000, None)
        paths = [str(settings.view / "files"), str(shown)]
        excluded = [f"--exclude={settings.view}/{one}" for one in EXCLUDED]
        excluded += [f"--exclude={settings.view}/files/{one.lstrip('/')}" for one in settings.exclude]
        status, said = restic.run(
            *("backup", "--json", "--one-file-system", "--exclude-caches", f"--tag=hub={settings.hub}"),
            *(f"--host={socket.gethostname()}", *excluded, "--", *paths),
            fine=(0, 3),
        )
    finally:
        shutil.rmtree(copies, ignore_errors=True)
    summary = json.loads(said.strip().splitlines()[-1])
    known = {
        "snapshot": summary["snapshot_id"],
        "files": summary["total_files_processed"],
        "bytes": summary["total_bytes_processed"],
        "added": summary["data_added"],
        "seconds": round(time.time() - began, 1),
        "complete": status == 0,
        "time": _iso(began),
        "repository": settings.mark,
    }
    forget(restic)
    return known


def forget(restic: Restic) -> None:
    """Let snapshots go that need not be kept, and what only they hold."""
    keep = [f"--keep-{name}={count}" for name, count in sorted(restic.settings.keep.items()) if count]
    if keep:
        tag = f"--tag=hub={restic.settings.hub}"
        own = f"--host={socket.gethostname()}"  # another machine may have had a hub of this name
        restic.run("forget", "--quiet", "--prune", "--group-by=tags", tag, own, *keep)


def _iso(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def noted(hub: str) -> dict[str, Any]:
    """How the last backups went."""
    try:
        return dict(json.loads((STATE / f"{hub}.json").read_text()))
    except (OSError, ValueError):
        return {}


def note(hub: str, **news: Any) -> None:
    """Keep how a backup went, for whoever asks."""
    STATE.mkdir(parents=True, exist_ok=True)
    known = {**noted(hub), **news}
    handle, draft = tempfile.mkstemp(dir=STATE, prefix=f".{hub}-")
    with os.fdopen(handle, "w") as stream:
        json.dump(known, stream, indent=1)
        os.fchmod(stream.fileno(), 0o644)
    os.replace(draft, STATE / f"{hub}.json")


def run(settings: Settings) -> None:
    """Back up, note how it went, and now and then look at the repository. Raises BackupError."""
    try:
        known = back_up(settings)
    except (BackupError, OSError) as error:
        note(settings.hub, error=str(error), failed=_iso(time.time()))
        raise
    note(settings.hub, **known, error="")
    print(json.dumps(known))
    if time.time() - float(noted(settings.hub).get("checked", 0)) > CHECK_EVERY:
        check(settings, f"--read-data-subset={settings.compare}")
    if not known["complete"]:
        print(
            f"{settings.hub}: some files could not be read, see above; all others are in the snapshot", file=sys.stderr
        )


def check(settings: Settings, how: str = "--read-data") -> None:
    """Look whether the repository is whole. Raises BackupError."""
    try:
        Restic(settings).run("check", "--quiet", how)
    except BackupError as error:
        note(settings.hub, error=str(error), failed=_iso(time.time()))
        raise
    note(settings.hub, checked=time.time())


def restore(settings: Settings, of: str, snapshot: str, user: str, stop: Callable[[], None]) -> dict[str, Any]:
    """Put files of a snapshot in place of the hub's, or those of one user.

    All is brought into a folder beside the hub's first; then the hub is stopped and the folders change places. What was there goes to the account's
    folder ``removed``. Raises BackupError.
    """
    account = account_of(settings)
    theirs = settings
    with contextlib.suppress(BackupError):  # that hub's own repository, where it is one of this machine
        theirs = Settings.load(of)
    restic = Restic(theirs)
    restic.prepare()
    if snapshot == "latest":
        snapshot = restic.latest(of)
    source = RUN / of
    chosen = [f"--include={source}/files/private/{user}"] if user else []
    alone()
    with opened(account, "hubs") as hubs, staged(hubs, f".restore-{settings.hub}-", account) as tree:
        target = RUN / "restored"
        attach(tree, target, account)
        restic.run("restore", snapshot, *restic.sparse(), "--verify", "--quiet", f"--target={target}", *chosen)
        with beneath(tree, *source.parts[1:]) as restored:
            if not user:
                _bring_databases(restored)
            place = ("files", "private") if user else ()
            with (
                beneath(restored, *place) as folder,
                opened(account, "hubs", *([settings.hub, "private"] if user else [])) as there,
            ):
                fresh, name = (user, user) if user else ("files", settings.hub)
                with beneath(folder, fresh):
                    stop()
                return {
                    "kept": _change_places(
                        account, there, name, folder, fresh, "-".join(filter(None, (settings.hub, user)))
                    )
                }


@contextlib.contextmanager
def staged(hubs: int, beginning: str, account: pwd.struct_passwd) -> Iterator[int]:
    """A new folder of the account, in one of root's into which nobody else comes; those that killed runs have left go."""
    for left in os.listdir(hubs):
        if left.startswith(beginning):
            shutil.rmtree(left, dir_fd=hubs)
    name = f"{beginning}{int(time.time())}"
    os.mkdir(name, 0o700, dir_fd=hubs)
    try:
        with beneath(hubs, name) as outer:
            status = os.fstat(outer)
            if (status.st_uid, stat.S_IMODE(status.st_mode)) != (0, 0o700):
                raise BackupError(f"{name}: somebody has exchanged this folder; look who, and run again")
            os.mkdir("tree", 0o700, dir_fd=outer)
            os.chown("tree", account.pw_uid, account.pw_gid, dir_fd=outer)
            with beneath(outer, "tree") as tree:
                yield tree
    finally:
        shutil.rmtree(name, dir_fd=hubs, ignore_errors=True)


def _bring_databases(restored: int) -> None:
    """Put the copies of databases where the databases are. Raises BackupError."""
    if "databases" not in os.listdir(restored):
        return
    with beneath(restored, "databases") as copies, beneath(restored, "files", "data") as data:
        for name in os.listdir(copies):
            os.rename(name, name, src_dir_fd=copies, dst_dir_fd=data)


def _change_places(account: pwd.struct_passwd, there: int, name: str, folder: int, fresh: str, kept: str) -> str:
    """Move what is there to the account's folder ``removed``, and what is fresh to its place; returns where the former is now."""
    with opened(account) as home, contextlib.suppress(FileExistsError):
        os.mkdir(KEPT_APART, 0o700, dir_fd=home)
        os.chown(KEPT_APART, account.pw_uid, account.pw_gid, dir_fd=home, follow_symlinks=False)
    kept = f"{kept}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    with opened(account, KEPT_APART) as apart:
        try:
            os.rename(name, kept, src_dir_fd=there, dst_dir_fd=apart)
        except FileNotFoundError:
            kept = ""
        os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=there)
        os.fsync(there)
    return f"{account.pw_dir}/{KEPT_APART}/{kept}" if kept else ""


def own(account: pwd.struct_passwd, *command: str) -> int:
    """Status of a command of the account, in its session."""
    runtime = f"/run/user/{account.pw_uid}"
    if not os.path.exists(f"{runtime}/systemd/private"):
        return errno.ENOENT
    session = ["runuser", f"--user={account.pw_name}", "--", "env", "--chdir=/", f"HOME={account.pw_dir}"]
    return subprocess.run([*session, f"XDG_RUNTIME_DIR={runtime}", *command], check=False).returncode


def replace(settings: Settings, options: argparse.Namespace) -> None:
    """Restore, around which the hub is stopped, and started where it ran; or the user's server is stopped. Raises BackupError."""
    of = check_name(options.of or settings.hub, "hub")
    user = options.user and check_name(options.user, "user")
    account, container = account_of(settings), f"ananke-{settings.hub}"
    unit = f"{container}.service"
    runs = own(account, "systemctl", "--user", "is-active", "--quiet", unit) == 0

    def stop() -> None:
        if user and runs:
            server = f"jupyter-{user}.service"
            status = own(account, "podman", "exec", container, "systemctl", "stop", server)
            if status not in (0, NO_UNIT):
                raise BackupError(f"{server} in {container} does not stop; nothing has changed: stop it, and run again")
        elif runs and own(account, "systemctl", "--user", "stop", unit):
            raise BackupError(f"{unit} does not stop; nothing has changed: see its journal, and run again")

    try:
        done = restore(settings, of, options.snapshot, user, stop)
    finally:
        if runs and not user:
            own(account, "systemctl", "--user", "start", unit)
    print(json.dumps(done))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="ananke-backup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    acts = parser.add_subparsers(dest="act", required=True)
    for act in ("run", "list", "check", "restore", "prepare"):
        one = acts.add_parser(act)
        one.add_argument("hub", metavar="HUB")
        one.add_argument("--settings", type=Path, help="a file with other settings than the hub's")
        if act == "restore":
            one.add_argument("--snapshot", default="latest", help="its ID; by default the latest one")
            one.add_argument(
                "--of", default="", metavar="HUB", help="the hub whose snapshot it is, where that is another one"
            )
            one.add_argument("--user", default="", help="only this user's home; the user's server is stopped")
    options = parser.parse_args(arguments)
    os.umask(0o022)
    try:
        settings = Settings.load(options.hub, options.settings)
        with turn(settings.hub):
            if options.act == "run":
                run(settings)
            elif options.act == "list":
                print(json.dumps(Restic(settings).snapshots(settings.hub)))
            elif options.act == "check":
                check(settings)
            elif options.act == "prepare":
                Restic(settings).prepare()
            else:
                replace(settings, options)
    except (BackupError, OSError) as error:
        print(f"ananke-backup: {options.hub}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
