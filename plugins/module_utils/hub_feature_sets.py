# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The features of a hub, added and taken away in place: a program of :mod:`inside`, run as root where conda is. Images are built with it, too.

What a feature brought is recorded in ``/opt/install/features/NAME.json``, and only that is ever taken away. No package is changed that no
feature brought; an environment of a feature's own comes and goes as a whole. Before anything changes, a journal is written beside the records:
with it a failure is undone, or by the next run what a killed run left.
"""

from __future__ import annotations

import configparser
import contextlib
import csv
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as t

ENVIRONMENTS = "/opt/conda/envs"
RECORDS = "/opt/install/features"
UV = "/opt/conda/envs/jhub/bin/uv"
CHECKS = "checks.py"
"""What checks of features share, beside them."""
LOCKS = {"jhub": "jhub", "jhub-only": "jhub", "python3": "python3"}
"""Lock files of features and the environments that they are for. Of jhub-only, dependencies are not installed."""
EFFECTS = ("", "reload", "server", "hub")
"""What makes a change be seen, the weakest first."""
CONDA = "/opt/conda/bin/conda"
GPU = "/dev/nvidiactl"
"""Where this is, the hub has GPUs that CUDA can use."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
LOCK = ".ananke.lock"
"""In ENVIRONMENTS; who changes an environment holds it."""
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)")
UNREACHABLE = re.compile(
    r"error sending request|dns error|[Cc]onnection refused|timed out|tcp connect|certificate|Failed to (fetch|download)",
    re.I,
)
WORDS = 900
"""Characters of a program's last words that are relayed."""


class Failure(Exception):
    """What is wrong and what to do; the second argument is what was run."""


class Distribution(t.NamedTuple):
    """A Python package of an environment, and its dist-info folder."""

    version: str
    folder: str


# What features are


def digest(feature: dict[str, t.Any]) -> str:
    """Equal for features that bring the same."""
    content = [feature["environment"], feature["packages"], feature["files"], feature["check"]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def chosen(feature: dict[str, t.Any], gpus: bool) -> dict[str, t.Any]:
    """A feature with its variant: the only one that it has, or what a hub with GPUs, or without, needs."""
    variants = feature["variants"]
    variant = next(iter(variants)) if len(variants) == 1 else "gpu" if gpus else "cpu"
    return {**feature, **variants[variant], "variant": variant}


def entries(lock: str) -> dict[str, set[str]]:
    """The requirements of a lock file with the hashes of each."""
    found: dict[str, set[str]] = {}
    for line in lock.replace("\\\n", " ").splitlines():
        requirement, *hashes = re.split(r"\s+(?=--hash=)", line.strip())
        if requirement and not requirement.startswith("#"):
            found.setdefault(requirement.strip(), set()).update(hashes)
    return found


def pins(lock: str, python: tuple[int, ...]) -> dict[str, set[str]]:
    """The packages of a lock file with their versions for a Python, by their normalised names."""
    found: dict[str, set[str]] = {}
    for requirement in entries(lock):
        match = PIN.match(requirement)
        if match and fits(requirement.partition(";")[2], python):
            found.setdefault(normalised(match[1]), set()).add(match[2])
    return found


def fits(marker: str, python: tuple[int, ...]) -> bool:
    """Whether a marker's conditions on Python hold, if all of them must; of others nothing is known."""
    orders = {"<": (-1,), "<=": (-1, 0), ">": (1,), ">=": (0, 1), "==": (0,), "!=": (-1, 1)}
    for operator, version in re.findall(r"python_(?:full_)?version *([<>=!]+) *'(\d+\.\d+)", marker):
        other = tuple(int(part) for part in version.split("."))
        if " or " not in marker and operator in orders and (python > other) - (python < other) not in orders[operator]:
            return False
    return True


def normalised(name: str) -> str:
    """The name under which installers know a package."""
    return re.sub(r"[-_.]+", "-", name).lower()


# What is there


def paths(folder: str) -> list[str]:
    """Relative paths of all that a folder holds and that is no folder. What is mounted there, as the hub's own configuration is, is not its own."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not os.path.ismount(os.path.join(where, name))]
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        found += [os.path.relpath(os.path.join(where, name), folder) for name in files + links]
    return found


def identity(prefix: str) -> list[int]:
    """Another one after conda has changed the environment."""
    with contextlib.suppress(OSError):
        history = os.stat(os.path.join(prefix, "conda-meta/history"))
        return [history.st_mtime_ns, history.st_size]
    return []


def belongings(one: Distribution, prefix: str) -> list[str]:
    """Paths, relative to the environment, of what a Python package installed, and of what Python compiled of it."""
    found = []
    site = os.path.dirname(one.folder)
    for row in csv.reader(_text(os.path.join(one.folder, "RECORD")).splitlines()):
        path = os.path.normpath(os.path.join(site, row[0]))
        if path.startswith(prefix + os.sep):
            found += [path, *compiled(path)]
    return [os.path.relpath(path, prefix) for path in dict.fromkeys(found) if os.path.lexists(path)]


def compiled(path: str) -> list[str]:
    """What Python compiled of a file of an environment, if it did."""
    found = re.search(r"/lib/python(\d+)\.(\d+)/(.*/)?([^/]+)\.py$", path)
    if not found:
        return []
    return [os.path.join(os.path.dirname(path), "__pycache__", f"{found[4]}.cpython-{found[1]}{found[2]}.pyc")]


def report(text: str) -> dict[str, t.Any]:
    """What a check reports: the last line that it has printed, if that is a mapping in JSON."""
    try:
        found = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except OSError:
        return ""


def _json(path: str) -> t.Any:
    try:
        return json.loads(_text(path))
    except ValueError:
        return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


# What changes


def write(path: str, text: str, mode: int = 0o644) -> None:
    """Write a file in one step."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
    os.chmod(f"{path}.new", mode)
    os.rename(f"{path}.new", path)


def remove(path: str) -> None:
    """Remove a file, what Python compiled of it, and the folders that are empty then."""
    for one in [path, *compiled(path)]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(one)
        with contextlib.suppress(OSError):
            os.removedirs(os.path.dirname(one))


def reason(argv: list[str], text: str) -> str:
    """What is wrong, and what to do, where uv or conda failed."""
    text = re.sub(r"//[^/@\s]+@", "//***@", text)
    lines = [line for line in text.splitlines() if "sha256:" not in line and not line.startswith("Using Python")]
    said = " ".join(" ".join(lines).split())[-WORDS:].rstrip(" .:")
    if re.search(r"No space left|os error 28|Disk quota exceeded|os error 122", text):
        return f"the disk is full ({said}): make room, and run again"
    if argv[0].endswith("/conda"):
        return f"conda could not make the environment ({said}): see to the network, the proxy or the channels of the image, and run again"
    if re.search(r"Hash mismatch|hash(es)? (did not|do not|does not) match", text, re.I):
        return f"the package index has another file than the lock says ({said}): if it is a mirror, let it fetch the package anew"
    if UNREACHABLE.search(text):
        return (
            f"the package index cannot be reached ({said}): see to the network, the proxy or pip_index, and run again"
        )
    if re.search(r"No solution found|no version of|not found in the (package registry|provided)|no wheels", text, re.I):
        return f"the package index lacks a locked package for this Python ({said}): let the mirror fetch it, or name another one by pip_index"
    return f"{shlex.join(argv[:3])} failed: {said}"


class Work:
    """One run on the features of a hub."""

    def __init__(self, parameters: dict[str, t.Any]) -> None:
        self.exactly = bool(parameters.get("exactly", True))
        self.check = bool(parameters.get("check"))
        self.checks = str(parameters.get("checks") or "")
        self.index = str(parameters.get("pip_index") or "")
        self.root = str(parameters.get("root") or "").rstrip("/")
        self.uv = parameters.get("uv") or self.root + UV
        self.gpus = os.path.exists(self.root + GPU)
        self.building = bool(parameters.get("building"))
        self.wanted = {name: chosen(one, self.gpus) for name, one in parameters["features"].items()}
        own = [one["environment"] for one in self.wanted.values() if one["environment"]]
        self.pythons: dict[str, str] = {one["name"]: one["python"] for one in own}
        """Environments of features' own, and the version of their Python."""
        self.locks = {**LOCKS, **{name: name for name in self.pythons}}
        self.timeout = int(parameters.get("timeout") or 1800)
        self.deadline = time.monotonic() + self.timeout
        self.folder = self.root + RECORDS
        self.journal = os.path.join(self.folder, ".journal.json")
        self.before = os.path.join(self.folder, ".before")
        """Files of packages that are about to change or to go."""
        self.scratch = os.path.join(self.folder, "scratch")
        """What is needed while something changes: downloads, homes of checks. File browsers show nothing of hidden folders."""
        self.records: dict[str, dict[str, t.Any]] = {}
        self.problems: list[str] = []
        self.commands: list[str] = []
        self.lock = -1

    def prefix(self, environment: str) -> str:
        """The folder of an environment."""
        return f"{self.root}{ENVIRONMENTS}/{environment}"

    def site(self, environment: str) -> str:
        """Where an environment has its Python packages. Raises Failure."""
        found = glob.glob(f"{glob.escape(self.prefix(environment))}/lib/python3.*/site-packages")
        if not found:
            raise Failure(
                f"there is no environment {environment} in {ENVIRONMENTS}: features need a hub whose image this collection built"
            )
        return found[0]

    def python(self, environment: str) -> tuple[int, ...]:
        """The version of an environment's Python, its first two numbers. Raises Failure."""
        version = self.pythons.get(environment) or self.site(environment).split(os.sep)[-2][len("python") :]
        return tuple(int(part) for part in version.split("."))

    def installed(self, environment: str) -> dict[str, Distribution]:
        """Python packages of an environment; none where there is no environment."""
        found = {}
        prefix = glob.escape(self.prefix(environment))
        for path in glob.glob(f"{prefix}/lib/python3.*/site-packages/*-*.dist-info"):
            name, _dash, version = os.path.basename(path)[: -len(".dist-info")].rpartition("-")
            found[normalised(name)] = Distribution(version, path)
        return found

    def act(self) -> dict[str, t.Any]:
        """Do what is wanted, or foretell it. Raises Failure and OSError."""
        if self.check:
            journal = _json(self.journal)
            self.records = journal["records"] if journal and "records" in journal else self._recorded()
            return self._result(bool(journal), *self._plan())
        with self._locked():
            undone = self._undo()
            self.records = self._recorded()
            added, updated, removed = self._plan()
            before = dict(self.records)
            if added or updated or removed:
                try:
                    self._apply(added + updated, removed)
                except BaseException:
                    self._undo()
                    raise
            return self._result(undone, added, updated, removed, before)

    def _recorded(self) -> dict[str, dict[str, t.Any]]:
        found = {}
        for path in sorted(glob.glob(f"{glob.escape(self.folder)}/*.json")):
            record = _json(path)
            if isinstance(record, dict):
                found[os.path.basename(path)[: -len(".json")]] = record
        return found

    def _plan(self) -> tuple[list[str], list[str], list[str]]:
        """Features to be added, updated or restored, removed. Raises Failure."""
        added = [name for name in self.wanted if name not in self.records]
        updated = [name for name in self.wanted if name in self.records and not self._settled(name)]
        removed = [name for name in self.records if name not in self.wanted] if self.exactly else []
        for name in added + updated:
            if self.wanted[name]["variant"] == "gpu" and not (self.gpus or self.building):
                raise Failure(
                    f"{name}:gpu needs GPUs, but there is no {GPU}: give the hub hub_devices, or choose {name}:cpu"
                )
        return sorted(added), sorted(updated), sorted(removed)

    def _settled(self, name: str) -> bool:
        """Whether a feature is as its record says, and that is as wanted; files that an admin has changed count as they are.

        One with variants has to be proven with the GPUs that are there.
        """
        record, variant = self.records[name], self.wanted[name]["variant"]
        return (
            (not variant or record["gpus"] == self.gpus)
            and record["digest"] == digest(self.wanted[name])
            and all(os.path.lexists(self.root + path) for path in record["files"])
            and all(set(brought) <= self.installed(one).keys() for one, brought in record["packages"].items())
        )

    def _result(
        self,
        undone: bool,
        added: list[str],
        updated: list[str],
        removed: list[str],
        before: dict[str, dict[str, t.Any]] | None = None,
    ) -> dict[str, t.Any]:
        before = self.records if before is None else before
        foretold = {name: {**self.records.get(name, {}), **one} for name, one in self.wanted.items()}
        after = {**self.records, **foretold} if self.check else self.records
        after = {name: one for name, one in after.items() if name not in removed}
        changed = [after.get(name, {}) for name in added + updated] + [before[name] for name in removed + updated]
        effects = [EFFECTS.index(one.get("applies", "")) for one in changed]
        return {
            "changed": bool(undone or changed),
            "added": added,
            "updated": updated,
            "removed": removed,
            "applies": EFFECTS[max(effects, default=0)],
            "problems": self.problems + self._touched({n: one for n, one in self.records.items() if n in after}),
            "features": [
                {
                    "name": name,
                    **{key: one[key] for key in ("title", "variant")},
                    "version": self._version(one),
                    "report": one.get("report", {}),
                }
                for name, one in sorted(after.items())
            ],
            "diff": {
                side: "".join(f"{n}\n" for n in sorted(names)) for side, names in (("before", before), ("after", after))
            },
            "commands": self.commands,
        }

    def _version(self, feature: dict[str, t.Any]) -> str:
        """The version of a feature's main package; "" where it is not there yet."""
        environment, name = feature["main"]
        found = self.installed(environment).get(normalised(name))
        return found.version if found else ""

    def _touched(self, records: dict[str, dict[str, t.Any]]) -> list[str]:
        """Files of features that somebody has changed here."""
        return [
            f"{path} of the feature {name} was changed in this hub: it stays so; remove it and run again to have the feature's own"
            for name, record in records.items()
            for path, known in sorted(record["files"].items())
            if os.path.lexists(self.root + path) and _sha256(_text(self.root + path)) != known
        ]

    # Changes

    def _apply(self, fresh: list[str], removed: list[str]) -> None:
        """Change packages and files, prove that all works, and record it. Raises Failure and OSError, with the journal in place."""
        if not os.access(self.uv, os.X_OK):
            raise Failure(f"{self.uv} is missing: features need a hub whose image this collection built")
        own = {one["name"]: name for name in fresh if (one := self.wanted[name]["environment"])}
        self._refuse_environments(own)
        here = {name: self.installed(name) for name in sorted({*LOCKS.values(), *own})}
        kept = {name: one for name, one in self.records.items() if name not in fresh + removed}
        old = [self.records[name] for name in self.records if name not in kept]
        ours = {one: {name for r in self.records.values() for name in r["packages"].get(one, [])} for one in here}
        staying = {one: {name for r in kept.values() for name in r["packages"].get(one, [])} for one in here}
        going = {one: {name for r in old for name in r["packages"].get(one, [])} - staying[one] for one in here}
        fixed = {one: self._pins(fresh, one) for one in here}
        for one in here:
            self._refuse_conflicts(one, here[one], fixed[one], going[one], kept)
        os.makedirs(self.scratch)
        write(os.path.join(self.scratch, CHECKS), self.checks)  # checks of features import it
        # what only comes with an environment of its own breaks no extension of Jupyter, and looking costs seconds
        jupyter = [name for name in fresh if name not in own.values()]
        jupyter += [name for name in self.records if name not in kept and not self.records[name]["environment"]]
        look: t.Callable[[], dict[str, str]] = self._broken if jupyter else dict
        ill = look()
        self._begin(here, going, fixed, fresh)
        for one in own:
            if not os.path.isdir(self.prefix(one)):
                self._make(one)
        for one in here:  # first, since a package may have files where another one had them
            self._uninstall(one, sorted((going[one] - fixed[one].keys()) & here[one].keys()))
        for lock, one in self.locks.items():
            self._install(lock, one, [self.wanted[name]["packages"].get(lock, "") for name in fresh])
        files = self._place(fresh, old, kept)
        now = {one: self.installed(one) for one in here}
        brought = {one: ours[one] | (now[one].keys() - here[one].keys()) for one in here}
        for name, why in look().items():
            if name not in ill:
                raise Failure(f"{name} {why}")
            self.problems.append(f"{name} {why}, and did so before")
        reports = {name: self._prove(name) for name in fresh}
        records = dict(kept)
        for name in fresh:
            feature = self.wanted[name]
            wishes = {one: self._pins([name], one) for one in here}
            records[name] = {
                **{key: feature[key] for key in ("title", "applies", "main", "variant")},
                "environment": feature["environment"].get("name", ""),
                "gpus": self.gpus,
                "digest": digest(feature),
                "packages": {
                    one: sorted(wish.keys() & brought[one] & now[one].keys()) for one, wish in wishes.items() if wish
                },
                "files": files[name],
                "report": reports[name],
            }
        self._record(records)
        self._finish(
            sorted({one["environment"] for one in old} - {one["environment"] for one in records.values()} - {""})
        )

    def _pins(self, names: list[str], environment: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name in names:
            for lock, text in self.wanted[name]["packages"].items():
                if self.locks[lock] == environment:
                    for package, versions in pins(text, self.python(environment)).items():
                        found.setdefault(package, set()).update(versions)
        return found

    def _refuse_conflicts(
        self,
        environment: str,
        here: dict[str, Distribution],
        fixed: dict[str, set[str]],
        going: set[str],
        kept: dict[str, dict[str, t.Any]],
    ) -> None:
        """Refuse to change what no feature brought, or what another feature needs as it is. Raises Failure."""
        wrong = [n for n in sorted(fixed) if n in here and n not in going and here[n].version not in fixed[n]]
        if not wrong:
            return
        shown = ", ".join(f"{n} {here[n].version} instead of {' or '.join(sorted(fixed[n]))}" for n in wrong[:5])
        holders = [name for name, one in kept.items() if set(wrong) & set(one["packages"].get(environment, []))]
        if holders:
            raise Failure(
                f"environment {environment} has {shown}, as the installed {', '.join(holders)} needs it: give all features in one task"
            )
        raise Failure(
            f"environment {environment} has {shown}. Features change no package that they have not brought: use an image of this collection's"
            " version, or install the version there that the feature needs"
        )

    def _refuse_environments(self, own: dict[str, str]) -> None:
        """Refuse to touch an environment that no feature has made, and one with another Python. Raises Failure."""
        made = {record["environment"] for record in self.records.values()}
        for one, name in own.items():
            path = f"{ENVIRONMENTS}/{one}"
            if os.path.lexists(self.prefix(one)) and one not in made:
                raise Failure(
                    f"feature {name} would make {path}, which is there, and no feature has made it: remove that environment, or make it under"
                    " another name"
                )
            if os.path.lexists(self.prefix(one)) and not os.path.isdir(
                f"{self.prefix(one)}/lib/python{self.pythons[one]}"
            ):
                raise Failure(
                    f"feature {name} needs Python {self.pythons[one]}, its environment {path} has another one: take the feature away, then add it"
                )

    def _make(self, environment: str) -> None:
        """Make an environment with nothing but Python and pip. Raises Failure."""
        prefix, version = self.prefix(environment), self.pythons[environment]
        argv = [self.root + CONDA, "create", "--yes", "--quiet", "--prefix", prefix, f"python={version}", "pip"]
        downloads = f"{self.scratch}/packages,{self.root}/opt/conda/pkgs"
        status, text = self._run(argv, {"CONDA_PKGS_DIRS": downloads}, may_fail=True)
        if status:
            raise Failure(reason(argv, text))
        library = f"{prefix}/lib/python{version}"
        compiling = ["-m", "compileall", "-q", "-j", "0", "-x", "site-packages", library]
        self._run([f"{prefix}/bin/python", *compiling], may_fail=True)  # some files are of other versions of Python

    def _begin(
        self,
        here: dict[str, dict[str, Distribution]],
        going: dict[str, set[str]],
        fixed: dict[str, dict[str, set[str]]],
        fresh: list[str],
    ) -> None:
        """Write down how all is, and keep what may go. From here on, what was done can be undone."""
        for environment, found in here.items():
            prefix = self.prefix(environment)
            for name in sorted(going[environment] & found.keys()):
                for path in belongings(found[name], prefix):
                    target = os.path.join(self.before, environment, path)
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    try:
                        os.link(os.path.join(prefix, path), target, follow_symlinks=False)
                    except OSError:
                        shutil.copy2(os.path.join(prefix, path), target, follow_symlinks=False)
        touched = {path for record in self.records.values() for path in record["files"]}
        touched |= {self._real(path) for name in fresh for path in self.wanted[name]["files"]}
        states = {path: self._state(path) for path in sorted(touched)}
        environments = {
            one: {
                "identity": identity(self.prefix(one)),
                "paths": paths(self.prefix(one)),
                "versions": {
                    name: [*fixed[one].get(name, []), *([found[name].version] if name in found else [])]
                    for name in found.keys() | fixed[one].keys()
                },
            }
            for one, found in here.items()
            if os.path.isdir(self.prefix(one))
        }
        journal = {"records": self.records, "files": states, "environments": environments}
        journal["made"] = sorted(here.keys() - environments.keys())
        write(self.journal, json.dumps(journal), 0o600)

    def _state(self, path: str) -> list[t.Any] | None:
        """Content and mode of a file; None if there is none."""
        path = self.root + path
        return [_text(path), os.stat(path).st_mode & 0o7777] if os.path.isfile(path) else None

    def _undo(self) -> bool:
        """Make everything as the journal says it was, or finish what is done; False if there is no journal. Raises OSError."""
        journal = _json(self.journal)
        if not journal:
            self._forget()
            return False
        if "doomed" in journal:
            self._finish(journal["doomed"])
            return True
        for environment in journal["made"]:
            self._delete(environment)
        for environment, then in journal["environments"].items():
            prefix = self.prefix(environment)
            if not os.path.isdir(prefix) or identity(prefix) != then["identity"]:
                continue  # conda has made it anew since
            # after a killed run, somebody may have installed other packages
            others = [
                one
                for name, one in self.installed(environment).items()
                if one.version not in then["versions"].get(name, [])
            ]
            keep = {*then["paths"], *(path for one in others for path in belongings(one, prefix))}
            for path in paths(prefix):
                if path not in keep:
                    remove(os.path.join(prefix, path))
            saved = os.path.join(self.before, environment)
            for path in paths(saved):
                os.makedirs(os.path.dirname(os.path.join(prefix, path)), exist_ok=True)
                shutil.move(os.path.join(saved, path), os.path.join(prefix, path))
        for path, state in journal["files"].items():
            if state is None:
                remove(self.root + path)
            elif self._state(path) != state:
                write(self.root + path, *state)
        self._record(journal["records"])
        self._forget()
        return True

    def _delete(self, environment: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.prefix(environment))

    def _finish(self, doomed: list[str]) -> None:
        """Nothing is undone any more; environments go that no feature has now. Raises OSError."""
        if doomed:
            write(self.journal, json.dumps({"doomed": doomed}), 0o600)
        for environment in doomed:
            self._delete(environment)
        self._forget()

    def _forget(self) -> None:
        """What was done is final."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.journal)
        for folder in (self.before, self.scratch):
            shutil.rmtree(folder, ignore_errors=True)

    def _record(self, records: dict[str, dict[str, t.Any]]) -> None:
        for name in self._recorded():
            if name not in records:
                os.unlink(os.path.join(self.folder, f"{name}.json"))
        for name, record in records.items():
            write(os.path.join(self.folder, f"{name}.json"), json.dumps(record, indent=1, sort_keys=True) + "\n")
        self.records = records

    def _install(self, lock: str, environment: str, texts: list[str]) -> None:
        merged: dict[str, set[str]] = {}
        for text in texts:
            for requirement, hashes in entries(text).items():
                merged.setdefault(requirement, set()).update(hashes)
        if not merged:
            return
        path = os.path.join(self.scratch, f"{lock}.txt")
        write(path, "".join(" ".join([one, *sorted(hashes)]) + "\n" for one, hashes in sorted(merged.items())))
        alone = ["--no-deps"] if lock == "jhub-only" else []
        arguments = ["install", "--compile-bytecode", "--require-hashes", *alone, "--requirement", path]
        self._uv(environment, arguments)

    def _uninstall(self, environment: str, names: list[str]) -> None:
        if names:
            here, prefix = self.installed(environment), self.prefix(environment)
            owned = {path for name in names for path in belongings(here[name], prefix)}
            self._uv(environment, ["uninstall", *names])
            for folder in {os.path.dirname(path) for path in owned}:
                with contextlib.suppress(OSError):  # not empty, or gone
                    os.removedirs(os.path.join(prefix, folder))

    def _real(self, path: str) -> str:
        """Where a feature's file comes to be: ``lib/python3`` stands for the folder of the environment's Python."""
        found = re.fullmatch(rf"({ENVIRONMENTS}/([^/]+)/lib)/python3/(.*)", path)
        return f"{found[1]}/python{'.'.join(map(str, self.python(found[2])))}/{found[3]}" if found else path

    def _place(
        self, fresh: list[str], old: list[dict[str, t.Any]], kept: dict[str, dict[str, t.Any]]
    ) -> dict[str, dict[str, str]]:
        """Write files of features and remove former ones; what an admin has changed stays. Returns the features' digests of their files."""
        known = {path: value for record in old for path, value in record["files"].items()}
        files = {name: {self._real(path): one for path, one in self.wanted[name]["files"].items()} for name in fresh}
        staying = {path for owned in files.values() for path in owned} | {
            p for one in kept.values() for p in one["files"]
        }
        for path in sorted(known.keys() - staying):
            if not os.path.lexists(self.root + path) or _sha256(_text(self.root + path)) == known[path]:
                remove(self.root + path)
            else:
                self.problems.append(
                    f"{path} was changed in this hub: it is left, though its feature is not; remove it if it is not needed"
                )
        modules = []
        for owned in files.values():
            for path, one in owned.items():
                there = _sha256(_text(self.root + path)) if os.path.lexists(self.root + path) else None
                if there in (None, known.get(path), _sha256(one["content"])):
                    write(self.root + path, one["content"], 0o755 if one["executable"] else 0o644)
                    modules += [self.root + path] if path.endswith(".py") else []
        if modules:
            self._run([f"{self.prefix('jhub')}/bin/python", "-m", "compileall", "-q", *modules])
        return {name: {path: _sha256(one["content"]) for path, one in owned.items()} for name, owned in files.items()}

    # Programs

    def _uv(self, environment: str, arguments: list[str]) -> None:
        """Run uv pip on an environment. Raises Failure."""
        python = f"{self.prefix(environment)}/bin/python"
        argv = [self.uv, "pip", arguments[0], "--python", python, "--break-system-packages", *arguments[1:]]
        surroundings = {"UV_NO_CACHE": "1", "UV_NO_CONFIG": "1", "UV_LINK_MODE": "copy", "UV_HTTP_TIMEOUT": "180"}
        index = self.index
        if not index:
            site = configparser.RawConfigParser()
            with contextlib.suppress(configparser.Error):
                site.read(f"{self.root}/etc/pip.conf")
            index = site.get("global", "index-url", fallback="")
        if index:
            surroundings["UV_DEFAULT_INDEX"] = index
        status, text = self._run(argv, surroundings, may_fail=True)
        if status:
            raise Failure(reason(argv, text))

    def _broken(self) -> dict[str, str]:
        """Extensions of Jupyter that do not work, and why. Raises Failure."""
        text = self._run([f"{self.prefix('jhub')}/bin/python", os.path.join(self.scratch, CHECKS)], self._home())[1]
        try:
            return t.cast("dict[str, str]", json.loads(text.splitlines()[-1]))
        except (IndexError, ValueError):
            raise Failure(f"the check of Jupyter's extensions said no more than: {text[-WORDS:]}") from None

    def _prove(self, name: str) -> dict[str, t.Any]:
        """Run a feature's check and return its report. Raises Failure."""
        home = self._home()
        path = os.path.join(self.scratch, f"check_{name}.py")
        write(path, self.wanted[name]["check"])
        status, text = self._run([f"{self.prefix('jhub')}/bin/python", path], home, may_fail=True)
        shutil.rmtree(home["HOME"])
        if status:
            raise Failure(f"feature {name} does not work here, its check says: {text.strip()[-WORDS:]}")
        return report(text)

    def _home(self) -> dict[str, str]:
        """The environment of checks: an empty home, and none of what says otherwise where Jupyter's things are."""
        home = tempfile.mkdtemp(dir=self.scratch)
        path = f"{self.prefix('jhub')}/bin:/opt/conda/condabin:/usr/local/bin:/usr/bin:/bin"
        return {"HOME": home, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}

    def _run(
        self, argv: list[str], surroundings: dict[str, str] | None = None, may_fail: bool = False
    ) -> tuple[int, str]:
        """Run a program and return its status and output, of one that failed with what it said of errors. Raises Failure."""
        self.commands.append(re.sub(r"//[^/@\s]+@", "//***@", shlex.join(argv)))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JUPYTER", "UV_"))}
        if os.access(CERTIFICATES, os.R_OK):
            kept = {"SSL_CERT_FILE": CERTIFICATES, **kept}
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=(surroundings or {}).get("HOME", "/"),
            env={**kept, "LC_ALL": "C.UTF-8", "TMPDIR": self.scratch, **(surroundings or {})},
            pass_fds=[self.lock],
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=max(1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Failure(f"it took longer than {self.timeout} s: see to the network ({self.commands[-1]})") from None
        if process.returncode and not may_fail:
            raise Failure(f"{shlex.join(argv[:3])} failed: {(err or out).strip()[-WORDS:]}")
        return process.returncode, out if not process.returncode else err or out

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        """Wait for others who change environments. Programs that outlive a killed run keep it locked."""
        path = f"{self.root}{ENVIRONMENTS}/{LOCK}"
        try:
            self.lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise Failure(
                f"there is no {ENVIRONMENTS}: features need a hub whose image this collection built"
            ) from None
        try:
            while True:
                try:
                    fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > self.deadline:
                        raise Failure(
                            f"somebody still changes an environment here after {self.timeout} s: wait for it"
                        ) from None
                    time.sleep(0.1)
            yield
        finally:
            os.close(self.lock)


def main(parameters: dict[str, t.Any]) -> dict[str, t.Any]:
    """Bring the hub's features to the wanted set. Raises Failure.

    Parameters: ``features`` (see :func:`features.parameters`), ``checks`` (the module that their checks share), ``exactly`` (take others away),
    ``pip_index``, ``timeout`` (seconds), ``check``, ``building`` (an image, which later finds GPUs); for tests ``root`` and ``uv``.
    """
    os.umask(0o022)
    work = Work(parameters)
    try:
        return work.act()
    except Failure as error:
        why = str(error)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = f"{error.filename}: {error.strerror}" + (": make room, and run again" if full else "")
    left = (
        "Something is half done: the next run takes it back"
        if os.path.exists(work.journal)
        else "All is as it was before"
    )
    raise Failure(f"{why.rstrip('.')}. {left}.", {"commands": work.commands, "problems": work.problems})


def build() -> None:
    """For the build of an image: the parameters are a file."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        parameters = json.load(stream)
    try:
        result = main(parameters)
    except Failure as error:
        raise SystemExit(str(error.args[0])) from error
    sys.stdout.write("".join(f"{one['title']} ({one['name']} {one['version']})\n" for one in result["features"]))
    sys.stdout.write(
        "".join(f"{one['name']}: {json.dumps(one['report'])}\n" for one in result["features"] if one["report"])
    )


if __name__ == "__main__":
    build()
