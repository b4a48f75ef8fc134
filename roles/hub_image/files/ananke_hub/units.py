# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd units in which hub users' processes run: their servers, and commands that are run for them.

Nothing but Python's own library is imported here: commands for users start in a fraction of JupyterHub's own start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

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
#: PATH of users' processes.
PATHS = ("/opt/conda/envs/jhub/bin", "/opt/conda/condabin", "/usr/local/bin", "/usr/bin", "/bin")
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
    """The unit of the server of the user ``name``."""
    return f"jupyter-{name}"


def has_gpus() -> bool:
    """Whether the container has devices that units must see."""
    return any(Path(device).exists() for device in GPU_DEVICES)


def prepare(unit: str) -> None:
    """Make the file that the unit ``unit`` will see as /etc/passwd; the unit's mounts are made before its user is known."""
    Path(ACCOUNT_FOLDER).mkdir(mode=0o755, exist_ok=True)
    passwd = Path(ACCOUNT_FOLDER) / unit
    passwd.write_bytes(Path("/etc/passwd").read_bytes())
    passwd.chmod(0o644)


def forget(unit: str) -> None:
    """Remove what :func:`prepare` made, once the unit has ended."""
    (Path(ACCOUNT_FOLDER) / unit).unlink(missing_ok=True)


def session(name: str, unit: str = "", paths: Iterable[str] = PATHS, shell: str = "/bin/bash") -> dict[str, str]:
    """The environment that makes a session of the dynamic user ``name`` whole."""
    runtime = f"/run/{unit or unit_name(name)}"
    return {
        "HOME": f"/var/lib/{name}",
        "SHELL": shell,
        "PATH": ":".join(paths),
        "XDG_RUNTIME_DIR": runtime,
        # kernels talk through sockets in here: their TCP ports could be listened to by every user of the hub
        "JUPYTER_RUNTIME_DIR": runtime,
    }


def environment(ca_bundle: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """The environment of all users' processes; ``wanted`` is what the hub's description adds to it or changes."""
    # conda's programs bring their own list of CAs, which lacks a site's private ones
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if ca_bundle.exists() else ()
    return {"LANG": "C.UTF-8", **dict.fromkeys(names, str(ca_bundle)), **wanted}


def forgetting(name: str) -> str:
    """The unit that empties the home of the user ``name``; a server's unit names it as what follows its end."""
    return f"ananke-forget@{name}.service"


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
    unit: str = "",
    description: str = "",
) -> dict[str, str | list[str]]:
    """The properties of a unit of the user ``name``. Sizes in bytes; None means no limit.

    ``unit`` and ``description``: those of the user's server, unless given.
    """
    unit = unit or unit_name(name)
    home, passwd = f"/var/lib/{name}", f"{ACCOUNT_FOLDER}/{unit}"
    properties: dict[str, str | list[str]] = {
        **ISOLATION,
        "Description": description or f"JupyterLab of {name}",
        "Type": "exec",
        "User": name,
        "StateDirectory": name,
        "StateDirectoryMode": "0700",
        "RuntimeDirectory": unit,
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
