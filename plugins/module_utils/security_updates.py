# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's security updates of a machine, or of a hub's container: a program that travels, see :mod:`.inside`.

Inside a container it leaves no package lists behind, and no service is started or restarted by packages: users' servers go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import shutil
import subprocess
import time
import typing as t

Update = dict[str, str]

SCRATCH = "/var/lib/apt/ananke"
"""Where lists and archives of a container are while the program runs; a run that was killed leaves it to the next."""
LOCK = "/run/ananke-updates.lock"
POLICY = "/usr/sbin/policy-rc.d"
KEPT = "/usr/sbin/policy-rc.d.ananke-kept"
"""What was at POLICY before."""
REFUSAL = "#!/bin/sh\n# ananke.jupyterhub: no service starts while security updates are installed\nexit 101\n"
RESTARTED = ("jupyterhub-proxy.service", "jupyterhub.service")
"""What is restarted inside a hub if wanted; users' servers never are."""
ENVIRONMENT = {
    "APT_LISTCHANGES_FRONTEND": "none",
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "NEEDRESTART_MODE": "l",  # says, and restarts nothing
}
SETTINGS = ("--force-confdef", "--force-confold")
"""For dpkg: settings that somebody has changed stay."""

ATTEMPTS, PAUSE = 30, 10
"""How often, and after how many seconds each, somebody else's work at package lists is waited for."""

_INSTALLED = re.compile(r"^Inst (\S+) \[(\S+)\] \((\S+) ([^\[)]*)", re.M)
_OFFERED = re.compile(r"^\s*(\S+) \| (\S+) \| \S+ (\S+?)/\S+ \S+ Packages$", re.M)
_REPLACED = re.compile(r"^\S+ ..x. \S+ \S+ \S+ +(/(?:usr|lib|opt)\S*) \(deleted\)$", re.M)


class Failure(Exception):
    """What is wrong, and what to do."""


class Apt:
    """apt and dpkg, of a container with lists and archives of their own."""

    def __init__(self, scratch: str = "") -> None:
        self.commands: list[str] = []
        self.options: list[str] = []
        if scratch:
            places = {"State::lists": "lists", "Cache::archives": "archives"}
            places |= {"Cache::pkgcache": "pkgcache.bin", "Cache::srcpkgcache": "srcpkgcache.bin"}
            self.options = [f"-oDir::{key}={scratch}/{place}" for key, place in places.items()]
            # nobody reads descriptions
            self.options += ["-oAcquire::Languages=none", "-oAcquire::GzipIndexes=true"]

    def run(self, *argv: str) -> tuple[int, str]:
        """Status and output of a command."""
        self.commands.append(" ".join(argv))
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **ENVIRONMENT},
            check=False,
        )
        return done.returncode, done.stdout

    def ask(self, program: str, *argv: str) -> str:
        """What apt says. Raises Failure."""
        status, said = self.run(program, *self.options, *argv)
        if status:
            raise Failure(f"{program} {argv[0]} failed: {last(said)}: {REMEDY}")
        return said

    def fetch(self) -> None:
        """Get fresh lists; somebody else may be at it just now. Raises Failure."""
        for _attempt in range(ATTEMPTS):
            status, said = self.run("apt-get", *self.options, "-q", "--error-on=any", "update")
            if "Could not get lock" not in said:
                break
            time.sleep(PAUSE)
        if status:
            raise Failure(f"apt-get update failed: {last(said)}: let it reach its mirrors, or correct /etc/apt")

    def pending(self, hold: t.Iterable[str]) -> tuple[list[Update], int]:
        """Security updates that wait, without those on hold, and how many other updates do."""
        waiting = upgrades(self.ask("apt-get", "--simulate", "-qq", "dist-upgrade"))
        rest = [one for one in waiting if not one["security"]]
        offered = security_versions(self.ask("apt-cache", "madison", *names(rest))) if rest else {}
        for one in rest:
            # a later version of the release itself has what the security update has
            newer = (version for version in offered.get(one["name"], ()) if self.newer(version, one["old"]))
            one["security"] = "yes" if any(newer) else ""
        found = [one for one in waiting if one["security"] and not held(one["name"], hold)]
        return [{key: one[key] for key in ("name", "old", "new")} for one in found], len(waiting) - len(found)

    def newer(self, version: str, than: str) -> bool:
        """Whether a version is newer than another."""
        return self.run("dpkg", "--compare-versions", version, "gt", than)[0] == 0

    def has_source(self) -> bool:
        """Whether security updates come from anywhere."""
        said = self.ask("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages")
        return "-security" in said

    def interrupted(self) -> bool:
        """Whether dpkg was stopped in the middle of its work."""
        return bool(self.run("dpkg", "--audit")[1].strip())

    def mend(self) -> None:
        """Finish what dpkg was at. Raises Failure."""
        status, said = self.run("dpkg", *SETTINGS, "--configure", "-a")
        if status:
            raise Failure(f"dpkg --configure -a failed: {last(said)}: {REMEDY}")

    def install(self, updates: t.Sequence[Update]) -> None:
        """Install them, and what they newly need. Raises Failure."""
        wishes = [f"{one['name']}={one['new']}" for one in updates]
        settings = [f"-oDpkg::Options::={option}" for option in SETTINGS]
        careful = ["-y", "-q", "--only-upgrade", "--no-remove", "--no-install-recommends", "-oDPkg::Lock::Timeout=300"]
        self.ask("apt-get", "install", *careful, *settings, *wishes)


REMEDY = "run it there by hand to see all of what it says, mend that, and run this again"


def last(said: str) -> str:
    """The errors among what was said, or its end."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "Err:", "W:", "dpkg: error"))]
    return " ".join(errors[-3:] or lines[-3:])[-600:] or "it said nothing"


def upgrades(simulated: str) -> list[Update]:
    """What ``apt-get --simulate dist-upgrade`` would replace; ``security`` where it comes from Debian's security archive."""
    found = {}
    for name, old, new, sources in _INSTALLED.findall(simulated):
        found[name] = {
            "name": name,
            "old": old,
            "new": new,
            "security": "yes" if "Debian-Security:" in sources else "",
        }
    return [found[name] for name in sorted(found)]


def security_versions(madison: str) -> dict[str, list[str]]:
    """By package, the versions that a security archive offers, of ``apt-cache madison``."""
    found: dict[str, list[str]] = {}
    for name, version, suite in _OFFERED.findall(madison):
        if suite.endswith("-security"):
            found.setdefault(name, []).append(version)
    return found


def names(updates: t.Iterable[Update]) -> list[str]:
    """The updates' packages."""
    return [one["name"] for one in updates]


def held(name: str, hold: t.Iterable[str]) -> bool:
    """Whether a package is to stay; patterns as unattended-upgrades reads them."""
    return any(re.match(pattern, name) for pattern in hold)


def restore(policy: str = POLICY, kept: str = KEPT) -> None:
    """Take our policy away, and bring back the one before, also after a run that was killed."""
    with contextlib.suppress(FileNotFoundError), open(policy, encoding="utf-8", errors="replace") as file:
        if file.read() == REFUSAL:
            os.unlink(policy)
    if os.path.lexists(kept) and not os.path.lexists(policy):
        os.rename(kept, policy)


@contextlib.contextmanager
def no_services(policy: str = POLICY, kept: str = KEPT) -> t.Iterator[None]:
    """No package starts or restarts a service meanwhile."""
    restore(policy, kept)
    fresh = f"{policy}.ananke-new"
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(REFUSAL)
    os.chmod(fresh, 0o755)  # noqa: S103 - a program that packages run
    if os.path.lexists(policy):
        os.rename(policy, kept)
    os.rename(fresh, policy)
    try:
        yield
    finally:
        restore(policy, kept)


def outdated(proc: str = "/proc") -> list[str]:
    """The services whose processes use programs or libraries that have been replaced since; not those that cannot be looked at."""
    found = set()
    for folder in glob.glob(f"{proc}/[0-9]*"):
        try:
            program = os.readlink(f"{folder}/exe")
            with open(f"{folder}/maps", encoding="utf-8", errors="replace") as file:
                replaced = program.endswith(" (deleted)") or _REPLACED.search(file.read())
            with open(f"{folder}/cgroup", encoding="utf-8") as file:
                units = re.findall(r"/([^/\n]+\.service)(?=/|$)", file.read(), re.M)
        except OSError:
            continue
        if replaced and units:
            found.add(units[-1])
    return sorted(found)


@contextlib.contextmanager
def alone(lock: str, scratch: str) -> t.Iterator[None]:
    """One run at a time, and nothing of it left behind."""
    with open(lock, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            os.makedirs(f"{scratch}/archives/partial")
            yield
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def renew(apt: Apt, services: t.Sequence[str], check: bool) -> list[str]:
    """Restart the hub and its proxy where they use what was replaced. Returns which. Raises Failure."""
    wanted = [name for name in RESTARTED if name in services]
    if wanted and not check:
        status, said = apt.run("systemctl", "restart", *wanted)
        if status:
            raise Failure(f"systemctl restart failed: {last(said)}: journalctl -u jupyterhub in the container says why")
    return wanted


def work(apt: Apt, parameters: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """All of it. Raises Failure."""
    inside, check, install = (bool(parameters[key]) for key in ("inside", "check", "install"))
    if inside:
        restore()
    apt.fetch()
    acts, broken = install and not check, install and apt.interrupted()
    problems = []
    with no_services() if inside and acts else contextlib.nullcontext():
        if broken and acts:
            apt.mend()  # what a run that was killed has left
        if not apt.has_source():
            problems.append(
                "no security archive is among the sources in /etc/apt, so no security update ever comes: add it"
            )
        found, others = apt.pending(parameters["hold"])
        if found and acts:
            apt.install(found)
    left = apt.pending(parameters["hold"])[0] if found and acts else found
    services = outdated() if inside else []
    restarted = renew(apt, services, check) if install and parameters["restart"] else []
    if restarted and not check:
        services = [name for name in services if name not in restarted]
    return {
        "changed": install and bool(broken or found or restarted),
        "pending": left,
        "others": others,
        "installed": [one for one in found if check or one not in left] if install else [],
        "services": services,
        "restarted": restarted,
        "problems": problems,
    }


def main(parameters: dict[str, t.Any]) -> dict[str, t.Any]:
    """Look, and install what waits.

    :param parameters: ``check``; ``install`` what waits; ``hold``, patterns of packages that stay; ``restart`` the hub if it needs that; ``inside`` a container
    """
    if os.geteuid() != 0:
        raise Failure("only root installs updates: set become: true, or name a hub's container")
    for pattern in parameters["hold"]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise Failure(f"hold: {pattern!r} is no regular expression ({error}): correct it") from error
    apt = Apt(SCRATCH if parameters["inside"] else "")
    try:
        with alone(LOCK, SCRATCH) if parameters["inside"] else contextlib.nullcontext():
            result = work(apt, parameters)
    except Failure as error:
        raise Failure(str(error), {"commands": apt.commands}) from error
    return {**result, "commands": apt.commands}
