# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the upkeep of machines and hubs has left to do, as data, as a table for a terminal and as one page for a browser. Nothing here knows Ansible."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from jinja2 import Template

from . import reports
from .status import age, days, shown, state

Record = dict[str, Any]
MANY = 8
"""Names from which the rest of a list is only counted in a sentence."""


def machine(name: str, updates: Mapping[str, Any], told: Mapping[str, Any], now: datetime.datetime) -> Record:
    """A machine's record.

    Args:
        name: Its inventory host.
        updates: What the module security_updates returned.
        told: What machine_maintenance returned; without ``holes`` where the machine could not be asked.
        now: The time of the report.
    """
    restart, lynis = told.get("restart"), told.get("lynis")
    record: Record = {
        "name": name,
        "reached": "holes" in told,
        "updates": _updates(updates),
        "reboot": told.get("reboot"),
        "services": None if restart is None else restart["services"],
        "sessions": None if restart is None else restart["sessions"],
        "kernels": (restart or {}).get("kernels"),
        "holes": told.get("holes"),
        "packaged": told.get("packaged"),
        "watched": told.get("watched"),
        "lynis": {**lynis, "days": days(lynis["time"], now)} if lynis else None,
        "images": [{**one, "days": days(one["created"], now)} for one in told.get("images") or []],
    }
    problems = list(updates.get("problems") or []) + list(told.get("problems") or [])
    problems += _unasked(updates, "pending") + _unasked(told, "holes")
    return {**record, "problems": problems + _todo(record)}


def _todo(record: Mapping[str, Any]) -> list[str]:
    """What a machine has left to do."""
    pending, todo = [one["name"] for one in record["updates"]["pending"] or []], []
    if pending:
        todo.append(f"{_count(pending, 'security update')} waits: ananke_maintain_update=true installs it")
    if record["services"]:
        todo.append(
            f"{_named(record['services'])} use what was replaced: ananke_maintain_restart=true restarts those that can be, and no hub; a reboot the rest"
        )
    if record["reboot"]:
        todo.append(
            f"a reboot is needed for {_named(record['reboot'])}: ananke_maintain_reboot=true does it; hubs come back by themselves, kernels end"
        )
    closed = [name for name in (record["holes"] or {}).get("packages", ()) if name not in pending]
    if closed:
        todo.append(
            f"new versions of {_named(closed)} close known holes: `apt upgrade` there brings what comes with no security update"
        )
    for package, paths in _by_package(record["packaged"] or ()):
        remedy = (
            f"`apt-get install --reinstall {package}`"
            if package
            else "`dpkg --search` names its package; reinstalling it"
        )
        todo.append(f"{_named(paths)} not as Debian made it: see who changed it; {remedy} brings it back")
    if record["watched"]:
        todo.append(
            f"changed since system files were accepted: {_named(record['watched'])}: if that was you, `ananke-integrity accept`"
        )
    return todo + [f"Lynis warns: {one}" for one in (record["lynis"] or {}).get("warnings", ())]


def _by_package(files: Iterable[Mapping[str, Any]]) -> list[tuple[Optional[str], list[str]]]:
    """Changed files by their package."""
    found: dict[Optional[str], list[str]] = {}
    for one in files:
        found.setdefault(one["package"], []).append(one["path"])
    return list(found.items())


def hub(
    name: str,
    described: Mapping[str, Any],
    updates: Mapping[str, Any],
    told: Mapping[str, Any],
    now: datetime.datetime,
) -> Record:
    """A hub's record.

    Args:
        name: Its inventory host.
        described: What the module hub_description returned for it; empty where it did not run.
        updates: What security_updates returned for its container; without ``pending`` where that could not be asked.
        told: What hub_info returned, versions, health and drift.
        now: The time of the report.
    """
    own = described.get("hub") or {}
    built = (told.get("versions") or {}).get("image_built")
    replaced = [
        one["name"] for one in told.get("drift") or [] if one["kind"] == "debian" and one["image"] and one["now"]
    ]
    record: Record = {
        "name": name,
        "machine": own.get("machine"),
        "reached": "pending" in updates and "health" in told,
        "healthy": bool((told.get("health") or {}).get("healthy")),
        "image": {"name": own.get("image"), "built": built, "days": days(built, now)},
        "updates": _updates(updates),
        "ahead": replaced,
        "services": updates.get("services"),
        "restarted": updates.get("restarted"),
    }
    problems = list(told.get("problems") or []) + list(updates.get("problems") or [])
    problems += _unasked(updates, "pending") + ([] if "health" in told else _unasked(told, "health"))
    pending = [one["name"] for one in record["updates"]["pending"] or []]
    if pending:
        problems.append(
            f"{_count(pending, 'security update')} waits inside: ananke_maintain_containers=true installs it while people work"
        )
    if "jupyterhub.service" in (record["services"] or ()):
        problems.append(
            "JupyterHub uses what was replaced: ananke_maintain_restart=true beside ananke_maintain_containers=true restarts it, which ends no kernel"
        )
    return {**record, "problems": list(dict.fromkeys(problems))}


def stale(hubs: Iterable[Mapping[str, Any]], now: datetime.datetime) -> list[Record]:
    """The images that lack security updates of some hub, with what to do."""
    found: dict[tuple[str, str], Record] = {}
    for one in hubs:
        lacks = {item["name"] for item in one["updates"]["pending"] or []} | set(one["ahead"])
        if not lacks or not one["image"]["name"]:
            continue
        # what a hub adds to a definition has the definition's name before the dot
        key = (str(one["machine"]), str(one["image"]["name"]).partition(".")[0])
        image = found.setdefault(key, {"machine": key[0], "image": key[1], "days": None, "lacks": set(), "hubs": []})
        image["lacks"] |= lacks
        image["hubs"].append(one["name"])
        image["days"] = max((age for age in (image["days"], one["image"]["days"]) if age is not None), default=None)
    return [{**one, "lacks": sorted(one["lacks"]), "text": _rebuild(one, now)} for _key, one in sorted(found.items())]


def _rebuild(one: Mapping[str, Any], now: datetime.datetime) -> str:
    """How an image gets newer packages."""
    return (
        f"image {one['image']} of {one['machine']} is {age(one['days'])} old and lacks newer versions of {_named(sorted(one['lacks']))}:"
        f' give its definition another revision (revision: "{now:%Y-%m-%d}"), or take a newer archive or digest, run images.yml, and hubs.yml'
        f" for {_named(one['hubs'])} when kernels may end"
    )


def report(hubs: Sequence[Record], machines: Sequence[Record], now: datetime.datetime) -> Record:
    """All of it, as it is written as JSON."""
    both = (*machines, *hubs)
    return {
        "version": 1,
        "time": now.isoformat(timespec="seconds"),
        "machines": list(machines),
        "hubs": list(hubs),
        "images": stale(hubs, now),
        "summary": {
            "machines": len(machines),
            "hubs": len(hubs),
            "waiting": sum(len(one["updates"]["pending"] or []) for one in both),
            "installed": sum(len(one["updates"]["installed"]) for one in both),
            "reboots": sum(bool(one["reboot"]) for one in machines),
            "files": sum(len(one["packaged"] or []) + len(one["watched"] or []) for one in machines),
        },
    }


def table(found: Record) -> str:
    """The report for a terminal."""
    rows: list[tuple[str, ...]] = [
        ("machine", "security updates", "to restart", "reboot", "holes", "changed files", "Lynis")
    ]
    for one in found["machines"]:
        rows.append(
            (one["name"], updates(one), number(one["services"]), reboot(one), holes(one), files(one), lynis(one))
        )
    lines = reports.aligned(rows) if found["machines"] else []
    rows = [("hub", "machine", "state", "security updates", "image")]
    for one in found["hubs"]:
        rows.append((one["name"], shown(one["machine"]), state(one), updates(one), age(one["image"]["days"])))
    lines += reports.aligned(rows) if found["hubs"] else []
    for one in (*found["machines"], *found["hubs"]):
        lines += [f"{one['name']}: {problem}" for problem in one["problems"]]
    lines += [one["text"] for one in found["images"]]
    summary = found["summary"]
    lines.append(
        f"{summary['waiting']} security updates wait, {summary['installed']} were installed, {summary['reboots']} machines wait for a reboot"
    )
    return "\n".join(lines)


@functools.cache
def _template() -> Template:
    """The page without its content."""
    filters = (age, shown, state, updates, reboot, holes, files, lynis, number)
    return reports.template("maintenance.html.j2", **{one.__name__: one for one in filters})


def page(found: Record) -> str:
    """The report as HTML that needs nothing else."""
    return _template().render(**found)


def updates(one: Mapping[str, Any]) -> str:
    """Security updates of a machine or hub, for people."""
    pending, installed = one["updates"]["pending"], one["updates"]["installed"]
    if pending is None:
        return "?"
    parts = [f"{len(pending)} wait"] * bool(pending) + [f"{len(installed)} installed"] * bool(installed)
    return ", ".join(parts) or "none"


def reboot(one: Mapping[str, Any]) -> str:
    """Whether a machine waits for a reboot."""
    return "?" if one["reboot"] is None else "yes" if one["reboot"] else "no"


def holes(one: Mapping[str, Any]) -> str:
    """A machine's known holes."""
    return f"{one['holes']['known']}, {one['holes']['fixed']} can be closed" if one["holes"] else "?"


def files(one: Mapping[str, Any]) -> str:
    """How many files of a machine are not as they should be."""
    known = [one[key] for key in ("packaged", "watched") if one[key] is not None]
    return str(sum(map(len, known))) if known else "?"


def lynis(one: Mapping[str, Any]) -> str:
    """Lynis' last words."""
    return f"{shown(one['lynis']['index'])} ({age(one['lynis']['days'])} ago)" if one["lynis"] else "?"


def _updates(told: Mapping[str, Any]) -> Record:
    return {"pending": told.get("pending"), "installed": told.get("installed") or [], "others": told.get("others")}


def _unasked(told: Mapping[str, Any], key: str) -> list[str]:
    return [] if key in told else [f"it could not be asked: {reports.reason(told)}"]


def number(names: Optional[Sequence[str]]) -> str:
    """How many there are, if that is known."""
    return "?" if names is None else str(len(names))


def _named(names: Sequence[str]) -> str:
    more = len(names) - MANY
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MANY])} and {more} more"


def _count(names: Sequence[str], what: str) -> str:
    return f"{what} of {_named(names)}"
