# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of machine_access: the fresh login that ends the trial, or the trial's end without it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

MODULE = "ananke.jupyterhub.machine_access"
ALONE = " -o ControlPath=none"
"""For ssh: no connection that is already there."""
UNKNOWN_KEY = ("Host key verification failed", "Host Key checking")
KEY_ADVICE = (
    "Where known_hosts names the machine with its former port, name it without one, or once for each port;"
    " `ssh-keygen -F '[MACHINE]:PORT'` shows what is known"
)
PATIENCE = 15.0
"""Seconds in which sshd may be between two configurations."""


class ActionModule(ActionBase):
    """Begin a trial, log in anew, and confirm."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do the task and return its result."""
        super().run(tmp, task_vars)
        del tmp
        self._vars = task_vars or {}
        arguments = dict(self._task.args)
        over_ssh = self._connection.transport == "ssh"
        if over_ssh and arguments.get("password") and not self._connection.get_option("password"):
            return {
                "failed": True,
                "msg": "logins are to need key and password, and Ansible knows no password to log in with: set ansible_password for this"
                " machine, in a vault, or ssh_password to false; nothing was changed",
            }
        token = secrets.token_hex(16)
        begun = self._module(act="begin", token=token, **arguments)
        if begun.get("failed") or not begun.get("changed") or self._task.check_mode:
            return begun
        port = int(arguments.get("port") or self._port())
        problem = self._login(arguments, port, token) if over_ssh else self._confirm(arguments, token)
        if problem:
            return {
                **begun,
                "changed": False,
                "failed": True,
                "msg": f"{problem}. {self._take_back(arguments)}",
                "diff": [],
            }
        return {**begun, "port": port}

    def _module(self, **arguments: Any) -> dict[str, Any]:
        return dict(self._execute_module(module_name=MODULE, module_args=arguments, task_vars=self._vars))

    def _port(self) -> int:
        return int(self._connection.get_option("port") or 22) if self._connection.transport == "ssh" else 22

    def _login(self, arguments: dict[str, Any], port: int, token: str) -> str:
        """Log in anew and confirm; what went wrong, empty where nothing."""
        deadline = time.monotonic() + PATIENCE
        with self._fresh(port):
            while True:
                try:
                    return self._confirm(arguments, token)
                except AnsibleError as error:
                    reason = str(error).strip()
                    if any(text in reason for text in UNKNOWN_KEY):
                        return f"a fresh login on port {port} failed: the machine's host key is not known for that port. {KEY_ADVICE}"
                    # a wrong password does not become right, and asking again gets this controller banned
                    if "Permission denied" in reason or time.monotonic() > deadline:
                        return f"a fresh login on port {port} failed: {reason}"
                time.sleep(1)

    def _confirm(self, arguments: dict[str, Any], token: str) -> str:
        confirmed = self._module(act="confirm", token=token, **arguments)
        return str(confirmed["msg"]) if confirmed.get("failed") else ""

    @contextmanager
    def _fresh(self, port: int) -> Iterator[None]:
        """Let the connection be made anew, on this port."""
        kept = {"port": self._connection.get_option("port")}
        new: dict[str, Any] = {"port": port}
        for program in ("ssh", "sftp", "scp"):
            option = f"{program}_extra_args"
            kept[option] = self._connection.get_option(option)
            new[option] = (kept[option] or "") + ALONE
        for option, value in new.items():
            self._connection.set_option(option, value)
        try:
            yield
        finally:
            for option, value in kept.items():
                self._connection.set_option(option, value)

    def _take_back(self, arguments: dict[str, Any]) -> str:
        """Bring the old state back over the connection that is there, or tell that it comes by itself."""
        try:
            restored = self._module(act="restore", **arguments)
        except AnsibleConnectionFailure:
            restored = {"failed": True, "msg": "this run's connection is lost"}
        if restored.get("failed"):
            return f"{restored['msg']}; the machine takes the change back by itself, {arguments.get('timeout', 120)} seconds after it was made"
        return "The old state is back: correct the settings, or what lies between, and run again"
