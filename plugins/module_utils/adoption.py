# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the files of a hub of the former system (its releases 0.5 and 0.6) to the variables that describe it here.

Such a hub is a folder with ``config.py``, about its container, and ``jupyterhub_config.d/*.py``, about JupyterHub. :func:`read` maps what it
knows, and makes a remark of everything else: nothing is lost in silence. Values that may be secrets appear in no remark.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import former_values as values
from ansible_collections.ananke.jupyterhub.plugins.module_utils import python_settings
from ansible_collections.ananke.jupyterhub.plugins.module_utils.python_settings import UNKNOWN, Other, Setting

CONFIG = "config.py"
FOLDER = "jupyterhub_config.d"
OWN_VOLUMES = ("/var/lib/private", "/home", "/opt/conda/envs/jhub/etc/jupyterhub/jupyterhub_config.d")
"""Folders of a container that every hub of the former system has."""
EXCHANGE, KORE = "/opt/nbgrader_exchange", "/opt/kore/runtime"
ROOM_ACCOUNT = "rtc-{room}"
"""Account of a room in the former system, and its home below /home, cut to 32 characters."""
ROOM_PREFIX = "room-"
TEMPLATE_WORDS = ("ADMIN_USERNAME", "CLIENT_ID", "URL_OF_LMS", "AUTH_LOGIN_PATH", "KEY_SET_PATH", "ACCESS_TOKEN_PATH")
"""What the former system's templates have where an admin is to write something."""
ALIASES = {"SystemdSpawner": "Spawner", "LTI13Authenticator": "Authenticator", "Application": "JupyterHub"}
"""Classes of JupyterHub whose settings are those of another one."""
AS_HERE = {
    "c.JupyterHub.cleanup_servers": False,
    "c.JupyterHub.cleanup_proxy": False,
    "c.JupyterHub.shutdown_on_logout": False,
    "c.JupyterHub.allow_named_servers": False,
    "c.Authenticator.allow_all": True,
}
"""Settings that hubs have anyway, with the value that they have here."""
PACKAGES = {
    "jhub/jupyterlab_myst": "myst",
    "jhub/jupyterlab_lsp": "lsp",
    "jhub/jupyter_scheduler": "scheduler",
    "jhub/jupyterfs": "jupyterfs",
    "jhub/jupyter_collaboration": "rtc",
    "python3/matplotlib": "base_packages",
    "python3/tensorflow": "tensorflow",
}
"""Packages by which the former system's install scripts are known, as environment/folder, and the feature that has the same here."""
_TEMPLATE = re.compile(r"\{\{|\{%|\{#")


@dataclasses.dataclass(frozen=True)
class Remark:
    """Something that the description does not have, and what to do about it."""

    file: str
    line: int
    what: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        return "".join(one if one.isprintable() else "?" for one in f"{place}{self.what}: {self.remedy}")


@dataclasses.dataclass
class Found:
    """What the files say of one setting, all together."""

    file: str
    line: int
    value: t.Any
    used: bool = False


@dataclasses.dataclass
class Reading:
    """What came of a former hub."""

    variables: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    remarks: list[Remark] = dataclasses.field(default_factory=list)
    rooms: dict[str, str] = dataclasses.field(default_factory=dict)
    """Homes of rooms below /home in the former container, and their rooms here."""


def read(
    sources: t.Mapping[str, str], folder: str, created: t.Sequence[str] = (), packages: t.Sequence[str] = ()
) -> Reading:
    """What the files of a former hub say.

    :param sources: their texts, by path below the folder, in the order in which they are read
    :param folder: the former hub's folder on its machine
    :param created: arguments with which the former container was created, which has what ``interactive`` leaves open
    :param packages: folders of packages in the former container, as ``ENVIRONMENT/NAME``
    """
    reader = _Reader(folder)
    for file, text in sources.items():
        for one in python_settings.read(file, text):
            reader.collect(one)
    _container(reader, [*created])
    _jupyterhub(reader)
    _servers(reader)
    _people(reader)
    _lms(reader)
    _rooms(reader)
    _nbgrader(reader)
    _features(reader, packages)
    reader.close()
    reading = reader.reading
    reading.remarks = sorted(set(reading.remarks), key=lambda one: (one.file != CONFIG, one.file, one.line, one.what))
    return reading


def text(name: str, folder: str, reading: Reading) -> str:
    """The description of a hub, for ``host_vars/NAME.yml``. Every value is JSON, which YAML has in it."""
    lines = ["---", f"# The hub {name}, as {_plain(folder)} describes it; see docs/host-admin/adopt.md"]
    lines += [f"{key}: {json.dumps(value)}" for key, value in reading.variables.items()]
    if reading.remarks:
        lines += ["", "# Not carried over:"]
        lines += [f"# {one}" for one in reading.remarks]
    return "\n".join(lines) + "\n"


class _Reader:
    """Settings by name, and what became of them."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.reading = Reading()
        self.found: dict[str, Found] = {}
        self.others: list[Other] = []

    def collect(self, one: Setting | Other) -> None:
        """Take one statement in."""
        if isinstance(one, Other):
            return self.others.append(one)
        if one.name == "config" and isinstance(one.value, dict):
            for key, value in one.value.items():
                self.collect(dataclasses.replace(one, name=f"config.{key}", value=value))
            return
        head, _dot, rest = one.name.partition(".")
        if head == "c":
            place, _dot, trait = rest.partition(".")
            trait, _dot, item = trait.partition(".")
            name = f"c.{ALIASES.get(place, place)}.{trait}"
            if item:
                one = dataclasses.replace(one, value={item: one.value}, adds=True)
        else:
            name = one.name
        before = self.found.get(name)
        value = one.value
        if one.adds and before is not None:
            value = python_settings.added(before.value, value)
        self.found[name] = Found(one.file, one.line, value)

    def take(self, name: str) -> Found | None:
        """A setting that is looked at now; None where the files have none, or where only a run would tell its value."""
        found = self.found.get(name)
        if found is None or found.used:
            return None
        found.used = True
        if python_settings.known(found.value):
            return found
        self.remark(found, name, "its value is made when the file runs; write it yourself")
        return None

    def set(self, name: str, variable: str, make: t.Callable[[t.Any], t.Any]) -> None:
        """Carry a setting over to a variable."""
        found = self.take(name)
        if found is None:
            return
        try:
            value = make(found.value)
        except values.Unusable as error:
            self.remark(found, name, str(error))
        else:
            if value is not None:
                self.give(found, variable, value)

    def give(self, place: Found, variable: str, value: t.Any) -> None:
        """Let a variable have a value, unless Ansible would take it for a template."""
        whole = json.dumps(value, ensure_ascii=False)
        if _TEMPLATE.search(whole) or not whole.isprintable():
            self.remark(place, variable, "its value has {{, {% or signs that cannot be seen; write it yourself")
        else:
            self.reading.variables[variable] = value

    def remark(self, place: Found | Other, what: str, remedy: str) -> None:
        """Note what is not carried over."""
        self.reading.remarks.append(Remark(place.file, place.line, what, remedy))

    def close(self) -> None:
        """Note what nothing has asked for."""
        for name, found in self.found.items():
            if not found.used and name.startswith("config."):
                self.remark(found, name, "no variable of a hub does that; see hub-variables.md")
            elif not found.used and name.startswith("c."):
                self.remark(
                    found,
                    name,
                    "no variable of a hub does that; where the hub needs it, write a file jupyterhub_config.d/50_NAME.py of your own",
                )
        for other in self.others:
            self.remark(
                other, other.what, "only a run would tell what it does; read it, and write what the hub needs of it"
            )


# ---------------------------------------------------------------- config.py


def _container(reader: _Reader, created: list[str]) -> None:
    image = reader.take("config.image_name")
    if image is not None:
        _image(reader, image)
    port = reader.take("config.port")
    if port is not None and not str(port.value).isdigit():
        reader.remark(port, "config.port", "it is no number; the new hub has a port of its own anyway")
    for key, variable, make in (("memory", "hub_memory", values.size), ("cpus", "hub_cpus", values.cpus)):
        found = reader.found.get(f"config.{key}")
        if found is not None and found.value == "interactive":
            found.value = _option(created, f"--{key}")
            if found.value is None:
                found.used = True
                reader.remark(found, f"config.{key}", f"it was asked for when the container was made; set {variable}")
                continue
        if found is not None and found.value == "max":
            found.used = True
        reader.set(f"config.{key}", variable, make)
    _devices(reader, created)
    _arguments(reader)
    _volumes(reader)


def _image(reader: _Reader, image: Found) -> None:
    name = str(image.value).rpartition("/")[2].partition(":")[0]
    if name == "ananke-nbgrader":
        reader.reading.variables["hub_features"] = ["nbgrader"]
        reader.remark(
            image,
            "config.image_name",
            "the feature nbgrader has an exchange of another form: collect before what was submitted; what is copied is for you to look at."
            " Kore's data stay where they are",
        )
    elif name != "ananke-base":
        reader.remark(
            image,
            "config.image_name",
            "an image of your own: declare what it adds with hub_features, hub_environments and hub_apt",
        )


def _devices(reader: _Reader, created: list[str]) -> None:
    found = reader.take("config.gpus")
    if found is None:
        return
    if found.value == "interactive":
        names = [one.partition("=")[2] for one in created if one.startswith("--device=")]
    else:
        names = [f"nvidia.com/gpu={one.strip().strip(chr(34))}" for one in values.names(found.value)]
    if names:
        reader.give(found, "hub_devices", names)


def _arguments(reader: _Reader) -> None:
    """Arguments for podman, written as one would in a shell."""
    found = reader.take("config.podman_args")
    if found is None:
        return
    given = found.value if isinstance(found.value, list) else [found.value]
    try:
        words = shlex.split(" ".join(map(str, given)))
    except ValueError:
        return reader.remark(found, "config.podman_args", "they cannot be read: a quotation mark is missing")
    hosts: dict[str, str] = {}
    devices: list[str] = list(reader.reading.variables.get("hub_devices", []))
    while words:
        option, equals, value = words.pop(0).partition("=")
        if not equals and words and not words[0].startswith("--"):
            value = words.pop(0)
        if option == "--pids-limit" and re.match(r"-?[0-9]{1,9}\Z", value):
            if int(value) > 0:
                reader.give(found, "hub_pids", int(value))
        elif option == "--add-host" and ":" in value:
            host, _colon, address = value.partition(":")
            hosts[host] = address
        elif option == "--device" and value:
            devices.append(value)
        elif option == "--tz" and value and value != "local":
            reader.give(found, "hub_time_zone", value)
        else:
            reader.remark(found, f"config.podman_args {option}", "no variable of a hub does that; see hub-variables.md")
    if hosts:
        reader.give(found, "hub_extra_hosts", hosts)
    if devices:
        reader.give(found, "hub_devices", devices)


def _volumes(reader: _Reader) -> None:
    found = reader.take("config.volumes")
    wanted = []
    for one in found.value if found is not None and isinstance(found.value, list) else []:
        if not (isinstance(one, list) and len(one) == 2 and all(isinstance(part, str) for part in one)):
            reader.remark(t.cast(Found, found), "config.volumes", "an entry that is no pair of paths; see hub_volumes")
            continue
        source, target = os.path.join(reader.folder, one[0]), one[1].rstrip("/")
        if target in OWN_VOLUMES or target == EXCHANGE:
            continue
        place = t.cast(Found, found)
        if target == KORE:
            reader.remark(place, "config.volumes", f"Kore's data stay in {source}; nothing here reads them yet")
            continue
        wanted.append({"source": os.path.normpath(source), "target": target})
        reader.remark(
            place,
            f"config.volumes {target}",
            f"it is in hub_volumes, but stays where it is: let the hub's account read (and write) {os.path.normpath(source)}",
        )
    if wanted:
        reader.give(t.cast(Found, found), "hub_volumes", wanted)


def _option(arguments: list[str], option: str) -> str | None:
    return next((one.partition("=")[2] for one in arguments if one.startswith(f"{option}=")), None)


# ---------------------------------------------------------------- JupyterHub


def _jupyterhub(reader: _Reader) -> None:
    for name, value in AS_HERE.items():
        found = reader.found.get(name)
        if found is not None and found.value == value:
            found.used = True
    reader.take("c.JupyterHub.named_server_limit_per_user")
    named = reader.take("c.JupyterHub.allow_named_servers")
    if named is not None:
        reader.remark(
            named, "allow_named_servers", "a hub user has one server here, for any number of notebooks; files stay"
        )
    reader.set("c.JupyterHub.base_url", "hub_path", values.path)
    reader.set("c.JupyterHub.log_level", "hub_log_level", values.level)
    reader.set(
        "c.JupyterHub.concurrent_spawn_limit", "hub_concurrent_spawns", lambda one: min(values.count(one) or 1000, 1000)
    )
    reader.set("c.JupyterHub.load_groups", "hub_groups", values.groups)
    _services(reader)


def _services(reader: _Reader) -> None:
    """The service that stops idle servers; others are remarks."""
    found = reader.found.get("c.JupyterHub.services")
    services = found.value if found is not None and isinstance(found.value, list) else []
    names = []
    for one in services:
        words = one.get("command") if isinstance(one, dict) else None
        if not isinstance(words, list) or not any("idle_culler" in str(word) for word in words):
            label = one.get("name") if isinstance(one, dict) and isinstance(one.get("name"), str) else "without a name"
            reader.remark(
                t.cast(Found, found),
                f"service {label}",
                "write it in a file jupyterhub_config.d/50_NAME.py of your own",
            )
            continue
        names.append(one.get("name"))
        _culling(reader, t.cast(Found, found), words)
    if found is not None:
        found.used = True
        if found.value is UNKNOWN:
            reader.remark(found, "c.JupyterHub.services", "only a run would tell them; see hub_cull_timeout")
    if not names and (found is None or found.value is not UNKNOWN):
        reader.reading.variables["hub_cull_timeout"] = 0
    _roles(reader, names)


def _culling(reader: _Reader, place: Found, words: list[t.Any]) -> None:
    options = {"--timeout": "hub_cull_timeout", "--cull-every": "hub_cull_every", "--max-age": "hub_cull_max_age"}
    rest = [one for one in words if isinstance(one, str) and one not in ("-m", "jupyterhub_idle_culler")]
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if not equals and rest and not rest[0].startswith("-"):
            value = rest.pop(0)
        if option in options and re.match(r"[0-9]{1,9}\Z", value):
            reader.give(place, options[option], int(value))
        elif option.startswith("-"):
            reader.remark(place, f"{option} of what stops idle servers", "no variable of a hub does that")
    if "hub_cull_every" in reader.reading.variables:
        reader.reading.variables["hub_cull_every"] = min(reader.reading.variables["hub_cull_every"], 86400)


def _roles(reader: _Reader, services: list[t.Any]) -> None:
    found = reader.found.get("c.JupyterHub.load_roles")
    if found is None:
        return
    found.used = True
    for one in found.value if isinstance(found.value, list) else [None]:
        its = one.get("services") if isinstance(one, dict) else None
        if not (isinstance(its, list) and its and all(name in services for name in its)):
            reader.remark(
                found, "c.JupyterHub.load_roles", "write the role in a file jupyterhub_config.d/50_NAME.py of your own"
            )


# ---------------------------------------------------------------- servers of hub users


def _servers(reader: _Reader) -> None:
    _properties(reader)
    reader.set("c.Spawner.mem_limit", "hub_user_memory", values.size)
    reader.set("c.Spawner.cpu_limit", "hub_user_cpus", values.cpus)
    reader.set("c.Spawner.default_url", "hub_default_url", values.text)
    reader.set("c.Spawner.start_timeout", "hub_start_timeout", values.count)
    reader.set("c.Spawner.http_timeout", "hub_http_timeout", values.count)
    found = reader.found.get("c.Spawner.environment")
    if found is not None:
        found.used = True
        names = sorted(found.value) if isinstance(found.value, dict) else []
        reader.remark(
            found,
            "c.Spawner.environment",
            f"values may be secrets and are not shown; write {', '.join(names) or 'them'} in hub_environment, in a vault where need be",
        )
    if "hub_user_memory" not in reader.reading.variables:
        reader.remark(
            Found(FOLDER, 0, None),
            "memory of users' servers",
            "it had no limit; the new hub has 2G, see hub_user_memory",
        )


def _properties(reader: _Reader) -> None:
    """Properties of the users' units."""
    found = reader.found.get("c.Spawner.unit_extra_properties")
    if found is None:
        return
    found.used = True
    properties = found.value if isinstance(found.value, dict) else {"": UNKNOWN}
    known: dict[str, tuple[str, t.Callable[[t.Any], t.Any]]] = {
        "MemoryHigh": ("hub_user_memory", values.size),
        "MemoryMax": ("hub_user_memory", values.size),
        "MemorySwapMax": ("hub_user_swap", values.size),
        "CPUQuota": ("hub_user_cpus", values.percent),
        "TasksMax": ("hub_user_tasks", values.count),
    }
    for name in sorted(properties):  # MemoryMax after MemoryHigh: the hard limit is the one that counts
        value = properties[name]
        try:
            if name in ("ExecStopPost", "ExecStartPre") and "rm -rf /var/lib/private/" in str(value):
                reader.give(found, "hub_forget", True)
            elif name in known and python_settings.known(value):
                variable, make = known[name]
                reader.give(found, variable, make(value))
            else:
                raise values.Unusable("no variable of a hub does that; see hub-variables.md")
        except values.Unusable as error:
            reader.remark(found, f"unit_extra_properties {name}".strip(), str(error))
    if "MemoryHigh" in properties and "MemoryMax" not in properties:
        reader.remark(
            found,
            "unit_extra_properties MemoryHigh",
            "what was slowed down beyond it is ended here: see hub_user_memory",
        )


# ---------------------------------------------------------------- people and their LMS


def _people(reader: _Reader) -> None:
    for name, variable in (("admin_users", "hub_admins"), ("allowed_users", "hub_users")):
        found = reader.take(f"c.Authenticator.{name}")
        if found is not None:
            people = [one for one in values.names(found.value) if one not in TEMPLATE_WORDS]
            if people:
                reader.give(found, variable, [values.person(one) for one in people])


def _lms(reader: _Reader) -> None:
    given = {
        variable: reader.take(f"c.Authenticator.{trait}")
        for trait, variable in (
            ("client_id", "hub_lti_client_ids"),
            ("issuer", "hub_lti_issuer"),
            ("authorize_url", "hub_lti_authorize_url"),
            ("jwks_endpoint", "hub_lti_jwks_endpoint"),
        )
    }
    reader.set(
        "c.Authenticator.username_key", "hub_lti_username_key", lambda one: None if one == "sub" else values.text(one)
    )
    token = reader.take("c.Authenticator.access_token_url")
    if token is not None and not _unwritten(token.value):
        reader.remark(token, "access_token_url", "it was Kore's, for grades; hubs of this collection do not ask for it")
    missing = [variable for variable, found in given.items() if found is None or _unwritten(found.value)]
    if missing:
        place = next(filter(None, given.values()), Found(FOLDER, 0, None))
        return reader.remark(place, "login from the LMS", f"nobody can log in before you set {', '.join(missing)}")
    reader.reading.variables["hub_lti_platform"] = "custom"
    for variable, found in given.items():
        if found is not None:
            listed = variable == "hub_lti_client_ids"
            reader.give(found, variable, values.texts(found.value) if listed else found.value)


def _unwritten(value: t.Any) -> bool:
    return any(word in json.dumps(value) for word in TEMPLATE_WORDS)


# ---------------------------------------------------------------- rooms and features


def _rooms(reader: _Reader) -> None:
    rooms: list[dict[str, t.Any]] = []
    groups = reader.reading.variables.get("hub_groups", {})
    for name, public in (("public_rtc_rooms", True), ("private_rtc_rooms", False)):
        found = reader.take(name)
        for one in found.value if found is not None and isinstance(found.value, list) else []:
            entry = one if isinstance(one, dict) else {"name": one}
            former = entry.get("name")
            if not isinstance(former, str) or not former:
                reader.remark(t.cast(Found, found), name, "an entry without a name")
                continue
            room: dict[str, t.Any] = {"name": values.room_name(former), "title": former, "public": public}
            if not public:
                room["users"] = [values.person(who) for who in values.names(entry.get("users") or [])]
                wanted = values.names(entry.get("groups") or [])
                room["groups"] = [group for group in wanted if group in groups]
                lost = [group for group in wanted if group not in groups]
                if lost:
                    reader.remark(
                        t.cast(Found, found),
                        f"room {former}",
                        f"write the members of {', '.join(lost)} in hub_groups, and the groups in hub_rooms",
                    )
            rooms.append(room)
            reader.reading.rooms[ROOM_ACCOUNT.format(room=former)[:32]] = room["name"]
            reader.give(t.cast(Found, found), "hub_rooms", rooms)
    if rooms:
        reader.others = [one for one in reader.others if "/opt/install/rtc_config.py" not in one.texts]
        reader.reading.variables["hub_features"] = [*reader.reading.variables.get("hub_features", []), "rtc"]


def _nbgrader(reader: _Reader) -> None:
    """What only Kore and nbgrader need; the image's name has made the remark about them."""
    reader.others = [one for one in reader.others if not any(text.startswith("/opt/kore/") for text in one.texts)]
    found = reader.found.get("c.Spawner.readwrite_paths")
    if found is not None and isinstance(found.value, list):
        found.used = all("nbgrader" in str(one) for one in found.value)


def _features(reader: _Reader, packages: t.Sequence[str]) -> None:
    features = set(reader.reading.variables.get("hub_features", []))
    features |= {PACKAGES[one] for one in packages if one in PACKAGES}
    if features:
        reader.reading.variables["hub_features"] = sorted(features)
    own = sorted({one.partition("/")[0] for one in packages} - {"jhub", "python3"})
    for name in own:
        reader.remark(
            Found("the container", 0, None),
            f"environment {name}",
            "declare what it has in hub_environments, see images.md",
        )


def _plain(words: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in words)
