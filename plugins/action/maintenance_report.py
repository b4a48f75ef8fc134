# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts together what the upkeep of hubs and machines told, on the controller; see the module of the same name for its documentation."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Optional

from ansible.plugins.action import ActionBase

from ..plugin_utils import maintenance, reports
from ..plugin_utils.variables import told

TOLD = ("ananke_updates", "ananke_told")
"""Variables of hosts: what security_updates returned, and what machine_maintenance or hub_info did."""


class ActionModule(ActionBase):
    """Never looks at a host."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Do the task and return its result."""
        result = super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(
            argument_spec={
                "hubs": {"type": "list", "elements": "str", "required": True},
                "machines": {"type": "list", "elements": "str", "required": True},
                "directory": {"type": "path"},
            }
        )
        variables = (task_vars or {})["hostvars"]
        now = datetime.datetime.now(datetime.UTC)
        hubs, machines = [], []
        for name in options["hubs"]:
            described, updates, seen = (told(variables, name, key) for key in ("hub_described", *TOLD))
            hubs.append(maintenance.hub(name, described, updates, seen, now))
        for name in options["machines"]:
            updates, seen = (told(variables, name, key) for key in TOLD)
            machines.append(maintenance.machine(name, updates, seen, now))
        found = maintenance.report(hubs, machines, now)
        result.update(changed=False, report=found, msg=maintenance.table(found))
        if options["directory"]:
            result["files"] = reports.write(Path(options["directory"]), "maintain", found, maintenance.page(found))
            result["msg"] += "\n" + "\n".join(f"written: {path}" for path in result["files"])
        return result
