# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a fleet's file and its table of courses to the hosts and groups of an inventory, or to a list of what is wrong. Nothing here knows Ansible."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Optional

from ..module_utils.description import ACCOUNT, HUB_NAME, PREFIXES
from ..module_utils.description.problems import nearest
from .fleet_files import Entry, Lines, Place, Problem

#: Profiles that every fleet has.
PROFILES: dict[str, dict[str, Any]] = {
    "persistent": {"hub_forget": False},
    "forget": {"hub_forget": True},
    "nbgrader": {"hub_forget": False, "hub_features": ["nbgrader"]},
}
PORTS, UIDS = (10000, 29999), (30000, 49999)
RESERVED = ("all", "ungrouped", "machines", "hubs", "localhost")
KEYS = ("plugin", "cache", "ports", "uids", "machine_defaults", "defaults", "machines", "profiles", "hubs", "courses")
_MACHINE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: A hub's connection is that of its machine.
CONNECTION = {
    "ansible_host": "{{ hostvars[hub_machine].ansible_host | default(hub_machine) }}",
    "ansible_port": "{{ hostvars[hub_machine].ansible_port | default(22) }}",
    # sshd allows ten sessions over a connection, and hubs work side by side: they spread over four connections
    "ansible_control_path": "%(directory)s/{{ hub_machine }}-{{ hub_port | int % 4 }}-%%r",
}
_OURS = (*PREFIXES, "ananke_")


class Known(NamedTuple):
    """Names of the collection's variables."""

    hubs: Collection[str]
    machines: Collection[str]


class Group(NamedTuple):
    """A group of the inventory."""

    variables: dict[str, Any]
    parent: Optional[str]


class Inventory(NamedTuple):
    """What a fleet's files say, as Ansible has it."""

    groups: dict[str, Group]
    hosts: dict[str, dict[str, Any]]
    members: dict[str, list[str]]
    """Hosts of each group."""


def group_name(kind: str, name: str) -> str:
    """A group's name, without the characters that Ansible does not want in it."""
    return f"{kind}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"


def assigned(name: str, low: int, high: int) -> int:
    """The number that a name stands for, whatever other names there are."""
    return low + int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % (high - low + 1)


class Fleet:
    """Reads what was written, and collects every problem instead of stopping at the first."""

    def __init__(
        self,
        data: Mapping[str, Any],
        lines: Lines,
        courses: Collection[Entry],
        known: Known,
        template: Callable[[str], str] = str,
    ) -> None:
        """Problems are in ``problems``; ``inventory`` is whole if there are none.

        Args:
            data: The file's content.
            lines: Where its keys stand.
            courses: The hubs of its tables.
            known: Variables that may be given.
            template: Makes a text one that Ansible works out.
        """
        self.data, self.lines, self.known, self.template = data, lines, known, template
        self.problems: list[Problem] = list(lines.problems)
        self._keys((), data, KEYS)
        self.machines = self._mappings("machines")
        self.profiles = self._mappings("profiles")
        self.defaults = self._mapping("defaults")
        self.ports = self._range("ports", PORTS, 1024, 65535)
        self.uids = self._range("uids", UIDS, 1000, 60000)
        self.entries = [*self._written(), *courses]
        self.inventory = self._inventory()

    def _problem(self, place: Place, text: str) -> None:
        self.problems.append(Problem(place, text))

    def _keys(self, path: tuple[str, ...], values: Mapping[str, Any], allowed: Collection[str]) -> None:
        """Report unknown keys."""
        for key in values:
            if key not in allowed:
                place = self.lines.place(*path, str(key))
                self._problem(
                    place, f"{'.'.join([*path, str(key)])} is unknown; did you mean {nearest(str(key), allowed)}?"
                )

    def _mapping(self, *path: str) -> dict[str, Any]:
        """The mapping at a path, empty where there is none."""
        value: Any = self.data
        for key in path:
            value = value.get(key)
            if value is None:
                return {}
            if not isinstance(value, Mapping):
                self._problem(
                    self.lines.place(*path), f"{'.'.join(path)} is no mapping; write names with a colon after each"
                )
                return {}
        return dict(value)

    def _mappings(self, key: str) -> dict[str, dict[str, Any]]:
        """A mapping of names to mappings, which may be left empty."""
        return {str(name): self._mapping(key, name) for name in self._mapping(key)}

    def _range(self, key: str, default: tuple[int, int], low: int, high: int) -> Optional[tuple[int, int]]:
        """A range of numbers to assign; None where nothing is to be assigned."""
        value = self.data.get(key, default)
        if value is False:
            return None
        if value is default:
            return default
        found = re.match(r"([0-9]{4,5})-([0-9]{4,5})\Z", value) if isinstance(value, str) else None
        if not found or not low <= int(found[1]) < int(found[2]) <= high:
            text = f"{key} is no range; write two numbers from {low} to {high}, such as {default[0]}-{default[1]}, or false"
            self._problem(self.lines.place(key), text)
            return None
        return int(found[1]), int(found[2])

    def _written(self) -> list[Entry]:
        """The hubs of the file itself."""
        entries = []
        for name, values in self._mappings("hubs").items():
            places = {key: self.lines.place("hubs", name, str(key)) for key in values}
            entries.append(Entry(name, values, self.lines.place("hubs", name), places))
        return entries

    def _inventory(self) -> Inventory:
        groups = {
            "machines": Group(self._variables("machines", ("machine_defaults",)), None),
            "hubs": Group({**self._templates(CONNECTION), **self._variables("hubs", ("defaults",))}, None),
        }
        hosts: dict[str, dict[str, Any]] = {}
        members: dict[str, list[str]] = {"machines": []}
        for name in self.machines:
            if not _MACHINE.match(name) or name in RESERVED:
                self._problem(self.lines.place("machines", name), f"{name!r} cannot name a machine; write a host name")
            hosts[name] = self._variables("machines", ("machines", name))
            members["machines"].append(name)
            connection = {
                key for key in (*self._mapping("machine_defaults"), *hosts[name]) if key.startswith("ansible_")
            }
            same = {key: f"{{{{ hostvars[hub_machine].{key} }}}}" for key in sorted(connection)}
            groups[group_name("hubs_on", name)] = Group(self._templates(same), "hubs")
        for name in (*PROFILES, *self.profiles):
            groups[group_name("profile", name)] = self._profile(name)
        self._circles()
        for hub in self._hubs():
            hosts[hub.name] = hub.values
            for group in (group_name("hubs_on", hub.values["hub_machine"]), *([hub.profile] if hub.profile else [])):
                members.setdefault(group, []).append(hub.name)
        return Inventory(groups, hosts, members)

    def _templates(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Our own texts, which Ansible is to work out."""
        return {key: self.template(text) for key, text in texts.items()}

    def _profile(self, name: str) -> Group:
        """A profile's group, below that of the profile that it starts from."""
        path = ("profiles", name)
        if name not in self.profiles:
            return Group(dict(PROFILES[name]), "hubs")
        if name in PROFILES:
            text = f"profile {name} is the collection's own; name yours otherwise, and start it from there: profile: {name}"
            self._problem(self.lines.place(*path), text)
        elif not HUB_NAME.match(name):
            self._problem(
                self.lines.place(*path), f"{name!r} cannot name a profile; write lower case letters, digits and -"
            )
        base = self.profiles[name].get("profile")
        if base is not None:
            base = self._choice(self.lines.place(*path, "profile"), "profile", base, [*PROFILES, *self.profiles])
        return Group(self._variables("hubs", path, "profile"), group_name("profile", base) if base else "hubs")

    def _circles(self) -> None:
        """Report profiles that start from themselves."""
        for name in self.profiles:
            seen = [name]
            while (base := (self.profiles.get(seen[-1]) or {}).get("profile")) in self.profiles and base not in seen:
                seen.append(base)
            if base == name:
                text = f"profile {name} starts from itself, by way of {' and '.join(seen)}; end the circle"
                self._problem(self.lines.place("profiles", name, "profile"), text)

    def _choice(self, place: Place, what: str, value: Any, names: Collection[str]) -> Optional[str]:
        """The value, if it is one of the names."""
        if value in names:
            return str(value)
        hint = f"did you mean {nearest(str(value), names)}?" if names else f"add it to {what}s"
        self._problem(place, f"there is no {what} {value!r}; {hint}")
        return None

    def _variables(self, kind: str, path: tuple[str, ...], *more: str) -> dict[str, Any]:
        """The variables at a path of the file."""
        values = self._mapping(*path)
        places = {key: self.lines.place(*path, str(key)) for key in values}
        return self._checked(kind, ".".join(path), values, places, more)

    def _checked(
        self, kind: str, what: str, values: Mapping[str, Any], places: Mapping[str, Place], more: Collection[str]
    ) -> dict[str, Any]:
        """The variables among these keys; those that nobody knows are reported."""
        ours = self.known.hubs if kind == "hubs" else self.known.machines
        others = self.known.machines if kind == "hubs" else self.known.hubs
        result: dict[str, Any] = {}
        for key, value in values.items():
            if key in more:
                continue
            if key == "vars":
                result.update(self._own(what, value, places[key]))
            elif key in ours or str(key).startswith("ansible_"):
                result[key] = value
            elif key in others:
                there = "machines" if kind == "hubs" else "hubs"
                self._problem(places[key], f"{what}: {key} is a setting of {there}; move it there")
            else:
                hint = nearest(str(key), [*ours, *more, "vars"])
                text = f"{what}: {key} is unknown; did you mean {hint}? Variables of your own go into vars: {{...}}"
                self._problem(places[key], text)
        return result

    def _own(self, what: str, value: Any, place: Place) -> dict[str, Any]:
        """Variables that are the site's own."""
        if not isinstance(value, Mapping):
            self._problem(place, f"{what}: vars is no mapping; write names of variables with a colon after each")
            return {}
        for name in value:
            if not _VARIABLE.match(str(name)):
                self._problem(place, f"{what}: {name!r} cannot name a variable; write letters, digits and _")
            elif str(name).startswith(_OURS):
                self._problem(place, f"{what}: {name} looks like the collection's; write it beside vars, not into it")
        return dict(value)

    def _hubs(self) -> list[Hub]:
        """All hubs that can be made sense of, with machine, port and UID."""
        hubs: dict[str, Hub] = {}
        for entry in self.entries:
            if entry.name in hubs:
                self._problem(
                    entry.place, f"hub {entry.name} is there twice, first in {hubs[entry.name].entry.place}; remove one"
                )
            elif hub := self._hub(entry):
                hubs[entry.name] = hub
        self._assign(list(hubs.values()))
        self._distinct(list(hubs.values()))
        return list(hubs.values())

    def _hub(self, entry: Entry) -> Optional[Hub]:
        """A hub by itself; None where nothing can be made of it."""
        name = entry.name
        if not HUB_NAME.match(name):
            short = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            hint = f", such as {short}" if HUB_NAME.match(short) else ", a letter first, 31 at most"
            self._problem(entry.place, f"{name!r} cannot name a hub; write lower case letters, digits and -{hint}")
            return None
        if name in RESERVED or name in self.machines:
            what = "a machine" if name in self.machines else "something else"
            self._problem(entry.place, f"hub {name} has the name of {what}; name it otherwise")
            return None
        what = f"hub {name}"
        values = self._checked("hubs", what, entry.values, entry.places, ("machine", "profile"))
        if "hub_machine" in values:
            self._problem(
                entry.places["hub_machine"], f"{what}: a hub's machine is written as machine: NAME; write it so"
            )
        machine = entry.values.get("machine")
        if machine is None and len(self.machines) == 1:
            machine = next(iter(self.machines))
        elif machine is None:
            self._problem(
                entry.place, f"{what} has no machine; write one of {', '.join(self.machines) or 'the machines'}"
            )
        else:
            machine = self._choice(entry.places["machine"], "machine", machine, list(self.machines))
        profile = entry.values.get("profile")
        if profile is not None:
            profile = self._choice(entry.places["profile"], "profile", profile, [*PROFILES, *self.profiles])
        if machine is None:
            return None
        values["hub_machine"] = machine
        return Hub(name, values, group_name("profile", profile) if profile else None, entry)

    def _inherited(self, hub: Hub, key: str) -> Any:
        """What a hub has for a variable, itself or from its profiles or the defaults."""
        sources = [hub.values]
        profile = hub.entry.values.get("profile")
        seen: list[str] = []
        while isinstance(profile, str) and profile not in seen:
            seen.append(profile)
            sources.append(self.profiles.get(profile) or PROFILES.get(profile) or {})
            profile = sources[-1].get("profile")
        sources.append(self.defaults)
        return next((source[key] for source in sources if source.get(key) is not None), None)

    def _assign(self, hubs: list[Hub]) -> None:
        """Give ports to hubs, and UIDs to their accounts, where none are given."""
        for hub in hubs:
            if self.ports and self._inherited(hub, "hub_port") is None:
                hub.values["hub_port"] = assigned(hub.name, *self.ports)
            account = self._inherited(hub, "hub_container_admin") or hub.name
            if self.uids and ACCOUNT.match(str(account)) and self._inherited(hub, "container_admin_uid") is None:
                hub.values["container_admin_uid"] = assigned(str(account), *self.uids)

    def _distinct(self, hubs: list[Hub]) -> None:
        """Report hubs of one machine that share what they must not."""
        ports: dict[tuple[str, int], Hub] = {}
        paths: dict[tuple[str, str], Hub] = {}
        uids: dict[tuple[str, int], tuple[Any, Hub]] = {}
        for hub in hubs:
            machine = hub.values["hub_machine"]
            port = _number(self._inherited(hub, "hub_port"))
            if port is not None and (first := ports.setdefault((machine, port), hub)) is not hub:
                free = next(number for number in range(port + 1, 65536) if (machine, number) not in ports)
                self._twice(hub, first, "hub_port", f"port {port}", str(free))
            path = self._inherited(hub, "hub_path") or f"/{hub.name}/"
            if "{{" not in str(path):
                path = f"/{str(path).strip('/')}/"
                if (first := paths.setdefault((machine, path), hub)) is not hub:
                    self._twice(hub, first, "hub_path", f"path {path}", f"/{hub.name}/")
            account = self._inherited(hub, "hub_container_admin") or hub.name
            uid = _number(self._inherited(hub, "container_admin_uid"))
            if uid is not None:
                other, first = uids.setdefault((machine, uid), (account, hub))
                if other != account:
                    free = next(number for number in range(uid + 1, 65536) if (machine, number) not in uids)
                    self._twice(hub, first, "container_admin_uid", f"UID {uid}", str(free))

    def _twice(self, hub: Hub, first: Hub, key: str, what: str, free: str) -> None:
        """Report something that two hubs have."""
        written = key in hub.entry.values
        how = "has" if written else "would get"
        place = hub.entry.places[key] if written else hub.entry.place
        text = f"hub {hub.name} {how} {what} of {hub.values['hub_machine']}, as has {first.name} ({first.entry.place})"
        self._problem(place, f"{text}; write another for the newer of them, such as {key}: {free}")


class Hub(NamedTuple):
    """A hub with all that the fleet's file says of it by name."""

    name: str
    values: dict[str, Any]
    profile: Optional[str]
    entry: Entry


def _number(value: Any) -> Optional[int]:
    """A whole number, as the checks of hubs read it; None for all else, which they refuse."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
