"""Podman on the developer's machine, as it is there.

A machine with systemd and cgroup v2 needs nothing: podman is called plainly. Anywhere else
(a build server, a small virtual machine, a machine with cgroup v1) two things differ: a
containers.conf of our own, and a private mount namespace in which /sys/fs/cgroup is cgroup v2, kept by
one long-lived holder process for the whole machine. Containers with systemd need both; the
machine itself is not changed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.common import RUN_DIR, TestbedError, locked, write_file

CONF = RUN_DIR / "containers.conf"
HOLDER = RUN_DIR / "holder.json"
LOCK = RUN_DIR / "lock"
MARKER = "ananke-testbed"
"""Source of the holder's cgroup mount: it tells the holder's namespace from all others in mountinfo."""

CAP_SYS_RESOURCE = 24
PROC = Path("/proc")
CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")


@dataclass(frozen=True)
class Facts:
    """What decides how podman is called."""

    cgroup2: bool
    """/sys/fs/cgroup is cgroup v2 and nothing else."""
    systemd: bool
    """systemd is PID 1, so podman may ask it for scopes and write to the journal."""
    sys_resource: bool
    """Processes may raise their resource limits."""
    nofile: int = 1048576
    """Hard limit of open files, to stay below where limits cannot be raised."""
    pids: bool = True
    """Cgroup v2 can count tasks. Within a container it often cannot: nobody delegated that controller."""

    @property
    def ordinary(self) -> bool:
        """True where podman needs no help."""
        return self.cgroup2 and self.systemd and self.sys_resource and self.pids


@functools.cache
def look() -> Facts:
    """Look at this machine."""
    filesystem = subprocess.run(
        ["stat", "--file-system", "--format=%T", "/sys/fs/cgroup"], capture_output=True, text=True, check=False
    ).stdout.strip()
    capabilities = next(
        (int(line.split()[1], 16) for line in (PROC / "self/status").read_text().splitlines() if line[:7] == "CapEff:"),
        0,
    )
    limits = (PROC / "self/limits").read_text().splitlines()
    nofile = next((line.split()[4] for line in limits if line.startswith("Max open files")), "unlimited")
    return Facts(
        cgroup2=filesystem == "cgroup2fs",
        systemd=Path("/run/systemd/system").is_dir(),
        sys_resource=bool(capabilities >> CAP_SYS_RESOURCE & 1),
        nofile=1048576 if nofile == "unlimited" else int(nofile),
        pids=CONTROLLERS.exists() and "pids" in CONTROLLERS.read_text().split(),
    )


def containers_conf(facts: Facts) -> str:
    """Return the containers.conf that such a machine needs; empty where podman's defaults work."""
    containers: list[str] = []
    engine: list[str] = []
    if not facts.sys_resource:
        nofile = min(facts.nofile, 1048576)
        containers.append(f'default_ulimits = ["nofile={nofile}:{nofile}", "nproc=32768:32768"]')
    if not (facts.cgroup2 and facts.pids):
        containers.append("pids_limit = 0")
    if not (facts.cgroup2 and facts.sys_resource):
        # Debian 12's crun refuses a cgroup v2 tree without controllers, and wants to raise the limit of locked memory
        engine.append('runtime = "runc"')
    if not (facts.systemd and facts.cgroup2):
        containers.append('log_driver = "k8s-file"')
        engine += ['cgroup_manager = "cgroupfs"', 'events_logger = "file"']
    if not (containers or engine):
        return ""
    sections = [("containers", containers), ("engine", engine), ("network", ['network_backend = "netavark"'])]
    return "".join(f"[{name}]\n" + "".join(f"{line}\n" for line in lines) for name, lines in sections if lines)


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when there is no such process."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # the second field is the program's name in parentheses, which may contain anything
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _marked(pid: int) -> bool:
    """Tell whether a process lives in the holder's mount namespace."""
    try:
        lines = (PROC / str(pid) / "mountinfo").read_text().splitlines()
    except OSError:
        return False
    return any(f" - cgroup2 {MARKER} " in line and line.split()[4] == "/sys/fs/cgroup" for line in lines)


def _namespace(pid: int) -> str:
    try:
        return os.readlink(PROC / str(pid) / "ns/mnt")
    except OSError:
        return ""


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def _known_holder() -> int | None:
    """Return the PID of the holder that is on record, if that very process still runs."""
    try:
        record = json.loads(HOLDER.read_text())
        pid, started = int(record["pid"]), int(record["start_time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if start_time(pid) == started and _marked(pid) else None


def _surviving_namespace() -> int | None:
    """Open the mount namespace of containers that outlived their holder; open, it stays even if they end meanwhile."""
    for pid in _pids():
        if _marked(pid):
            with contextlib.suppress(OSError):
                return os.open(PROC / str(pid) / "ns/mnt", os.O_RDONLY)
    return None


def _start_holder() -> int:
    """Start a holder: in the namespace of containers that outlived theirs, or else in a new one."""
    namespace = _surviving_namespace()
    if namespace is None:
        enter = ["unshare", "--mount", "--propagation", "private", "--"]
        # the tmpfs between: the kernel may refuse to stack cgroup v2 on itself, which is where tests make a holder
        prepare = f"mount -t tmpfs {MARKER} /sys/fs/cgroup && mount -t cgroup2 {MARKER} /sys/fs/cgroup && "
    else:
        enter = ["nsenter", f"--mount=/proc/self/fd/{namespace}", "--"]
        prepare = ""
    process = subprocess.Popen(
        [*enter, "sh", "-c", f"{prepare}cd / && exec sleep infinity"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        pass_fds=() if namespace is None else (namespace,),
    )
    if namespace is not None:
        os.close(namespace)
    deadline = time.monotonic() + 10
    while not (_marked(process.pid) and (PROC / str(process.pid) / "comm").read_text() == "sleep\n"):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise TestbedError(
                "cannot prepare a mount namespace with cgroup v2 for podman (this needs root and CAP_SYS_ADMIN): "
                + (process.communicate()[1].strip() or "no message")
            )
        time.sleep(0.02)
    if process.stderr:
        process.stderr.close()
    process.returncode = 0  # it outlives us on purpose: no warning about a child that still runs
    write_file(HOLDER, json.dumps({"pid": process.pid, "start_time": start_time(process.pid)}) + "\n")
    return process.pid


def command(arguments: Sequence[str], cwd: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the command line that runs podman with these arguments here, starting the holder if needed.

    Raises:
        TestbedError: not root, no podman, or the namespace cannot be made.
    """
    if os.geteuid() != 0:
        raise TestbedError("the test bed needs root: its machines are podman containers of root")
    if shutil.which("podman") is None:
        raise TestbedError("podman is not installed: `make setup` installs it")
    facts = look()
    if facts.ordinary:
        return ["podman", *arguments]
    with locked(LOCK):
        conf = containers_conf(facts)
        if not CONF.exists() or CONF.read_text() != conf:
            write_file(CONF, conf)
        environment = ["env", f"--chdir={os.fspath(cwd) if cwd else os.getcwd()}", f"CONTAINERS_CONF={CONF}"]
        if facts.cgroup2:
            return [*environment, "podman", *arguments]
        holder = _known_holder() or _start_holder()
    return ["nsenter", "--target", str(holder), "--mount", "--", *environment, "podman", *arguments]


def popen(arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start podman; options are those of subprocess.Popen."""
    return subprocess.Popen(command(arguments, options.get("cwd")), **options)


def run(arguments: Sequence[str], *, check: bool = True, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run podman to its end; options are those of subprocess.run, with text=True as default.

    Raises:
        TestbedError: podman failed and `check` is true; the message holds the end of its error output if
            that was captured.
    """
    options.setdefault("text", True)
    result = subprocess.run(command(arguments, options.get("cwd")), check=False, **options)
    if check and result.returncode != 0:
        message = result.stderr or ""
        tail = (message if isinstance(message, str) else message.decode(errors="replace")).strip()[-2000:]
        shown = " ".join(arguments[:3])
        raise TestbedError(f"podman {shown} ... failed ({result.returncode})" + (f": {tail}" if tail else ""))
    return result


def output(arguments: Sequence[str], **options: Any) -> str:
    """Run podman and return what it prints, without surrounding white space."""
    return str(run(arguments, capture_output=True, **options).stdout).strip()


def exists(kind: str, name: str) -> bool:
    """Tell whether podman has a 'container', 'image' or 'volume' of that name."""
    return run([kind, "exists", name], check=False, capture_output=True).returncode == 0


def build(name: str, context: Path, **settings: str) -> None:
    """Build an image from a folder with a Containerfile; settings are its ARGs.

    Raises:
        TestbedError: with the end of what the build printed.
    """
    print(f"Building {name}", file=sys.stderr)
    chosen = [f"--build-arg={key}={value}" for key, value in settings.items()]
    arguments = ["build", "--network=host", *chosen, "--tag", name, str(context)]
    built = run(arguments, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if built.returncode != 0:
        raise TestbedError(f"building {name} failed: {built.stdout.strip()[-4000:]}")


def remove_images(*repositories: str) -> None:
    """Remove images, except such that a container uses, of whatever checkout."""
    for reference in output(["images", "--format", "{{.Repository}}:{{.Tag}}"]).split():
        # never by force: that would take other checkouts' machines along
        if reference.rpartition(":")[0] in repositories:
            run(["rmi", reference], check=False, capture_output=True)


def release() -> bool:
    """End the holder and forget our files, unless something else lives in its namespace.

    Returns:
        True when nothing of the holder is left.
    """
    with locked(LOCK):
        holder = _known_holder()
        if holder is not None:
            namespace = _namespace(holder)
            if any(pid != holder and _namespace(pid) == namespace for pid in _pids()):
                return False
            os.kill(holder, signal.SIGKILL)
        for path in (HOLDER, CONF):
            path.unlink(missing_ok=True)
    return True
