# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of machines that were given to a hub, where nothing reads them.

Variables of the group ``all``, or of a group of machines and hubs, reach hubs rightly, and so do extra variables. What tells a mistake from
them is that no machine at all has the hub's value: then nothing has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .problems import Problem, shown_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

#: What a hub has instead of these.
_INSTEAD = {
    "container_admin_name": "Set hub_container_admin, which names the hub's account",
    "container_admin_locations": "Remove it; a hub's public path is its hub_path",
    "container_admin_quotas": "Remove it; quotas of a hub's users are hub_user_quota and hub_user_quotas",
    "hub_image_definitions": "Set it for {machine}, and choose one of its names with hub_image",
}


def misplaced(
    host: str,
    variables: Mapping[str, Any],
    names: Collection[str],
    machines: Callable[[], Iterable[Mapping[str, Any]]],
) -> list[Problem]:
    """Problems of the hub ``host``.

    ``variables`` are the hub's as the inventory has them, templates unresolved, ``names`` those that only machines' roles read. ``machines``
    returns the variables of all machines, and is asked only where the hub has such a name.
    """
    problems = []
    for name in sorted(name for name in names if name in variables):
        value = variables[name]
        if any(name in machine and machine[name] == value for machine in machines()):
            continue
        machine = variables.get("hub_machine")
        remedy = _INSTEAD.get(name, "Set it for {machine}, or remove it").format(
            machine=f"machine {machine}" if isinstance(machine, str) else "its machine"
        )
        what = "it is a setting of machines, and no machine has this value, so it would have no effect"
        problems.append(Problem(host, name, shown_of(name, _open(value)), what, remedy))
    return problems


def _open(value: Any) -> Any:
    """The value as it may be shown: what is no plain data comes from a vault."""
    if isinstance(value, dict):
        return {str(key): _open(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_open(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float)) else "(from a vault)"
