# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts together what hubs and machines told, on the controller; see the module of the same name for its documentation."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from ..plugin_utils import status
from ..plugin_utils.reports import Report, ReportAction
from ..plugin_utils.variables import plain, told


class ActionModule(ReportAction):
    """How hubs and machines are."""

    FILES = "status"
    table = staticmethod(status.table)
    page = staticmethod(status.page)

    def report(
        self, hubs: Sequence[str], machines: Sequence[str], variables: Mapping[str, Any], now: datetime.datetime
    ) -> Report:
        """What these hosts told, by the variables of all hosts."""
        of_hubs = []
        for name in hubs:
            described, answer = (told(variables, name, key) for key in ("hub_described", "ananke_status"))
            lost = plain(variables[name].get("ananke_lost")) or []
            machine = str((described.get("hub") or {}).get("machine"))
            backups = told(variables, machine, "ananke_status").get("backups") if machine in variables else None
            of_hubs.append(status.hub(name, described, answer, lost, now, backups))
        of_machines = [status.machine(name, told(variables, name, "ananke_status")) for name in machines]
        return status.report(of_hubs, of_machines, now)
