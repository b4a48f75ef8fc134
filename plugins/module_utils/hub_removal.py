# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removal of a hub, whose account and whose other hubs stay; see :mod:`archives` for how a run that was killed is finished.

What lies in the account's home is touched by processes of the account, in its containers' user namespace: whatever its owner has put
there, a link to another folder for example, root follows none of it.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import time

from ansible_collections.ananke.jupyterhub.plugins.module_utils import (
    accounts,
    archives,
    backups,
    files,
    nginx,
    quotas,
    removal,
)
from ansible_collections.ananke.jupyterhub.plugins.module_utils.accounts import AccountError
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Run

KEEP = ("archive", "home", "nothing")
"""What becomes of a hub's files."""
REMOVED = "removed"
"""Folder of the account's home with what it keeps of removed hubs."""

STOP = """
container=$1
if [ -S "$XDG_RUNTIME_DIR/systemd/private" ]; then
    systemctl --user disable --quiet "$container.service" 2>/dev/null || true
    systemctl --user stop "$container.service" || [ $? -eq 5 ]
fi
rm -f "$HOME/.config/containers/systemd/$container.container" "$HOME/.config/systemd/user/$container.service"
if [ -S "$XDG_RUNTIME_DIR/systemd/private" ]; then
    systemctl --user daemon-reload
    systemctl --user reset-failed "$container.service" 2>/dev/null || true
fi
exec podman rm --force --ignore --time=10 "$container"
"""
"""Ends the container and forgets its unit. Status 5 of systemctl: there is no such unit."""
HAND_OVER = 'exec podman unshare chown --recursive --no-dereference 0:0 -- "$HOME/hubs/$1"'
MOVE = (
    'mkdir -p -m 0700 "$HOME/removed" && { [ ! -e "$HOME/hubs/$1" ] || mv -T -- "$HOME/hubs/$1" "$HOME/removed/$2"; }'
)
DELETE = 'exec podman unshare rm --recursive --force --one-file-system -- "$HOME/hubs/$1"'


@dataclasses.dataclass(frozen=True)
class Record:
    """What was removed, and what is needed to bring it back."""

    name: str
    account: str
    uid: int
    home: str
    subuids: list[str]
    """Ranges as START:COUNT."""
    subgids: list[str]
    keep: str
    moved: str = ""
    """Name of the folder in the account's `removed`."""
    archive: str = ""
    sha256: str = ""
    archived: str = ""


def foretell(name: str, account: str, keep: str, folder: str) -> list[str]:
    """What :func:`remove` would do, in words.

    Raises:
        AccountError: the hub must not be removed.
    """
    if archives.noted(name, folder) is not None:
        return ["the removal that was interrupted finished"]
    entry = accounts.lookup(account)
    done = [f"public path of {name} taken away"] if _fragment(name).difference() else []
    if entry is not None:
        done += [f"ananke-{name} ended"] if _units(entry, name) else []
        if _has_folder(entry, name):
            done.append(
                {
                    "archive": f"hub {name} archived in {folder}",
                    "home": f"files of {name} handed over to {account}, in ~/{REMOVED}",
                    "nothing": f"files of {name} deleted",
                }[keep]
            )
        done += quotas.foretell([quotas.Quota(name, None, {})], entry.pw_dir)
    return done + backups.foretell([backups.Backup(name)], account)


def remove(name: str, account: str, keep: str, folder: str, run: Run) -> tuple[list[str], Record | None]:
    """Remove a hub; returns what was done, in words, and what became of its files.

    Raises:
        AccountError: the hub must not be removed, or could not be; says what to do.
        NginxError: nginx refuses a configuration without it.
    """
    done = foretell(name, account, keep, folder)
    if not done:
        return [], None
    known = archives.noted(name, folder)
    record = Record(**known) if known else None
    fragment = _fragment(name)
    if fragment.difference():
        nginx.apply_all([fragment], run)
    backups.apply([backups.Backup(name)], account, run)
    entry = accounts.lookup(record.account if record else account)
    if entry is not None:
        _own(entry, STOP, run, f"ananke-{name}")
        if record is None and _has_folder(entry, name):
            record = _keep(entry, name, keep, folder, run)
        if record is not None and _has_folder(entry, name):
            _own(entry, MOVE if record.moved else DELETE, run, name, record.moved)
        limits = [quotas.Quota(name, None, {})]
        if quotas.foretell(limits, entry.pw_dir):
            quotas.apply(limits, entry.pw_dir, run)
    if record is not None:
        archives.close(name, folder, record.archive)
    return done, record


def kept(record: Record, folder: str) -> str:
    """Path of what is kept; empty where nothing is."""
    if record.moved:
        return os.path.join(record.home, REMOVED, record.moved)
    return os.path.join(folder, record.archive) if record.archive else ""


def hubs_left(account: str) -> list[str]:
    """Names of the hubs that an account still has, files of removed ones among them."""
    entry = accounts.lookup(account)
    if entry is None:
        return []
    kept = os.path.join(entry.pw_dir, REMOVED)
    return removal.hubs_of(entry.pw_dir) + ([REMOVED] if os.path.isdir(kept) and os.listdir(kept) else [])


def _keep(entry: pwd.struct_passwd, name: str, keep: str, folder: str, run: Run) -> Record:
    """Bring the hub's files to where they are kept, as far as nothing is deleted yet, and note what comes next."""
    packed, moved = archives.Archive(), ""
    if keep == "archive":
        packed = archives.pack(name, folder, os.path.join(entry.pw_dir, "hubs", name), run)
    elif keep == "home":
        _own(entry, HAND_OVER, run, name)
        moved = f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    record = Record(
        name=name,
        account=entry.pw_name,
        uid=entry.pw_uid,
        home=entry.pw_dir,
        subuids=removal.ranges(files.read("/etc/subuid") or "", entry.pw_name),
        subgids=removal.ranges(files.read("/etc/subgid") or "", entry.pw_name),
        keep=keep,
        moved=moved,
        **dataclasses.asdict(packed),
    )
    archives.note(name, folder, dataclasses.asdict(record))
    return record


def _fragment(name: str) -> nginx.Fragment:
    return nginx.Fragment(os.path.join(nginx.LOCATIONS_DIR, f"{name}.conf"), None)


def _units(entry: pwd.struct_passwd, name: str) -> list[str]:
    """The hub's units, as far as they are there."""
    config = os.path.join(entry.pw_dir, ".config")
    paths = [
        os.path.join(config, "containers/systemd", f"ananke-{name}.container"),
        os.path.join(config, "systemd/user", f"ananke-{name}.service"),
    ]
    return [path for path in paths if os.path.lexists(path)]


def _has_folder(entry: pwd.struct_passwd, name: str) -> bool:
    """Whether the hub has its folder.

    Raises:
        AccountError: there is something else in its place.
    """
    for path in (os.path.join(entry.pw_dir, "hubs"), os.path.join(entry.pw_dir, "hubs", name)):
        if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
            raise AccountError(
                f"{path} is no folder but something else, which is not followed: move it away and run again"
            )
    return os.path.isdir(os.path.join(entry.pw_dir, "hubs", name))


def _own(entry: pwd.struct_passwd, script: str, run: Run, *arguments: str) -> None:
    """Run a shell script as the account, in its session."""
    accounts.must(run, accounts.in_session(entry, script, *arguments), "run again when that is mended")
