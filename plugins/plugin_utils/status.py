# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hubs and machines told of themselves, as data, as a table for a terminal and as one page for a browser. Nothing here knows Ansible."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from jinja2 import Template

from . import reports

Record = dict[str, Any]
FULL, SOON, OLD = 0.9, 14, 2
"""Share of a disk from which it is called nearly full; days from which a certificate expires soon, and a backup is old."""
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def hub(
    name: str,
    described: Mapping[str, Any],
    told: Mapping[str, Any],
    lost: Sequence[str],
    now: datetime.datetime,
    backups: Optional[Mapping[str, Any]] = None,
) -> Record:
    """A hub's record.

    Args:
        name: Its inventory host.
        described: What the module hub_description returned for it; empty where it did not run.
        told: What hub_info returned; without ``health`` where the hub could not be asked.
        lost: What its next image will not have.
        now: The time of the report.
        backups: What machine_info returned of backups; None where the machine was not asked.
    """
    own = described.get("hub") or {}
    reached = "health" in told
    users, versions = told.get("users") or {}, told.get("versions") or {}
    container = (told.get("limits") or {}).get("container") or {}
    disk = (told.get("disk") or [{}])[0]
    built = versions.get("image_built")
    record: Record = {
        "name": name,
        "machine": own.get("machine"),
        "url": (described.get("description") or {}).get("public_url"),
        "reached": reached,
        "healthy": bool(reached and told["health"]["healthy"]),
        "versions": {key: value for key, value in versions.items() if key != "image_built"},
        "image": {"name": own.get("image"), "built": built, "days": days(built, now)},
        "users": {key: users.get(key) for key in ("active", "week", "known")},
        "memory": {"used": container.get("memory_used"), "size": container.get("memory")},
        "disk": {key: disk.get(key) for key in ("used", "size", "free")},
        "backup": _backup(described, backups, now),
        "drift": list(lost),
        "problems": list(told.get("problems") or []),
    }
    if not reached:
        record["problems"].append(f"it could not be asked: {reports.reason(told)}")
    record["problems"] += _nearly_full("the disk of its homes", record["disk"])
    record["problems"] += _unsaved(record["backup"]) if backups is not None else []
    return record


def _backup(described: Mapping[str, Any], backups: Optional[Mapping[str, Any]], now: datetime.datetime) -> Record:
    """When the hub was last backed up, and what went wrong since."""
    wanted = bool((described.get("backup") or {}).get("repository"))
    known = (backups or {}).get(str((described.get("hub") or {}).get("name"))) or {}
    return {
        "wanted": wanted,
        "asked": backups is not None,
        "time": known.get("time"),
        "days": days(known.get("time"), now),
        "complete": known.get("complete"),
        "error": known.get("error") or "",
    }


def _unsaved(backup: Mapping[str, Any]) -> list[str]:
    """What is wrong with backups that are wanted."""
    if not backup["wanted"]:
        return []
    if backup["error"]:
        return [f"its last backup failed: {backup['error']}"]
    if backup["days"] is None:
        return ["it was never backed up yet: its timer does it at night, playbooks/backup.yml now"]
    if backup["days"] >= OLD:
        return [f"its last backup is {age(backup['days'])} old: see `systemctl list-timers` on its machine"]
    return [] if backup["complete"] else ["some files could not be backed up: its journal names them"]


def saved(one: Mapping[str, Any]) -> str:
    """When a hub was last backed up, for people."""
    backup = one["backup"]
    if backup["days"] is None:
        known = "never" if backup["asked"] else "?"
        return known if backup["wanted"] else "none"
    return f"{age(backup['days'])} ago" if backup["days"] else "today"


def machine(name: str, told: Mapping[str, Any]) -> Record:
    """A machine's record, of what machine_info returned."""
    reached = "memory" in told
    keys = ("memory", "cpus", "load", "disks", "certificate", "reboot")
    record: Record = {"name": name, "reached": reached, **{key: told.get(key) for key in keys}}
    problems = list(told.get("problems") or [])
    if not reached:
        problems.append(f"it could not be asked: {reports.reason(told)}")
    for disk in told.get("disks") or []:
        problems += _nearly_full(f"the file system of {disk['path']}", disk)
    certificate = told.get("certificate")
    if certificate and certificate["days"] < SOON:
        when = f"expires in {certificate['days']} days" if certificate["days"] >= 0 else "has expired"
        problems.append(
            f"the certificate of {certificate['host']} {when}: renew it, or see why it does not renew itself"
        )
    if told.get("reboot"):
        problems.append(
            f"a reboot is needed for {', '.join(told['reboot'])}; hubs come back by themselves, kernels end"
        )
    return {**record, "problems": problems}


def report(hubs: Sequence[Record], machines: Sequence[Record], now: datetime.datetime) -> Record:
    """All of it, as it is written as JSON."""
    active = [one["users"]["active"] or 0 for one in hubs]
    return {
        "version": 1,
        "time": now.isoformat(timespec="seconds"),
        "hubs": list(hubs),
        "machines": list(machines),
        "summary": {
            "hubs": len(hubs),
            "healthy": sum(one["healthy"] for one in hubs),
            "machines": len(machines),
            "servers": sum(active),
        },
    }


def table(found: Record) -> str:
    """The report for a terminal."""
    certificates = {one["name"]: (one["certificate"] or {}).get("days") for one in found["machines"]}
    rows = [
        ("hub", "machine", "state", "servers", "week", "known", "memory", "homes", "backup", "image", "certificate")
    ]
    for one in found["hubs"]:
        users = [shown(one["users"][key]) for key in ("active", "week", "known")]
        used = [of(one[key]["used"], one[key]["size"]) for key in ("memory", "disk")]
        ages = [age(one["image"]["days"]), age(certificates.get(one["machine"]))]
        rows.append((one["name"], shown(one["machine"]), state(one), *users, *used, saved(one), *ages))
    lines = reports.aligned(rows)
    for one in (*found["machines"], *found["hubs"]):
        lines += [f"{one['name']}: {problem}" for problem in one["problems"]]
        if one.get("drift"):
            lines.append(f"{one['name']}: its next image will be without this, unless it is declared:")
            lines += [f"  {text}" for text in one["drift"]]
    summary = found["summary"]
    lines.append(
        f"{summary['healthy']} of {summary['hubs']} hubs healthy, {summary['servers']} users' servers run, on {summary['machines']} machines"
    )
    return "\n".join(lines)


@functools.cache
def _template() -> Template:
    """The page without its content."""
    return reports.template("status.html.j2", size=size, share=share, state=state, saved=saved, age=age, shown=shown)


def page(found: Record) -> str:
    """The report as HTML that needs nothing else; all texts are escaped."""
    counts = [one["users"][key] or 0 for one in found["hubs"] for key in ("active", "week")]
    return _template().render(**found, most=max([1, *counts]))


def state(one: Mapping[str, Any]) -> str:
    """A hub's state in a word or two."""
    if not one["reached"]:
        return "NO ANSWER"
    return "healthy" if one["healthy"] else "NOT HEALTHY"


def size(count: Optional[float]) -> str:
    """Bytes as people read them."""
    if count is None:
        return "?"
    for unit in UNITS:
        if count < 1024 or unit == UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def of(used: Optional[int], whole: Optional[int]) -> str:
    """What is used, of what."""
    return f"{size(used)} of {size(whole)}" if whole else size(used)


def share(used: Optional[int], whole: Optional[int]) -> Optional[float]:
    """Percentage that is used; None if there is no limit, or it is not known."""
    return round(100 * used / whole, 1) if used is not None and whole else None


def _nearly_full(what: str, disk: Mapping[str, Any]) -> list[str]:
    used, whole = disk.get("used"), disk.get("size")
    if used is None or not whole or used < FULL * whole:
        return []
    return [f"{what} is nearly full, {of(used, whole)}: clear it up, or enlarge it (playbooks/grow.yml)"]


def days(time: Optional[str], now: datetime.datetime) -> Optional[int]:
    """How long ago something was."""
    return max(0, (now - datetime.datetime.fromisoformat(time)).days) if time else None


def age(count: Optional[int]) -> str:
    """Days as people say them."""
    return "?" if count is None else f"{count} day{'' if count == 1 else 's'}"


def shown(value: Any) -> str:
    """A value, known or not."""
    return "?" if value is None else str(value)
