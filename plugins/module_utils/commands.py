# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of one execution of a module, run and kept for its result; and who must run it."""

from __future__ import annotations

import os
import shlex
import typing as t

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

Run = t.Callable[[t.Sequence[str]], tuple[int, str]]
"""``run(argv)`` runs a command and returns its exit status and output, as :meth:`Commands.status` does."""


def need_root(module: AnsibleModule, name: str, **result: t.Any) -> None:
    """Fail unless the module, which is called so, runs as root; ``result`` is what its failures return besides."""
    if os.geteuid() != 0:
        module.fail_json(msg=f"{name} must run as root: set become: true for this task", **result)


class Commands:
    """Runs commands and keeps their argument lists; what travels on standard input is not kept."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.run: list[str] = []

    def status(
        self, argv: t.Sequence[str], stdin: str | None = None, environment: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Exit status and output of a command."""
        self.run.append(shlex.join(argv))
        # binary_data: exactly this goes to standard input, without a line break more, which chpasswd would refuse.
        # What looks like a variable in an argument is the program's own: $HOME is not root's in a script for an account.
        status, out, err = self.module.run_command(
            list(argv), data=stdin, binary_data=True, environ_update=environment, expand_user_and_vars=False
        )
        return status, out + err
