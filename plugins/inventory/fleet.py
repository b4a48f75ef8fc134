# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines and hubs from one compact file."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
short_description: Machines and hubs from one compact file, and a table of courses beside it
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Reads a file whose name ends in C(fleet.yml) or C(fleet.yaml). It names machines, hubs, what they have in common, and profiles that hubs may
    choose. Hubs may also come from a table of courses (CSV).
  - The result has the groups C(machines) and C(hubs), for each machine C(hubs_on_MACHINE), and for each profile C(profile_PROFILE). Hubs get the
    connection of their machine. Folders C(group_vars) and C(host_vars) beside the file work as with other inventories.
  - A port for each hub and a UID for each container admin are worked out of their names, so that no hub ever moves another's, whatever is added,
    removed or sorted anew. Where two names of a machine stand for the same number, the file is refused, and the message says what to write.
  - Names that are there twice, unknown keys and missing machines are refused, with file, line, and the nearest name that is known. All mistakes are
    told at once.
  - Ansible goes on without a file that was refused, and finds no hosts then, unless C(any_unparsed_is_failed) is set in the section C(inventory) of
    C(ansible.cfg), as is recommended.
  - Reading the files takes less time than a cache would, so nothing is cached.
options:
  plugin:
    description: Must be the name of this plugin.
    type: str
    required: true
    choices: [ananke.jupyterhub.fleet]
  machines:
    description:
      - The machines. Each has variables of the collection's roles for machines, and those of its connection, whose names begin with C(ansible_).
      - C(vars) has variables of the site's own, here and wherever variables may be given.
    type: dict
    default: {}
  machine_defaults:
    description: Variables of all machines.
    type: dict
    default: {}
  hubs:
    description:
      - The hubs. C(machine) says where a hub runs, and may be left out if there is only one machine. C(profile) chooses a profile. All else are
        variables of the collection's roles for hubs, see C(docs/host-admin/hub-variables.md).
    type: dict
    default: {}
  defaults:
    description: Variables of all hubs.
    type: dict
    default: {}
  profiles:
    description:
      - Variables of all hubs that choose the profile. With C(profile), it starts from another one.
      - The collection has C(persistent), where homes stay, C(forget), where they are emptied when a server stops, and C(nbgrader), where homes stay
        and assignments are handed out, collected and graded (the feature C(nbgrader)).
    type: dict
    default: {}
  courses:
    description:
      - CSV files with further hubs, relative to this one. The first line names the columns, C(name), C(machine), C(profile), or variables of hubs. Cells
        are separated by commas, semicolons or tabs; an empty one leaves the variable alone.
      - A cell is text. V(true), V(false) and V(null) mean what they mean in YAML, and so do lists and mappings in brackets. Templates are not worked out.
    type: list
    elements: str
    default: []
  ports:
    description: Range that hubs' ports are taken from, or V(false), where each hub has C(hub_port). Another range moves all of them.
    type: raw
    default: 10000-29999
  uids:
    description:
      - Range that the UIDs of container admins are taken from, or V(false), where machines choose them. Another range fits new accounts only.
      - Say V(false) where accounts exist whose UIDs were chosen otherwise, or give their C(container_admin_uid).
    type: raw
    default: 30000-49999
"""

EXAMPLES = r"""
# university.fleet.yml
plugin: ananke.jupyterhub.fleet
machines:
  north:
    ansible_host: 192.0.2.11
    reverse_proxy_server_name: hubs-north.example.org
  south:
    ansible_host: 192.0.2.12
    reverse_proxy_server_name: hubs-south.example.org
defaults:
  hub_lti_platform: moodle
  hub_lti_issuer: https://moodle.example.org
profiles:
  exam:
    profile: forget
    hub_cull_timeout: 0
hubs:
  math101: {machine: north, hub_lti_client_ids: kX7ePqT2mZ1vRb4}
  finals: {machine: south, profile: exam, hub_lti_client_ids: Nb5zOq1cSy8wMj4}
courses: [courses.csv]

# courses.csv
# name,machine,profile,hub_lti_client_ids,hub_admins
# physics,north,persistent,Hq3uYw8nLs5dGc0,"[u1042, u1187]"
# languages,south,,Vt6aJr9oFx2kEi7,
"""

from collections.abc import Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import yaml  # noqa: E402
from ansible.errors import AnsibleParserError  # noqa: E402
from ansible.inventory.data import InventoryData  # noqa: E402
from ansible.parsing.dataloader import DataLoader  # noqa: E402
from ansible.plugins.inventory import BaseInventoryPlugin  # noqa: E402
from ansible.template import trust_as_template  # noqa: E402

from ..plugin_utils import variables  # noqa: E402
from ..plugin_utils.fleet import Fleet, Known  # noqa: E402
from ..plugin_utils.fleet_files import Entry, Lines, Problem, table  # noqa: E402


class InventoryModule(BaseInventoryPlugin):
    """Reads a fleet."""

    NAME = "ananke.jupyterhub.fleet"

    def verify_file(self, path: str) -> bool:
        """Whether this file is a fleet's."""
        return bool(super().verify_file(path)) and path.endswith(("fleet.yml", "fleet.yaml"))

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Fill the inventory, or raise an AnsibleParserError that names all mistakes."""
        super().parse(inventory, loader, path, cache)
        data = loader.load_from_file(path, cache="none", trusted_as_template=True)
        if not isinstance(data, Mapping) or data.get("plugin") != self.NAME:
            raise AnsibleParserError(f"{path}: a fleet's file begins with plugin: {self.NAME}")
        try:
            lines = Lines(path, loader.get_text_file_contents(path))
        except yaml.YAMLError as error:  # the loader reads more kinds of values, but not of keys
            raise AnsibleParserError(f"{path}: {error}") from error
        courses, problems = self._courses(path, data.get("courses"), lines)
        fleet = Fleet(data, lines, courses, _known(), trust_as_template)
        problems = sorted({*fleet.problems, *problems})
        if problems:
            heading = (
                f"this fleet has {len(problems)} mistake{'s' if len(problems) > 1 else ''}; no machine was touched"
            )
            raise AnsibleParserError("\n".join([heading, *map(str, problems)]))
        self._fill(fleet)

    def _courses(self, path: str, files: Any, lines: Lines) -> tuple[list[Entry], list[Problem]]:
        """The hubs of all tables."""
        names = [files] if isinstance(files, str) else files or []
        place = lines.place("courses")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return [], [Problem(place, "courses is no list; write the names of CSV files")]
        entries: list[Entry] = []
        problems: list[Problem] = []
        for name in names:
            file = str(Path(path).parent / name)
            try:
                text = self.loader.get_text_file_contents(file)
            except Exception as error:  # a file that is not there, not readable, no UTF-8, or of another vault
                problems.append(Problem(place, f"courses: {file} cannot be read: {error}"))
                continue
            found, wrong = table(file, text)
            entries += found
            problems += wrong
        return entries, problems

    def _fill(self, fleet: Fleet) -> None:
        """Tell Ansible."""
        groups, hosts, members = fleet.inventory
        for name in groups:
            self.inventory.add_group(name)
        for name, group in groups.items():
            if group.parent:
                self.inventory.add_child(group.parent, name)
            for key, value in group.variables.items():
                self.inventory.set_variable(name, key, value)
        for group_name, names in members.items():
            for name in names:
                self.inventory.add_host(name, group_name)
        for name, values in hosts.items():
            for key, value in values.items():
                self.inventory.set_variable(name, key, value)


def _known() -> Known:
    """The names of variables that the collection's roles take."""
    options = variables.options()
    ours = set(variables.HUB_ROLES)
    shared = variables.shared()
    hubs = shared.union(*(options[role] for role in ours))
    machines = (names for role, names in options.items() if role not in ours)
    return Known(hubs, shared.union(variables.switches(), *machines))
