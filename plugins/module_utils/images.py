# Copyright: (c) 2026, The ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Image definitions: what is wrong with them, what they are made of, and the name that follows from that.

Everything here runs on the controller. A definition and the site's settings become a Plan: the
Containerfile, and the files that the build needs. Each step of the build is a folder of its own with
everything that it reads, and the Containerfile names the folder's digest; so the digest of the
Containerfile is the digest of the whole image, and a step is built again exactly when something in
its folder or in a step before it has changed.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import os
import re
import shlex
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.ananke.jupyterhub.plugins.module_utils import features, image_store

REPOSITORY = "localhost/ananke"
RESERVED_NAMES = ("base",)
"""localhost/ananke/base holds the bootstrapped Debian systems."""
SOURCES = ("build", "load", "pull")
CONTEXT = "/run/ananke-context"
"""Where the folders of the steps are seen during the build."""
MTIME = 1577836800
"""Modification time of all files in a context (2020-01-01): the same content is the same archive."""

JUPYTERHUB = {5: "jhub", 6: "jhub-6"}
"""Names of the lock files, by JupyterHub's major version; the first is the default."""
DEFAULT_SUITE = "trixie"
DEFAULT_CONDA_SPECS = ("python=3.13", "pip")
BASE_PACKAGES = (
    *(
        "bash-completion",
        "bzip2",
        "ca-certificates",
        "curl",
        "dbus",
        "file",
        "git",
        "iproute2",
        "less",
        "libnss-systemd",
    ),
    *("libpam-systemd", "nano", "openssh-client", "procps", "psmisc", "rsync", "systemd-sysv", "tzdata", "unzip"),
    *("vim-tiny", "xz-utils", "zip"),
)
"""Debian packages of every image: systemd, and what people expect to find in a terminal."""
EXCLUDE = (
    *("path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/man/*", "path-exclude=/usr/share/doc/*"),
    "path-include=/usr/share/doc/*/copyright",
)
"""For dpkg: a tenth of the image that nobody reads."""
JHUB_CHECK = (
    "jupyterhub",
    "jupyterlab",
    "ltiauthenticator",
    "systemdspawner",
    "jupyterhub_idle_culler",
    "nbgitpuller",
    "jupyter_resource_usage",
)

DEFINITION_KEYS = {
    "build": ("name", "source", "revision", "base", "jupyterhub", "conda", "environments", "features", "apt"),
    "load": ("name", "source", "archive", "checksum"),
    "pull": ("name", "source", "reference"),
}
BASE_KEYS = ("suite", "reference")
CONDA_KEYS = ("installer", "checksum", "channels")
ENVIRONMENT_KEYS = ("name", "conda", "conda_lock", "requirements", "kernel", "check")

NAME = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_SUITE = re.compile(r"[a-z]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REFERENCE = re.compile(r"[a-z0-9]+(?:[._:/-]+[a-zA-Z0-9]+)*@sha256:[0-9a-f]{64}")
APT = re.compile(r"[a-z0-9][a-z0-9.+-]+")
_CONDA = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:=<>!~,|*+-]*")
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_REVISION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=%-]+")


@dataclass(frozen=True)
class Settings:
    """Where a site's images come from; an empty string means the public place."""

    apt_mirror: str = "http://deb.debian.org/debian"
    apt_security_mirror: str = "http://deb.debian.org/debian-security"
    pip_index: str = ""
    npm_registry: str = ""
    proxy: str = ""
    """Used during the build only; no part of the image and of its name."""
    no_proxy: str = ""
    ca_certificates: tuple[str, ...] = ()
    """Files on the controller."""
    conda: Mapping[str, Any] = field(default_factory=dict)
    """installer, checksum and channels of definitions that say nothing else."""


@dataclass(frozen=True)
class Entry:
    """A file of the build's context: content or, for large files, a path on the controller."""

    name: str
    content: bytes = b""
    path: str = ""
    executable: bool = False
    link: str = ""
    """Target, if this is a symbolic link."""

    def digest(self) -> str:
        """Return the digest of everything that the image can see of this file.

        Raises:
            OSError: the file on the controller cannot be read.
        """
        whole = hashlib.sha256(f"{self.name}\0{int(self.executable)}\0{self.link}\0".encode())
        if self.path:
            with open(self.path, "rb") as handle:
                while chunk := handle.read(1 << 20):
                    whole.update(chunk)
        else:
            whole.update(self.content)
        return whole.hexdigest()


@dataclass(frozen=True)
class Step:
    """One layer of an image: a folder of the context with the script `step` and all that it reads."""

    folder: str
    title: str
    entries: tuple[Entry, ...]

    def digest(self) -> str:
        """Return the digest of the folder."""
        return _digest(*(entry.digest() for entry in sorted(self.entries, key=lambda entry: entry.name)))


@dataclass(frozen=True)
class Plan:
    """What has to be done so that a machine has the image of a definition."""

    name: str
    source: str
    key: str
    """12 hexadecimal digits that follow from the definition's content, not from its name."""
    summary: str
    """One line for people: what the image is made from."""
    job: dict[str, Any]
    """What the machine needs to know; see the role's image_job.py."""
    entries: tuple[Entry, ...] = ()
    """The files that the machine needs."""

    @property
    def reference(self) -> str:
        """The image's name in the store."""
        return f"{REPOSITORY}/{self.name}:{self.key}"


def _digest(*parts: str) -> str:
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode()
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()


def _short(*parts: str) -> str:
    return _digest(*parts)[:12]


# ---------------------------------------------------------------------------------------------------------------
# what may be wrong


def check(definitions: Any, settings: Settings) -> list[str]:
    """Return what is wrong with the definitions and settings, one readable line each.

    Every line names the definition, the key, the value and what to write instead. Files on the
    controller are looked at, the network is not.
    """
    problems = _check_settings(settings)
    if not isinstance(definitions, (list, tuple)) or not definitions:
        return [
            *problems,
            f"hub_image_definitions is {definitions!r}: list at least one image, e.g. [{{name: standard}}]",
        ]
    seen: set[str] = set()
    for index, definition in enumerate(definitions):
        where = f"hub_image_definitions[{index}]"
        if not isinstance(definition, Mapping):
            problems.append(f"{where} is {definition!r}: write a mapping with at least a name, e.g. {{name: standard}}")
            continue
        name = definition.get("name")
        if not isinstance(name, str) or len(name) > 63 or not NAME.fullmatch(name) or name in RESERVED_NAMES:
            problems.append(
                f"{where}: name is {name!r}: use at most 63 lower case letters and digits, divided by single '-' or "
                f"'_' (not {', '.join(RESERVED_NAMES)})"
            )
            continue
        if name in seen:
            problems.append(f"{where}: name is {name!r}, as in an earlier definition: give every image its own name")
        seen.add(name)
        problems += _check_definition(f"{where} ({name})", definition, settings)
    return problems


def _check_settings(settings: Settings) -> list[str]:
    problems = []
    for key in ("apt_mirror", "apt_security_mirror", "pip_index", "npm_registry"):
        value = getattr(settings, key)
        if value or key == "apt_mirror":
            problems += _check_url(f"hub_image_{key}", value)
    if settings.proxy:
        problems += _check_url("hub_image_proxy", settings.proxy, secret=True)
    for path in settings.ca_certificates:
        found = _check_file("hub_image_ca_certificates", path)
        if not found and "-----BEGIN CERTIFICATE-----" not in Path(path).read_text(errors="replace"):
            found = [
                f"hub_image_ca_certificates: {path} holds no PEM certificate: give files that begin with BEGIN CERTIFICATE"
            ]
        problems += found
    return problems


def _check_url(where: str, value: Any, secret: bool = False) -> list[str]:
    """Check an address; `secret` addresses may hold a password and are not repeated in the message."""
    if not isinstance(value, str) or not _URL.fullmatch(value):
        return [
            f"{where} is {'not usable' if secret else repr(value)}: give an address that begins with http:// or https://"
        ]
    try:
        parts = urlsplit(value)
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return [f"{where} is not a valid address: check its host and port"]
    if not valid:
        return [f"{where} is not a valid address: check its host and port"]
    if not secret and (parts.username or parts.password):
        return [f"{where} holds a user name or password, which every hub user could read in the image: use one without"]
    return []


def _check_file(where: str, value: Any) -> list[str]:
    if not isinstance(value, str) or not value.startswith("/") or any(ord(char) < 32 for char in value):
        return [
            f"{where}: {value!r} is not an absolute path on the controller: write e.g. {{{{ inventory_dir }}}}/files/..."
        ]
    if not os.path.isfile(value) or not os.access(value, os.R_OK):
        return [f"{where}: {value} cannot be read on the controller: create the file or correct the path"]
    return []


def _unknown(where: str, value: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    problems = []
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known)}"
            problems.append(f"{where}: unknown key {key!r}: {hint}")
    return problems


def _strings(where: str, value: Any, pattern: re.Pattern[str], example: str) -> list[str]:
    """Check a list of strings."""
    if not isinstance(value, (list, tuple)):
        return [f"{where} is {value!r}: write a list, e.g. [{example}]"]
    return [
        f"{where}: {item!r} is not allowed: write e.g. {example}"
        for item in value
        if not isinstance(item, str) or not pattern.fullmatch(item)
    ]


def _check_definition(where: str, definition: Mapping[str, Any], settings: Settings) -> list[str]:
    source = definition.get("source", "build")
    if source not in SOURCES:
        return [f"{where}: source is {source!r}: choose one of {', '.join(SOURCES)}"]
    given = {key: value for key, value in definition.items() if value is not None}
    problems = _unknown(where, given, DEFINITION_KEYS[source])
    if source == "load":
        problems += _check_file(f"{where}: archive", given.get("archive"))
        problems += _check_sha256(f"{where}: checksum", given.get("checksum"))
    elif source == "pull":
        problems += _check_reference(f"{where}: reference", given.get("reference"))
    else:
        problems += _check_build(where, given, settings)
    return problems


def _check_sha256(where: str, value: Any) -> list[str]:
    if isinstance(value, str) and _SHA256.fullmatch(value):
        return []
    return [f"{where} is {value!r}: give the file's SHA-256, 64 hexadecimal digits as sha256sum prints them"]


def _check_reference(where: str, value: Any) -> list[str]:
    if isinstance(value, str) and _REFERENCE.fullmatch(value):
        return []
    return [f"{where} is {value!r}: name the registry and the digest, e.g. registry.example.org/hub@sha256:<64 digits>"]


def _check_build(where: str, given: Mapping[str, Any], settings: Settings) -> list[str]:
    problems = []
    revision = given.get("revision", "")
    if revision != "" and not (isinstance(revision, str) and _REVISION.fullmatch(revision)):
        problems.append(
            f"{where}: revision is {revision!r}: use letters, digits, '.', '_' and '-' in quotes, e.g. \"2026-11\""
        )
    if given.get("jupyterhub", 5) not in JUPYTERHUB:
        known = " or ".join(map(str, JUPYTERHUB))
        problems.append(f"{where}: jupyterhub is {given['jupyterhub']!r}: give a major version, {known}")
    base = given.get("base", {})
    if not isinstance(base, Mapping):
        problems.append(f"{where}: base is {base!r}: write {{suite: {DEFAULT_SUITE}}} or {{reference: ...@sha256:...}}")
    else:
        base = {key: value for key, value in base.items() if value is not None}
        problems += _unknown(f"{where}: base", base, BASE_KEYS)
        if "reference" in base and "suite" in base:
            problems.append(f"{where}: base has both suite and reference: keep the one that you mean")
        if "reference" in base:
            problems += _check_reference(f"{where}: base.reference", base["reference"])
        if not isinstance(base.get("suite", ""), str) or not _SUITE.fullmatch(base.get("suite", DEFAULT_SUITE)):
            problems.append(f"{where}: base.suite is {base['suite']!r}: name a Debian release, e.g. {DEFAULT_SUITE}")
    problems += _strings(f"{where}: apt", given.get("apt", []), APT, "graphviz")
    unfit = features.check(given.get("features", []))
    problems += [f"{where}: {problem}" for problem in unfit]
    problems += _check_conda(where, given.get("conda", {}), settings)
    environments = given.get("environments", [])
    if not isinstance(environments, (list, tuple)):
        return [*problems, f"{where}: environments is {environments!r}: write a list of mappings with a name each"]
    seen: set[str] = set()
    brought = {} if unfit else features.environments(given.get("features", []))
    for environment in environments:
        if isinstance(environment, Mapping) and environment.get("name") in list(brought):
            name = environment["name"]
            problems.append(
                f"{where}: environments: {name!r} is what the feature {brought[name]} brings: name yours otherwise"
            )
        problems += check_environment(f"{where}: environments", environment, seen)
    return problems


def _check_conda(where: str, conda: Any, settings: Settings) -> list[str]:
    if not isinstance(conda, Mapping):
        return [f"{where}: conda is {conda!r}: write a mapping with installer, checksum and channels"]
    problems = _unknown(f"{where}: conda", conda, CONDA_KEYS)
    problems += _unknown("hub_image_conda", settings.conda, CONDA_KEYS)
    merged = _merged_conda(conda, settings)
    installer, checksum = merged.get("installer"), merged.get("checksum")
    if isinstance(installer, str) and installer.startswith("/"):
        problems += _check_file(f"{where}: conda.installer", installer)
        if checksum:
            problems += _check_sha256(f"{where}: conda.checksum", checksum)
    else:
        problems += _check_url(f"{where}: conda.installer", installer)
        problems += _check_sha256(f"{where}: conda.checksum", checksum)
    channels = merged.get("channels")
    if not isinstance(channels, (list, tuple)) or not channels:
        return [*problems, f"{where}: conda.channels is {channels!r}: list at least one, e.g. [conda-forge]"]
    for channel in channels:
        if isinstance(channel, str) and channel.startswith("/"):
            if not os.path.isfile(os.path.join(channel, "noarch", "repodata.json")):
                problems.append(
                    f"{where}: conda.channels: {channel} has no noarch/repodata.json: name an indexed channel"
                )
        elif isinstance(channel, str) and "://" in channel:
            problems += _check_url(f"{where}: conda.channels", channel)
        elif not isinstance(channel, str) or not _CHANNEL_NAME.fullmatch(channel):
            problems.append(
                f"{where}: conda.channels: {channel!r} is not a channel: give a name, an address or an absolute path"
            )
    return problems


def check_environment(where: str, environment: Any, seen: set[str]) -> list[str]:
    """Return what is wrong with an environment; ``seen`` are the names of those before it, to which it is added."""
    if not isinstance(environment, Mapping):
        return [f"{where}: {environment!r} is not an environment: write a mapping with a name"]
    given = {key: value for key, value in environment.items() if value is not None}
    name = given.get("name")
    if not isinstance(name, str) or len(name) > 63 or not NAME.fullmatch(name) or name in ("base", "root"):
        return [
            f"{where}: name is {name!r}: use lower case letters and digits, divided by single '-' or '_' (not base, root)"
        ]
    where = f"{where}: {name}"
    problems = _unknown(where, given, ENVIRONMENT_KEYS)
    if name in seen:
        problems.append(f"{where} is there twice: keep one")
    seen.add(name)
    problems += _strings(f"{where}: conda", given.get("conda", []), _CONDA, "python=3.13")
    problems += _strings(f"{where}: check", given.get("check", []), _MODULE, "numpy")
    kernel = given.get("kernel", "")
    if not isinstance(kernel, str) or len(kernel) > 80 or any(ord(char) < 32 for char in kernel):
        problems.append(
            f"{where}: kernel is {kernel!r}: give the name that JupyterLab shows, at most 80 characters, or ''"
        )
    if name == "jhub" and kernel:
        problems.append(
            f"{where}: kernel is {kernel!r}: jhub runs Jupyter itself and has no kernel; declare an environment"
        )
    if "conda" in given and "conda_lock" in given:
        problems.append(f"{where} has both conda and conda_lock: keep the lock, it names every package")
    if "conda_lock" in given:
        found = _check_file(f"{where}: conda_lock", given["conda_lock"])
        problems += found or _check_conda_lock(f"{where}: conda_lock", given["conda_lock"])
    if given.get("requirements"):
        found = _check_file(f"{where}: requirements", given["requirements"])
        problems += found or _check_requirements(f"{where}: requirements", given["requirements"])
    return problems


def _check_requirements(where: str, path: str) -> list[str]:
    text = Path(path).read_text(errors="replace").replace("\\\n", " ")
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith("#") and (line.startswith("-") or "--hash=sha256:" not in line):
            return [
                f"{where}: {path} has {line.split(' ')[0]!r} without a hash: write a lock file with "
                "`uv pip compile --generate-hashes`"
            ]
    return []


def _check_conda_lock(where: str, path: str) -> list[str]:
    lines = [line.strip() for line in Path(path).read_text(errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines[:1] != ["@EXPLICIT"] or any("#" not in line for line in lines[1:]):
        return [f"{where}: {path} is no explicit lock with checksums: write it with `conda list --explicit --md5`"]
    return []


# ---------------------------------------------------------------------------------------------------------------
# what an image is made of


def plan(definition: Mapping[str, Any], settings: Settings, files: str) -> Plan:
    """Return the plan of a definition that `check` found nothing wrong with.

    Args:
        definition: the definition.
        settings: the site's settings.
        files: folder of the role's own files: steps, locks, proxy, rootfs, ananke_hub.

    Raises:
        OSError: a file that the definition or the role needs cannot be read.
    """
    given = {key: value for key, value in definition.items() if value is not None}
    name, source = given["name"], given.get("source", "build")
    if source == "load":
        checksum = given["checksum"]
        job = {"source": "load", "archive": "archive", "checksum": checksum}
        entries = (Entry("archive", path=given["archive"]),)
        return Plan(name, source, _short("load", checksum), given["archive"], job, entries)
    if source == "pull":
        reference = given["reference"]
        job = {"source": "pull", "reference": reference}
        return Plan(name, source, _short("pull", reference), reference, job)
    return _build_plan(name, given, settings, files)


def _build_plan(name: str, given: Mapping[str, Any], settings: Settings, files: str) -> Plan:
    base = {key: value for key, value in given.get("base", {}).items() if value is not None}
    if "reference" in base:
        from_reference = base["reference"]
        bootstrap: dict[str, Any] = {}
        origin = from_reference
    else:
        suite = base.get("suite", DEFAULT_SUITE)
        bootstrap = {
            "suite": suite,
            "sources": sources(suite, settings),
            "packages": list(BASE_PACKAGES),
            "exclude": list(EXCLUDE),
        }
        from_reference = f"{REPOSITORY}/base:{suite}-{_short(json.dumps(bootstrap), given.get('revision', ''))}"
        origin = f"Debian {suite} from {settings.apt_mirror}"
    steps = build_steps(given, settings, files)
    text = containerfile(from_reference, steps, given.get("revision", ""))
    entries = [Entry("Containerfile", text.encode())]
    for step in steps:
        entries += [_moved(entry, f"context/{step.folder}/{entry.name}") for entry in step.entries]
    names = ", ".join(environment["name"] for environment in environments(given, files))
    chosen = ", ".join(sorted(given.get("features", [])))
    return Plan(
        name,
        "build",
        _short(text),
        f"{origin}; environments {names}" + (f"; features {chosen}" if chosen else ""),
        {"source": "build", "base": from_reference, "bootstrap": bootstrap, "steps": [step.title for step in steps]},
        tuple(entries),
    )


def _moved(entry: Entry, name: str) -> Entry:
    return Entry(name, entry.content, entry.path, entry.executable, entry.link)


def containerfile(base: str, steps: Iterable[Step], revision: str = "") -> str:
    """Return the Containerfile: one layer per step, with the digest of everything that the step reads."""
    lines = [
        f"FROM {base}",
        "ENV LANG=C.UTF-8 container=podman PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/conda/bin",
        "STOPSIGNAL SIGRTMIN+3",
        'CMD ["/sbin/init"]',
    ]
    if revision:
        lines.append(f"# revision {revision}")
    lines += [f"RUN sh {CONTEXT}/{step.folder}/step # {step.digest()}" for step in steps]
    return "\n".join(lines) + "\n"


def environments(given: Mapping[str, Any], files: str) -> list[dict[str, Any]]:
    """Return all environments of a definition, jhub first, python3 second, with defaults filled in."""
    jhub = JUPYTERHUB[given.get("jupyterhub", 5)]
    defaults: dict[str, dict[str, Any]] = {
        "jhub": {"requirements": f"{files}/locks/{jhub}.txt", "kernel": "", "check": list(JHUB_CHECK)},
        "python3": {
            "requirements": f"{files}/locks/python3.txt",
            "kernel": "Python 3 (ipykernel)",
            "check": ["ipykernel"],
        },
    }
    result = {name: {"name": name, **values} for name, values in defaults.items()}
    for environment in given.get("environments", []):
        name = environment["name"]
        values = {key: value for key, value in environment.items() if value is not None}
        result[name] = {"kernel": name, "requirements": "", "check": [], **result.get(name, {}), **values}
    return list(result.values())


def build_steps(given: Mapping[str, Any], settings: Settings, files: str) -> list[Step]:
    """Return the steps of a build, those that change most rarely first."""
    conda = _merged_conda(given.get("conda", {}), settings)
    everything = environments(given, files)
    chosen = sorted(features.for_devices(given.get("features", [])))
    steps = [_base_step(settings, files), _conda_step(conda, settings, files)]
    number = 30
    for environment in everything:
        steps.append(_environment_step(number, environment, settings, files))
        if environment["name"] == "jhub":
            steps.append(_proxy_step(settings, files))
            # after what all images have: further packages do not make that anew
            steps += [_apt_step(given["apt"], files)] if given.get("apt") else []
            number = 40
            continue
        if environment["name"] == "python3":
            steps += [_feature_step(wish, files) for wish in chosen]
        number += 1
    kernels = [environment["name"] for environment in everything if environment["kernel"]]
    kernels += features.environments(chosen)
    steps.append(_hub_step(kernels, files))
    return steps


def _merged_conda(conda: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return a definition's conda settings over the site's; another installer needs its own checksum."""
    own = {key: value for key, value in conda.items() if value is not None}
    site = {key: value for key, value in settings.conda.items() if value is not None}
    if "installer" in own:
        site.pop("checksum", None)
    return {**site, **own}


def _step(
    folder: str, title: str, files: str, script: str, parameters: Mapping[str, str], extra: Iterable[Entry]
) -> Step:
    """Return a step: its script, its parameters as shell assignments, and further files."""
    assignments = "".join(f"{key}={shlex.quote(value)}\n" for key, value in sorted(parameters.items()))
    entries = (
        Entry("step", Path(files, "steps", script).read_bytes(), executable=True),
        Entry("parameters", assignments.encode()),
        *extra,
    )
    return Step(folder, title, entries)


def sources(suite: str, settings: Settings) -> list[str]:
    """Return the lines of sources.list for a suite."""
    lines = [f"deb {settings.apt_mirror} {suite} main", f"deb {settings.apt_mirror} {suite}-updates main"]
    if settings.apt_security_mirror:
        lines.append(f"deb {settings.apt_security_mirror} {suite}-security main")
    return lines


def _base_step(settings: Settings, files: str) -> Step:
    # named after their content: neither their order nor their place on the controller matters
    certificates = [
        Entry(f"certificates/{hashlib.sha256(content).hexdigest()[:16]}.crt", content)
        for content in sorted({Path(path).read_bytes() for path in settings.ca_certificates})
    ]
    entries = [Entry("install", Path(files, "steps", "install").read_bytes()), *certificates]
    parameters = {
        "TITLE": "Debian packages and systemd",
        "APT_MIRROR": settings.apt_mirror,
        "APT_SECURITY_MIRROR": settings.apt_security_mirror,
        "PACKAGES": " ".join(BASE_PACKAGES),
        "EXCLUDE": " ".join(EXCLUDE),
        "PIP_INDEX": settings.pip_index,
        "NPM_REGISTRY": settings.npm_registry,
    }
    return _step("10-base", parameters["TITLE"], files, "base", parameters, entries)


def _conda_step(conda: Mapping[str, Any], settings: Settings, files: str) -> Step:
    entries = [Entry("kernel", Path(files, "kernel").read_bytes(), executable=True)]
    installer, channels = conda["installer"], []
    if installer.startswith("/"):
        entries.append(Entry("installer", path=installer))
    for index, channel in enumerate(conda["channels"]):
        if channel.startswith("/"):
            entries += read_tree(channel, f"channels/{index}")
            channels.append(f"file:///opt/install/channels/{index}")
        else:
            channels.append(channel)
    parameters = {
        "TITLE": "conda",
        "INSTALLER": "" if installer.startswith("/") else installer,
        "CHECKSUM": conda.get("checksum") or "",
        "CHANNELS": " ".join(channels),
        "PRIVATE_CAS": "1" if settings.ca_certificates else "",
    }
    return _step("20-conda", parameters["TITLE"], files, "conda", parameters, entries)


def _environment_step(number: int, environment: Mapping[str, Any], settings: Settings, files: str) -> Step:
    name, kernel = environment["name"], environment["kernel"]
    entries = [Entry("uv.txt", Path(files, "locks", "uv.txt").read_bytes())]
    if environment.get("conda_lock"):
        entries.append(Entry("conda.lock", Path(environment["conda_lock"]).read_bytes()))
    if environment["requirements"]:
        entries.append(Entry("requirements.txt", Path(environment["requirements"]).read_bytes()))
    if kernel:
        entries.append(Entry("kernel.json", kernel_spec(name, kernel).encode()))
    parameters = {
        "TITLE": f"environment {name}",
        "NAME": name,
        "CONDA_SPECS": " ".join(environment.get("conda") or DEFAULT_CONDA_SPECS),
        "PIP_INDEX": settings.pip_index,
        "CHECK": ", ".join(environment["check"]),
    }
    return _step(f"{number}-{name}", parameters["TITLE"], files, "environment", parameters, entries)


def _apt_step(packages: Iterable[str], files: str) -> Step:
    entries = [Entry("install", Path(files, "steps", "install").read_bytes())]
    parameters = {"TITLE": "further Debian packages", "PACKAGES": " ".join(sorted(set(packages)))}
    return _step("38-apt", parameters["TITLE"], files, "apt", parameters, entries)


def _feature_step(wish: str, files: str) -> Step:
    entries = [Entry(path, content) for path, content in features.entries(wish).items()]
    parameters = {"TITLE": f"feature {wish}"}
    return _step(f"40-feature-{wish.replace(':', '-')}", parameters["TITLE"], files, "feature", parameters, entries)


def kernel_spec(name: str, display_name: str) -> str:
    """Return the kernelspec that starts an environment's ipykernel with the environment activated."""
    prefix = f"/opt/conda/envs/{name}"
    spec = {
        "argv": ["/opt/install/kernel", prefix, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": display_name,
        "language": "python",
        "metadata": {"debugger": True},
    }
    return json.dumps(spec, indent=1, ensure_ascii=False) + "\n"


def _proxy_step(settings: Settings, files: str) -> Step:
    folder = Path(files, "proxy")
    entries = [Entry(name, (folder / name).read_bytes()) for name in ("package.json", "package-lock.json")]
    parameters = {"TITLE": "configurable-http-proxy", "NPM_REGISTRY": settings.npm_registry}
    return _step("35-proxy", parameters["TITLE"], files, "proxy", parameters, entries)


def _hub_step(kernels: Sequence[str], files: str) -> Step:
    entries = [Entry("check_kernels.py", Path(files, "steps", "check_kernels.py").read_bytes())]
    for folder in ("rootfs", "ananke_hub"):
        if os.path.isdir(os.path.join(files, folder)):
            entries += read_tree(os.path.join(files, folder), folder)
    parameters = {"TITLE": "hub configuration and checks", "KERNELS": " ".join(kernels)}
    return _step("90-hub", parameters["TITLE"], files, "hub", parameters, entries)


def read_tree(root: str, prefix: str) -> list[Entry]:
    """Return the files below a folder, sorted by name, without Python's caches.

    Raises:
        OSError: something below the folder cannot be read.
    """
    entries = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name != "__pycache__")
        for name in sorted(names):
            path = os.path.join(folder, name)
            inside = f"{prefix}/{os.path.relpath(path, root)}"
            if os.path.islink(path):
                entries.append(Entry(inside, link=os.readlink(path)))
            elif not name.endswith(".pyc"):
                entries.append(Entry(inside, path=path, executable=os.access(path, os.X_OK)))
    return sorted(entries, key=lambda entry: entry.name)


def compare(path: str, checksum: str) -> str:
    """What is wrong with a file of the controller that shall have this SHA-256, in words; "" for nothing."""
    found = image_store.sha256(path)
    return "" if found == checksum else f"the SHA-256 of {path} is {found}, declared is {checksum}: correct either"


def write_archive(entries: Iterable[Entry], target: io.BufferedIOBase | Any) -> None:
    """Write the entries as a tar archive whose bytes depend on the entries alone.

    Raises:
        OSError: a file cannot be read or the archive cannot be written.
    """
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.mtime = MTIME
            info.mode = 0o755 if entry.executable else 0o644
            if entry.link:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
                archive.addfile(info)
            elif entry.path:
                info.size = os.path.getsize(entry.path)
                with open(entry.path, "rb") as handle:
                    archive.addfile(info, handle)
            else:
                info.size = len(entry.content)
                archive.addfile(info, io.BytesIO(entry.content))


def proxy_environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables of the proxy, in both spellings that programs look for."""
    variables = {}
    if settings.proxy:
        variables = {"http_proxy": settings.proxy, "https_proxy": settings.proxy}
        if settings.no_proxy:
            variables["no_proxy"] = settings.no_proxy
    return {**variables, **{key.upper(): value for key, value in variables.items()}}


# ---------------------------------------------------------------------------------------------------------------
# what people see while it is built


def condense(text: str, width: int = 110) -> list[str]:
    """Return the lines of new output that are worth showing: all headings, and the last other line.

    Headings are lines that begin with '==> '. The last line may be incomplete; it is a sign of life.
    """
    shown, last = [], ""
    for raw in text.replace("\r", "\n").splitlines():
        line = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]", "", raw).strip()
        if line.startswith("==> "):
            shown.append(line)
            last = ""
        elif line and not line.startswith(("STEP ", "--> ")):
            last = line
    if last:
        shown.append(f"    {last[:width]}")
    return shown
