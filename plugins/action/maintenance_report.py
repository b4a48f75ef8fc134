# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts together what the upkeep of hubs and machines told, on the controller; see the module of the same name for its documentation."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from ..plugin_utils import maintenance
from ..plugin_utils.reports import Report, ReportAction
from ..plugin_utils.variables import told

TOLD = ("ananke_updates", "ananke_told")
"""Variables of hosts: what security_updates returned, and what machine_maintenance or hub_info did."""


class ActionModule(ReportAction):
    """The upkeep of hubs and machines."""

    FILES = "maintain"
    table = staticmethod(maintenance.table)
    page = staticmethod(maintenance.page)

    def report(
        self, hubs: Sequence[str], machines: Sequence[str], variables: Mapping[str, Any], now: datetime.datetime
    ) -> Report:
        """What these hosts told, by the variables of all hosts."""
        of_hubs, of_machines = [], []
        for name in hubs:
            described, updates, seen = (told(variables, name, key) for key in ("hub_described", *TOLD))
            of_hubs.append(maintenance.hub(name, described, updates, seen, now))
        for name in machines:
            updates, seen = (told(variables, name, key) for key in TOLD)
            of_machines.append(maintenance.machine(name, updates, seen, now))
        return maintenance.report(of_hubs, of_machines, now)
