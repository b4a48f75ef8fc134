# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print a hub's sheet for the LMS's admin, and keep it on the controller; see the module of the same name for its documentation."""

from __future__ import annotations

import os
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible_collections.ananke.jupyterhub.plugins.module_utils import files

from .hub_description import ActionModule as HubDescription

MODE = 0o644


class ActionModule(HubDescription):
    """Knows how to describe a hub, for where nobody has done so yet."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        _unused, options = self.validate_argument_spec(argument_spec={"directory": {"type": "str"}})
        variables = task_vars or {}
        described = variables.get("hub_described")
        if described is None:
            self._task.args = {}
            described = super().run(tmp, task_vars)
            if described.get("failed"):
                return dict(described)
        result: dict[str, Any] = {"changed": False, "msg": described["lms_sheet"], "_ansible_verbose_always": True}
        if options["directory"]:
            folder = os.path.join(self._directory(variables), options["directory"])
            result["path"] = os.path.join(folder, f"{described['hub']['name']}.txt")
            result |= self._keep(result["path"], described["lms_sheet"])
        return result

    def _keep(self, path: str, sheet: str) -> dict[str, Any]:
        """Write the file where it differs; returns what the task's result says of it."""
        try:
            if not files.differs(path, sheet, MODE):
                return {}
            difference = {"before": files.read(path) or "", "after": sheet, "before_header": path, "after_header": path}
            if not self._task.check_mode:
                os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
                files.write(path, sheet, MODE)
        except OSError as error:
            raise AnsibleActionFail(
                f"hub_lti_sheet_dir: {path} cannot be written ({error.strerror}): choose a folder in which you may write, or leave it empty"
            ) from error
        return {"changed": True, "diff": difference}
