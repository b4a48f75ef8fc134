# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read features on the controller and hand them over; see the module of the same name for its documentation."""

from __future__ import annotations

from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ananke.jupyterhub.plugins.module_utils import features

HIDDEN = "definitions"


class ActionModule(ActionBase):
    """Knows what the named features are."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        _unused, options = self.validate_argument_spec(
            argument_spec={
                "container": {"type": "str"},
                "features": {"type": "list", "elements": "str", "required": True},
                "pip_index": {"type": "str", "default": ""},
                "timeout": {"type": "int", "default": 1800},
            }
        )
        result = super().run(tmp, task_vars)
        problems = features.check(options["features"])
        if options["timeout"] < 1:
            problems.append(f"timeout is {options['timeout']}: give the seconds that all may take, 1800 for instance")
        if problems:
            raise AnsibleActionFail("; ".join(problems))
        result.update(
            self._execute_module(
                module_name="ananke.jupyterhub.hub_features",
                module_args={**options, HIDDEN: features.parameters(options["features"])},
                task_vars=task_vars,
            )
        )
        # half a megabyte that nobody reads
        result.get("invocation", {}).get("module_args", {}).pop(HIDDEN, None)
        return result
