# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hub's container is: a program that travels into it, see :mod:`.inside`. It only reads.

Versions come from the records of those who installed things, so that nothing is started but one ``systemctl``. What is not there is None, and a
line among the problems says what to do. Of the description, nothing is passed on but what is named here: its environment may hold secrets.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import glob
import http.client
import json
import os
import pathlib
import re
import runpy
import sqlite3
import subprocess
import time
import typing as t
import urllib.parse

Found = dict[str, t.Any]

DESCRIPTION = "/etc/ananke/hub.json"
USER_DATA = "/var/lib/jupyterhub/user_data.json"
DATABASE = "/var/lib/jupyterhub/jupyterhub.sqlite"
CONTENTS = "/opt/install/contents.json"
CONDA = "/opt/conda"
JHUB = f"{CONDA}/envs/jhub"
PROXY = f"{JHUB}/lib/ananke-proxy/node_modules/configurable-http-proxy/package.json"
HOMES = "/var/lib/private"
DISKS = (HOMES, "/var/lib/jupyterhub")
KERNELS = (f"{JHUB}/share/jupyter/kernels", "/usr/local/share/jupyter/kernels")
FEATURES = "/opt/install/features"  # records of features, by name
SERVERS_PATH = (f"{JHUB}/bin", f"{CONDA}/condabin", "/usr/local/bin", "/usr/bin", "/bin")  # PATH of users' servers
PACKAGES = ("jupyterhub", "jupyterlab", "jupyterhub_systemdspawner", "jupyterhub_ltiauthenticator")
DESCRIBED: Found = {"base_url": str, "public_url": str, "servers": dict, "admins": list, "users": list}
SERVICES = ("ananke-init.service", "jupyterhub-proxy.service", "jupyterhub.service")
PROPERTIES = "Id,ActiveState,ActiveEnterTimestampMonotonic,NRestarts,MemoryMax,MemorySwapMax,MemoryCurrent,TasksMax,CPUQuotaPerSecUSec"
SERVER_LIMITS = ("memory", "swap", "tasks", "cpus", "start_timeout", "concurrent_spawns")
REBUILD = "build the image anew and bring the hub to it (playbooks images, then hubs)"
SPAN = re.compile(r"([\d.]+)(us|ms|s|min|h)\b")
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600}


class Failure(Exception):
    """Never raised: what is wrong with a hub is a fact, too."""


class Container:
    """The container that this runs in."""

    def __init__(self, root: str, hub: str, proxy: str) -> None:
        """:param root: a folder in place of /; ``hub`` and ``proxy`` are addresses (``http://HOST:PORT``)"""
        self.root, self.hub, self.proxy = root, hub, proxy
        self.problems: list[str] = []

    def text(self, path: str) -> str | None:
        """A file's content, None if it cannot be read."""
        try:
            with open(self.root + path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return None

    def mapping(self, path: str) -> Found | None:
        """A JSON file's mapping, None if there is none."""
        try:
            value = json.loads(self.text(path) or "")
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def found(self, pattern: str) -> list[str]:
        """The paths that fit a pattern, sorted."""
        return sorted(path.removeprefix(self.root) for path in glob.glob(glob.escape(self.root) + pattern))

    @functools.cached_property
    def description(self) -> Found:
        """The hub's description; empty where it cannot be used."""
        found = self.mapping(DESCRIPTION) or {}
        if all(isinstance(found.get(key), kind) for key, kind in DESCRIBED.items()):
            return found
        self.problems.append(f"{DESCRIPTION} is missing or damaged: name a hub's container, or run the playbook hubs")
        return {}

    @functools.cached_property
    def units(self) -> dict[str, dict[str, str]]:
        """systemd's properties of the hub's services and of users' units, by name; empty where there is no systemd."""
        command = ["systemctl", "show", "--no-pager", f"--property={PROPERTIES}", *SERVICES, "jupyter-*.service"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            texts, error = done.stdout.strip().split("\n\n"), done.stderr.strip()
        except (OSError, subprocess.SubprocessError) as problem:
            texts, error = [], str(problem)
        blocks = [dict(line.split("=", 1) for line in text.splitlines()) for text in texts]
        found = {block["Id"]: block for block in blocks if "Id" in block}
        if not found:
            self.problems.append(f"systemctl tells nothing ({error}): name a hub's container")
        return found

    def servers(self) -> dict[str, dict[str, str]]:
        """The properties of users' units that run, by user."""
        running = sorted(name for name, unit in self.units.items() if unit.get("ActiveState") == "active")
        names = [name for name in running if name.startswith("jupyter-")]
        return {name.removeprefix("jupyter-").removesuffix(".service"): self.units[name] for name in names}

    def answers(self, address: str) -> bool | None:
        """Whether the hub is healthy by this way, None where its path is not known."""
        if not self.description:
            return None
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=5)
        try:
            connection.request("GET", f"{self.description['base_url']}hub/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def conda_package(container: Container, prefix: str, name: str) -> str | None:
    """Version of a package in a conda environment, by conda's records."""
    pattern = re.compile(re.escape(name) + r"-([^-]+)-[^-]+\.json")
    names = [os.path.basename(path) for path in container.found(f"{prefix}/conda-meta/{name}-*.json")]
    return next((match[1] for one in names if (match := pattern.fullmatch(one))), None)


def versions(container: Container) -> Found:
    """Of what a hub is made of."""
    installed = {}
    for path in container.found(f"{JHUB}/lib/python3*/site-packages/*.dist-info"):
        name, _dash, version = os.path.basename(path).removesuffix(".dist-info").rpartition("-")
        installed[name.lower().replace("-", "_").replace(".", "_")] = version
    packages = container.text("/var/lib/dpkg/status") or ""
    systemd = re.search(r"^Package: systemd\n(?:.+\n)*?Version: (.+)$", packages, re.M)
    found = {
        "python": conda_package(container, JHUB, "python"),
        **{name.removeprefix("jupyterhub_"): installed.get(name) for name in PACKAGES},
        "configurable_http_proxy": (container.mapping(PROXY) or {}).get("version"),
        "conda": conda_package(container, CONDA, "conda"),
        "debian": (container.text("/etc/debian_version") or "").strip() or None,
        "systemd": systemd[1] if systemd else None,
    }
    missing = [name for name, version in found.items() if version is None]
    if missing:
        container.problems.append(f"not installed, or without a record of it: {', '.join(missing)}: {REBUILD}")
    return {**found, "image_built": built(container)}


def built(container: Container) -> str | None:
    """When the hub's image was built (ISO 8601, UTC): it writes what it consists of as the last thing."""
    try:
        seconds = os.stat(container.root + CONTENTS).st_mtime
    except OSError:
        return None
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).isoformat()


def health(container: Container) -> Found:
    """Whether the hub answers, and the state of its services."""
    ways = {"hub": container.answers(container.hub), "proxy": container.answers(container.proxy)}
    for way, service in (("hub", "jupyterhub"), ("proxy", "jupyterhub-proxy")):
        if ways[way] is False:
            container.problems.append(f"the {way} does not answer: journalctl -u {service} in the container says why")
    services = []
    for name in SERVICES:
        unit = container.units.get(name, {})
        state = unit.get("ActiveState")
        services.append({"name": name, "state": state, "since": None, "restarts": number(unit.get("NRestarts"))})
        if state == "active":
            ago = time.monotonic() - int(unit["ActiveEnterTimestampMonotonic"]) / 1e6
            services[-1]["since"] = datetime.datetime.fromtimestamp(round(time.time() - ago), datetime.UTC).isoformat()
        elif state:
            container.problems.append(f"{name} is {state}: systemctl status {name} in the container says why")
    healthy = all(ways.values()) and all(one["state"] == "active" for one in services)
    return {"healthy": healthy, **ways, "services": services}


def recent(container: Container, days: int) -> int | None:
    """How many users have done something in the hub within so many days; None if its data base cannot be read."""
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days)
    address = f"file:{urllib.parse.quote(container.root + DATABASE)}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=10)) as connection:
            query = "SELECT COUNT(*) FROM users WHERE last_activity >= ?"
            (count,) = connection.execute(query, [f"{since:%Y-%m-%d %H:%M:%S}"]).fetchone()
    except sqlite3.Error as error:
        container.problems.append(
            f"{DATABASE} cannot be read ({error}): journalctl -u jupyterhub in the container says more"
        )
        return None
    return int(count)


def users(container: Container) -> Found:
    """How many people there are, and whose servers run."""
    # without the file, nobody has logged in yet
    data = container.mapping(USER_DATA) if os.path.lexists(container.root + USER_DATA) else {}
    if data is None:
        container.problems.append(f"{USER_DATA} is damaged: restore it from a backup; logins would fill a new one")
    return {
        "known": None if data is None else len(data),
        "week": recent(container, 7),
        "admins": len(container.description["admins"]) if container.description else None,
        "admitted": len(container.description.get("users", [])) or None,
        "active": len(container.servers()) if container.units else None,
        "running": list(container.servers()),
    }


def number(text: str | None) -> int | None:
    """A count of the kernel or of systemd; None for no limit."""
    return int(text) if text and text.strip().isdigit() and int(text) < 2**64 - 1 else None


def cpus(text: str) -> float | None:
    """CPUs, from systemd's time span for each second."""
    parts = SPAN.findall(text)
    return round(sum(float(amount) * SECONDS[unit] for amount, unit in parts), 6) if parts else None


def limits(container: Container) -> Found:
    """What the container may use, what servers are to get, and what those that run have got."""
    files = ("memory.max", "memory.current", "cpu.max", "pids.max", "pids.current")
    group = {name: container.text(f"/sys/fs/cgroup/{name}") for name in files}
    unknown = [name for name, text in group.items() if text is None]
    if unknown:
        todo = "nothing limits it, or the machine delegates no such controller (role cgroups)"
        container.problems.append(f"the container's {', '.join(unknown)} cannot be read: {todo}")
    quota, _space, period = (group["cpu.max"] or "").strip().partition(" ")
    described = container.description.get("servers")
    return {
        "container": {
            "memory": number(group["memory.max"]),
            "memory_used": number(group["memory.current"]),
            "cpus": int(quota) / int(period) if quota.isdigit() and period.isdigit() else None,
            "pids": number(group["pids.max"]),
            "pids_used": number(group["pids.current"]),
        },
        "servers": {key: described.get(key) for key in SERVER_LIMITS} if described else None,
        "running": [
            {
                "user": user,
                "memory": number(unit.get("MemoryMax")),
                "memory_used": number(unit.get("MemoryCurrent")),
                "swap": number(unit.get("MemorySwapMax")),
                "tasks": number(unit.get("TasksMax")),
                "cpus": cpus(unit.get("CPUQuotaPerSecUSec", "")),
            }
            for user, unit in container.servers().items()
        ],
    }


def kernel(container: Container, folder: str) -> Found:
    """One kernelspec, and whether what it starts is there."""
    spec = container.mapping(f"{folder}/kernel.json") or {}
    given = spec.get("argv")
    argv = [str(word) for word in given] if isinstance(given, list) else []
    needed = [[word] if word.startswith("/") else [f"{place}/{word}" for place in SERVERS_PATH] for word in argv[:1]]
    # what starts kernels of environments gets the environment's path
    needed += [[f"{word}/bin/python"] for word in argv[1:] if re.fullmatch(rf"{CONDA}/envs/[^/]+", word)]
    environment = next((match[1] for word in argv if (match := re.match(rf"{CONDA}/envs/([^/]+)", word))), None)
    missing = [paths[0] for paths in needed if not any(os.access(container.root + path, os.X_OK) for path in paths)]
    if not argv or missing:
        wrong = f"{missing[0]} is missing" if missing else "its kernel.json does not say what to start"
        container.problems.append(f"kernel {folder}: {wrong}: make its environment again, or remove that folder")
    return {
        "name": os.path.basename(folder),
        "display_name": spec.get("display_name"),
        "language": spec.get("language"),
        "environment": environment,
        "path": folder,
        "usable": bool(argv) and not missing,
    }


def kernels(container: Container) -> list[Found]:
    """All kernelspecs of the hub; not those of a user."""
    files = [path for folder in KERNELS for path in container.found(f"{folder}/*/kernel.json")]
    return [kernel(container, os.path.dirname(path)) for path in files]


def environments(container: Container) -> list[Found]:
    """conda's environments."""
    folders = [os.path.dirname(path) for path in container.found(f"{CONDA}/envs/*/conda-meta")]
    pythons = [(folder, conda_package(container, folder, "python")) for folder in folders]
    return [{"name": os.path.basename(path), "path": path, "python": version} for path, version in pythons]


def features(container: Container) -> list[Found]:
    """The optional features that the hub has, whether they came with its image or later, and what they reported then."""
    records = {path: container.mapping(path) or {} for path in container.found(f"{FEATURES}/[a-z]*.json")}
    return [
        {
            "name": os.path.basename(path).removesuffix(".json"),
            "title": record.get("title"),
            "variant": record.get("variant") or "",
            "report": record.get("report") or {},
        }
        for path, record in records.items()
    ]


def lti(container: Container) -> Found:
    """What the hub knows about the LMS, and what the LMS must know about the hub."""
    known, url = container.description.get("lti"), container.description.get("public_url")
    if container.description and not known:
        todo = "enter lti.tool in the LMS, then set hub_lti_issuer and hub_lti_client_ids"
        container.problems.append(f"the hub knows no LMS, so nobody can log in: {todo}")
    addresses = {"url": "", "login_url": "hub/lti13/oauth_login", "callback_url": "hub/lti13/oauth_callback"}
    return {
        **{
            key: known.get(key) if isinstance(known, dict) else None
            for key in ("issuer", "client_ids", "authorize_url", "jwks_endpoint")
        },
        "tool": {name: f"{url}{path}" if url else None for name, path in addresses.items()},
    }


def file_system(container: Container, path: str) -> Found:
    """Bytes of the file system that a folder is on; ``free`` is what users can still write."""
    try:
        space = os.statvfs(container.root + path)
    except OSError as error:
        container.problems.append(f"{path}: {error.strerror}: it comes with the container; run the playbook hubs")
        return {"path": path, "size": None, "used": None, "free": None}
    blocks = {"size": space.f_blocks, "used": space.f_blocks - space.f_bfree, "free": space.f_bavail}
    return {"path": path, **{key: count * space.f_frsize for key, count in blocks.items()}}


def disk(container: Container) -> list[Found]:
    """The file systems that fill."""
    return [file_system(container, path) for path in DISKS]


def drift(container: Container) -> list[Found] | None:
    """What has been changed in the container since its image was built, None where that cannot be told."""
    path = next(iter(container.found(f"{JHUB}/lib/python3*/site-packages/ananke_hub/contents.py")), "no contents.py")
    try:
        # the image's own code, which knows what the image has recorded
        contents = runpy.run_path(container.root + path)
        return t.cast("list[Found]", contents["drift"](pathlib.Path(container.root or "/")))
    except (KeyError, OSError, ValueError) as error:
        container.problems.append(f"the image does not say what it consists of ({error}): {REBUILD}")
        return None


def used(folder: str) -> int:
    """Bytes that a folder takes on its file system, as ``du -x`` counts: hard links once, links not followed. Raises PermissionError."""
    top = os.lstat(folder)
    total, seen, todo = top.st_blocks, set(), [folder]
    while todo:
        with contextlib.suppress(FileNotFoundError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_dev == top.st_dev and status.st_ino not in seen:
                        total += status.st_blocks
                        if entry.is_dir(follow_symlinks=False):
                            todo.append(entry.path)
                        elif status.st_nlink > 1:
                            seen.add(status.st_ino)
    return total * 512


def homes(container: Container) -> list[Found]:
    """The size of each hub user's home."""
    sizes: dict[str, int | None] = {}
    folder = container.root + HOMES
    try:
        with os.scandir(folder) as entries:
            sizes = {one.name: None for one in entries if one.is_dir(follow_symlinks=False)}
        for name in sizes:
            sizes[name] = used(f"{folder}/{name}")
    except OSError as error:
        container.problems.append(f"{HOMES}: {error.strerror}: name the hub's container, whose root may look")
    return [{"user": name, "used": sizes[name]} for name in sorted(sizes)]


SUBSETS = (versions, health, users, limits, kernels, features, lti, disk, drift, homes)


def main(parameters: Found) -> Found:
    """Look.

    :param parameters: ``gather``, names of subsets; in tests ``root``, a folder in place of / (default: ""), ``hub`` and ``proxy``, addresses
    """
    here, there = parameters.get("hub", "http://127.0.0.1:8081"), parameters.get("proxy", "http://127.0.0.1:8000")
    container = Container(parameters.get("root", ""), here, there)
    meant = [one for one in SUBSETS if one.__name__ in parameters["gather"]]
    result: Found = {"changed": False, **{one.__name__: one(container) for one in meant}}
    if "kernels" in result:
        result["environments"] = environments(container)
    return {**result, "problems": container.problems}
