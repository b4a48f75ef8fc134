# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which container admins may log in by SSH: a file of sshd's configuration for each, below the frame of the role ssh.

Without that frame there is nothing to do: sshd lets everybody in whom it finds.
"""

from __future__ import annotations

import os

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Run

DIRECTORY = "/etc/ssh/ananke.d"
"""Included by the role ssh's own file; a line AllowUsers elsewhere would lock out everybody whom it does not name."""
FRAME = "/etc/ssh/sshd_config.d/00-ananke.conf"
"""The role ssh's own file."""
APPLIED = f"{files.RUN_DIR}/logins.applied"


class LoginError(Exception):
    """sshd refuses a file; the old one is back."""


def needs_password() -> bool:
    """Whether the role ssh has told sshd that a key is not enough."""
    return "\nAuthenticationMethods publickey,keyboard-interactive" in (files.read(FRAME) or "")


def foretell(name: str, allowed: bool) -> list[str]:
    """What :func:`apply` would do, in words."""
    if not os.path.isdir(DIRECTORY):
        return []
    if allowed and files.differs(_path(name), _content(name), 0o644):
        return [f"login by SSH allowed to {name}", "sshd reloaded"]
    if not allowed and os.path.lexists(_path(name)):
        return [f"login by SSH taken from {name}", "sshd reloaded"]
    return ["sshd reloaded"] if files.stale(APPLIED, _paths()) else []


def apply(name: str, allowed: bool, run: Run) -> list[str]:
    """Allow or refuse an account's login; returns what was done, in words.

    :raises LoginError: sshd does not accept it
    """
    with files.lock("logins", files.RUN_DIR):
        done = foretell(name, allowed)
        if not done:
            return []
        before = files.read(_path(name))
        files.restore(_path(name), _content(name) if allowed else None, 0o644)
        status, output = run(["/usr/sbin/sshd", "-t"])
        if status:
            files.restore(_path(name), before, 0o644)
            raise LoginError(f"sshd refuses {_path(name)}, the old state is back: {output.strip()}")
        status, output = run(["systemctl", "try-reload-or-restart", "ssh.service"])
        if status:
            raise LoginError(f"sshd does not reload: {output.strip()}; see journalctl --unit ssh")
        note()
    return done


def note() -> None:
    """Note what sshd has read now."""
    if os.path.isdir(DIRECTORY):
        files.write(APPLIED, files.digests(_paths()), 0o644)


def _path(name: str) -> str:
    return os.path.join(DIRECTORY, f"{name}.conf")


def _paths() -> list[str]:
    return [os.path.join(DIRECTORY, name) for name in sorted(os.listdir(DIRECTORY)) if not name.startswith(".")]


def _content(name: str) -> str:
    return f"# Managed by ananke.jupyterhub: container admin\nAllowUsers {name}\n"
