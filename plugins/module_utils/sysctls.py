# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel settings: a file for the next boot, and the values of the running kernel."""

from __future__ import annotations

import dataclasses
import glob
import os
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files

HEADER = "# Managed by ananke.jupyterhub\n"
FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
"""What systemd-sysctl reads, the strongest first; all files together in the order of their names."""
PROC = "/proc/sys"
APPARMOR = "/sys/module/apparmor/parameters/enabled"
"""Says Y where the kernel runs with AppArmor."""
COMMAND_LINE = "/proc/cmdline"


@dataclasses.dataclass
class Outcome:
    """What was, or would be, done."""

    before: str = ""
    after: str = ""
    written: bool = False
    """The file."""
    set: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Key -> former and new value of the running kernel."""
    missing: list[str] = dataclasses.field(default_factory=list)
    """Keys that this kernel does not have."""
    locked: list[str] = dataclasses.field(default_factory=list)
    """Keys that the running kernel does not let go of before the next boot, such as kernel.unprivileged_bpf_disabled."""
    later: list[str] = dataclasses.field(default_factory=list)
    """What other files set otherwise at the next boot, in words."""


def rendered(values: t.Mapping[str, str]) -> str:
    """The file. A leading minus: a kernel that lacks a key, or a module that is not loaded, is no failure at boot."""
    return HEADER + "".join(f"-{key} = {value}\n" for key, value in values.items())


def parsed(text: str) -> dict[str, str]:
    """Key -> value of a file as sysctl.d(5) describes it; slashes in keys are the same as dots."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", ";")):
            found[key.strip().removeprefix("-").replace("/", ".")] = " ".join(value.split())
    return found


def overridden(path: str, values: t.Mapping[str, str], folders: t.Sequence[str] = FOLDERS) -> list[str]:
    """Files that come after ``path`` at boot and set one of its keys to another value, in words."""
    names: dict[str, str] = {}
    for folder in folders:
        for found in glob.glob(os.path.join(folder, "*.conf")):
            names.setdefault(os.path.basename(found), found)
    last: dict[str, tuple[str, str]] = {}
    for name in sorted(names):
        if name > os.path.basename(path):
            for key, value in parsed(files.read(names[name]) or "").items():
                last[key] = (names[name], value)
    return [
        f"{where} sets {key} to {value} after {path}: remove that line, or set it in the inventory"
        for key, (where, value) in last.items()
        if key in values and value != values[key]
    ]


def live_path(key: str, proc: str = PROC) -> str:
    """Where the running kernel shows a key."""
    return os.path.join(proc, *key.split("."))


def without_apparmor(enabled: str = APPARMOR, command_line: str = COMMAND_LINE) -> str:
    """What to do about a kernel that runs without AppArmor; empty for one that runs with it. Source: kernel-parameters.txt of Linux."""
    if (files.read(enabled) or "").strip() == "Y":
        return ""
    blamed = [
        word
        for word in (files.read(command_line) or "").split()
        if word == "apparmor=0" or (word.startswith(("security=", "lsm=")) and "apparmor" not in word)
    ]
    remedy = (
        f"take {' '.join(blamed)} off the kernel's command line (with GRUB: in /etc/default/grub, then update-grub)"
        if blamed
        else "install a kernel that has it, such as Debian's"
    )
    return (
        f"the kernel runs without AppArmor, so its profiles confine no program: {remedy}, and reboot the machine. Where that is on purpose,"
        " set baseline_apparmor: false"
    )


def ensure(
    path: str, values: t.Mapping[str, str], check: bool, folders: t.Sequence[str] = FOLDERS, proc: str = PROC
) -> Outcome:
    """Write the file, and set what the running kernel has otherwise.

    Raises:
        OSError: the file or a key cannot be written.
    """
    outcome = Outcome(before=files.read(path) or "", after=rendered(values), later=overridden(path, values, folders))
    outcome.written = files.differs(path, outcome.after, 0o644)
    if outcome.written and not check:
        files.folder(os.path.dirname(path))
        files.write(path, outcome.after, 0o644)
    for key, value in values.items():
        known = files.read(live_path(key, proc))
        if known is None:
            outcome.missing.append(key)
        elif " ".join(known.split()) != value:
            try:
                if not check:
                    with open(live_path(key, proc), "w", encoding="utf-8") as stream:
                        stream.write(value)
            except PermissionError:
                outcome.locked.append(key)
            else:
                outcome.set[key] = (" ".join(known.split()), value)
    return outcome
