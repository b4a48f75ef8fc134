# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which port of a machine leads to its sshd: the hardened one, or the one that it was installed with."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

HARDENED = 986
INSTALLED = 22
REFUSALS = ("Permission denied", "Host key verification failed", "Host Key checking")
"""What a connection says whose login a daemon has refused, or which does not trust it."""


class ActionModule(ActionBase):
    """Log in, first on the port that the role ssh moves to. Later tasks of the run use that very connection."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do the task and return its result."""
        result = super().run(tmp, task_vars)
        del tmp
        variables = task_vars or {}
        _validation, arguments = self.validate_argument_spec(
            argument_spec={"machine": {"type": "str", "required": True}}
        )
        known = variables["hostvars"][arguments["machine"]]
        ports = candidates(known)
        result["changed"] = False
        result["port"] = ports[-1]
        if len(ports) > 1 and self._connection.transport == "ssh":
            found = next((port for port in ports if self._leads_in(port)), None)
            if found is None:
                tried = " nor ".join(map(str, ports))
                result["warnings"] = [
                    f"{arguments['machine']} answers neither on port {tried}; where its sshd listens elsewhere, set ansible_port to that port"
                ]
            result["port"] = found or ports[-1]
        return result

    def _leads_in(self, port: int) -> bool:
        """Whether an SSH daemon answers there. One that refuses the login is one, too."""
        before = self._connection.get_option("port")
        self._connection.set_option("port", port)
        try:
            self._connection.exec_command("exit 0", sudoable=False)
        except AnsibleError as error:
            return any(text in str(error) for text in REFUSALS)
        finally:
            self._connection.set_option("port", before)
        return True


def candidates(known: Any) -> list[int]:
    """The ports to try, in this order; one alone needs no trial."""
    installed = int(known.get("ansible_port") or INSTALLED)
    if known.get("ssh_enabled", True) in (False, "false", "no"):
        return [installed]
    hardened = int(known.get("ananke_ssh_reach_port") or known.get("ananke_ssh_port") or HARDENED)
    return [hardened] if hardened == installed else [hardened, installed]
