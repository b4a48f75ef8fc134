# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of a hub: where they go, when, and for how long."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Optional

from . import checks
from .problems import Bad, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

PERIODS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
"""What snapshots are kept for; restic's own words."""
_REPOSITORY = re.compile(r"(?:/(?!/)|(?:sftp|rest|s3|b2|azure|gs|swift):)[^\s]{1,500}\Z")
_SCHEDULE = re.compile(r"[A-Za-z0-9*][A-Za-z0-9 *:,./~+-]{0,200}\Z")
_PASSWORD = re.compile(r"\S.{10,510}\S\Z")
_PATTERN = re.compile(r"[^/\s].{0,500}\Z")


def _keep(value: Any) -> dict[str, int]:
    remedy = "Write how many snapshots of which kind stay, such as {daily: 7, weekly: 5, monthly: 12}"
    if not isinstance(value, dict):
        raise Bad("it is not a mapping", remedy)
    for name in value:
        if name not in PERIODS:
            raise Bad(f"{name} is unknown, the nearest is {nearest(str(name), PERIODS)}", remedy)
    count = checks.integer(0, 10000, "a number of snapshots")
    return {name: checks.inside(count, value[name], f".{name}") for name in PERIODS if name in value}


def _environment(value: Any) -> dict[str, str]:
    found = checks.environment(value)
    for name in found:
        if name in ("RESTIC_REPOSITORY", "RESTIC_PASSWORD", "PATH"):
            raise Bad("it is set for restic already", "Remove it", f"[{shown(name)}]", "(not shown)")
    return found


VARIABLES: dict[str, checks.Check] = {
    "hub_backup_repository": checks.optional(
        checks.text(
            _REPOSITORY,
            "it is not a repository of restic",
            "Write a folder of the machine such as /srv/backup/math101, or sftp:user@host:/folder, or s3:https://host/bucket",
        )
    ),
    "hub_backup_password": checks.optional(
        checks.text(_PASSWORD, "it is too short", "Write 12 characters or more, and keep them in a vault and on paper")
    ),
    "hub_backup_environment": _environment,
    "hub_backup_schedule": checks.text(
        _SCHEDULE, "it is not a time of systemd's calendar", "Write daily, or such as *-*-* 02:00; see systemd.time(7)"
    ),
    "hub_backup_keep": _keep,
    "hub_backup_exclude": checks.listing(
        checks.text(
            _PATTERN, "it is not a path below the hub's folder", "Write a pattern such as private/*/.cache or *.tmp"
        ),
        "Write a list of patterns",
    ),
}


def described(values: Mapping[str, Any], hub: str) -> dict[str, Any]:
    """What the machine is told of a hub's backups; repository None: there are none."""
    return {"hub": hub, **{key.removeprefix("hub_backup_"): values[key] for key in VARIABLES}}


def problem(values: Mapping[str, Any]) -> Optional[tuple[str, str, str]]:
    """What does not fit together: variable, what is wrong, what to do."""
    if values.get("hub_backup_repository") and "hub_backup_password" in values and not values["hub_backup_password"]:
        return (
            "hub_backup_password",
            "it is required, since hub_backup_repository is set",
            "Write 12 characters or more, and keep them in a vault and on paper: without them no backup can be read",
        )
    return None
