"""Notes every execution of a module in the file named by ANANKE_EXECUTIONS: one JSON line with host and module.

A task is not an execution: template is two of them, an action that stays on the controller is none.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: module_executions
type: aggregate
short_description: Count executions of modules
description:
  - Notes every execution of a module on any host in the file that the environment variable ANANKE_EXECUTIONS names.
"""


class CallbackModule(CallbackBase):
    """Wraps the one place through which every module goes, before workers are forked."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "module_executions"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        path = os.environ.get("ANANKE_EXECUTIONS")
        if not path:
            return
        original = ActionBase._execute_module

        def counted(action: ActionBase, *args: Any, **kwargs: Any) -> Any:
            host = action._task.delegate_to or (kwargs.get("task_vars") or {}).get("inventory_hostname")
            module = kwargs.get("module_name") or (args[0] if args else None) or action._task.action
            with open(path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({"host": host, "module": module, "task": action._task.get_name()}) + "\n")
            return original(action, *args, **kwargs)

        ActionBase._execute_module = counted
