# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas of hub users: what root tells the service ``ananke-quotas``, which gives each home its project and limit.

The settings are root's, in a file for each hub. Nothing of it lies where a container admin can write.
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.accounts import AccountError, must
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Run

SETTINGS = "/etc/ananke/quotas"
PROGRAM = "/usr/local/sbin/ananke-quotas"
SERVICE = "ananke-quotas.service"
GROUP = "/sys/fs/cgroup/system.slice/ananke-quotas.service"
"""There while the service runs."""


@dataclasses.dataclass(frozen=True)
class Quota:
    """The quota of a hub's users; size None: none."""

    hub: str
    size: int | None
    users: t.Mapping[str, int]

    @property
    def path(self) -> str:
        """The file with the settings."""
        return os.path.join(SETTINGS, f"{self.hub}.json")

    def content(self, home: str) -> str:
        """What the file says, for a hub whose account has its home there."""
        text = {"home": home, "size": self.size, "users": dict(self.users)}
        return json.dumps(text, indent=1, sort_keys=True) + "\n"


def from_options(options: t.Iterable[t.Mapping[str, t.Any]]) -> list[Quota]:
    """The quotas that a module's option says."""
    return [Quota(one["hub"], one["size"], one["users"]) for one in options]


def refusals(quotas: t.Iterable[Quota], account: str, home_size: int | None) -> list[str]:
    """Why this machine cannot keep hub users to these quotas, one readable sentence each; reads only."""
    wanted = [quota.hub for quota in quotas if quota.size is not None]
    if not wanted:
        return []
    hubs = ", ".join(wanted)
    if home_size is None:
        return [f"hub_user_quota of {hubs} needs a home of a size: set container_admin_home_size of {account}"]
    if not kernel_counts(os.uname().release):
        return [
            f"hub_user_quota of {hubs}: the kernel of this machine counts no projects (it has no quota_v2), so nobody could be kept to a quota."
            " Install one that does, as Debian's own do (linux-image-amd64 or linux-image-cloud-amd64), and reboot; or remove hub_user_quota"
        ]
    return []


def kernel_counts(release: str, modules: str = "/lib/modules", filesystems: str = "/proc/self/mountinfo") -> bool:
    """Whether the running kernel has the format of quotas that ext4's projects need: built in, as a module, or in use."""
    folder = os.path.join(modules, release)
    known = (files.read(os.path.join(folder, name)) or "" for name in ("modules.builtin", "modules.dep"))
    if any("/quota_v2.ko" in text for text in known):
        return True
    return any(",prjquota" in line.rpartition(" - ")[2] for line in (files.read(filesystems) or "").splitlines())


def foretell(quotas: t.Iterable[Quota], home: str | None) -> list[str]:
    """What :func:`apply` would do, in words; home None: the account does not exist yet."""
    done = []
    for quota in quotas:
        if quota.size is None:
            done += [f"quota of {quota.hub} taken away"] if os.path.exists(quota.path) else []
        elif home is None or files.differs(quota.path, quota.content(home), 0o644):
            done.append(f"quota of {quota.hub} set")
        elif not os.path.isdir(GROUP):
            done.append(f"{SERVICE} started")
    return done


def apply(quotas: t.Sequence[Quota], home: str, run: Run) -> list[str]:
    """Write the settings and put them in force.

    Raises:
        AccountError: they are not in force; says what to do.
    """
    done = foretell(quotas, home)
    if not done:
        return []
    if not os.path.exists(PROGRAM):
        raise AccountError(
            f"hub_user_quota: {PROGRAM} is missing: apply the role quotas to this machine first (playbooks/machines.yml --tags quotas)"
        )
    for quota in quotas:
        if quota.size is not None:
            files.folder(SETTINGS)
            files.write(quota.path, quota.content(home), 0o644)
        elif os.path.exists(quota.path):
            os.unlink(quota.path)
    if os.path.isdir(SETTINGS) and os.listdir(SETTINGS):
        must(
            run, ["systemctl", "start", SERVICE], f"journalctl --unit={SERVICE} says why; run again when that is mended"
        )
    must(run, [PROGRAM, "--apply"], "run again when that is mended")
    return done
