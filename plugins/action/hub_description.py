# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validate hubs and describe them, on the controller; see the module of the same name for its documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible.plugins.action import ActionBase

from ..module_utils.description import PREFIXES, Problem, cross_check, describe, misplaced, outline
from ..plugin_utils import variables as inventory

#: Roles whose defaults its machine's variables fall back to, and what a hub needs of them.
_MACHINE_VARIABLES = {
    "reverse_proxy_server_name": "reverse_proxy",
    "reverse_proxy_https_port": "reverse_proxy",
    "hub_image_definitions": "hub_image",
}


def _known_names(options: Mapping[str, set[str]]) -> set[str]:
    """All names of variables that the collection's roles take of a hub."""
    registered = {"container_admin_result", "hub_described", "hub_prove", "hub_result"}
    return registered.union(*({name for name in names if name.startswith(PREFIXES)} for names in options.values()))


def _names_of_machines(options: Mapping[str, set[str]]) -> set[str]:
    """Names of variables that are read for machines only."""
    set_for_hubs = {
        "container_admin_name",
        "container_admin_locations",
        "container_admin_quotas",
        "container_admin_backups",
        "container_admin_settled",
    }
    return set_for_hubs.union(*(names for role, names in options.items() if role not in inventory.HUB_ROLES))


# Read when Ansible loads the plugin, once per run, and not in each of the processes that it starts per task and host.
_OPTIONS = inventory.options()
_KNOWN_NAMES = _known_names(_OPTIONS)
_NAMES_OF_MACHINES = _names_of_machines(_OPTIONS)
_HUB_DEFAULTS = inventory.defaults(*inventory.HUB_ROLES)
_MACHINE_DEFAULTS = inventory.defaults(*sorted(set(_MACHINE_VARIABLES.values())))


class ActionModule(ActionBase):
    """Returns data and never looks at the host."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        _unused, options = self.validate_argument_spec(
            argument_spec={
                "all_hubs": {"type": "bool", "default": False},
                "hubs_group": {"type": "str", "default": "hubs"},
                "machines_group": {"type": "str", "default": "machines"},
            }
        )
        result = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._machines: dict[str, Optional[dict[str, Any]]] = {}
        self._machine_names = sorted(self._group(options["machines_group"]))
        self._machine_variables: Optional[list[dict[str, Any]]] = None

        if options["all_hubs"]:
            hubs = sorted(self._group(options["hubs_group"]))
            problems, result["machines"] = self._check_all(hubs)
            result["hubs"] = hubs
        else:
            described, problems = self._describe(self._vars["inventory_hostname"], self._vars)
            result.update(described or {})
        if problems:
            return {"failed": True, "changed": False, "msg": "\n".join([_heading(problems), *map(str, problems)])}
        result["changed"] = False
        # a hub's environment may hold secrets: results stay out of what -v prints
        result["_ansible_verbose_override"] = True
        return result

    def _check_all(self, hubs: list[str]) -> tuple[list[Problem], dict[str, list[dict[str, Any]]]]:
        """Problems of the play's hubs, by themselves and beside all hubs of the inventory, whatever --limit says.

        The second value says what the play's hubs need, by machine: options of the module machine_preflight.
        """
        in_play = set(self._vars.get("ansible_play_hosts_all") or hubs)
        problems: list[Problem] = []
        outlines = []
        machines: dict[str, list[dict[str, Any]]] = {}
        for hub in hubs:
            variables = self._host_variables(hub)
            rendered = self._rendered(variables)
            outlines.append(outline(hub, rendered))
            if hub in in_play:
                described, found = self._describe(hub, variables, rendered)
                problems += found
                if described:
                    needs = _needs(hub, described, rendered["container_admin_store"])
                    machines.setdefault(described["hub"]["machine"], []).append(needs)
                problems += misplaced(hub, variables, _NAMES_OF_MACHINES, self._all_machines)
        problems += cross_check(outlines, in_play)
        return sorted(problems, key=lambda problem: hubs.index(problem.host)), machines

    def _describe(
        self, hub: str, variables: Mapping[str, Any], rendered: Optional[Mapping[str, Any]] = None
    ) -> tuple[Optional[dict[str, Any]], list[Problem]]:
        if rendered is None:
            rendered = self._rendered(variables)
        return describe(
            hub,
            rendered,
            self._machine(rendered.get("hub_machine")),
            machines=self._machine_names,
            known=_KNOWN_NAMES,
            directory=self._directory(variables),
        )

    def _machine(self, name: Any) -> Optional[dict[str, Any]]:
        """What hubs need to know of this machine, worked out once; None if it is not one of the machines."""
        if not isinstance(name, str) or name not in self._machine_names:
            return None
        if name not in self._machines:
            variables = self._host_variables(name)
            self._machines[name] = inventory.rendered(
                self._templar, variables, _MACHINE_DEFAULTS, _MACHINE_VARIABLES.__contains__
            )
        return self._machines[name]

    def _all_machines(self) -> list[dict[str, Any]]:
        """The variables of all machines, templates unresolved."""
        if self._machine_variables is None:
            self._machine_variables = [self._host_variables(name) for name in self._machine_names]
        return self._machine_variables

    def _directory(self, variables: Mapping[str, Any]) -> str:
        """The folder that relative paths of the controller start from: the inventory's."""
        return str(variables.get("inventory_dir") or self._loader.get_basedir())

    def _group(self, name: str) -> list[str]:
        return list(self._vars.get("groups", {}).get(name, []))

    def _host_variables(self, host: str) -> dict[str, Any]:
        return inventory.of_host(self._vars, host)

    def _rendered(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """A hub's variables, templates resolved."""
        return inventory.rendered(
            self._templar, variables, _HUB_DEFAULTS, lambda name: name.lower().startswith(PREFIXES)
        )


def _needs(host: str, described: Mapping[str, Any], store: Any) -> dict[str, Any]:
    """What one hub needs of its machine before it can start."""
    hub = described["hub"]
    grants = {
        "name": hub["container_admin"],
        "store": store,
        "locations": [described["location"]],
        "quotas": [described["quota"]],
        "backups": [described["backup"]],
        **described["account"],
    }
    return {"name": host, "port": hub["port"], "container_admin": grants}


def _heading(problems: list[Problem]) -> str:
    hubs = len({problem.host for problem in problems})
    return f"The inventory has {len(problems)} problem(s) in {hubs} hub(s). Nothing has been changed."
