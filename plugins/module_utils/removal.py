# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removal of a container admin's account after its home was archived; see :mod:`archives` for how a run that was killed is finished."""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import os
import pwd
import shutil
import time
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import (
    accounts,
    archives,
    backups,
    files,
    homes,
    logins,
    nginx,
    quotas,
)
from ansible_collections.ananke.jupyterhub.plugins.module_utils.accounts import AccountError
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Run

COMMENT = "container admin"
"""In the passwd entry of accounts that the module ``container_admin`` has made."""
LEFT_OUT = ("overlay", "overlay-containers", "overlay-images", "overlay-layers", "libpod", "db.sql")
"""Of the account's container storage: what podman makes again from images."""
NOTES = (accounts.PASSWORDS, "/var/lib/ananke/totp", "/var/spool/cron/crontabs")
"""Folders with a file per account that means nothing without it."""
PATIENCE = 20.0
"""Seconds in which processes of the account must end after they were told to."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What was archived, and what is needed to bring it back."""

    name: str
    uid: int
    gid: int
    home: str
    subuids: list[str]
    """Ranges as START:COUNT."""
    subgids: list[str]
    hubs: list[str]
    archive: str
    """Name of the archive."""
    sha256: str
    archived: str
    """Time of day, UTC, ISO 8601."""


def foretell(name: str, folder: str) -> list[str]:
    """What :func:`remove` would do, in words.

    Raises:
        AccountError: the account must not be removed.
    """
    entry = accounts.lookup(name)
    if _noted(name, folder) is not None:
        return ["the removal that was interrupted finished"]
    if entry is None:
        return []
    _refuse(entry)
    return [f"home of {name} archived in {folder}", f"account {name} removed"]


def remove(name: str, folder: str, run: Run) -> tuple[list[str], Record | None]:
    """Archive and remove an account; returns what was done, in words, and what the archive holds.

    Raises:
        AccountError: the account must not be removed, or could not be; says what to do.
        LoginError: sshd refuses a configuration without the account.
        NginxError: nginx refuses a configuration without its hubs.
    """
    done = foretell(name, folder)
    record = _noted(name, folder)
    if not done:
        return [], None
    if record is None:
        entry = accounts.lookup(name)
        if entry is None:
            raise AccountError(f"account {name} went away during the run: run again")
        hubs = hubs_of(entry.pw_dir)
        _close(entry, hubs, run)
        record = _archive(entry, hubs, folder, run)
    _delete(record, run)
    archives.close(name, folder, record.archive)
    return done, record


def hubs_of(home: str) -> list[str]:
    """Names of the hubs below a home."""
    path = os.path.join(home, "hubs")
    if os.path.islink(path) or not os.path.isdir(path):
        return []
    return sorted(one.name for one in os.scandir(path) if one.is_dir(follow_symlinks=False))


def ranges(text: str, name: str) -> list[str]:
    """An account's ranges in the text of /etc/subuid or /etc/subgid, as START:COUNT."""
    return [line.partition(":")[2] for line in text.splitlines() if line.startswith(f"{name}:")]


def _refuse(entry: pwd.struct_passwd) -> None:
    name = entry.pw_name
    if entry.pw_uid < accounts.FIRST_UID or entry.pw_gecos.split(",")[0] != COMMENT:
        raise AccountError(
            f"{name} was not made for hubs (its comment is {entry.pw_gecos!r}), so it is not removed."
            f" If it is to be removed all the same: usermod --comment '{COMMENT}' {name}"
        )
    for other in pwd.getpwall():
        shared = (
            set(hubs_of(entry.pw_dir)) & set(hubs_of(other.pw_dir)) if other.pw_uid >= accounts.FIRST_UID else set()
        )
        if shared and other.pw_dir != entry.pw_dir:
            hub = min(shared)
            raise AccountError(
                f"{entry.pw_dir}/hubs/{hub} and {other.pw_dir}/hubs/{hub} are both there, and one of them is no hub:"
                " rename that, and run again"
            )
    former = os.path.join(os.path.dirname(entry.pw_dir), f".{os.path.basename(entry.pw_dir)}.before-image")
    if os.path.lexists(former):
        raise AccountError(f"{former} is the account's home of former times: remove it, or move it away, and run again")


def _close(entry: pwd.struct_passwd, hubs: t.Sequence[str], run: Run) -> None:
    """Nobody comes in any more, and nothing of the account runs."""
    name = entry.pw_name
    accounts.must(run, ["usermod", "--lock", "--expiredate", "1", name], "run again")
    logins.apply(name, False, run)
    fragments = [nginx.Fragment(os.path.join(nginx.LOCATIONS_DIR, f"{hub}.conf"), None) for hub in hubs]
    if any(fragment.difference() for fragment in fragments):
        nginx.apply_all(fragments, run)
    accounts.must(run, ["loginctl", "disable-linger", name], "run again")
    run(["loginctl", "terminate-user", name])
    manager = f"user@{entry.pw_uid}.service"
    accounts.must(
        run, ["systemctl", "stop", manager], f"journalctl --unit={manager} says why; run again when that is mended"
    )
    end = time.monotonic() + PATIENCE
    while True:
        left = processes(_uids(entry))
        if not left:
            return
        if time.monotonic() > end:
            shown = ", ".join(f"{pid} ({what})" for pid, what in left.items())
            raise AccountError(f"processes of {name} go on: {shown}. End them (kill PID) and run again")
        time.sleep(0.2)


def _uids(entry: pwd.struct_passwd) -> list[range]:
    """The account's own UID and those of its containers."""
    found = [range(entry.pw_uid, entry.pw_uid + 1)]
    for one in ranges(files.read("/etc/subuid") or "", entry.pw_name):
        start, _colon, count = one.partition(":")
        found.append(range(int(start), int(start) + int(count)))
    return found


def processes(uids: t.Sequence[range], proc: str = "/proc") -> dict[int, str]:
    """PID and name of processes of these UIDs; what has ended and was not waited for does not count."""
    found = {}
    for pid in filter(str.isdigit, os.listdir(proc)):
        try:
            text = files.read(os.path.join(proc, pid, "status")) or ""
        except ProcessLookupError:
            continue
        status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        if not status.get("State", "Z").startswith("Z") and any(int(status["Uid"].split()[0]) in one for one in uids):
            found[int(pid)] = status["Name"]
    return found


def _archive(entry: pwd.struct_passwd, hubs: list[str], folder: str, run: Run) -> Record:
    """Write the archive, compare it with the home, and note that it is whole."""
    name = entry.pw_name
    storage = "./.local/share/containers/storage"
    packed = archives.pack(name, folder, entry.pw_dir, run, [f"{storage}/{one}" for one in LEFT_OUT])
    record = Record(
        name=name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        home=entry.pw_dir,
        subuids=ranges(files.read("/etc/subuid") or "", name),
        subgids=ranges(files.read("/etc/subgid") or "", name),
        hubs=hubs,
        **dataclasses.asdict(packed),
    )
    archives.note(name, folder, dataclasses.asdict(record))
    return record


def _delete(record: Record, run: Run) -> None:
    """Delete what is left of an account whose archive is whole; may be done again from any point."""
    limits = [quotas.Quota(hub, None, {}) for hub in record.hubs]
    if quotas.foretell(limits, record.home):
        quotas.apply(limits, record.home, run)
    backups.apply([backups.Backup(hub) for hub in record.hubs], record.name, run)
    unit = homes.unit_name(record.home)
    units = [
        os.path.join(homes.UNITS, homes.WANTS, unit),
        os.path.join(homes.UNITS, unit),
        os.path.join(homes.UNITS, f"user@{record.uid}.service.d", homes.DROP_IN),
    ]
    if any(map(os.path.lexists, units)):
        accounts.must(
            run, ["systemctl", "stop", unit], f"end what uses {record.home} (fuser --mount --verbose) and run again"
        )
        for path in units:
            _unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(units[-1]))
        accounts.must(run, ["systemctl", "daemon-reload"], "run again")
    for suffix in ("", ".new", ".offline"):
        _unlink(os.path.join(homes.IMAGES, f"{record.name}.img{suffix}"))
    _delete_account(record, run)
    if os.path.isdir(record.home):
        shutil.rmtree(record.home)
    for folder in NOTES:
        _unlink(os.path.join(folder, record.name))


def _delete_account(record: Record, run: Run) -> None:
    """A ``userdel`` that was killed may have forgotten the user and left the rest, so that goes by itself."""
    if accounts.lookup(record.name) is not None:
        for kind in ("uid", "gid"):
            for one in ranges(files.read(f"/etc/sub{kind}") or "", record.name):
                start, _colon, count = one.partition(":")
                last = int(start) + int(count) - 1
                accounts.must(run, ["usermod", f"--del-sub{kind}s", f"{start}-{last}", record.name], "run again")
        accounts.must(run, ["userdel", record.name], "run again")
    with contextlib.suppress(KeyError):
        if grp.getgrnam(record.name).gr_gid == record.gid:
            accounts.must(run, ["groupdel", record.name], "run again")


def _noted(name: str, folder: str) -> Record | None:
    """The archive of a removal that was begun; None where there is none."""
    known = archives.noted(name, folder)
    return None if known is None else Record(**known)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
