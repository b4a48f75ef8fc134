# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container admins: unprivileged accounts that can run containers with systemd inside.

What such an account needs beyond a login: 65536 subordinate UIDs and GIDs of its own (dynamic users
take UIDs up to 65519), lingering (its containers run while nobody is logged in), and a storage.conf
that names the machine's shared image store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pwd
import socket
import time
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files

ID_COUNT = 65536
"""Subordinate IDs that a container admin needs."""
FIRST_UID = 1000
DAY = 24 * 3600
LINGER_DIR = "/var/lib/systemd/linger"
HOME_MODE = 0o750
PASSWORDS = "/var/lib/ananke/passwords"
"""A file per account whose password is its owner's to change: which hash of the inventory was given last."""

STORAGE_CONF = """\
# Managed by ananke.jupyterhub: images come from the machine's shared store, read-only.
[storage]
driver = "overlay"

[storage.options]
additionalimagestores = ["{store}"]

[storage.options.overlay]
mount_program = "/usr/bin/fuse-overlayfs"
"""

Run = t.Callable[..., str]
"""``run(argv, stdin=None)`` runs a command, returns its standard output, raises AccountError when it fails."""


class AccountError(Exception):
    """What is wrong with an account, and what to do about it."""


@dataclasses.dataclass(frozen=True)
class Account:
    """The account that is wanted. ``None`` means: leave that as it is."""

    name: str
    uid: int | None = None
    password_hash: str | None = dataclasses.field(default=None, repr=False)
    password_change: bool = False
    """Whether that password is only the first one, which must be changed at the next login."""
    authorized_keys: tuple[str, ...] | None = None
    store: str | None = None


def must(run: t.Callable[[t.Sequence[str]], tuple[int, str]], argv: t.Sequence[str], hint: str) -> str:
    """Output of a command that must succeed; the hint says what to do where it does not.

    Raises:
        AccountError: it failed; with its words, as far as they are not too many.
    """
    status, output = run(argv)
    if status:
        shown = " ".join(" ".join(argv).split())[:200]
        raise AccountError(f"{shown} failed with status {status}: {output.strip()[-2000:]}; {hint}")
    return output


def subordinate_ids(text: str, name: str) -> int:
    """The largest single range that a subuid or subgid file grants to account ``name``.

    Source: subuid(5), lines of ``name:start:count``.
    """
    counts = [0]
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] == name and fields[2].isdigit():
            counts.append(int(fields[2]))
    return max(counts)


def next_range(*texts: str) -> int:
    """The first ID after every range of these subuid and subgid files, at least 100000 (the distribution's floor)."""
    end = 100000
    for text in texts:
        for line in text.splitlines():
            fields = line.strip().split(":")
            if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
                end = max(end, int(fields[1]) + int(fields[2]))
    return end


def password_field(shadow: str, name: str) -> str | None:
    """The password field of account ``name`` in the text of /etc/shadow, None where it has no line."""
    return _shadow_field(shadow, name, 1)


def has_expired(shadow: str, name: str) -> bool:
    """Whether account ``name`` has expired, from the text of /etc/shadow. PAM starts nothing for it then, its systemd manager included.

    Source: shadow(5), the days from 1970 on until that; empty where it never happens.
    """
    day = _shadow_field(shadow, name, 7) or ""
    return day.isdigit() and int(day) <= time.time() // DAY


def revival(name: str) -> str:
    """What to do about an account that has expired."""
    return (
        "if its removal was not finished, run that again (playbooks/remove.yml or remove_account.yml);"
        f" to keep it, usermod --unlock --expiredate '' {name}, and run playbooks/hubs.yml"
    )


def _shadow_field(shadow: str, name: str, index: int) -> str | None:
    for line in shadow.splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > index:
            return fields[index]
    return None


def lookup(name: str) -> pwd.struct_passwd | None:
    """The account's passwd entry, None where there is no such account."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def as_user(entry: pwd.struct_passwd, function: t.Callable[[], t.Any]) -> t.Any:
    """Call ``function`` in a child process that is ``entry``'s user, and return its JSON-able result.

    Root never writes below a home itself: the owner could have put a link there.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            os.setgid(entry.pw_gid)
            os.initgroups(entry.pw_name, entry.pw_gid)
            os.setuid(entry.pw_uid)
            os.umask(0o077)
            reply = json.dumps({"result": function()})
            status = 0
        except BaseException as error:
            told = str(error) if isinstance(error, AccountError) else f"{type(error).__name__}: {error}"
            reply = json.dumps({"error": told})
        os.write(writer, reply.encode())
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    reply = json.loads(data or b'{"error": "the child process died"}')
    if "error" in reply:
        raise AccountError(f"as {entry.pw_name} in {entry.pw_dir}: {reply['error']}")
    return reply["result"]


def in_session(entry: pwd.struct_passwd, script: str, *arguments: str) -> list[str]:
    """The command line that runs a shell script as the account, in its session."""
    environment = [f"HOME={entry.pw_dir}", f"XDG_RUNTIME_DIR=/run/user/{entry.pw_uid}", "PATH=/usr/bin:/bin"]
    command = ["env", "--chdir=/", "--ignore-environment", *environment, "sh", "-euc", script, "sh", *arguments]
    return ["runuser", f"--user={entry.pw_name}", "--", *command]


def own_files(account: Account, home: str) -> dict[str, tuple[str, int]]:
    """The files below the home that belong to the wanted state: path -> (content, mode)."""
    wanted: dict[str, tuple[str, int]] = {}
    if account.store:
        path = os.path.join(home, ".config/containers/storage.conf")
        wanted[path] = (STORAGE_CONF.format(store=account.store), 0o644)
    if account.authorized_keys is not None:
        content = "".join(f"{key.strip()}\n" for key in account.authorized_keys)
        wanted[os.path.join(home, ".ssh/authorized_keys")] = (content, 0o600)
    return wanted


def create(account: Account, run: Run, check: bool) -> list[str]:
    """See that the account exists, with a home; returns what was (with ``check``: would be) done, in words."""
    entry = lookup(account.name)
    if entry is not None and entry.pw_uid < FIRST_UID:
        raise AccountError(
            f"account {account.name} is a system account (UID {entry.pw_uid}): choose another name for the container admin"
        )
    if entry is not None and account.uid is not None and entry.pw_uid != account.uid:
        raise AccountError(
            f"account {account.name} has UID {entry.pw_uid}, not {account.uid}: files would lose their owner;"
            " remove container_admin_uid or choose another name"
        )
    if entry is not None and has_expired(files.read("/etc/shadow") or "", account.name):
        raise AccountError(f"account {account.name} has expired, so nothing of it can run: {revival(account.name)}")
    if entry is not None:
        return []
    if not check:
        command = ["useradd", "--create-home", "--shell", "/bin/bash", "--comment", "container admin"]
        if account.uid is not None:
            command += ["--uid", str(account.uid)]
        run([*command, account.name])
    return [f"account {account.name} created"]


def furnish(account: Account, run: Run, check: bool, home_there: bool = True) -> list[str]:
    """Bring all else of the account to the wanted state; returns what was (with ``check``: would be) done, in words.

    :param home_there: with ``check``, whether the files of the home can be seen already
    """
    entry = lookup(account.name)
    done = _ensure_ids(account.name, run, check)
    done += _ensure_password(account, run, check)
    done += _ensure_manager(account.name, entry, run, check)
    if entry is None:
        return [*done, "files of the home written"]
    if not home_there:
        return done
    if files.mode_of(entry.pw_dir) != HOME_MODE:
        done.append(f"mode of {entry.pw_dir} set to {HOME_MODE:04o}")
        if not check:
            os.chmod(entry.pw_dir, HOME_MODE)
    wanted = own_files(account, entry.pw_dir)
    if wanted:
        done += as_user(entry, lambda: _write_own(wanted, check))
    return done


def _ensure_manager(name: str, entry: pwd.struct_passwd | None, run: Run, check: bool) -> list[str]:
    """Lingering, and the account's systemd manager running now: lingering alone starts it in the background, or never if that failed."""
    done = []
    if not os.path.exists(os.path.join(LINGER_DIR, name)):
        done.append("lingering enabled")
        if not check:
            run(["loginctl", "enable-linger", name])
    if entry is not None and not manager_runs(f"/run/user/{entry.pw_uid}/systemd/private"):
        done.append("systemd manager started")
        if not check:
            run(["systemctl", "start", f"user@{entry.pw_uid}.service"])
    return done


def manager_runs(path: str) -> bool:
    """Whether a systemd manager listens at this socket; one that was stopped leaves the socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(path) == 0


def _ensure_ids(name: str, run: Run, check: bool) -> list[str]:
    texts = {kind: files.read(f"/etc/sub{kind}") or "" for kind in ("uid", "gid")}
    missing = [kind for kind, text in texts.items() if subordinate_ids(text, name) < ID_COUNT]
    if not missing:
        return []
    if not check:
        first = next_range(*texts.values())
        for kind in missing:
            run(["usermod", f"--add-sub{kind}s", f"{first}-{first + ID_COUNT - 1}", name])
    return [f"{ID_COUNT} subordinate {' and '.join(kind.upper() + 's' for kind in missing)} added"]


def lacks_password(shadow: str, name: str) -> bool:
    """Whether nobody can log in to the account by a password, from the text of /etc/shadow."""
    field = password_field(shadow, name)
    return field is not None and (not field or field.startswith(("!", "*")))


def _ensure_password(account: Account, run: Run, check: bool) -> list[str]:
    if account.password_hash is None:
        return []
    note = os.path.join(PASSWORDS, account.name)
    digest = hashlib.sha256(account.password_hash.encode()).hexdigest() + "\n"
    if account.password_change and files.read(note) == digest:
        return []  # the account has changed it since, or has still to
    same = password_field(files.read("/etc/shadow") or "", account.name) == account.password_hash
    if same and not account.password_change:
        return []
    done = [] if same else ["password set"]
    if not same and not check:
        run(["chpasswd", "--encrypted"], stdin=f"{account.name}:{account.password_hash}\n")
    if account.password_change:
        done.append("password to be changed at the next login")
        if not check:
            run(["chage", "--lastday", "0", account.name])
            files.folder(PASSWORDS, 0o700)
            files.write(note, digest, 0o600)  # last: a run that was killed before is repeated
    elif not check:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(note)
    return done


def _write_own(wanted: dict[str, tuple[str, int]], check: bool) -> list[str]:
    done = []
    for path, (content, mode) in wanted.items():
        if files.differs(path, content, mode):
            done.append(f"{path} written")
            if not check:
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                files.write(path, content, mode)
    return done
