# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container definition folder of a hub: what belongs into it, what differs, and what a difference entails."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import container, files

APPLIED = ".applied"
"""File that notes what the running container was started with; written last, so a killed run is finished by the next."""
UNIT = "unit"
DESCRIPTION = "description"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One file that is wanted, and which part of the hub must be told when it changes (None: nobody)."""

    path: str
    content: str
    mode: int = 0o600
    part: str | None = None


@dataclasses.dataclass
class Plan:
    """What must be done to reach the wanted state."""

    folders: list[str] = dataclasses.field(default_factory=list)
    write: list[Wanted] = dataclasses.field(default_factory=list)
    remove: list[str] = dataclasses.field(default_factory=list)
    stale: set[str] = dataclasses.field(default_factory=set)

    @property
    def empty(self) -> bool:
        """Whether folder and unit are as wanted and in force."""
        return not (self.folders or self.write or self.remove or self.stale)

    @property
    def actions(self) -> list[str]:
        """The plan in words."""
        done = [f"{path} created, or its mode set" for path in self.folders]
        done += [f"{wanted.path} written" for wanted in self.write]
        return done + [f"{path} removed" for path in self.remove]

    @property
    def diff(self) -> list[dict[str, str]]:
        """The plan as Ansible's diff."""
        return [
            {
                "before": shown(files.read(wanted.path) or ""),
                "after": shown(wanted.content),
                "before_header": wanted.path,
                "after_header": wanted.path,
            }
            for wanted in self.write
        ]


def shown(text: str) -> str:
    """The text for a diff: values of users' environment variables, which may be secrets, are hidden."""
    try:
        description = json.loads(text)
        environment = description["servers"]["environment"]
    except (ValueError, TypeError, KeyError):
        return text
    description["servers"]["environment"] = {name: "(hidden)" for name in environment}
    return json.dumps(description, indent=2, sort_keys=True) + "\n"


def wanted_files(
    folder: str,
    name: str,
    description: dict[str, t.Any],
    config_files: dict[str, str],
    ca_certificates: dict[str, str],
    lms_sheet: str | None,
) -> list[Wanted]:
    """All files of the definition folder that the collection owns, in the order in which they are written."""
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    wanted = [Wanted(os.path.join(folder, "description/hub.json"), text, part=DESCRIPTION)]
    for file_name, content in sorted(ca_certificates.items()):
        wanted.append(Wanted(os.path.join(folder, "description/ca", file_name), content, part=DESCRIPTION))
    for file_name, content in sorted(config_files.items()):
        wanted.append(Wanted(os.path.join(folder, "jupyterhub_config.d", file_name), content, part=DESCRIPTION))
    wanted.append(Wanted(os.path.join(folder, "shell"), container.shell_script(name), 0o700))
    if lms_sheet is not None:
        wanted.append(Wanted(os.path.join(folder, "lms.txt"), lms_sheet))
    return wanted


def digests(wanted: t.Iterable[Wanted]) -> dict[str, str]:
    """Digest of each part: what its files say, whatever order they come in."""
    parts: dict[str, list[str]] = {}
    for one in wanted:
        if one.part:
            parts.setdefault(one.part, []).append(f"{one.path}\0{one.content}\0")
    return {part: hashlib.sha256("".join(sorted(texts)).encode()).hexdigest() for part, texts in parts.items()}


def applied(folder: str) -> dict[str, str]:
    """What :func:`note_applied` noted; empty where nothing was, or where the note is damaged."""
    try:
        noted = json.loads(files.read(os.path.join(folder, APPLIED)) or "{}")
    except ValueError:
        return {}
    return noted if isinstance(noted, dict) else {}


def homes(folder: str) -> list[str]:
    """Whose homes the hub has."""
    private = os.path.join(folder, "private")
    return sorted(name for name in os.listdir(private) if not name.startswith(".")) if os.path.isdir(private) else []


def forgets(folder: str) -> bool:
    """Whether the hub was described as one that empties homes."""
    try:
        return bool(json.loads(files.read(os.path.join(folder, "description/hub.json")) or "{}").get("forget"))
    except (ValueError, AttributeError):
        return False


def authorities(folder: str) -> list[str]:
    """Paths of the certificate authorities that the hub has."""
    there = os.path.join(folder, "description/ca")
    return [os.path.join(there, name) for name in sorted(os.listdir(there))] if os.path.isdir(there) else []


def note_applied(folder: str, parts: dict[str, str]) -> None:
    """Note the digests of what the hub runs with now."""
    files.write(os.path.join(folder, APPLIED), json.dumps(parts, sort_keys=True) + "\n", 0o600)


def plan(folder: str, wanted: list[Wanted]) -> Plan:
    """Compare with what is there.

    :param folder: the definition folder
    :param wanted: all files, the unit among them
    """
    result = Plan()
    expected: dict[str, int | None] = {folder: 0o700}
    expected.update({os.path.join(folder, name): mode for name, mode in container.FOLDERS.items()})
    for path, mode in expected.items():
        found = files.mode_of(path)
        if found is None or (mode is not None and found != mode):
            result.folders.append(path)
    result.write = [one for one in wanted if files.differs(one.path, one.content, one.mode)]
    keep = {one.path for one in wanted}
    result.remove = [path for path in authorities(folder) if path not in keep]
    noted = applied(folder)
    result.stale = {part for part, value in digests(wanted).items() if noted.get(part) != value}
    if result.remove:
        result.stale.add(DESCRIPTION)
    return result


def write(folder: str, todo: Plan) -> None:
    """Carry out the plan's file part. The folders' modes belong to it: other accounts must not look in."""
    for path in todo.folders:
        os.makedirs(path, exist_ok=True)
        os.chmod(path, container.FOLDERS.get(os.path.relpath(path, folder), 0o700) or 0o755)
    for one in todo.write:
        os.makedirs(os.path.dirname(one.path), exist_ok=True)
        files.write(one.path, one.content, one.mode)
    for path in todo.remove:
        os.unlink(path)
