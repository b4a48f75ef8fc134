# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What root grants to hubs: their account and its login, their public paths and turns to start.

``container_admin`` grants, ``machine_preflight`` only looks; both ask here, so that they cannot disagree.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import (
    accounts,
    backups,
    files,
    homes,
    logins,
    nginx,
    quotas,
    turns,
)

LOCATION: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "path": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "upload_limit": {"type": "str", "default": "1g"},
}
QUOTA: dict[str, t.Any] = {
    "hub": {"type": "str", "required": True},
    "size": {"type": "int"},
    "users": {"type": "dict", "default": {}},
}
BACKUP: dict[str, t.Any] = {
    "hub": {"type": "str", "required": True},
    "repository": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "environment": {"type": "dict", "default": {}, "no_log": True},
    "schedule": {"type": "str", "default": "daily"},
    "keep": {"type": "dict", "default": {}},
    "exclude": {"type": "list", "elements": "str", "default": []},
}
OPTIONS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "uid": {"type": "int"},
    "password_hash": {"type": "str", "no_log": True},
    "password_change": {"type": "bool", "default": False},
    "authorized_keys": {"type": "list", "elements": "str", "no_log": False},
    "store": {"type": "path"},
    "home_size": {"type": "bytes"},
    "home_offline": {"type": "bool", "default": False},
    "locations": {"type": "list", "elements": "dict", "default": [], "options": LOCATION},
    "quotas": {"type": "list", "elements": "dict", "default": [], "options": QUOTA},
    "backups": {"type": "list", "elements": "dict", "default": [], "options": BACKUP},
}
"""Argument spec of one container admin and its hubs' public paths."""
Wanted = t.Mapping[str, t.Any]
"""Values of these options."""


def grant(wanted: Wanted, checked: accounts.Run, run: nginx.Run) -> list[str]:
    """Grant what is wanted; returns what was done, in words.

    :param checked: runs a command that must succeed, see :data:`accounts.Run`
    :param run: runs a command that may fail, see :data:`nginx.Run`
    :raises AccountError: the account cannot be as it is wanted
    :raises LoginError: sshd refuses that the account logs in
    :raises NginxError: nginx refuses a path, or is not set up
    """
    account = _account(wanted)
    refused = refusals(wanted)
    if refused:
        raise accounts.AccountError("; ".join(refused))
    with files.lock("accounts"):
        done = accounts.create(account, checked, check=False)
    if wanted["home_size"] is not None:
        with files.lock(f"home-{account.name}"):  # copying a home may take long, and others need not wait for it
            done += homes.ensure(_home(wanted), run, check=False)
    entry = accounts.lookup(account.name)
    if entry is not None:
        with files.lock("quotas"):
            done += quotas.apply(_quotas(wanted), entry.pw_dir, run)
    with files.lock("accounts"):
        done += accounts.furnish(account, checked, check=False)
        turns.provide()
    done += logins.apply(wanted["name"], bool(wanted["authorized_keys"]), run)
    for path, content in _fragments(wanted):
        if not os.path.isdir(nginx.LOCATIONS_DIR):
            raise nginx.NginxError(
                f"{nginx.LOCATIONS_DIR} does not exist: apply the role reverse_proxy to this machine first (playbooks/machines.yml)"
            )
        done += nginx.apply(path, content, run)
    with files.lock("backups"):
        done += backups.apply(_backups(wanted), account.name, run)
    return done


def foretell(wanted: Wanted) -> list[str]:
    """What :func:`grant` would do, in words, also where nginx is not set up yet.

    :raises AccountError: the account cannot be as it is wanted
    """
    account = _account(wanted)
    done = accounts.create(account, _never, check=True)
    entry = accounts.lookup(account.name)
    done += quotas.foretell(_quotas(wanted), None if entry is None else entry.pw_dir)
    hidden = False
    if wanted["home_size"] is not None:
        if accounts.lookup(account.name) is None:
            done.append(f"home on an image of {homes.shown(wanted['home_size'])} made")
        else:
            home = _home(wanted)
            done += homes.ensure(home, _never, check=True)
            hidden = homes.hidden(home)
    done += accounts.furnish(account, _never, check=True, home_there=not hidden)
    done += logins.foretell(wanted["name"], bool(wanted["authorized_keys"]))
    for path, content in _fragments(wanted):
        done += nginx.foretell(path, content)
    return done + backups.foretell(_backups(wanted), account.name)


def refusals(wanted: Wanted) -> list[str]:
    """Why this machine cannot grant it, whatever else is there: one readable sentence each."""
    return quotas.refusals(_quotas(wanted), wanted["name"], wanted["home_size"])


def warnings(wanted: Wanted) -> list[str]:
    """What keeps the account from what it is for, and is nobody's mistake for sure: one readable sentence each."""
    if not wanted["authorized_keys"] or wanted["password_hash"] is not None or not logins.needs_password():
        return []
    if not accounts.lacks_password(files.read("/etc/shadow") or "", wanted["name"]):
        return []
    return [
        f"{wanted['name']} has keys and no password, and sshd wants both, so nobody can log in: set container_admin_password_hash,"
        f" or passwd {wanted['name']} on the machine"
    ]


def settled(wanted: Wanted) -> bool:
    """Whether there is nothing to grant; what cannot be granted is for :func:`grant` to refuse."""
    try:
        return turns.provided() and not foretell(wanted)
    except accounts.AccountError:
        return False


def _account(wanted: Wanted) -> accounts.Account:
    keys = wanted["authorized_keys"]
    return accounts.Account(
        name=wanted["name"],
        uid=wanted["uid"],
        password_hash=wanted["password_hash"],
        password_change=wanted["password_change"],
        authorized_keys=None if keys is None else tuple(keys),
        store=wanted["store"],
    )


def _home(wanted: Wanted) -> homes.Home:
    entry = accounts.lookup(wanted["name"])
    if entry is None:
        raise accounts.AccountError(f"account {wanted['name']} went away during the run: run again")
    projects = any(quota.size is not None for quota in _quotas(wanted))
    return homes.wanted(entry, wanted["home_size"], wanted["home_offline"], projects)


def _quotas(wanted: Wanted) -> list[quotas.Quota]:
    return quotas.from_options(wanted["quotas"])


def _backups(wanted: Wanted) -> list[backups.Backup]:
    return backups.from_options(wanted["backups"])


def _fragments(wanted: Wanted) -> list[tuple[str, str]]:
    """Path and content of nginx's fragment for each public path."""
    return [
        (
            os.path.join(nginx.LOCATIONS_DIR, f"{one['name']}.conf"),
            nginx.location(one["name"], one["path"], one["port"], one["upload_limit"]),
        )
        for one in wanted["locations"]
    ]


def _never(argv: t.Sequence[str], stdin: str | None = None) -> t.NoReturn:
    raise AssertionError(f"a look at the machine wanted to run {argv[0]}")
