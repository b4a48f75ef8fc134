# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hub's container as a systemd unit: a Quadlet where podman has it, an equal plain unit elsewhere."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import turns

STOP_TIMEOUT = 60
"""Seconds that systemd in the container gets to stop everybody's servers."""
START_TIMEOUT = 300
"""Seconds until a started container must have told systemd that it runs."""
RESTART_DELAY = 10
"""Seconds between a crash and the next start."""
HUB_PORT = 8000
"""Port of the hub's proxy inside the container."""
JHUB = "/opt/conda/envs/jhub"

FOLDERS: dict[str, int | None] = {
    "description": 0o700,
    "description/ca": 0o700,
    "jupyterhub_config.d": 0o700,
    "data": 0o700,
    "private": 0o700,
    "home": None,
    "exchange": None,
}
"""Folders of the container definition folder and their modes; None: 0755 at first, then whatever the container makes of it."""

MOUNTS: tuple[tuple[str, str, bool], ...] = (
    ("description", "/etc/ananke", True),
    ("jupyterhub_config.d", f"{JHUB}/etc/jupyterhub/jupyterhub_config.d", False),
    ("data", "/var/lib/jupyterhub", False),
    ("private", "/var/lib/private", False),
    ("home", "/home", False),
    ("exchange", "/opt/nbgrader_exchange", False),
)
"""(folder, path in the container, read-only)."""


class Volume(t.NamedTuple):
    """A folder of the machine that the container gets."""

    source: str
    target: str
    read_only: bool = False
    follow_mounts: bool = False
    """Whether file systems that the machine mounts below it later appear in the container, too."""


@dataclasses.dataclass(frozen=True)
class Container:
    """What podman must be told. Limits are None where there is none, or where the machine cannot hold it."""

    name: str
    image: str
    folder: str
    port: int
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    user_quota: bool = False
    """Whether hub users have quotas, and so no other place on disk that they can write to."""
    devices: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()

    @property
    def mounts(self) -> list[str]:
        """All mounts in podman's notation."""
        own = [Volume(os.path.join(self.folder, source), target, read_only) for source, target, read_only in MOUNTS]
        return [_mount(one) for one in [*own, *self.volumes]]

    @property
    def extra(self) -> list[str]:
        """Arguments for which the oldest Quadlet has no key."""
        arguments = ["--systemd=always", f"--stop-timeout={STOP_TIMEOUT}", f"--pids-limit={self.pids or 0}"]
        if self.memory is not None:
            arguments.append(f"--memory={self.memory}")
        if self.cpus is not None:
            arguments.append(f"--cpus={self.cpus:g}")
        if self.user_quota:
            arguments.append("--tmpfs=/var/tmp:rw,mode=1777,nosuid,nodev")
        return arguments + [f"--add-host={name}:{address}" for name, address in self.hosts]


def _mount(volume: Volume) -> str:
    """A mount in podman's notation."""
    options = ["ro"] * volume.read_only + ["rslave"] * volume.follow_mounts
    return ":".join([volume.source, volume.target, *([",".join(options)] if options else [])])


UNIT = """\
# Managed by ananke.jupyterhub
[Unit]
Description=JupyterHub in container {name}
Wants={turn}
After={turn}
"""

# systemd's own limit of tasks for a unit, 15 % of what the machine can hold, would be lower than hub_pids on a small machine
SERVICE = f"""
[Service]
TasksMax=infinity
Restart=always
RestartSec={RESTART_DELAY}
TimeoutStartSec={START_TIMEOUT}
TimeoutStopSec={STOP_TIMEOUT + 15}
"""

INSTALL = """
[Install]
WantedBy=default.target
"""


def quadlet(container: Container) -> str:
    """The ``.container`` unit (podman 4.4 and later). Source: podman-systemd.unit(5)."""
    lines = [
        f"ContainerName={container.name}",
        f"Image={container.image}",
        "AddCapability=SYS_ADMIN",
        f"PublishPort=127.0.0.1:{container.port}:{HUB_PORT}",
        *(f"Volume={mount}" for mount in container.mounts),
        *(f"AddDevice={device}" for device in container.devices),
        f"PodmanArgs={' '.join(['--pull=never', *container.extra])}",
    ]
    return _unit(container) + "\n[Container]\n" + "\n".join(lines) + "\n" + SERVICE + INSTALL


def _unit(container: Container) -> str:
    """What the unit is, and what comes before it."""
    return UNIT.format(name=container.name, turn=turns.unit(container.port, container.name.removeprefix("ananke-")))


def arguments(container: Container) -> list[str]:
    """Arguments of ``podman run`` that say the same as the Quadlet."""
    return [
        f"--name={container.name}",
        "--pull=never",
        "--cap-add=SYS_ADMIN",
        f"--publish=127.0.0.1:{container.port}:{HUB_PORT}",
        *(f"--volume={mount}" for mount in container.mounts),
        *(f"--device={device}" for device in container.devices),
        *container.extra,
        container.image,
    ]


def plain(container: Container) -> str:
    """The equal ``.service`` unit for a podman without Quadlet.

    podman stays in the foreground: podman 4.3 leaves the unit's control group where it finds controllers of control groups version 1,
    and systemd then takes no notification from it.
    """
    systemd = "--cidfile=%t/%N.cid --replace --rm --cgroups=split --sdnotify=ignore --log-driver=none"
    service = [
        "Environment=PODMAN_SYSTEMD_UNIT=%n",
        "KillMode=mixed",
        "Delegate=yes",
        "Type=exec",
        "ExecStartPre=/bin/rm -f %t/%N.cid",
        "ExecStart=" + " \\\n    ".join(["/usr/bin/podman run", systemd, *arguments(container)]),
        "ExecStop=/usr/bin/podman stop --ignore --cidfile=%t/%N.cid",
        "ExecStopPost=-/usr/bin/podman rm --force --ignore --cidfile=%t/%N.cid",
    ]
    return _unit(container) + SERVICE + "\n".join(service) + "\n" + INSTALL


def shell_script(name: str) -> str:
    """The script that opens the container's root shell."""
    return (
        f"#!/bin/sh\n# Managed by ananke.jupyterhub: a root shell in {name}; with arguments: run a command\n"
        f"[ $# -gt 0 ] || set -- /bin/bash --login\n"
        f"[ -t 0 ] && tty=--tty || tty=\n"
        f'exec podman exec --interactive $tty {name} "$@"\n'
    )


def delegated(controllers: str) -> set[str]:
    """The controllers named by a ``cgroup.controllers`` file."""
    return set(controllers.split())


def limit(wanted: dict[str, t.Any], controllers: set[str]) -> tuple[dict[str, t.Any], list[str]]:
    """Split the wanted limits into those that the machine can hold and the names of those that it cannot."""
    needs = {"memory": "memory", "cpus": "cpu", "pids": "pids"}
    held = {key: value for key, value in wanted.items() if value is not None and needs[key] in controllers}
    lost = [key for key, value in wanted.items() if value is not None and needs[key] not in controllers]
    return held, lost
