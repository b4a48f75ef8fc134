# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many small files of a system at once: drop-ins, settings in files that know no drop-ins, permissions, homes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files

FIRST_UID = 1000
LAST_UID = 60000
"""UIDs of people's accounts, as login.defs has them."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One file. Without content and settings only its permissions are wanted, where it exists."""

    path: str
    mode: int | None = None
    content: str | None = dataclasses.field(default=None, repr=False)
    settings: t.Mapping[str, str] | None = None
    absent: bool = False


@dataclasses.dataclass(frozen=True)
class Change:
    """What was, or would be, done to a path: its text or its mode before and after."""

    path: str
    before: str
    after: str


def with_settings(text: str, settings: t.Mapping[str, str]) -> str:
    """``text`` with ``KEY VALUE`` lines: the first line of a key gets the value, further ones go, a missing one is added at the end.

    A commented line stays, since it explains the default.
    """
    left = dict(settings)
    lines: list[str] = []
    for line in text.splitlines():
        match = re.match(r"([A-Z_]+)(\s+)(\S.*)?$", line)
        key = match[1] if match else ""
        if match is None or key not in settings:
            lines.append(line)
        elif key in left:
            value = left.pop(key)
            lines.append(line if (match[3] or "").split("#")[0].strip() == value else f"{key}{match[2]}{value}")
    lines += [f"{key}\t{value}" for key, value in left.items()]
    return "".join(f"{line}\n" for line in lines)


def tightened(mode: int, allowed: int) -> int:
    """``mode`` without the permissions that ``allowed`` has not; special bits stay."""
    return mode & (allowed | ~0o777)


def homes(passwd: str) -> dict[str, int]:
    """Home -> UID of people's accounts in the text of /etc/passwd."""
    found = {}
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[2].isdigit() and FIRST_UID <= int(fields[2]) <= LAST_UID:
            found[fields[5]] = int(fields[2])
    return found


def ensure(wanted: t.Iterable[Wanted], home_mode: int | None, passwd: str, check: bool) -> list[Change]:
    """Bring all files and homes to the wanted state; with ``check`` only say what would change.

    Raises:
        OSError: a path cannot be read or written.
    """
    changes = [change for file in wanted for change in _ensure_file(file, check)]
    if home_mode is not None:
        for home, uid in homes(passwd).items():
            changes += _ensure_mode(home, home_mode, check, owner=uid)
    return changes


def _ensure_file(wanted: Wanted, check: bool) -> list[Change]:
    if not wanted.absent and wanted.content is None and wanted.settings is None:
        return [] if wanted.mode is None else _ensure_mode(wanted.path, wanted.mode, check)
    before = files.read(wanted.path)
    if wanted.absent:
        if before is None:
            return []
        if not check:
            os.unlink(wanted.path)
        return [Change(wanted.path, before, "")]
    if wanted.content is not None:
        return _ensure_content(wanted.path, before, wanted.content, wanted.mode or 0o644, check)
    if before is None:
        return []
    mode = files.mode_of(wanted.path) or 0o644
    return _ensure_content(wanted.path, before, with_settings(before, wanted.settings or {}), mode, check)


def _ensure_content(path: str, before: str | None, content: str, mode: int, check: bool) -> list[Change]:
    if not files.differs(path, content, mode):
        return []
    if not check:
        files.folder(os.path.dirname(path))
        files.write(path, content, mode)
    if before == content:
        return [Change(path, "another mode\n", f"mode {mode:04o}\n")]
    return [Change(path, before or "", content)]


def _ensure_mode(path: str, allowed: int, check: bool, owner: int | None = None) -> list[Change]:
    """Take away permissions; what is a link, is not there or does not belong to ``owner`` is left alone."""
    with contextlib.suppress(FileNotFoundError):
        status = os.lstat(path)
        mode = stat.S_IMODE(status.st_mode)
        plain = stat.S_ISDIR(status.st_mode) or (owner is None and stat.S_ISREG(status.st_mode))
        if plain and mode != tightened(mode, allowed) and (owner is None or status.st_uid == owner):
            if not check:
                os.chmod(path, tightened(mode, allowed))
            return [Change(path, f"mode {mode:04o}\n", f"mode {tightened(mode, allowed):04o}\n")]
    return []
