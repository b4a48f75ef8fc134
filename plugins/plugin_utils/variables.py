# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables of other hosts of the inventory, with the defaults of this collection's roles, as plain data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ..module_utils.description import Unusable

ROLES = Path(__file__).resolve().parents[2] / "roles"
#: Roles that are applied to hubs, whose variables fall back to these roles' defaults; all others are for machines.
HUB_ROLES = ("hub", "hub_lti", "hub_features", "container_admin")


def options() -> dict[str, set[str]]:
    """The names of the variables that each role takes."""
    result = {}
    for path in ROLES.glob("*/meta/argument_specs.yml"):
        entries = DataLoader().load_from_file(str(path))["argument_specs"].values()
        result[path.parts[-3]] = {str(name) for entry in entries for name in entry.get("options") or {}}
    return result


def shared() -> set[str]:
    """The names of variables that defaults of several roles refer to."""
    texts = (path.read_text() for path in ROLES.glob("*/defaults/main.yml"))
    return {name for text in texts for name in re.findall(r"\bananke_[a-z_]+", text)}


def switches() -> set[str]:
    """The names of variables that switch a machine's roles on and off."""
    return set(re.findall(r"\b(\w+_enabled) \| default", (ROLES.parent / "playbooks/machines.yml").read_text()))


def defaults(*roles: str) -> dict[str, Any]:
    """The roles' defaults, templates still to be resolved."""
    result: dict[str, Any] = {}
    for role in roles:
        path = ROLES / role / "defaults" / "main.yml"
        result.update(DataLoader().load_from_file(str(path), trusted_as_template=True))
    return result


def of_host(task_vars: Mapping[str, Any], host: str) -> dict[str, Any]:
    """The variables of a host of the inventory, templates still to be resolved."""
    return {**task_vars["hostvars"].raw_get(host), "hostvars": task_vars["hostvars"]}


def rendered(
    templar: Templar, variables: Mapping[str, Any], fallback: Mapping[str, Any], wanted: Callable[[str], bool]
) -> dict[str, Any]:
    """The wanted ones of a host's variables, templates resolved; what cannot be resolved is an Unusable."""
    merged = {**fallback, **variables}
    own = templar.copy_with_new_env(available_variables=merged)
    result: dict[str, Any] = {}
    for key in filter(wanted, merged):
        try:
            result[key] = plain(own.template(merged[key]))
        except Exception as error:  # whatever a template can raise is this one host's problem, not the end of the task
            result[key] = Unusable(_source(merged[key]), _reason(error))
    return result


def plain(value: Any) -> Any:
    """The value without Ansible's tags, so that only data goes on."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return value


def told(variables: Mapping[str, Any], host: str, name: str) -> dict[str, Any]:
    """A host's variable as plain data; empty where it has none."""
    found = plain(variables[host].get(name))
    return found if isinstance(found, dict) else {}


def _source(value: Any) -> str:
    """What the inventory says, as far as it can be shown."""
    try:
        return str.__str__(value) if isinstance(value, str) else str(value)
    except Exception:
        return "(from a vault)"


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return "it cannot be worked out: " + " ".join(str(error).split()).rstrip(".")
