# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts together what hubs and machines told, on the controller; see the module of the same name for its documentation."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ansible.plugins.action import ActionBase

from ..plugin_utils import status
from ..plugin_utils.variables import plain


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
        hubs = []
        for name in options["hubs"]:
            described, told = (_plain(variables, name, key) for key in ("hub_described", "ananke_status"))
            lost = plain(variables[name].get("ananke_lost")) or []
            machine = str((described.get("hub") or {}).get("machine"))
            backups = _plain(variables, machine, "ananke_status").get("backups") if machine in variables else None
            hubs.append(status.hub(name, described, told, lost, now, backups))
        machines = [status.machine(name, _plain(variables, name, "ananke_status")) for name in options["machines"]]
        found = status.report(hubs, machines, now)
        result.update(changed=False, report=found, msg=status.table(found))
        if options["directory"]:
            result["files"] = _write(Path(options["directory"]), found)
            result["msg"] += "\n" + "\n".join(f"written: {path}" for path in result["files"])
        return result


def _plain(variables: Mapping[str, Any], host: str, name: str) -> dict[str, Any]:
    """A host's variable as plain data; empty where it has none."""
    found = plain(variables[host].get(name))
    return found if isinstance(found, dict) else {}


def _write(folder: Path, found: dict[str, Any]) -> list[str]:
    """Write both files; they are meant for the host admin alone, as they tell what is wrong where."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"status.json": json.dumps(found, indent=2) + "\n", "status.html": status.page(found)}
    for name, text in texts.items():
        fresh = folder / f".{name}.new"
        fresh.touch(mode=0o600)
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o600)
        fresh.rename(folder / name)
    return [str(folder / name) for name in texts]
