# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are replaced whole or not at all, and the one lock that serialises what a machine shares."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import typing as t

RUN_DIR = "/run/ananke"
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the kernel says where there is no room."""


def read(path: str) -> str | None:
    """The text of ``path``, or None where there is no such file."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def mode_of(path: str) -> int | None:
    """Permission bits of ``path`` (links are not followed), or None where it does not exist."""
    try:
        return stat.S_IMODE(os.lstat(path).st_mode)
    except FileNotFoundError:
        return None


def differs(path: str, content: str, mode: int) -> bool:
    """Whether ``path`` is not a plain file with this content and mode."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    return not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != mode or read(path) != content


def write(path: str, content: str, mode: int) -> None:
    """Replace ``path`` atomically: a reader, and a crash, sees the old text or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".ananke-")
    try:
        os.fchmod(handle, mode)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def fits(folder: str, size: int) -> bool:
    """Whether ``size`` more bytes can be written below ``folder`` now.

    It is tried: numbers of free blocks know neither quotas nor whom what is reserved is for. Nobody sees the file that is made.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            os.posix_fallocate(probe.fileno(), 0, size)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return False
    return True


def digests(paths: t.Sequence[str]) -> str:
    """Digests of these files, as sha256sum prints them."""
    lines = []
    for path in paths:
        with open(path, "rb") as stream:
            lines.append(f"{hashlib.sha256(stream.read()).hexdigest()}  {path}\n")
    return "".join(lines)


def stale(note: str, paths: t.Sequence[str]) -> bool:
    """Whether a service that starts at boot works with other files than these.

    :param note: where the digests of what it was last given are noted; gone after a boot, which gives it what is there
    """
    noted = read(note)
    if noted is not None:
        return noted != digests(paths)
    booted = os.stat("/proc/1").st_ctime
    return any(os.stat(path).st_ctime > booted for path in paths)


def restore(path: str, content: str | None, mode: int) -> None:
    """Put back what :func:`read` returned before a change; None removes the file."""
    if content is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    else:
        write(path, content, mode)


def folder(path: str, mode: int = 0o755) -> None:
    """Make a folder unless it is there, and those above it, readable for all, whatever the umask of the account that this runs as is."""
    former = os.umask(0o022)
    try:
        os.makedirs(path, mode=mode, exist_ok=True)
    finally:
        os.umask(former)


@contextlib.contextmanager
def lock(name: str, directory: str = RUN_DIR) -> t.Iterator[None]:
    """Hold ``directory``/NAME.lock; the kernel lets go of it when the process ends, however it ends."""
    folder(directory)
    handle = os.open(os.path.join(directory, f"{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
