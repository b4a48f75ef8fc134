# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine's tools say of its upkeep: needrestart, debsecan, debsums, AIDE, Lynis. It only reads; what cannot be read is None, and among the problems."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Optional

from ansible_collections.ananke.jupyterhub.plugins.module_utils.machine_facts import Machine

Found = dict[str, Any]

INTEGRITY = "/usr/local/sbin/ananke-integrity"
LYNIS = "/var/log/lynis-report.dat"
IMAGES = "/var/lib/ananke/images"
KERNEL = {"1": False, "2": True, "3": True}
"""needrestart's word for the kernel: the newest one runs; one that fits its modules waits; another version waits."""
MICROCODE = {"1": False, "2": True}
MISSING = "is not there: a run of playbooks/maintain.yml without --check installs it"

_HOLE = re.compile(r"^((?:CVE|TEMP|DSA)-\S+) (\S+)(?: \((.*)\))?$", re.M)
_MISSING = re.compile(r"^debsums: missing file (/.+) \(from (\S+) package\)$", re.M)
_ENTRY = re.compile(r"^[A-Za-z?][^:\n]{12,}: (/.+)$", re.M)


def restarts(said: str) -> Found:
    """What ``needrestart -b`` says.

    ``kernel`` and ``microcode``: whether a newer one waits for a reboot, None where that is not known (in containers, for instance).
    """
    words: dict[str, list[str]] = {}
    for key, value in re.findall(r"^NEEDRESTART-(\w+): *(.*)$", said, re.M):
        words.setdefault(key, []).append(value.strip())
    first = {key: values[0] for key, values in words.items()}
    return {
        "services": words.get("SVC", []),
        "sessions": words.get("SESS", []),
        "kernel": KERNEL.get(first.get("KSTA", "")),
        "kernels": {"running": first.get("KCUR"), "newest": first.get("KEXP")},
        "microcode": MICROCODE.get(first.get("UCSTA", "")),
    }


def holes(said: str) -> Found:
    """What ``debsecan --format summary`` says: how many holes are known, and what new versions of packages would close."""
    found = [(hole, name, set((flags or "").split(", "))) for hole, name, flags in _HOLE.findall(said)]
    fixed = [(hole, name) for hole, name, flags in found if "fixed" in flags]
    return {
        "known": len({hole for hole, _name, _flags in found}),
        "fixed": len({hole for hole, _name in fixed}),
        "urgent": len({hole for hole, _name, flags in found if "high urgency" in flags}),
        "remote": len({hole for hole, _name, flags in found if "remotely exploitable" in flags}),
        "packages": sorted({name for _hole, name in fixed}),
    }


def changed_files(said: str) -> list[str]:
    """The files that ``debsums --changed`` names, those that are gone among them."""
    return sorted({*re.findall(r"^(/.+)$", said, re.M), *(path for path, _package in _MISSING.findall(said))})


def owners(said: str) -> dict[str, str]:
    """By file, its package, as ``dpkg --search`` says."""
    return {path: package for package, path in re.findall(r"^(?!diversion )([^:\n]+)(?::\S+)?: (/.+)$", said, re.M)}


def watched_files(said: str) -> list[str]:
    """The files that AIDE names as new, gone or changed."""
    return sorted(set(_ENTRY.findall(said.partition("Detailed information about changes")[0])))


def lynis_report(said: str) -> Found:
    """What Lynis noted."""
    index = re.findall(r"^hardening_index=(\d+)$", said, re.M)
    return {
        "index": int(index[-1]) if index else None,
        "warnings": re.findall(r"^warning\[\]=(.+)$", said, re.M),
        "suggestions": len(re.findall(r"^suggestion\[\]=", said, re.M)),
    }


def told(said: str) -> str:
    """The end of what a program said, on one line."""
    return " ".join(said.split())[-300:] or "it said nothing"


class Upkeep(Machine):
    """A machine, as its tools see it."""

    def tool(self, *command: str, fine: tuple[int, ...] = (0,)) -> Optional[str]:
        """What a tool says; None, and a problem, where it is missing or could not look."""
        status, said = self.run(command, b"")
        name = os.path.basename(command[0])
        if status == 127:
            self.problems.append(f"{name} {MISSING}")
        elif status not in fine:
            remedy = REMEDIES.get(name, f"run `{' '.join(command)}` there")
            self.problems.append(f"{name} could not look (status {status}): {told(said)}: {remedy}")
        return said if status in fine else None

    def services(self) -> Optional[Found]:
        """What uses programs and libraries that have been replaced since."""
        said = self.tool("needrestart", "-b", "-r", "l")
        return None if said is None else restarts(said)

    def vulnerable(self, source: str) -> Optional[Found]:
        """The holes that are known in what is installed."""
        suite = re.search(r"^VERSION_CODENAME=\"?(\w+)", self.text("/etc/os-release"), re.M)
        options = [*(["--suite", suite[1]] if suite else []), *(["--source", source] if source else [])]
        said = self.tool("debsecan", "--format", "summary", *options)
        return None if said is None else holes(said)

    def packaged(self) -> Optional[list[Found]]:
        """Files of packages that are not as Debian has made them; settings are not among them."""
        said = self.tool("debsums", "--changed", fine=(0, 2))
        if said is None:
            return None
        paths = changed_files(said)
        whose = owners(self.run(["dpkg", "--search", *paths], b"")[1]) if paths else {}
        return [{"path": path, "package": whose.get(path)} for path in paths]

    def watched(self) -> Optional[list[str]]:
        """System files that are not as somebody has accepted them; None where nothing watches them."""
        if not os.path.exists(self.root + INTEGRITY):
            return None
        status, said = self.run([INTEGRITY, "check"], b"")
        if status >= 14:
            self.problems.append(f"ananke-integrity could not look (status {status}): {told(said)}")
            return None
        return watched_files(said)

    def lynis(self) -> Optional[Found]:
        """Lynis' last report; None where there is none."""
        said = self.text(LYNIS)
        if not said:
            return None
        time = datetime.fromtimestamp(int(os.stat(self.root + LYNIS).st_mtime), UTC)
        return {**lynis_report(said), "time": time.isoformat()}

    def images(self) -> list[Found]:
        """What hubs start from here, and when it was built."""
        found = []
        for path in sorted(Path(self.root + IMAGES).glob("[a-z]*.json")):
            try:
                noted = json.loads(path.read_text(encoding="utf-8"))
                found.append({"name": path.stem, "created": noted.get("created") or None})
            except (OSError, ValueError, AttributeError) as error:
                self.problems.append(f"{path} cannot be read ({error}): run playbooks/images.yml")
        return found


REMEDIES = {
    "debsecan": "let the machine reach security-tracker.debian.org, or set auditing_debsecan_source to a mirror of it",
    "needrestart": "mend /etc/needrestart/conf.d, or apply the role baseline again",
}


def look(machine: Upkeep, source: str = "") -> Found:
    """All of it.

    :param source: where debsecan gets its data; '' is Debian's tracker
    """
    services = machine.services()
    waiting = machine.reboot()
    if services and services["kernel"]:
        waiting = sorted({*waiting, f"kernel {services['kernels']['newest'] or ''}".strip()})
    if services and services["microcode"]:
        waiting = sorted({*waiting, "microcode"})
    return {
        "restart": services,
        "reboot": waiting,
        "holes": machine.vulnerable(source),
        "packaged": machine.packaged(),
        "watched": machine.watched(),
        "lynis": machine.lynis(),
        "images": machine.images(),
        "problems": machine.problems,
    }
