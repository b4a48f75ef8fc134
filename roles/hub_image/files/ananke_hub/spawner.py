# SPDX-License-Identifier: GPL-3.0-or-later
"""Each hub user's server is a systemd unit of its own, run by a dynamic user that can reach nothing but its home.

What this adds to systemdspawner: a unit that is closed on all sides, limits for swap and tasks, a home directory in
the passwd entry (that of a dynamic user is ``/``), starts that queue instead of being refused when a course begins,
and errors that say where to look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from jupyterhub.utils import random_port
from systemdspawner import SystemdSpawner, systemd
from traitlets import Float, Int, List, Unicode

from . import space
from .paths import Paths

#: Paths that hold the hub's secrets and configuration; nothing of them exists in a hub user's server.
HIDDEN_PATHS = (
    "/var/lib/jupyterhub",
    "/etc/ananke",
    "/opt/conda/envs/jhub/etc/jupyterhub",
    "/run/ananke",
    "/run/lock",  # writable for everybody, so users could pass things to each other
)
#: Device files of GPUs; with any of them in the container, servers keep the container's /dev.
GPU_DEVICES = ("/dev/nvidiactl", "/dev/dri", "/dev/kfd", "/dev/dxg")
ACCOUNT_HELPER = "/usr/local/lib/ananke/passwd-entry"
ACCOUNT_FOLDER = "/run/ananke-passwd"

#: What makes a unit an island. Values are systemd's; see systemd.exec(5).
ISOLATION: Mapping[str, str] = {
    "DynamicUser": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "NoNewPrivileges": "yes",
    "RestrictSUIDSGID": "yes",
    "RemoveIPC": "yes",
    "PrivateIPC": "yes",
    "ProtectProc": "invisible",
    "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectControlGroups": "yes",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "LockPersonality": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
    "SystemCallFilter": "~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap",
    "CapabilityBoundingSet": "",
    "KeyringMode": "private",
    "UMask": "0077",
}


def unit_name(name: str) -> str:
    """The unit of the user ``name``."""
    return f"jupyter-{name}"


def unit_properties(
    name: str,
    *,
    memory: int | None = None,
    swap: int | None = None,
    tasks: int | None = None,
    cpus: float | None = None,
    private_tmp: bool = True,
    private_devices: bool = True,
    readonly_paths: Iterable[str] = (),
    readwrite_paths: Iterable[str] = (),
) -> dict[str, str | list[str]]:
    """The properties of the unit of the user ``name``. Sizes in bytes; None means no limit."""
    home, passwd = f"/var/lib/{name}", f"{ACCOUNT_FOLDER}/{name}"
    properties: dict[str, str | list[str]] = {
        **ISOLATION,
        "Description": f"JupyterLab of {name}",
        "Type": "exec",
        "User": name,
        "StateDirectory": name,
        "StateDirectoryMode": "0700",
        "RuntimeDirectory": unit_name(name),
        "RuntimeDirectoryMode": "0700",
        "RuntimeDirectoryPreserve": "no",
        "PrivateTmp": "yes" if private_tmp else "no",
        "PrivateDevices": "yes" if private_devices else "no",
        # /dev/shm is one for all units; each gets its own
        "TemporaryFileSystem": "/dev/shm:mode=1777,nosuid,nodev",  # noqa: S108
        "InaccessiblePaths": [f"-{path}" for path in HIDDEN_PATHS],
        # ssh, ssh-keygen and others take the home directory from passwd. The helper runs as root once systemd has
        # picked the UID; the copy is seen in this unit only.
        "ExecStartPre": f"+{ACCOUNT_HELPER} {name} {home} {passwd}",
        "BindReadOnlyPaths": f"{passwd}:/etc/passwd",
        "KillMode": "mixed",
        "TimeoutStopSec": "20",
        "OOMPolicy": "continue",
        "CollectMode": "inactive-or-failed",
        "ReadOnlyPaths": list(readonly_paths),
        "ReadWritePaths": list(readwrite_paths),
    }
    if memory is not None:
        properties["MemoryMax"] = str(memory)
    if swap is not None:
        properties["MemorySwapMax"] = str(swap)
    if tasks is not None:
        properties["TasksMax"] = str(tasks)
    if cpus is not None:
        properties["CPUQuota"] = f"{max(1, round(cpus * 100))}%"
    return properties


class Queue:
    """Lets a number of starts through at a time, in the order of their arrival."""

    def __init__(self, places: int) -> None:
        self._semaphore = asyncio.Semaphore(places)
        self.waiting: list[object] = []

    def before(self, ticket: object) -> int | None:
        """How many wait before ``ticket``; None if it does not wait."""
        return self.waiting.index(ticket) if ticket in self.waiting else None

    async def enter(self, ticket: object) -> None:
        self.waiting.append(ticket)
        try:
            await self._semaphore.acquire()
        finally:
            self.waiting.remove(ticket)

    def leave(self) -> None:
        self._semaphore.release()


class StartFailed(Exception):
    """A server did not start; shown to its user by JupyterHub as ``jupyterhub_message``."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.jupyterhub_message = message


class AnankeSpawner(SystemdSpawner):
    """A hub user's server in an isolated systemd unit."""

    swap_limit = Int(None, allow_none=True, config=True, help="Bytes of swap for each server; None: no limit.")
    tasks_limit = Int(None, allow_none=True, config=True, help="Processes and threads of each server; None: no limit.")
    concurrent_starts = Int(8, min=1, config=True, help="Servers that may be starting at a time; further ones queue.")
    server_start_timeout = Int(120, min=1, config=True, help="Seconds for a server's start, not counting the queue.")
    poll_interval_start = Float(0.2, min=0.05, config=True, help="Seconds between looks at a starting server.")
    server_paths = List(
        Unicode(),
        default_value=[
            "/opt/conda/envs/jhub/bin",
            "/opt/conda/condabin",
            "/usr/local/bin",
            "/usr/bin",
            "/bin",
        ],
        config=True,
        help="PATH of servers.",
    )

    _queue: ClassVar[Queue | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unit_name = unit_name(self.user.name)

    @classmethod
    def queue(cls, places: int) -> Queue:
        if AnankeSpawner._queue is None:
            AnankeSpawner._queue = Queue(places)
        return AnankeSpawner._queue

    def server_environment(self) -> dict[str, str]:
        """The environment of the user's server: the hub's, then what makes a dynamic user's session whole."""
        home, runtime = f"/var/lib/{self.user.name}", f"/run/{self.unit_name}"
        own = {
            "HOME": home,
            "SHELL": self.default_shell or "/bin/bash",
            "PATH": ":".join([self._expand_user_vars(path) for path in self.extra_paths] + self.server_paths),
            "XDG_RUNTIME_DIR": runtime,
            # kernels talk through sockets in here: their TCP ports could be listened to by every user of the hub
            "JUPYTER_RUNTIME_DIR": runtime,
        }
        if space.notice(self.user.name, Paths.current()):
            # JupyterLab and kernels write settings when they start, and would end where they cannot: nobody could delete anything
            own.update({"JUPYTER_CONFIG_DIR": f"{runtime}/jupyter", "IPYTHONDIR": f"{runtime}/ipython"})
        declared: dict[str, str] = self.get_env()
        return {**declared, **{key: value for key, value in own.items() if key not in self.environment}}

    def refuse_foreign_home(self) -> None:
        """Raise StartFailed if the user's name belongs to something else: systemd would hand it over to the user."""
        name = self.user.name
        static = {line.split(":", 1)[0] for line in Path("/etc/passwd").read_text().splitlines()}
        state = Path("/var/lib") / name
        if name in static or (state.exists() and not state.is_symlink()):
            raise StartFailed(
                f"The user name {name} is that of a system account or folder of this hub. Tell whoever runs this "
                "hub: another "
                "hub_lti_username_prefix avoids such names."
            )

    async def start(self) -> tuple[str, int]:
        queue = self.queue(self.concurrent_starts)
        await queue.enter(self)
        try:
            return await self._start_unit()
        finally:
            queue.leave()

    async def _start_unit(self) -> tuple[str, int]:
        self.refuse_foreign_home()
        shortage = space.notice(self.user.name, Paths.current())
        if shortage:  # who cannot save must be able to delete, so the server starts all the same
            self.log.warning("%s: %s", self.user.name, shortage)
        self.port = random_port()
        if await systemd.service_running(self.unit_name):
            self.log.warning("%s runs unknown to the hub; it is stopped first.", self.unit_name)
            await systemd.stop_service(self.unit_name)
        gpus = any(Path(device).exists() for device in GPU_DEVICES)
        properties = unit_properties(
            self.user.name,
            memory=self.mem_limit,
            swap=self.swap_limit,
            tasks=self.tasks_limit,
            cpus=self.cpu_limit,
            private_tmp=self.isolate_tmp,
            private_devices=self.isolate_devices and not gpus,
            readonly_paths=[self._expand_user_vars(path) for path in self.readonly_paths or ()],
            readwrite_paths=[self._expand_user_vars(path) for path in self.readwrite_paths or ()],
        )
        properties.update(self.unit_extra_properties)
        Path(ACCOUNT_FOLDER).mkdir(mode=0o755, exist_ok=True)
        passwd = Path(ACCOUNT_FOLDER) / self.user.name
        passwd.write_bytes(Path("/etc/passwd").read_bytes())  # the unit's mounts are made before its user is known
        passwd.chmod(0o644)
        code = await systemd.start_transient_service(
            self.unit_name,
            cmd=list(self.cmd),
            args=self.get_args(),
            working_dir=f"/var/lib/{self.user.name}",
            environment_variables=self.server_environment(),
            properties=properties,
            slice=self.slice,
        )
        if code != 0:
            raise StartFailed(self._failure("could not be started"))
        await self._wait_until_listening()
        return self.ip or "127.0.0.1", self.port

    def _failure(self, what: str) -> str:
        shortage = space.notice(self.user.name, Paths.current())
        return (f"{shortage} " if shortage else "") + (
            f"Your server {what}. Try again; if it fails again, tell whoever runs this hub: the reason is in the "
            "output of "
            f"'journalctl -u {self.unit_name}' in the hub's container."
        )

    async def _wait_until_listening(self) -> None:
        """Return when the server accepts connections; the hub then asks it by HTTP."""
        end = time.monotonic() + self.server_start_timeout
        while time.monotonic() < end:
            try:
                _, writer = await asyncio.open_connection(self.ip or "127.0.0.1", self.port)
            except OSError:
                if not await systemd.service_running(self.unit_name):
                    raise StartFailed(self._failure("stopped while it was starting")) from None
                await asyncio.sleep(self.poll_interval_start)
            else:
                writer.close()
                return
        await systemd.stop_service(self.unit_name)
        raise StartFailed(self._failure(f"did not answer within {self.server_start_timeout} seconds"))

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What the spawn page shows while one waits."""
        shortage = space.notice(self.user.name, Paths.current())
        if shortage:
            yield {"progress": 5, "message": shortage}
        queue = self.queue(self.concurrent_starts)
        shown: int | None = -1
        while True:
            before = queue.before(self)
            if before != shown:
                shown = before
                if before is None:
                    yield {"progress": 50, "message": "Your server is starting."}
                    return
                yield {
                    "progress": 10,
                    "message": f"Many servers start at the moment, {before} before yours. Yours starts by itself.",
                }
            await asyncio.sleep(1)
