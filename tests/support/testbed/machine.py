"""Disposable test machines: containers that are to Ansible what a freshly installed Debian server is."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from testbed import base, podman
from testbed.common import BUILD, RUN_DIR, TestbedError, digest, extra_cas, locked, prefix, write_file
from testbed.waiting import until

MACHINES = BUILD / "machines"
IMAGE_FILES = Path(__file__).with_name("machine_image")
IMAGE = "localhost/ananke-machine"
USER = "hostadmin"
ADDRESS = "127.0.0.1"
NETWORK = "10.41.0.0/24"
DEVELOPER = "10.41.0.2"
"""Where a machine finds the services of the developer's machine that listen on its 127.0.0.1."""

VOLUMES = {"home": "/home", "ananke": "/var/lib/ananke", "containers": "/var/lib/containers"}
"""Always there: on a volume, overlay file systems are native; on the container's own layer they cannot be."""

CAPABILITIES = "SYS_ADMIN,NET_ADMIN,NET_RAW,SYS_PTRACE,MKNOD,AUDIT_WRITE,SYS_NICE"
DEVICES = ("b 7:* rwm", "c 10:237 rwm", "c 10:235 rwm")
"""What homes on file system images are mounted by, and what mounts on demand; machine-init makes the nodes."""
PORTS = range(20000, 30000)
"""Below the ports that the kernel hands out, so that a machine gets its own again after a reboot."""

HARDENED = "986"
"""Where the role ssh moves sshd to; a machine that publishes it can be hardened and still be reached."""
LABEL = "ananke.testbed"


@dataclass(frozen=True)
class Machine:
    """A test machine, as build/machines/NAME/machine.json describes it."""

    name: str
    ssh_host: str
    ssh_port: int
    ssh_user: str
    ssh_key: str
    known_hosts: str
    suite: str
    container: str
    published: dict[str, int] = field(default_factory=dict)
    """Port on the machine -> port on the developer's 127.0.0.1."""
    volumes: dict[str, str] = field(default_factory=dict)
    """Volume's short name -> path on the machine."""
    password: str = field(default="", repr=False)
    """The host admin's, which the installer of a real machine asks for."""

    boot_timeout: ClassVar[float] = 90.0
    """Seconds until systemd and sshd must be up; it takes 2 s on an idle machine."""
    ssh_timeout: ClassVar[int] = 5
    """Seconds until sshd must greet."""

    @property
    def directory(self) -> Path:
        """Where the files about this machine are."""
        return Path(self.ssh_key).parent

    @property
    def ssh_config(self) -> Path:
        """A configuration for `ssh -F`, in which the machine's name is its host."""
        return self.directory / "ssh_config"

    def ssh(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command over SSH as the host admin; the arguments are a shell's text, as ever with ssh.

        Raises:
            TestbedError: the command failed and `check` is true.
        """
        options.setdefault("capture_output", True)
        result: subprocess.CompletedProcess[str] = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), self.name, *arguments], text=True, check=False, **options
        )
        if check and result.returncode != 0:
            shown = f"{' '.join(arguments)[:200]}: {(result.stderr or '').strip()[-2000:]}"
            raise TestbedError(f"machine {self.name}: over ssh ({result.returncode}): {shown}")
        return result

    def exec(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program as root on the machine, past SSH.

        Raises:
            TestbedError: the program failed and `check` is true.
        """
        options.setdefault("capture_output", True)
        interactive = ["--interactive"] if options.get("input") is not None else []
        return podman.run(["exec", *interactive, self.container, *arguments], check=check, **options)

    def last_words(self) -> str:
        """Return the end of what the machine has written to its console."""
        logs = podman.run(["logs", "--tail=20", self.container], check=False, capture_output=True)
        return f"{logs.stderr}{logs.stdout}"

    def boot_id(self) -> str:
        """Return what names the machine's present boot."""
        return str(self.exec("cat", "/proc/sys/kernel/random/boot_id").stdout).strip()

    def pid(self) -> int:
        """Return the PID of the machine's systemd as the developer's machine sees it; 0 when it is down."""
        found = podman.run(
            ["container", "inspect", "--format", "{{.State.Pid}}", self.container], check=False, capture_output=True
        )
        return int(found.stdout) if found.returncode == 0 else 0


def directory(name: str) -> Path:
    """Return the folder of what is written about a machine."""
    return MACHINES / name


def check_name(name: str) -> None:
    """Raise TestbedError unless the name suits a host, a container and a folder."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        raise TestbedError(f"machine {name!r}: use at most 31 lower case letters, digits and dashes, a letter first")


def container_name(name: str) -> str:
    """Return the name of a machine's container."""
    return f"{prefix()}-{name}"


def volume_name(container: str, name: str) -> str:
    """Return the name of a machine's volume. Names of machines have no dot, so no machine's begin like another's."""
    return f"{container}.{name}"


def parse_publish(texts: Sequence[str]) -> dict[int, int]:
    """Read HOSTPORT:PORT, :PORT or PORT into {port: host port}, 0 for one to be chosen.

    Raises:
        TestbedError: not such a text, a port out of range, or given twice.
    """
    ports: dict[int, int] = {}
    for text in texts:
        match = re.fullmatch(r"(?:(\d{0,5}):)?(\d{1,5})", text)
        if not match or not 0 < int(match[2]) < 65536 or int(match[1] or 0) > 65535:
            raise TestbedError(f"publish {text!r}: write HOSTPORT:PORT, or :PORT to have a free port chosen")
        if int(match[2]) in ports:
            raise TestbedError(f"publish {text!r}: port {match[2]} is there twice")
        ports[int(match[2])] = int(match[1] or 0)
    return ports


def parse_volumes(texts: Sequence[str]) -> dict[str, str]:
    """Read NAME:PATH into {name: path}, added to the volumes that every machine has.

    Raises:
        TestbedError: not such a text, or a name or path that is taken.
    """
    volumes = dict(VOLUMES)
    for text in texts:
        match = re.fullmatch(r"([a-z][a-z0-9-]{0,30}):(/[^:,]+)", text)
        if not match:
            raise TestbedError(f"volume {text!r}: write NAME:PATH, NAME in lower case letters, PATH absolute")
        if match[1] in volumes or match[2] in volumes.values():
            raise TestbedError(f"volume {text!r}: that name or path is taken; always there: {VOLUMES}")
        volumes[match[1]] = match[2]
    return volumes


def is_free(port: int) -> bool:
    """Tell whether nothing listens on this TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
    return True


def free_port(taken: Sequence[int] = ()) -> int:
    """Return a port of 127.0.0.1 that nobody uses and that is not among the taken ones."""
    for port in random.sample(PORTS, len(PORTS)):
        if port not in taken and is_free(port):
            return port
    raise TestbedError(f"no free port from {PORTS[0]} to {PORTS[-1]} on {ADDRESS}")


def load(name: str) -> Machine:
    """Return a machine that `up` has described.

    Raises:
        TestbedError: there is none of that name.
    """
    check_name(name)
    try:
        return Machine(**json.loads((directory(name) / "machine.json").read_text()))
    except FileNotFoundError:
        raise TestbedError(f"no machine {name!r}: `python -m testbed machine up {name}` makes one") from None


def names() -> list[str]:
    """Return the names of this checkout's machines."""
    return sorted(path.parent.name for path in MACHINES.glob("*/machine.json"))


def image(suite: str) -> str:
    """Return the name of the machines' image of a suite, which is built if it is not there (40 s)."""
    source = base.ensure(suite)
    files = sorted(path for path in IMAGE_FILES.rglob("*") if path.is_file())
    runtime = "" if suite != "bookworm" or podman.look().sys_resource else "runc"
    parts: list[str | bytes] = [source, runtime]
    for path in [*files, *extra_cas()]:
        parts += [str(path.name), path.read_bytes()]
    name = f"{IMAGE}:{suite}-{digest(*parts)}"
    with locked(RUN_DIR / f"machine-image-{suite}.lock"):
        if podman.exists("image", name):
            return name
        with tempfile.TemporaryDirectory(prefix="ananke-testbed-") as folder:
            context = Path(folder) / "context"
            shutil.copytree(IMAGE_FILES, context)
            (context / "cas").mkdir()
            for path in extra_cas():
                shutil.copy(path, context / "cas")
            podman.build(name, context, BASE=source, RUNTIME=runtime)
    return name


def create_arguments(machine: Machine, image_name: str) -> list[str]:
    """Return podman's arguments that create a machine and start it."""
    ports = {"22": machine.ssh_port, **machine.published}
    publish = [f"--publish={machine.ssh_host}:{outside}:{inside}" for inside, outside in ports.items()]
    volumes = [
        f"--volume={volume_name(machine.container, name)}:{path}:suid,dev" for name, path in machine.volumes.items()
    ]
    return [
        "run",
        "--detach",
        f"--name={machine.container}",
        f"--hostname={machine.name}",
        f"--label={LABEL}={prefix()}",
        f"--label={LABEL}.machine={machine.name}",
        "--systemd=always",
        "--restart=always",  # how a reboot comes back: systemd ends, and the container starts again
        f"--network=slirp4netns:cidr={NETWORK},allow_host_loopback=true,enable_ipv6=false",
        f"--cap-add={CAPABILITIES}",
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--security-opt=unmask=ALL",
        "--device=/dev/fuse",
        "--device=/dev/net/tun",
        *(f"--device-cgroup-rule={rule}" for rule in DEVICES),
        "--pids-limit=0",
        *publish,
        *volumes,
        image_name,
    ]


def wait_until(what: str, machine: Machine, ready: Callable[[], bool]) -> None:
    """Wait until `ready` holds.

    Raises:
        TestbedError: it did not in the machine's time for a boot; the message holds the end of its console.
    """
    until(ready, machine.boot_timeout, f"{what} of machine {machine.name}", told=machine.last_words)


def wait_for_systemd(machine: Machine) -> None:
    """Wait until systemd runs; what machine-init does is done by then.

    Raises:
        TestbedError: it took too long.
    """

    def runs() -> bool:
        return machine.exec("test", "-S", "/run/systemd/private", check=False).returncode == 0

    wait_until("systemd", machine, runs)


def settle(machine: Machine) -> None:
    """Wait until the machine has booted, nothing has failed on it and sshd listens.

    Raises:
        TestbedError: a unit failed, or it took too long.
    """
    wait_for_systemd(machine)
    state = machine.exec(
        "timeout", f"{machine.boot_timeout:.0f}", "systemctl", "is-system-running", "--wait", check=False
    )
    if state.stdout.strip() != "running":
        failed = machine.exec("systemctl", "list-units", "--failed", "--plain", "--no-legend", check=False).stdout
        jobs = machine.exec("systemctl", "list-jobs", "--plain", "--no-legend", check=False).stdout
        raise TestbedError(f"machine {machine.name} is {state.stdout.strip() or 'down'}: {failed.strip()}\n{jobs}")

    def listens() -> bool:
        return machine.exec("systemctl", "is-active", "--quiet", "ssh.service", check=False).returncode == 0

    wait_until("sshd", machine, listens)


def authorise(machine: Machine) -> None:
    """Let the machine's key log in, and write down how: known_hosts and ssh_config."""
    public = key_pair(Path(machine.ssh_key), f"{USER}@{machine.name}")
    machine.exec(
        "sh",
        "-c",
        f"install -d -o {USER} -g {USER} -m 700 /home/{USER}/.ssh && cd /home/{USER}/.ssh && "
        f"cat >.new && chown {USER}: .new && chmod 600 .new && mv .new authorized_keys",
        input=public,
    )
    machine.exec("chpasswd", input=f"{USER}:{machine.password}")
    write_access(machine, machine.exec("sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub").stdout)


def key_pair(key: Path, comment: str) -> str:
    """Make a key pair unless it is there, and return the public key."""
    public = key.with_suffix(".pub")
    if not public.exists():
        key.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(key)], check=True)
    return public.read_text()


def write_access(machine: Machine, keys: str) -> None:
    """Write known_hosts with the machine's public host keys, and ssh_config."""
    known = [" ".join(line.split()[:2]) for line in keys.splitlines() if line]
    write_file(
        Path(machine.known_hosts),
        "".join(f"[{machine.ssh_host}]:{machine.ssh_port},{machine.name} {line}\n" for line in known),
    )
    settings = {
        "HostName": machine.ssh_host,
        "HostKeyAlias": machine.name,  # whatever its port
        "Port": machine.ssh_port,
        "User": machine.ssh_user,
        "IdentityFile": machine.ssh_key,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": machine.known_hosts,
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": machine.ssh_timeout,
        "ServerAliveInterval": 15,  # a machine that was reset does not say goodbye
        "LogLevel": "ERROR",
    }
    lines = "".join(f"    {key} {value}\n" for key, value in settings.items())
    write_file(machine.ssh_config, f"Host {machine.name}\n{lines}")


def state(container: str) -> str:
    """Return podman's word for a container's state, '' when there is none."""
    found = podman.run(
        ["container", "inspect", "--format", "{{.State.Status}}", container], check=False, capture_output=True
    )
    return str(found.stdout).strip() if found.returncode == 0 else ""


def plan(
    name: str,
    suite: str | None = None,
    ssh_port: int | None = None,
    publish: Sequence[str] = (),
    volumes: Sequence[str] = (),
    existing: Mapping[str, Any] | None = None,
) -> Machine:
    """Return the machine that is asked for; what is not asked for stays as it exists, or is chosen.

    Raises:
        TestbedError: bad input, or an existing machine that would have to be made anew.
    """
    check_name(name)
    ports = parse_publish(publish)
    wanted_volumes = parse_volumes(volumes)
    before = dict(existing or {})
    suite = suite or before.get("suite") or "trixie"
    base.check_suite(suite)
    known = {int(port): int(outside) for port, outside in before.get("published", {}).items()}
    taken = [port for port in ports.values() if port]
    if before and not ports:
        ports = known
    if not ssh_port:
        ssh_port = before.get("ssh_port") or free_port(taken)
    taken.append(ssh_port)
    for port, outside in ports.items():
        ports[port] = outside or known.get(port) or free_port(taken)
        taken.append(ports[port])
    if before and not volumes:
        wanted_volumes = before.get("volumes", wanted_volumes)
    folder = directory(name)
    machine = Machine(
        name=name,
        ssh_host=ADDRESS,
        ssh_port=ssh_port,
        ssh_user=USER,
        ssh_key=str(folder / "id_ed25519"),
        known_hosts=str(folder / "known_hosts"),
        suite=suite,
        container=container_name(name),
        published={str(port): outside for port, outside in sorted(ports.items())},
        volumes=wanted_volumes,
        password=before.get("password") or secrets.token_urlsafe(12),
    )
    if before:
        differing = [key for key, value in asdict(machine).items() if before.get(key) != value]
        if differing:
            changes = ", ".join(f"{key}: {before.get(key)} -> {asdict(machine)[key]}" for key in differing)
            raise TestbedError(
                f"machine {name} exists with other settings ({changes}): `python -m testbed machine down {name}` first"
            )
    return machine


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    check_name(name)
    with locked(MACHINES / f".{name}.lock"):
        yield


def up(
    name: str,
    suite: str | None = None,
    ssh_port: int | None = None,
    publish: Sequence[str] = (),
    volumes: Sequence[str] = (),
) -> Machine:
    """Make a machine, or start it, and return it when the host admin can log in. Repeating it changes nothing.

    Args:
        name: The machine's name, its host name as well.
        suite: trixie (the default) or bookworm.
        ssh_port: Port of 127.0.0.1 that leads to its sshd; by default a free one, kept from then on.
        publish: HOSTPORT:PORT or :PORT, ports of 127.0.0.1 that lead to ports of the machine.
        volumes: NAME:PATH, volumes beside those for /home, /var/lib/ananke and /var/lib/containers.

    Raises:
        TestbedError: bad input, other settings than those of an existing machine, or it does not boot.
    """
    with _lock(name):
        record = directory(name) / "machine.json"
        present = state(container_name(name))
        existing = json.loads(record.read_text()) if present and record.exists() else None
        if existing is None:  # what a killed run has left behind, nobody has used
            _remove(name)
            present = ""
        machine = plan(name, suite, ssh_port, publish, volumes, existing)
        if existing is None:
            _create(machine, image(machine.suite))
        elif present != "running":
            podman.run(["start", machine.container], capture_output=True)
        wait_for_systemd(machine)
        authorise(machine)
        write_file(record, json.dumps(asdict(machine), indent=2) + "\n", 0o600)
        settle(machine)
        return machine


def refuse_occupied_ports(machine: Machine) -> None:
    """Raise TestbedError where somebody else listens on a port that is to lead to the machine."""
    occupied = [port for port in (machine.ssh_port, *machine.published.values()) if not is_free(port)]
    if occupied:
        raise TestbedError(f"machine {machine.name}: in use on {ADDRESS}: port {', '.join(map(str, occupied))}")


def _create(machine: Machine, image_name: str) -> None:
    refuse_occupied_ports(machine)
    machine.directory.mkdir(parents=True, exist_ok=True)
    try:
        podman.run(create_arguments(machine, image_name), capture_output=True)
    except TestbedError:
        _remove(machine.name)
        raise


def _remove(name: str) -> None:
    """Remove a machine's container and volumes, and what is written about it."""
    container = container_name(name)
    podman.run(["rm", "--force", "--time=0", "--ignore", container], capture_output=True)
    client = directory(name) / "client"
    if client.exists():
        subprocess.run(["ip", "netns", "delete", Path(client.read_text()).name], capture_output=True, check=False)
    found = podman.output(["volume", "ls", "--quiet"]).split()
    ours = [volume for volume in found if volume.startswith(volume_name(container, ""))]
    if ours:
        podman.run(["volume", "rm", "--force", *ours], capture_output=True)
    shutil.rmtree(directory(name), ignore_errors=True)


def down(name: str) -> None:
    """Remove a machine with its volumes; nothing happens when there is none."""
    with _lock(name):
        _remove(name)


def reboot(name: str) -> Machine:
    """Reboot a machine from inside and wait until it is back.

    Raises:
        TestbedError: it does not come back by itself.
    """
    with _lock(name):
        machine = load(name)
        reboot_and_wait(machine)
        return machine


def reboot_and_wait(machine: Machine) -> None:
    """Reboot a machine from inside and wait until it has booted again.

    Raises:
        TestbedError: it does not come back by itself.
    """
    before = machine.boot_id()
    machine.exec("systemctl", "reboot", check=False)

    def rebooted() -> bool:
        found = machine.exec("cat", "/proc/sys/kernel/random/boot_id", check=False)
        return found.returncode == 0 and found.stdout.strip() != before

    wait_until("its next boot", machine, rebooted)
    settle(machine)


def crash(name: str) -> Machine:
    """Take a machine's power away, give it back and wait until it has booted."""
    with _lock(name):
        machine = load(name)
        pid = machine.pid()
        if pid:
            os.kill(pid, signal.SIGKILL)

        def restarted() -> bool:
            if state(machine.container) in ("exited", "stopped"):
                podman.run(["start", machine.container], check=False, capture_output=True)
            return machine.pid() not in (0, pid)

        wait_until("its next boot", machine, restarted)
        settle(machine)
        return machine


def down_all(images: bool = False) -> list[str]:
    """Remove all machines of this checkout, and the holder when nobody else needs it.

    Args:
        images: Remove the test bed's images as well, as far as no other checkout's container uses them.

    Returns:
        The names of the machines that were removed.
    """
    listed = podman.output(
        ["ps", "--all", "--filter", f"label={LABEL}={prefix()}", "--format", f'{{{{index .Labels "{LABEL}.machine"}}}}']
    )
    removed = sorted({*listed.split(), *(path.name for path in MACHINES.glob("[a-z]*"))})
    for name in removed:
        down(name)
    if images:
        podman.remove_images(IMAGE, base.REPOSITORY)
    podman.release()
    return removed
