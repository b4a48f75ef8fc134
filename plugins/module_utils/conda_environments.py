# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conda environments that change as a whole or not at all: a program of :mod:`inside`, run as root where conda is.

What an environment holds is read from its own records, so nothing is started where nothing has to be done. A new environment is made where it
shall be, and removed again if that fails. A change of one that is there is made on a copy in
``.NAME.fresh`` beside the environment. conda and pip see that copy at the environment's own path, by a mount that only they have, so all
paths in it are final; everybody else sees the old environment until the two folders change places. Runs take turns by a lock.

Folders that come with a container's image cannot be moved (overlay file systems refuse it). Then the new files are moved into the old folder one
by one, after a list of all that belong there was written, by which the next run finishes what was cut short.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import fnmatch
import glob
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import time
import typing as t

try:
    from packaging.requirements import InvalidRequirement, Requirement
except ImportError:  # conda's own Python has it; another one may not
    Requirement = None  # type: ignore[assignment, misc]

FOLDER = "/opt/conda/envs"
CONDA = "/opt/conda/bin/conda"
LAUNCHER = "/opt/install/kernel"
"""Program that starts kernels of environments; kernelspecs that name it are this collection's."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
LOCK = ".ananke.lock"
EXACT = "conda-meta/ananke-exact"
"""What was asked for when an environment was made exactly so, and a digest of what it held then."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
SPEC = re.compile(r"(?:(?P<channel>[^\s=<>!\[]+)::)?(?P<name>[A-Za-z0-9_][\w.-]*)\s*(?P<rest>.*)", re.ASCII)
CONDITION = re.compile(r"(==|>=|<=|!=|=|>|<)?\s*([A-Za-z0-9_.!+-]+?)(\.?\*)?")
EXACTLY = re.compile(r"(?:==?)?\s*([^\s=<>!~|,*\[]+)(?:=|\s+)([^\s=<>!~|,\[]+)")
"""Version and build."""
ORDER = {"==": (0,), "!=": (-1, 1), ">=": (0, 1), "<=": (-1, 0), ">": (1,), "<": (-1,)}
ISOLATED = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
ISOLATED += ['mount --bind "$1" "$2" || exit 97; shift 2; exec "$@"', "sh"]
WORDS = 700
"""Characters of a program's explanation that are relayed."""
REASONS = {
    r"NoSpaceLeftError|No space left|Errno 28|Disk quota exceeded": "the disk is full ({said}): make room; "
    "a change needs room for a second copy of the environment",
    r"UnavailableInvalidChannel|HTTP 40[134]": "a channel cannot be used: {said}. Correct channels",
    r"CondaHTTPError|CONNECTION FAILED|establish a new connection|name resolution|Name or service not known|[Tt]imed out"
    r"|Connection refused|Max retries exceeded|SSLError|CERTIFICATE_VERIFY_FAILED|ProxyError": "{what} {where} cannot be "
    "reached: {said}. See to the network, the proxy or channels, and run again",
    r"NotFound|No matching distribution|nothing provides": "there is no such package: {said}. Correct its name or version, "
    "or name a channel that has it",
    r"Unsatisfiable|Conflict|ResolutionImpossible": "no versions fit together: {said}. Fix fewer versions",
    r"": "{tool} failed: {said}",
}
"""What is wrong, from what conda or pip said; the first that is found counts."""


class Failure(Exception):
    """What is wrong and what to do; the second argument is what was run."""


class Wanted(t.NamedTuple):
    """What a task asks for."""

    name: str
    state: str
    packages: list[str]
    pip: list[str]
    channels: list[str]


class Package(t.NamedTuple):
    """A package of an environment: conda's with its record, Python's (no build) with its dist-info folder."""

    version: str
    build: str
    path: str


class Steps(t.NamedTuple):
    """Arguments for conda and pip (empty: not run), and whether they work on a copy of the environment or on an empty folder."""

    conda: list[str]
    pip: list[str]
    copy: bool


def wanted(parameters: dict[str, t.Any]) -> Wanted:
    """Check what a task asks for. Raises Failure."""
    name = str(parameters["name"])
    if not NAME.fullmatch(name):
        raise Failure(
            f"name {name!r} is none of an environment: use letters, digits and _ . - (the last two not first)"
        )
    if name in ("jhub", "base"):
        raise Failure(
            f"name {name}: the hub itself runs with this environment, its packages are locked. Install for users in another one, for instance"
            " python3; what the hub needs is a feature, or belongs into the image's definition"
        )
    lists = {option: list(parameters.get(option) or []) for option in ("packages", "pip", "channels")}
    if parameters.get("definition") is not None:
        lists = defined(name, parameters["definition"], lists["channels"])
    for option, words in lists.items():
        for word in words:
            fits = isinstance(word, str) and word.isprintable() and not word.strip().startswith("-")
            if not fits or not (SPEC.fullmatch(word.strip()) if option == "packages" else word.strip()):
                raise Failure(
                    f"{option}: {word!r} does not fit: an entry names one thing, and options have no place here"
                )
            if hidden(word) != word:
                raise Failure(
                    f"{option}: the password in {hidden(word)} would be seen by all: put it into root's .netrc"
                )
    packages, pip, channels = ([word.strip() for word in words] for words in lists.values())
    return Wanted(name, parameters.get("state") or "present", packages, pip, [c for c in channels if c != "nodefaults"])


def defined(name: str, definition: t.Any, channels: list[t.Any]) -> dict[str, list[t.Any]]:
    """The lists of an environment.yml; ``channels`` go before its own. Its prefix says where somebody else had it and is ignored."""
    known = ("name", "channels", "dependencies", "prefix")
    strange = [key for key in definition if key not in known] if isinstance(definition, dict) else [definition]
    if strange:
        raise Failure(
            f"definition: {strange[0]!r} has no place in it: it holds {', '.join(known)}, as an environment.yml"
        )
    if definition.get("name", name) != name:
        raise Failure(f"definition: its name is {definition['name']}, not {name}: make them equal, or leave that out")
    lists: dict[str, list[t.Any]] = {
        "packages": [],
        "pip": [],
        "channels": channels or definition.get("channels") or [],
    }
    for entry in definition.get("dependencies") or []:
        if isinstance(entry, dict) and list(entry) == ["pip"] and isinstance(entry["pip"], list):
            lists["pip"] += entry["pip"]
        else:
            lists["packages"].append(entry)
    return lists


def installed(prefix: str) -> dict[str, Package]:
    """Conda packages of an environment."""
    found = {}
    for path in glob.glob(f"{glob.escape(prefix)}/conda-meta/*-*-*.json"):
        name, version, build = os.path.basename(path)[: -len(".json")].rsplit("-", 2)
        found[name] = Package(version, build, path)
    return found


def distributions(prefix: str) -> dict[str, Package]:
    """Python packages of an environment, whoever installed them, by their normalised names."""
    found = {}
    for path in glob.glob(f"{glob.escape(prefix)}/lib/python*/site-packages/*-*.dist-info"):
        name, _dash, version = os.path.basename(path)[: -len(".dist-info")].rpartition("-")
        found[normalised(name)] = Package(version, "", path)
    return found


def normalised(name: str) -> str:
    """The name under which pip knows a package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def by_pip(prefix: str) -> dict[str, str]:
    """Packages that pip, or another installer than conda, has installed."""
    condas = {normalised(name) for name in installed(prefix)}
    others = {name: one for name, one in distributions(prefix).items() if name not in condas}
    return {n: f"{one.version} (pip)" for n, one in others.items() if text(f"{one.path}/INSTALLER").strip() != "conda"}


def listing(prefix: str) -> dict[str, str]:
    """All packages and their versions."""
    return {**{name: one.version for name, one in installed(prefix).items()}, **by_pip(prefix)}


def digest(prefix: str) -> str:
    """Equal for environments that hold the same packages."""
    found = [*installed(prefix).values(), *distributions(prefix).values()]
    return hashlib.sha256("\n".join(sorted(os.path.basename(one.path) for one in found)).encode()).hexdigest()


def text(path: str) -> str:
    """What a file says; "" where it is none."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def mapping(content: str) -> dict[str, t.Any]:
    """The mapping that a JSON text says; {} where it is none. Some versions of conda write several texts, with zero bytes between."""
    try:
        found = json.loads(content.rstrip("\0\n").rpartition("\0")[2])
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def matches(spec: str, have: dict[str, Package]) -> bool | None:
    """Whether an environment fulfils a spec of conda; None where only conda itself can say."""
    found = SPEC.fullmatch(spec)
    if not found or "[" in found["rest"]:
        return None
    one, rest = have.get(found["name"].lower()), found["rest"]
    if one is None or (found["channel"] and not from_channel(one, found["channel"])):
        return False
    if exactly := EXACTLY.fullmatch(rest):
        return True if one.version == exactly[1] and fnmatch.fnmatchcase(one.build, exactly[2]) else None
    return holds(rest, one.version) if rest else True


def from_channel(one: Package, channel: str) -> bool:
    """Whether a package came from a channel, given by name or address."""
    source = re.sub(r"/(noarch|[a-z]+-[a-z0-9_]+)/?$", "", str(mapping(text(one.path)).get("channel") or ""))
    return source == channel or source.endswith(f"/{channel}")


def holds(conditions: str, version: str) -> bool | None:
    """Whether a version fulfils conditions such as ``>=1.2,<2|3.1.*``; None where only conda can say."""
    answers = []
    for alternative in conditions.split("|"):
        all_of = [condition_holds(condition.strip(), version) for condition in alternative.split(",")]
        answers.append(False if False in all_of else None if None in all_of else True)
    return True if True in answers else None if None in answers else False


def condition_holds(condition: str, version: str) -> bool | None:
    """Whether a version fulfils one condition. Only versions of numbers alone are put in order."""
    found = CONDITION.fullmatch(condition)
    if not found:
        return True if condition in ("*", "=*") else None
    operator, wish, star = found.groups()
    if operator not in ("=", None) if star else operator is None:  # these depend on what is around them
        return True if version == wish and not star else None
    whole = operator in ORDER
    if version == wish or (not whole and version.startswith(f"{wish}.")):
        return not whole or 0 in ORDER[operator]
    if not all(re.fullmatch(r"\d+(\.\d+)*", one) for one in (version, wish)):
        return None
    mine, theirs = ([int(part) for part in one.split(".")] for one in (version, wish))
    mine += [0] * (len(theirs) - len(mine))
    if not whole:
        return mine[: len(theirs)] == theirs
    theirs += [0] * (len(mine) - len(theirs))
    return (mine > theirs) - (mine < theirs) in ORDER[operator]


def pip_holds(requirement: str, have: dict[str, Package], python: str, extra: str = "") -> bool:
    """Whether an environment with this version of Python fulfils a requirement; where that cannot be told, it is for pip to decide."""
    if re.match(r"(\w+\+)?[a-z]+:/|/", requirement):
        return any(origin(one) == address(requirement) for one in have.values())
    if Requirement is None:
        found = re.fullmatch(r"([A-Za-z0-9][\w.-]*)\s*([^;@\[]*)", requirement)
        one = have.get(normalised(found[1])) if found else None
        return bool(found and one and (not found[2] or holds(found[2].strip(), one.version)))
    try:
        wish = Requirement(requirement)
    except InvalidRequirement as error:
        what = str(error).splitlines()[0]
        raise Failure(f"pip: {requirement!r} is no requirement ({what}): write NAME or NAME==VERSION") from error
    around = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python, "extra": extra}
    if wish.marker and not wish.marker.evaluate(around):
        return True
    one = have.get(normalised(wish.name))
    if one is None or (wish.url and origin(one) != address(wish.url)):
        return False
    if not wish.specifier.contains(one.version, prereleases=True):
        return False
    needs = importlib.metadata.PathDistribution(pathlib.Path(one.path)).requires or [] if wish.extras else []
    return all(pip_holds(need, have, python, name) for name in wish.extras for need in needs if "extra" in need)


def address(requirement: str) -> str:
    """The address of a requirement, without what pip does not keep."""
    return ("file://" if requirement.startswith("/") else "") + requirement.partition("#")[0]


def origin(one: Package) -> str:
    """The address that a Python package was installed from, as one would give it to pip; "" where it came from an index."""
    noted = mapping(text(f"{one.path}/direct_url.json"))
    source = noted.get("vcs_info") or {}
    revision = f"@{source['requested_revision']}" if source.get("requested_revision") else ""
    return (f"{source['vcs']}+" if source else "") + str(noted.get("url") or "") + revision


def hidden(said: str) -> str:
    """The text without passwords in addresses."""
    return re.sub(r"(https?://)[^/@\s]+@", r"\1***@", said)


def reason(argv: list[str], out: str, err: str) -> str:
    """What is wrong, and what to do, where conda or pip failed."""
    answer, pip = mapping(out), argv[1:3] == ["-m", "pip"]
    said = str(answer.get("message") or answer.get("error") or "").partition("To search for alternate channels")[0]
    said = said or "\n".join(line for line in err.splitlines() if "ERROR" in line) or (err or out)[-WORDS:]
    known = hidden(f"{answer.get('exception_name')} {said} {'' if answer else err}")
    where = re.search(r"https?://[^\s<>'\"]+|host='[^']+'", known)
    return next(form for pattern, form in REASONS.items() if re.search(pattern, known)).format(
        said=hidden(" ".join(said.split()))[:WORDS].rstrip(" .:"),
        where=where[0] if where else "",
        what="the package index" if pip else "the channel",
        tool="pip" if pip else os.path.basename(argv[0]),
    )


def exchange(one: str, other: str) -> None:
    """Let two folders change places in one step. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), one)


def folder(path: str) -> bool:
    """Whether it is a folder; a link to one is none."""
    return os.path.isdir(path) and not os.path.islink(path)


def tree(top: str) -> list[str]:
    """Relative paths of all that a folder holds, parents first."""
    found = os.walk(top)
    return [os.path.relpath(os.path.join(where, name), top) for where, dirs, files in found for name in dirs + files]


def remove(path: str) -> None:
    """Remove whatever it is."""
    if folder(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def note(path: str, content: t.Any) -> None:
    """Write a JSON file in one step."""
    pathlib.Path(f"{path}.new").write_text(json.dumps(content), encoding="utf-8")
    os.rename(f"{path}.new", path)


class Work:
    """One run on one environment."""

    def __init__(self, parameters: dict[str, t.Any]) -> None:
        self.want = wanted(parameters)
        self.check = bool(parameters.get("check"))
        self.folder = os.path.normpath(parameters.get("prefix_folder") or FOLDER)
        self.conda = parameters.get("conda") or CONDA
        self.timeout = int(parameters.get("timeout") or 1800)
        self.deadline = time.monotonic() + self.timeout
        self.prefix = os.path.join(self.folder, self.want.name)
        self.scratch = os.path.join(self.folder, f".{self.want.name}.fresh")
        self.build = os.path.join(self.scratch, "environment")
        self.belongs = os.path.join(self.scratch, "complete")
        """List of all that the environment will hold, while files are moved into it one by one."""
        self.begun = os.path.join(self.scratch, "new")
        """Stands beside an environment that is being made and was not there before."""
        self.foretold = os.path.join(self.folder, f".{self.want.name}.foretold")
        self.commands: list[str] = []
        self.kernels: list[str] = []
        self.asked: dict[str, dict[str, t.Any]] = {}
        self.lock: list[int] = []

    @property
    def exists(self) -> bool:
        """Whether the environment is there; one that a killed run began to make is not."""
        return os.path.isdir(os.path.join(self.prefix, "conda-meta")) and not os.path.exists(self.begun)

    def act(self) -> dict[str, t.Any]:
        """Do what is wanted, or foretell it. Raises Failure and OSError."""
        if not os.path.isdir(self.folder):
            raise Failure(f"{self.folder} is no folder: name the hub's container, or this host's prefix_folder")
        self._refuse_what_is_none()
        before = listing(self.prefix)
        if not os.path.lexists(self.scratch) and self._settled():
            return self._result(False, before, before)
        with self._locked():
            before = listing(self.prefix)
            resumed = os.path.exists(self.belongs)
            if not self.check:
                self._tidy()
            if self.want.state == "absent":
                return self._absent(before, resumed)
            steps = None if self._settled() else self._steps()
            if not steps:
                return self._result(resumed, before, listing(self.prefix))
            changed, after = self._foretell(steps) if self.check else self._apply(steps)
            return self._result(changed or resumed, before, after)

    def _result(self, changed: bool, before: dict[str, str], after: dict[str, str]) -> dict[str, t.Any]:
        lines = ["".join(f"{name} {side[name]}\n" for name in sorted(side)) for side in (before, after)]
        both = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
        return {
            "changed": changed,
            "environment": self.prefix,
            "added": sorted(f"{name} {after[name]}" for name in after.keys() - before.keys()),
            "removed": sorted(f"{name} {before[name]}" for name in before.keys() - after.keys()),
            "updated": [f"{name} {before[name]} -> {after[name]}" for name in both],
            "kernels": self.kernels,
            "diff": dict(before=lines[0], after=lines[1], before_header=self.prefix, after_header=self.prefix),
            "commands": self.commands,
        }

    def fate(self) -> str:
        """What became of the environment after a failure."""
        if os.path.exists(self.belongs):
            return "The environment is changed in part: the next run for it finishes that"
        return "The environment is as it was before" if self.exists else "No environment was made"

    def _refuse_what_is_none(self) -> None:
        """Refuse a name that something else has. An empty folder may be what a killed run left."""
        if os.path.lexists(self.prefix) and not folder(self.prefix):
            raise Failure(f"{self.prefix} is a file or a link: move it away, or choose another name")
        ours = self.exists or os.path.exists(self.belongs) or os.path.exists(self.begun)
        if folder(self.prefix) and not ours and os.listdir(self.prefix):
            raise Failure(f"{self.prefix} is a folder, but no conda environment: move it away, or choose another name")

    def _settled(self) -> bool:
        """Whether reading alone tells that the environment is as wanted."""
        want = self.want
        if want.state == "absent":
            return not os.path.lexists(self.prefix) and not self._kernels()
        if want.state == "exact":
            return self.exists and mapping(text(os.path.join(self.prefix, EXACT))) == self._exact(self.prefix)
        have = installed(self.prefix)
        fulfilled = all(matches(spec, have) for spec in want.packages) and not self._missing_for_pip()
        return self.exists and want.state == "present" and fulfilled

    def _missing_for_pip(self) -> list[str]:
        have, python = distributions(self.prefix), installed(self.prefix).get("python")
        return [one for one in self.want.pip if not pip_holds(one, have, python.version if python else "3")]

    def _exact(self, prefix: str) -> dict[str, t.Any]:
        """What is noted of an environment that was made exactly as wanted."""
        want = self.want
        return {"packages": want.packages, "pip": want.pip, "channels": want.channels, "digest": digest(prefix)}

    def _steps(self) -> Steps | None:
        """What has to be run for an environment that is not settled; None if nothing. Raises Failure."""
        want, have = self.want, installed(self.prefix)
        names = [found["name"] for spec in want.packages if (found := SPEC.fullmatch(spec))]
        pip = ["pip"] if want.pip and "pip" not in names else []
        if want.state == "updated" and not self.exists:
            raise Failure("there is no such environment to update: make it with state: present")
        if want.state == "exact" or not self.exists:
            return Steps(["create", "--no-default-packages", *want.packages, *pip], want.pip, copy=False)
        for_pip = self._missing_for_pip() if want.state == "present" else want.pip
        pip = [] if "pip" in {*have, *distributions(self.prefix)} or not for_pip else pip
        if want.state == "present":
            # What is there and may be of any version is not named: conda might take it for a wish to update.
            named = [spec for spec in want.packages if not (spec in names and matches(spec, have))]
            conda = ["install", *named, *pip]
            verdicts = [matches(spec, have) for spec in [*named, *pip]]
            needed = False in verdicts or (None in verdicts and self._ask(conda))
            return Steps(conda if needed else [], for_pip, copy=True) if needed or for_pip else None
        known = all(spec in have for spec in want.packages)
        conda = ["update", *(want.packages or ["--all"])] if known else ["install", "--update-specs", *want.packages]
        if (want.pip and not want.packages) or not self._ask(conda):
            conda = ["install", *pip] if pip else []
        for_pip = ["--upgrade", *want.pip] if pip or (want.pip and self._ask_pip(["--upgrade", *want.pip])) else []
        return Steps(conda, for_pip, copy=True) if conda or for_pip else None

    def _foretell(self, steps: Steps) -> tuple[bool, dict[str, str]]:
        """Whether the steps would change anything, and what would be there then; of pip's packages versions may be open."""
        now = {name: one[:2] for name, one in installed(self.prefix).items()}
        then: dict[str, tuple[str, str]] = dict(now) if steps.copy else {}
        actions = self._ask(steps.conda) if steps.conda else {}
        for record in actions.get("UNLINK", []):
            then.pop(record["name"], None)
        for record in actions.get("LINK", []):
            then[record["name"]] = (str(record["version"]), str(record.get("build_string") or record.get("build")))
        others, changed = by_pip(self.prefix), then != now or not self.exists
        if steps.pip and steps.copy and "pip" in {*now, *distributions(self.prefix)}:
            new = self._ask_pip(steps.pip)
            others.update(new)
            changed = changed or bool(new)
        else:
            missing = [normalised(re.split(r"[^\w.-]", one)[0]) for one in self._missing_for_pip()]
            changed = changed or bool(steps.pip) or (bool(others) and not steps.copy)
            others.update(dict.fromkeys(missing, "(pip)"))
        return changed, {**{name: one[0] for name, one in then.items()}, **others}

    def _apply(self, steps: Steps) -> tuple[bool, dict[str, str]]:
        """Build the environment anew and put it in the old one's place, if it holds other packages; returns whether, and what it holds."""
        os.makedirs(self.scratch)
        if not self.exists:
            return self._make(steps)
        os.mkdir(self.build)
        try:
            if steps.copy:
                self._run(["cp", "--archive", "--reflink=auto", "--no-target-directory", self.prefix, self.build])
            copied = time.time_ns()
            time.sleep(0.02)  # file systems' clocks tick in milliseconds: what is written from here on is later
            if steps.conda:
                self._run_conda(steps.conda, isolated=True)
            if steps.pip:
                self._run(self._pip_command(steps.pip), isolated=True)
            self._prove(self.build)
            same = digest(self.build) == digest(self.prefix)
            if self.want.state == "exact":
                note(os.path.join(self.prefix if same else self.build, EXACT), self._exact(self.build))
            if not same:
                self._swap(copied)
            return not same, listing(self.prefix)
        finally:
            if not os.path.exists(self.belongs):
                shutil.rmtree(self.scratch, ignore_errors=True)

    def _make(self, steps: Steps) -> tuple[bool, dict[str, str]]:
        """Make an environment that was not there, at its own path: there conda links files to its packages instead of copying them."""
        note(self.begun, True)
        try:
            self._run_conda(steps.conda, isolated=False)
            if steps.pip:
                self._run(self._pip_command(steps.pip))
            self._prove(self.prefix)
            if self.want.state == "exact":
                note(os.path.join(self.prefix, EXACT), self._exact(self.prefix))
            os.unlink(self.begun)
        finally:
            self._forget()
        return True, listing(self.prefix)

    def _forget(self) -> None:
        """Remove what was begun, and an environment with it that was not finished."""
        if os.path.exists(self.begun) and os.path.lexists(self.prefix):
            shutil.rmtree(self.prefix, ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _prove(self, prefix: str) -> None:
        """Raise Failure where conda has reported a success that is none."""
        lost = [spec for spec in self.want.packages if matches(spec, installed(prefix)) is False]
        if lost:
            raise Failure(f"conda reported success, but {', '.join(lost)} is not there: report this as a bug")

    def _swap(self, copied: int) -> None:
        """Put what was built in the place of the old environment, which was copied at that time (ns since 1970)."""
        try:
            exchange(
                self.prefix, self.build
            )  # the old one goes first, since fuse-overlayfs looks only there whether it can be moved
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            note(self.belongs, tree(self.build))
            self._finish(copied)

    def _finish(self, copied: int = 0) -> None:
        """Move what was built into the environment, except files untouched since they were copied, and remove what does not belong there."""
        belongs = set(json.loads(text(self.belongs)))
        for path in tree(self.build):
            ours, theirs = os.path.join(self.build, path), os.path.join(self.prefix, path)
            if os.path.lexists(theirs) and folder(theirs) != folder(ours):
                remove(theirs)
            if folder(ours):
                os.makedirs(theirs, exist_ok=True)
                shutil.copymode(ours, theirs)
            elif os.lstat(ours).st_ctime_ns > copied or not os.path.lexists(theirs):
                os.rename(ours, theirs)
            else:
                os.unlink(ours)
        for path in tree(self.prefix):
            theirs = os.path.join(self.prefix, path)
            if path not in belongs and os.path.lexists(theirs):
                remove(theirs)
        if not belongs:
            os.rmdir(self.prefix)
        os.unlink(self.belongs)

    def _tidy(self) -> None:
        """Finish or remove what a killed run left."""
        if os.path.exists(self.belongs):
            self._finish()
        if os.path.exists(self.begun):
            self._forget()
        for left in (self.scratch, self.foretold):
            if os.path.lexists(left):
                remove(left)

    def _absent(self, before: dict[str, str], resumed: bool) -> dict[str, t.Any]:
        """Remove the environment, and before it the kernels of this collection that start it."""
        kernels, there = self._kernels(), os.path.lexists(self.prefix)
        self.kernels = [os.path.basename(one) for one in kernels]
        for one in [] if self.check else kernels:
            shutil.rmtree(one)
        if there and not self.check:
            os.makedirs(self.scratch)
            try:
                os.rename(self.prefix, self.build)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                note(self.belongs, [])
                self._finish()
            shutil.rmtree(self.scratch, ignore_errors=True)
        return self._result(resumed or there or bool(kernels), before, {})

    def _kernels(self) -> list[str]:
        """Folders of this collection's kernelspecs that start the environment."""
        found = []
        for path in sorted(glob.glob(f"{glob.escape(self.folder)}/jhub/share/jupyter/kernels/*/kernel.json")):
            spec = mapping(text(path))
            marked = (spec.get("metadata") or {}).get("ananke_environment") == self.prefix
            if marked or (spec.get("argv") or [])[:2] == [LAUNCHER, self.prefix]:
                found.append(os.path.dirname(path))
        return found

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        """Wait for other runs on this folder's environments. Programs that outlive a killed run keep it locked."""
        path = os.path.join(self.folder, LOCK)
        if self.check and not os.path.exists(path):
            yield
            return
        self.lock = [os.open(path, os.O_CREAT | os.O_RDWR, 0o600)]
        try:
            while True:
                try:
                    fcntl.flock(self.lock[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > self.deadline:
                        raise Failure(f"another run was not done after {self.timeout} s: wait for it") from None
                    time.sleep(0.1)
            yield
        finally:
            os.close(self.lock.pop())

    def _ask(self, arguments: list[str]) -> dict[str, t.Any]:
        """What conda would change: its lists LINK and UNLINK; {} for nothing. It is asked once."""
        key = shlex.join(arguments)
        if key not in self.asked:
            try:
                answer = self._run_conda([arguments[0], "--dry-run", *arguments[1:]], isolated=False)
            finally:
                shutil.rmtree(self.foretold, ignore_errors=True)
            actions = answer.get("actions") or {}
            self.asked[key] = actions if actions.get("LINK") or actions.get("UNLINK") else {}
        return self.asked[key]

    def _ask_pip(self, arguments: list[str]) -> dict[str, str]:
        """What pip would install."""
        report = mapping(self._run(self._pip_command(["--dry-run", "--report", "-", *arguments])))
        found = [one["metadata"] for one in report.get("install", [])]
        return {normalised(one["name"]): f"{one['version']} (pip)" for one in found}

    def _pip_command(self, arguments: list[str]) -> list[str]:
        options = ["--quiet", "--no-input", "--disable-pip-version-check"]
        return [os.path.join(self.prefix, "bin/python"), "-m", "pip", "install", *options, *arguments]

    def _run_conda(self, arguments: list[str], isolated: bool) -> dict[str, t.Any]:
        """Run conda for the environment and return its answer. Raises Failure."""
        # A new environment is foretold for a folder that nobody has: conda refuses one that is in use.
        new = arguments[:2] == ["create", "--dry-run"]
        prefix = os.path.join(self.foretold, "environment") if new else self.prefix
        channels = [word for one in self.want.channels for word in ("--channel", one)]
        override = ["--override-channels"] if channels else []
        argv = [self.conda, arguments[0], "--yes", "--quiet", "--json", "--prefix", prefix]
        return mapping(self._run([*argv, *override, *channels, *arguments[1:]], isolated))

    def _run(self, argv: list[str], isolated: bool = False) -> str:
        """Run a program and return its output; isolated, it sees what is built at the environment's path. Raises Failure."""
        self.commands.append(hidden(shlex.join(argv)))
        start = [*ISOLATED, self.build, self.prefix, *argv] if isolated else argv
        cache = self.scratch if isolated else self.foretold if "--dry-run" in argv else ""
        around = surroundings(cache and os.path.join(cache, "packages"), self.conda)
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        session = {"cwd": "/", "env": around, "pass_fds": self.lock, "start_new_session": True}
        process = subprocess.Popen(start, text=True, errors="replace", **pipes, **session)  # type: ignore[call-overload]
        try:
            out, err = process.communicate(timeout=max(1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            last = self.commands[-1]
            raise Failure(f"{last} was not done in {self.timeout} s: see to the network, or raise timeout") from None
        if isolated and (process.returncode == 97 or err.startswith("unshare:")):
            raise Failure(
                f"mounting is not permitted here ({' '.join(err.split())}): run it as root, or name a container"
            )
        if isolated and process.returncode in (126, 127):
            raise FileNotFoundError(errno.ENOENT, "it cannot be run: say with the option conda where it is", argv[0])
        if process.returncode:
            raise Failure(reason(argv, out, err))
        return out


def surroundings(cache: str, conda: str) -> dict[str, str]:
    """Environment variables of conda and pip. With a cache, what conda downloads goes there instead of to its usual folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    trusted = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if os.path.exists(CERTIFICATES) else ()
    usual = os.path.join(os.path.dirname(os.path.dirname(conda)), "pkgs")
    pip = {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_NO_CACHE_DIR": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    packages = {"CONDA_PKGS_DIRS": f"{cache},{usual}" if cache else usual}
    return {**dict.fromkeys(trusted, CERTIFICATES), **kept, **pip, **packages, "LC_ALL": "C.UTF-8"}


def main(parameters: dict[str, t.Any]) -> dict[str, t.Any]:
    """Bring an environment to the wanted state. Raises Failure.

    Parameters: ``name``, ``state`` (present, exact, updated, absent), ``packages``, ``pip``, ``channels``, ``definition``, ``prefix_folder``,
    ``conda``, ``timeout`` (seconds), ``check``.
    """
    os.umask(0o022)
    work = Work(parameters)
    try:
        return work.act()
    except Failure as error:
        why = str(error)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why += ": make room, and run again"
    raise Failure(f"environment {work.want.name}: {why.rstrip('.')}. {work.fate()}.", {"commands": work.commands})
