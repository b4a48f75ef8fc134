# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give every file of a dynamic user's home to whom it belongs: a program of :mod:`inside`, run as root where the homes are.

A home is walked by descriptors of its folders, so nothing that its user does meanwhile leads out of it: links are not followed, file systems
mounted below are left alone, and a file with another name outside the home is not touched. Several processes share the work.

While a home changes hands, and as long as the container admin has it, a mark stands beside it: a symbolic link ``.ananke-owner-NAME`` whose
target says what was begun and whose the home was. The text of such a short link is in its inode, so a full disk has room for it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import json
import os
import re
import stat
import subprocess
import typing as t

MARK = ".ananke-owner-"
DYNAMIC = range(61184, 65520)
"""UIDs that systemd gives to dynamic users."""
MOST_PATHS = 1000
"""Changed files that are named in the result; all are counted."""
SHARES = 64
"""Folders to find before the work is shared."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MARK = re.compile(r"(consistent|admin|restored):(\d+):(\d+):(half|done)")
Owner = tuple[int, int]


class Failure(Exception):
    """What is wrong, what to do, and perhaps what was done before."""


@dataclasses.dataclass
class Pass:
    """What one pass over files found, in the words of the module's result."""

    seen: int = 0
    changed: int = 0
    paths: list[str] = dataclasses.field(default_factory=list)
    former: dict[str, int] = dataclasses.field(default_factory=dict)
    """UID: how many files it had."""
    refused: list[list[str]] = dataclasses.field(default_factory=list)
    """Files that could not be changed, and why."""
    linked: list[list[t.Any]] = dataclasses.field(default_factory=list)
    """Files with another owner and several names: device and inode, number of names, path."""
    mounts: list[str] = dataclasses.field(default_factory=list)

    def note(self, path: str, uid: int) -> None:
        """Count a file that changed hands."""
        self.changed += 1
        self.former[str(uid)] = self.former.get(str(uid), 0) + 1
        if len(self.paths) < MOST_PATHS:
            self.paths.append(shown(path))

    def add(self, other: Pass) -> None:
        """Take over what another pass found."""
        self.seen += other.seen
        self.changed += other.changed
        self.paths = (self.paths + other.paths)[:MOST_PATHS]
        for uid, count in other.former.items():
            self.former[uid] = self.former.get(uid, 0) + count
        self.refused += other.refused
        self.linked += other.linked
        self.mounts += other.mounts


def shown(path: str) -> str:
    """A file's name as text that any terminal and any JSON can hold."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def reason(error: OSError) -> str:
    """Why a file stays as it is."""
    if error.errno == errno.EPERM:
        return (
            "not permitted: it is immutable (lsattr shows i or a), or of an account that this container does not know"
        )
    return os.strerror(error.errno or 0)


def mount_points() -> frozenset[str]:
    """Where file systems are mounted. Source: proc_pid_mountinfo(5)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        fields = [line.split(" ", 5)[4] for line in stream]
    return frozenset(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field) for field in fields)


# ---------------------------------------------------------------------------------------------------------------
# the files of one home


@dataclasses.dataclass(frozen=True)
class Task:
    """One home, and what is to become of its files."""

    home: str
    owner: Owner
    dry: bool
    mounts: frozenset[str] = frozenset()
    begin: t.Callable[[], None] = lambda: None
    """Called before the first change, by each process."""

    def open(self, path: str) -> int:
        """A descriptor of a folder below the home ("" for itself), reached without following any link."""
        descriptor = os.open(self.home, FOLDER)
        for part in path.split("/") if path else ():
            try:
                deeper = os.open(part, FOLDER, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = deeper
        return descriptor

    def give(self, name: str, path: str, status: os.stat_result, folder: int | None, done: Pass) -> None:
        """Give one entry of the folder, which is another one's, to the owner."""
        try:
            if not self.dry:
                if not (done.changed or done.refused):
                    self.begin()
                os.chown(name, *self.owner, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            done.refused.append([shown(path), reason(error)])
            return
        done.note(path, status.st_uid)

    def visit(self, path: str, done: Pass) -> list[str]:
        """Put right what is in one folder; returns the folders in it."""
        try:
            folder = self.open(path)
        except OSError as error:
            # it vanished, or its user has put something else there meanwhile
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                done.refused.append([shown(path or "."), reason(error)])
            return []
        deeper = []
        prefix = f"{path}/" if path else ""
        uid, gid = self.owner
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    done.seen += 1
                    is_folder = stat.S_ISDIR(status.st_mode)
                    if is_folder:
                        if self.mounts and os.path.join(self.home, prefix + entry.name) in self.mounts:
                            done.mounts.append(shown(prefix + entry.name))
                            continue
                        deeper.append(prefix + entry.name)
                    if status.st_uid == uid and status.st_gid == gid:
                        continue
                    if status.st_nlink > 1 and not is_folder:
                        same = f"{status.st_dev}:{status.st_ino}"
                        done.linked.append([same, status.st_nlink, prefix + entry.name])
                    else:
                        self.give(entry.name, prefix + entry.name, status, folder, done)
        finally:
            os.close(folder)
        return deeper

    def walk(self, folder: str, done: Pass) -> None:
        """Put right all that is below a folder."""
        waiting = [folder]
        while waiting:
            waiting += self.visit(waiting.pop(), done)

    def links(self, done: Pass) -> None:
        """Put right files with several names, if all of these are in the home; of others somebody else might make use."""
        files: dict[str, list[tuple[int, str]]] = {}
        for same, count, path in done.linked:
            files.setdefault(same, []).append((count, path))
        for names in files.values():
            count, path = names[0]
            if len(names) < count:
                done.refused.append([shown(path), "it has another name outside of this home: delete one of them"])
                continue
            upper, _slash, name = path.rpartition("/")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                folder = self.open(upper)
                try:
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if status.st_nlink == count and not stat.S_ISDIR(status.st_mode):
                        self.give(name, path, status, folder, done)
                finally:
                    os.close(folder)

    def run(self, processes: int) -> Pass:
        """Put right the home and all that is in it."""
        done = Pass(seen=1)
        status = os.lstat(self.home)
        if (status.st_uid, status.st_gid) != self.owner:
            # first: its owner tells whose all the rest is, also to a run that goes on where this one was cut short
            self.give(self.home, ".", status, None, done)
        waiting = collections.deque([""])
        while waiting and (processes == 1 or len(waiting) < SHARES):
            waiting.extend(self.visit(waiting.popleft(), done))
        if waiting:
            done.add(self.share(list(waiting), processes))
        self.links(done)
        return done

    def share(self, folders: list[str], processes: int) -> Pass:
        """Put right what is below these folders; each of several processes takes the next of them when it has finished one."""
        numbers, feed = os.pipe()
        ends = []
        for _number in range(processes):
            answer, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(feed)
                self._work(folders, numbers, writing)
            os.close(writing)
            ends.append((child, answer))
        os.close(numbers)
        with contextlib.suppress(BrokenPipeError), os.fdopen(feed, "wb") as stream:
            stream.writelines(number.to_bytes(4, "big") for number in range(len(folders)))
        whole, problems = Pass(), []
        for child, answer in ends:
            with os.fdopen(answer) as reading:
                text = reading.read()
            if os.waitpid(child, 0)[1] or not text:
                problems.append(
                    "a process that changed owners was ended by something else, for want of memory perhaps: run this again"
                )
                continue
            found = json.loads(text)
            if "failure" in found:
                problems.append(found["failure"])
            else:
                whole.add(Pass(**found))
        if problems:
            raise Failure(problems[0])
        return whole

    def _work(self, folders: list[str], numbers: int, writing: int) -> t.NoReturn:
        """What each of the processes does."""
        status = 1
        try:
            done = Pass()
            try:
                while number := os.read(numbers, 4):
                    self.walk(folders[int.from_bytes(number, "big")], done)
                answer = dataclasses.asdict(done)
            except Failure as failure:
                answer = {"failure": str(failure)}
            with os.fdopen(writing, "w") as stream:
                json.dump(answer, stream)
            status = 0
        finally:
            os._exit(status)


# ---------------------------------------------------------------------------------------------------------------
# one home, and what is known of it


class Home:
    """One home below the folder of homes, its mark and its rightful owner."""

    def __init__(self, folder: str, name: str, running: Owner | None = None) -> None:
        """:param running: who runs the user's unit at the moment"""
        self.name = name
        self.path = os.path.join(folder, name)
        self.running = running
        self.mark_path = os.path.join(folder, MARK + name)
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            raise Failure(f"{self.path}: there is no such home: see what {folder} holds") from None
        if not stat.S_ISDIR(status.st_mode):
            raise Failure(f"{self.path} is not a folder: name homes below {folder}")
        self.top: Owner = (status.st_uid, status.st_gid)
        upper = os.stat(folder)
        self.admin: Owner = (upper.st_uid, upper.st_gid)
        self.mark = self._read_mark()

    def _read_mark(self) -> tuple[Owner, bool] | None:
        """What the mark says: the user who had the home, and whether what was begun was finished."""
        with contextlib.suppress(OSError):
            found = _MARK.fullmatch(os.readlink(self.mark_path))
            if found:
                return (int(found[2]), int(found[3])), found[4] == "done"
        return None

    def set_mark(self, state: str, owner: Owner, done: bool) -> None:
        """Write the mark, whole or not at all."""
        text = f"{state}:{owner[0]}:{owner[1]}:{'done' if done else 'half'}"
        fresh = f"{self.mark_path}.{os.getpid()}"
        try:
            if os.path.islink(self.mark_path) and os.readlink(self.mark_path) == text:
                return
            os.symlink(text, fresh)
            os.rename(fresh, self.mark_path)
        except OSError as error:
            raise Failure(
                f"{self.path}: the mark beside it cannot be written ({os.strerror(error.errno or 0)}), so it was left alone"
            ) from error

    def rightful(self, state: str) -> Owner:
        """Whose the home is to be. Raises Failure where that cannot be said.

        The owner of the top folder is changed first and by systemd, too; so it tells the truth, also after a run that was cut short.
        """
        if state == "admin":
            if self.running:
                raise Failure(
                    f"{self.path}: the server of {self.name} runs: stop it first (hub_servers with state: stopped)"
                )
            return self.admin
        if self.running:
            return self.running
        if self.top[0] in DYNAMIC or (self.top == self.admin and state == "consistent"):
            return self.top
        if self.top != self.admin:
            raise Failure(
                f"{self.path}: its owner, UID {self.top[0]}, is neither a hub user nor the container admin: start the user's server once, or use"
                " state: admin"
            )
        if self.mark and self.mark[0] != self.admin:
            return self.mark[0]
        raise Failure(f"{self.path}: nothing says whose it was: the next start of the user's server takes it over")

    def user(self) -> Owner:
        """Who had the home last: the mark says it, unless systemd has given the home to a unit since."""
        return self.mark[0] if self.mark and self.top[0] not in DYNAMIC else self.top

    def settle(self, state: str, dry: bool, processes: int, mounts: frozenset[str]) -> dict[str, t.Any]:
        """Bring the home to the state; returns what was found and done. Raises Failure, with the same as its second argument."""
        owner = self.rightful(state)
        user = self.user() if owner == self.admin else owner
        task = Task(self.path, owner, dry, mounts, lambda: self.set_mark(state, user, done=False))
        found = task.run(processes)
        result = {
            **{
                "home": self.path,
                "user": self.name,
                "owner": owner[0],
                "seen": found.seen,
                "changed_files": found.changed,
            },
            **{"paths": found.paths, "former_owners": found.former, "refused": found.refused, "mounts": found.mounts},
            **{"interrupted": self.mark is not None and not self.mark[1], "changed": bool(found.changed)},
        }
        if found.refused and not dry:
            path, why = found.refused[0]
            raise Failure(
                f"{self.path}: {len(found.refused)} of its files could not be given to UID {owner[0]}, all others were. The first is {path}: {why}."
                " The home stays marked: run this again when that is mended",
                result,
            )
        if not dry:
            self._finish(owner, user)
        return result

    def _finish(self, owner: Owner, user: Owner) -> None:
        """Leave the mark of a home that is handed over, and no other."""
        if owner == self.admin:
            self.set_mark("admin", user, done=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.mark_path)


def running(units: dict[str, str]) -> dict[str, Owner]:
    """UID and GID of those users whose unit runs.

    :param units: user: unit
    """
    if not units:
        return {}
    wanted = ["systemctl", "show", "--property=Id,ActiveState,UID,GID", *dict.fromkeys(units.values())]
    try:
        text = subprocess.run(wanted, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return {}  # a host without systemd
    found: dict[str, Owner] = {}
    for block in text.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        alive = unit.get("ActiveState") in ("active", "activating", "reloading", "deactivating")
        # "[not set]": it has no process yet
        if alive and unit.get("UID", "").isdigit() and unit.get("GID", "").isdigit() and int(unit["UID"]) in DYNAMIC:
            found[unit["Id"]] = (int(unit["UID"]), int(unit["GID"]))
    return {user: found[unit] for user, unit in units.items() if unit in found}


def main(parameters: dict[str, t.Any]) -> dict[str, t.Any]:
    """Bring homes to a state. Raises Failure.

    :param parameters: ``state``, ``folder`` of the homes, ``users`` (names of homes; empty: all), ``unit`` (a user's unit, with ``{user}``),
        ``processes`` (0: one for each processor), ``check``
    """
    folder, state = parameters["folder"], parameters["state"]
    if not os.path.isdir(folder):
        raise Failure(f"{folder}: there is no such folder of homes")
    names = parameters["users"] or sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
    )
    units = {name: parameters["unit"].replace("{user}", name) for name in names}
    alive, mounts = running(units), mount_points()
    processes = parameters["processes"] or len(os.sched_getaffinity(0))
    homes: list[dict[str, t.Any]] = []
    problems = []
    for name in names:
        try:
            homes.append(Home(folder, name, alive.get(name)).settle(state, parameters["check"], processes, mounts))
        except Failure as failure:
            problems.append(str(failure.args[0]))
            homes += failure.args[1:]
    if state == "admin" and not parameters["check"]:
        problems += [
            f"{folder}/{name}: its server was started meanwhile: stop it, and run this again"
            for name in running(units)
            if name not in alive
        ]
    result = {"changed": any(home["changed"] for home in homes), "homes": homes}
    if problems:
        raise Failure("; ".join(problems), result)
    return result
