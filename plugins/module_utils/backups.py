# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of hubs: what root tells the program ``ananke-backup``, and the timers that start it.

Where backups go and the secrets for it are in a file for each hub that only root reads.
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.accounts import AccountError, must
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Run

SETTINGS = "/etc/ananke/backup"
STATE = "/var/lib/ananke/backup"
UNITS = "/etc/systemd/system"
PROGRAM = "/usr/local/sbin/ananke-backup"


@dataclasses.dataclass(frozen=True)
class Backup:
    """The backups of a hub; repository None: none."""

    hub: str
    repository: str | None = None
    password: str | None = None
    environment: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    schedule: str = "daily"
    keep: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    exclude: t.Sequence[str] = ()

    @property
    def timer(self) -> str:
        """The unit that starts them."""
        return f"ananke-backup@{self.hub}.timer"

    @property
    def path(self) -> str:
        """The file with the settings."""
        return os.path.join(SETTINGS, f"{self.hub}.json")

    @property
    def drop_in(self) -> str:
        """The file with the timer's schedule."""
        return os.path.join(UNITS, f"{self.timer}.d/schedule.conf")

    @property
    def enabled(self) -> str:
        """The link by which the timer starts at boot."""
        return os.path.join(UNITS, f"timers.target.wants/{self.timer}")

    def files(self, account: str) -> dict[str, tuple[str, int]]:
        """Content and mode of each file, by its path."""
        settings = {
            "account": account,
            "repository": self.repository,
            "password": self.password,
            "environment": dict(self.environment),
            "keep": dict(self.keep),
            "exclude": list(self.exclude),
            "schedule": self.schedule,
        }
        # the empty line takes away what the unit itself says
        schedule = f"[Timer]\nOnCalendar=\nOnCalendar={self.schedule}\n"
        text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
        return {self.path: (text, 0o600), self.drop_in: (schedule, 0o644)}


def from_options(options: t.Iterable[t.Mapping[str, t.Any]]) -> list[Backup]:
    """The backups that a module's option says."""
    return [Backup(**{key: value for key, value in one.items() if value is not None}) for one in options]


def foretell(backups: t.Iterable[Backup], account: str) -> list[str]:
    """What :func:`apply` would do, in words."""
    done = []
    for one in backups:
        if one.repository is None:
            there = (one.path, one.drop_in, one.enabled)
            done += [f"backups of {one.hub} ended"] if any(map(os.path.lexists, there)) else []
        elif any(files.differs(path, *wanted) for path, wanted in one.files(account).items()):
            done.append(f"backups of {one.hub} set")
        elif not os.path.lexists(one.enabled):
            done.append(f"{one.timer} started")
    return done


def apply(backups: t.Sequence[Backup], account: str, run: Run) -> list[str]:
    """Try the repositories, write the settings and start the timers.

    Raises:
        AccountError: backups cannot be made like this, and are as before; says what to do.
    """
    done = foretell(backups, account)
    for one in backups:
        if one.repository is None:
            _end(one, run)
        elif foretell([one], account):
            _begin(one, account, run)
    return done


def _begin(one: Backup, account: str, run: Run) -> None:
    if not os.path.exists(PROGRAM):
        raise AccountError(
            f"hub_backup_repository: {PROGRAM} is missing: apply the role backup to this machine first (playbooks/machines.yml --tags backup)"
        )
    must(
        run,
        ["systemd-analyze", "calendar", one.schedule],
        f"correct hub_backup_schedule of {one.hub}, see systemd.time(7)",
    )
    files.folder(SETTINGS, 0o700)
    wanted = one.files(account)
    draft = os.path.join(SETTINGS, f".{one.hub}.new")
    files.write(draft, *wanted[one.path])
    try:
        must(
            run,
            [PROGRAM, "prepare", one.hub, "--settings", draft],
            f"backups of {one.hub} are as before; mend that and run again",
        )
    finally:
        os.unlink(draft)
    files.folder(os.path.dirname(one.drop_in))
    files.write(one.drop_in, *wanted[one.drop_in])
    must(run, ["systemctl", "daemon-reload"], "run again")
    must(run, ["systemctl", "enable", "--quiet", one.timer], "run again")
    must(run, ["systemctl", "restart", one.timer], f"systemctl status {one.timer} says why; run again")
    files.write(one.path, *wanted[one.path])  # last: where it is as wanted, all of this was done


def _end(one: Backup, run: Run) -> None:
    """Backups that were made stay where they are."""
    if not foretell([one], ""):
        return
    run(["systemctl", "disable", "--now", "--quiet", one.timer])
    for path in (one.path, one.drop_in, one.enabled, os.path.join(STATE, f"{one.hub}.json")):
        if os.path.lexists(path):
            os.unlink(path)
    if os.path.isdir(os.path.dirname(one.drop_in)):
        os.rmdir(os.path.dirname(one.drop_in))
    must(run, ["systemctl", "daemon-reload"], "run again")
