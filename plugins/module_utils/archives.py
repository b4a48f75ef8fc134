# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of what is about to be deleted, and the note that it may be.

Two files in a folder tell how far a run came::

    .NAME.tar.zst     being written; made again after a kill
    .NAME.json        the archive is whole, verified and on disk; from now on only the deletion goes on

So nothing is deleted before that note is there, and what is half deleted is never archived again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.accounts import must
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Run

UNPACK = ("--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*")


@dataclasses.dataclass(frozen=True)
class Archive:
    """What was archived; all fields are empty where nothing was."""

    archive: str = ""
    """Name of the file."""
    sha256: str = ""
    archived: str = ""
    """Time of day, UTC, ISO 8601."""


def pack(name: str, folder: str, source: str, run: Run, left_out: t.Sequence[str] = ()) -> Archive:
    """Archive a folder as root sees it, and compare the archive with it.

    :param name: what the archive's name begins with
    :param folder: where archives are; it is made, for root alone
    :param left_out: paths below the source that are not archived; they begin with ``./``
    :raises AccountError: it could not be written, or the source changed meanwhile
    """
    files.folder(os.path.dirname(folder))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    moment = time.gmtime()
    final = f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', moment)}.tar.zst"
    draft = os.path.join(folder, f".{name}.tar.zst")
    excluded = [f"--exclude={one}" for one in left_out]
    common = ["--file", draft, "--zstd", *UNPACK, "--directory", source]
    hint = f"nothing was deleted; make room in {folder}, or mend what is named, and run again"
    _private(draft)
    must(run, ["tar", "--create", *common, "--sparse", "--one-file-system", "--anchored", *excluded, "."], hint)
    must(run, ["tar", "--compare", *common], hint)
    digest = _sha256(draft)
    os.rename(draft, os.path.join(folder, final))
    return Archive(final, digest, time.strftime("%Y-%m-%dT%H:%M:%SZ", moment))


def note(name: str, folder: str, record: t.Mapping[str, t.Any]) -> None:
    """Note what is deleted from now on; it is on disk when this returns."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    files.write(_note(name, folder), json.dumps(record, indent=2) + "\n", 0o600)
    _sync(folder)


def noted(name: str, folder: str) -> dict[str, t.Any] | None:
    """The note of a deletion that was begun; None where there is none."""
    text = files.read(_note(name, folder))
    return None if text is None else dict(json.loads(text))


def close(name: str, folder: str, archive: str) -> None:
    """All is deleted: the note goes beside the archive, for whoever brings it back, or goes."""
    if archive:
        os.rename(_note(name, folder), os.path.join(folder, f"{archive}.json"))
    else:
        os.unlink(_note(name, folder))


def _note(name: str, folder: str) -> str:
    return os.path.join(folder, f".{name}.json")


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _sync(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _private(path: str) -> None:
    """Make a file that only its owner reads, or one that is there so. A umask would not do: podman, which may run tar, has its own."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(handle, 0o600)
    finally:
        os.close(handle)
