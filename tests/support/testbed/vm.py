"""Virtual machines: what containers cannot be, with a kernel, control groups, swap and reboots of their own.

They run without the processor's help, since that is not to be had everywhere, and so take some ten times as long as the
computer itself. What can be done elsewhere is done elsewhere: disks are made by containers, at full speed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from testbed import emulator, podman
from testbed import machine as machines
from testbed.client import HARDENED, typing
from testbed.common import BUILD, RUN_DIR, TestbedError, digest, locked, write_file

VMS = BUILD / "vms"
DISKS = BUILD / "vm-disks"
IMAGE_FILES = Path(__file__).with_name("vm_image")
IMAGE = "localhost/ananke-vm"
SUITE = "trixie"
ADDRESS = "10.41.0.100"
NAMESERVER = "10.41.0.3"
MEMORY = 3072
"""MiB."""
DISK_SIZE = "12G"
"""Of each disk; its file takes what is written."""
BOOT_TIMEOUT = 900
"""Seconds; a boot took 222 on two cores at load 4."""
CPU = "max,-cx16,-avx,-avx2,-erms,-fsrm,-la57"
"""With cx16, Debian's kernel panics in emulation; what the others do for speed costs time there."""
KERNEL = (
    *("root=/dev/vda", "rw", "console=ttyS0", "quiet"),
    "panic=-1",  # emulated CPUs sometimes meet a half-patched kernel (int3); the next boot does not
    "mitigations=off",  # they guard against neighbours that this machine has not, and cost time
    *(f"systemd.default_{what}_sec={BOOT_TIMEOUT}" for what in ("timeout_start", "device_timeout")),
)
"""The kernel's command line."""
NO_CONNECTION = 255
"""What ssh returns when there was none."""


@dataclass(frozen=True)
class Vm(machines.Machine):
    """A virtual machine, as build/vms/NAME/machine.json describes it."""

    memory: int = MEMORY
    """MiB."""
    root: str = ""
    """Folder with the kernel and the disk that this one began as."""
    disks: dict[str, str] = field(default_factory=dict)
    """Path on the machine -> image that the disk there began as."""

    boot_timeout: ClassVar[float] = float(BOOT_TIMEOUT)
    ssh_timeout: ClassVar[int] = 20

    def ssh(
        self, *arguments: str, check: bool = True, terminal: bool = False, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command over SSH as the host admin, on the port that a hardened machine has, or on its first one."""
        options.setdefault("capture_output", True)
        if options.get("input") is None:
            options.setdefault("stdin", subprocess.DEVNULL)
        self.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        # greetings take an emulated machine seconds: one connection serves for many commands
        keep = ("ControlMaster=auto", "ControlPersist=600", f"ControlPath={self.sockets}/%C")
        line = [
            "ssh",
            *["-t"] * terminal,
            "-F",
            str(self.ssh_config),
            *(text for option in keep for text in ("-o", option)),
        ]
        hardened = self.published.get(str(HARDENED))
        for port in [hardened, self.ssh_port] if hardened else [self.ssh_port]:
            done: subprocess.CompletedProcess[str] = subprocess.run(
                [*line, "-p", str(port), self.name, *arguments],
                text=True,
                check=False,
                env=typing(self.directory, self.password),
                **options,
            )
            if done.returncode != NO_CONNECTION:
                break
        if check and done.returncode != 0:
            shown = f"{' '.join(arguments)[:200]}: {(done.stderr or '').strip()[-2000:]}"
            raise TestbedError(f"virtual machine {self.name}: over ssh ({done.returncode}): {shown}")
        return done

    @property
    def sockets(self) -> Path:
        """Folder of connections that are kept."""
        return RUN_DIR / "vms" / digest(str(self.directory))

    def exec(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program as root; there is no other way in than SSH."""
        return self.ssh("sudo", "-n", shlex.join(arguments), check=check, **options)

    def last_words(self) -> str:
        """Return the end of what the machine has written to its console."""
        try:
            return (self.directory / "console.log").read_text(errors="replace")[-2000:]
        except FileNotFoundError:
            return ""

    def pid(self) -> int:
        """Return the PID of the emulator; 0 when the machine is off."""
        record = self.directory / "qemu.pid"
        try:
            pid = int(record.read_text())
            ours = str(record).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        return pid if ours else 0


def load(name: str) -> Vm:
    """Return a virtual machine that `up` has described.

    Raises:
        TestbedError: there is none of that name.
    """
    machines.check_name(name)
    try:
        return Vm(**json.loads((VMS / name / "machine.json").read_text()))
    except FileNotFoundError:
        raise TestbedError(f"no virtual machine {name!r}: `python -m testbed vm up {name}` makes one") from None


def names() -> list[str]:
    """Return the names of this checkout's virtual machines."""
    return sorted(path.parent.name for path in VMS.glob("*/machine.json"))


def image() -> str:
    """Return the name of the image with all that is on a new disk, which is built if it is not there (45 s)."""
    source = machines.image(SUITE)
    files = sorted(path for path in IMAGE_FILES.rglob("*") if path.is_file())
    parts = [part for path in files for part in (str(path.relative_to(IMAGE_FILES)), path.read_bytes())]
    name = f"{IMAGE}:{SUITE}-{digest(source, *parts)}"
    with locked(RUN_DIR / "vm-image.lock"):
        if not podman.exists("image", name):
            podman.build(name, IMAGE_FILES, MACHINE=source)
    return name


def write_disk(mount: Sequence[str], folder: Path, extra: str = "true") -> None:
    """Write a file system with the files that a mount shows as /source; nothing is mounted on this computer.

    Args:
        mount: podman's arguments that mount /source.
        folder: What gets the image `disk.img`; it appears complete or not at all, and replaces unused ones of its kind,
            which is what its name begins with.
        extra: A shell command that puts further files into /target.
    """
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    script = (
        f"{extra} && truncate --size={DISK_SIZE} /target/disk.img && "
        "mke2fs -q -t ext4 -m 0 -E nodiscard -d /source /target/disk.img"
    )
    # security labels of the container must not end up on the disk
    options = ["--rm", "--network=none", "--security-opt=label=disable", f"--volume={draft}:/target"]
    podman.run(["run", *options, *mount, machines.image(SUITE), "sh", "-ec", script], capture_output=True)
    used = [path for vm in map(load, names()) for path in (vm.root, *vm.disks.values())]
    for former in DISKS.glob(f"{folder.name.partition('-')[0]}-*"):
        if not any(path.startswith(str(former)) for path in used):
            shutil.rmtree(former)
    draft.rename(folder)


def root_disk() -> Path:
    """Return the folder with a new machine's kernel and disk, which are made if they are not there (15 s)."""
    name = image()
    folder = DISKS / f"root-{digest(name, DISK_SIZE)}"
    with locked(DISKS / ".root.lock"):
        if not folder.exists():
            mount = [f"--mount=type=image,source={name},destination=/source"]
            write_disk(mount, folder, "cp -L /source/vmlinuz /source/initrd.img /target")
    return folder


def volume_disk(volume: str, name: str) -> Path:
    """Return the image of a disk with the files of a container's volume, which is made if it is not there.

    Args:
        volume: The volume.
        name: What the disk is called; it must change with the content.
    """
    folder = DISKS / name
    with locked(DISKS / ".volume.lock"):
        if not folder.exists():
            write_disk([f"--volume={volume}:/source:ro"], folder)
    return folder / "disk.img"


def plan(
    name: str,
    ssh_port: int | None,
    publish: Sequence[str],
    memory: int | None,
    disks: Mapping[str, str],
    existing: Vm | None,
) -> Vm:
    """Return the machine that is asked for; what is not asked for stays as it exists, or is chosen.

    Raises:
        TestbedError: bad input, or an existing machine that would have to be made anew.
    """
    machines.check_name(name)
    ports = machines.parse_publish(publish)
    known = existing.published if existing else {}
    taken = [port for port in ports.values() if port]
    ssh_port = ssh_port or (existing.ssh_port if existing else machines.free_port(taken))
    taken.append(ssh_port)
    published = {}
    for inside, outside in sorted(ports.items()):
        published[str(inside)] = outside or known.get(str(inside)) or machines.free_port(taken)
        taken.append(published[str(inside)])
    folder = VMS / name
    wanted = Vm(
        name=name,
        ssh_host=machines.ADDRESS,
        ssh_port=ssh_port,
        ssh_user=machines.USER,
        ssh_key=str(folder / "id_ed25519"),
        known_hosts=str(folder / "known_hosts"),
        suite=SUITE,
        container="",
        published=published or known,
        password=existing.password if existing else secrets.token_urlsafe(12),
        memory=memory or (existing.memory if existing else MEMORY),
        root=existing.root if existing else "",
        disks=dict(disks) or (existing.disks if existing else {}),
    )
    if existing and wanted != existing:
        raise TestbedError(
            f"virtual machine {name} exists with other settings: `python -m testbed vm down {name}` first"
        )
    return wanted


def qemu_arguments(vm: Vm, cpus: int) -> list[str]:
    """Return the emulator's arguments."""
    ports = {"22": vm.ssh_port, **vm.published}
    forwards = [f"hostfwd=tcp:{vm.ssh_host}:{outside}-{ADDRESS}:{inside}" for inside, outside in ports.items()]
    network = [f"user,id=net,net={machines.NETWORK},host={machines.DEVELOPER},dns={NAMESERVER}", *forwards]
    drives = [path for number in range(1 + len(vm.disks)) for path in ("-drive", _drive(vm.directory, number))]
    kernel = [*KERNEL, f"systemd.hostname={vm.name}"]
    mounts = [f"systemd.mount-extra=/dev/vd{'bcdefgh'[number]}:{path}:ext4" for number, path in enumerate(vm.disks)]
    return [
        "qemu-system-x86_64",
        *("-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", str(cpus), "-m", str(vm.memory)),
        *("-kernel", f"{vm.root}/vmlinuz", "-initrd", f"{vm.root}/initrd.img", "-append", " ".join([*kernel, *mounts])),
        *drives,
        *("-netdev", ",".join(network), "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"),
        *("-fw_cfg", f"name=opt/io.systemd.credentials/tmpfiles.extra,file={vm.directory / 'tmpfiles'}"),
        *("-display", "none", "-monitor", "none", "-serial", f"file:{vm.directory / 'console.log'}"),
        *("-pidfile", str(vm.directory / "qemu.pid")),
    ]


def _container(name: str) -> str:
    return f"{machines.container_name(name)}-emulator"


def _disk(folder: Path, number: int) -> Path:
    return folder / f"disk{number}.qcow2"


def _drive(folder: Path, number: int) -> str:
    return f"file={_disk(folder, number)},format=qcow2,if=virtio,cache=unsafe"


def credentials(name: str, user_key: str, host_key: str) -> str:
    """Return lines for systemd-tmpfiles that let the host admin in and give the machine its own key and name."""

    def line(kind: str, path: str, owner: str, text: str, mode: str = "0600") -> str:
        return f"{kind} {path} {mode} {owner} {owner} - {base64.b64encode(text.encode()).decode()}\n"

    folder = f"/home/{machines.USER}/.ssh"
    return (
        f"d {folder} 0700 {machines.USER} {machines.USER} -\n"
        + line("f+~", f"{folder}/authorized_keys", machines.USER, user_key)
        + line("f+~", "/etc/ssh/ssh_host_ed25519_key", "root", host_key)
        + line("f+~", "/etc/resolv.conf", "root", f"nameserver {NAMESERVER}\n", "0644")
        + line("f+~", "/etc/hosts", "root", f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n", "0644")
    )


def _create(vm: Vm) -> None:
    vm.directory.mkdir(parents=True, exist_ok=True)
    host_key = vm.directory / "host_ed25519"
    public = machines.key_pair(host_key, vm.name)
    user_key = machines.key_pair(Path(vm.ssh_key), f"{vm.ssh_user}@{vm.name}")
    write_file(vm.directory / "tmpfiles", credentials(vm.name, user_key, host_key.read_text()), 0o600)
    machines.write_access(vm, public)
    for number, origin in enumerate([f"{vm.root}/disk.img", *vm.disks.values()]):
        options = ["-q", "-f", "qcow2", "-F", "raw", "-b", origin]
        emulator.output("qemu-img", "create", *options, str(_disk(vm.directory, number)))


def _start(vm: Vm) -> None:
    machines.refuse_occupied_ports(vm)
    cpus = min(2, os.cpu_count() or 1)
    emulator.start(_container(vm.name), qemu_arguments(vm, cpus), vm.pid)


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    machines.check_name(name)
    with locked(VMS / f".{name}.lock"):
        yield


def up(
    name: str,
    ssh_port: int | None = None,
    publish: Sequence[str] = (),
    memory: int | None = None,
    disks: Mapping[str, str] | None = None,
) -> Vm:
    """Make a virtual machine, or start it, and return it when the host admin can log in.

    Args:
        name: The machine's name, its host name as well.
        ssh_port: Port of 127.0.0.1 that leads to its sshd; by default a free one, kept from then on.
        publish: HOSTPORT:PORT or :PORT, ports of 127.0.0.1 that lead to ports of the machine.
        memory: MiB.
        disks: Path on the machine -> image of a file system; what is written there is the machine's alone.

    Raises:
        TestbedError: bad input, other settings than those of an existing machine, or it does not boot.
    """
    with _lock(name):
        record = VMS / name / "machine.json"
        existing = load(name) if record.exists() else None
        vm = plan(name, ssh_port, publish, memory, disks or {}, existing)
        if existing is None:
            _remove(name)
            vm = Vm(**{**asdict(vm), "root": str(root_disk())})
            _create(vm)
            write_file(record, json.dumps(asdict(vm), indent=2) + "\n")
        if not vm.pid():
            _start(vm)
        machines.wait_for_systemd(vm)
        machines.settle(vm)
        if existing is None:
            vm.exec("chpasswd", input=f"{vm.ssh_user}:{vm.password}")
        return vm


def _remove(name: str) -> None:
    """Take a machine's power away, and remove its disks and what is written about it."""
    if (VMS / name / "machine.json").exists():
        shutil.rmtree(load(name).sockets, ignore_errors=True)
        emulator.end(_container(name))
    shutil.rmtree(VMS / name, ignore_errors=True)


def down(name: str) -> None:
    """Remove a virtual machine; nothing happens when there is none. What its disks began as stays."""
    with _lock(name):
        _remove(name)


def reboot(name: str) -> Vm:
    """Reboot a virtual machine from inside and wait until it is back.

    Raises:
        TestbedError: it does not come back by itself.
    """
    with _lock(name):
        vm = load(name)
        machines.reboot_and_wait(vm)
        return vm


def crash(name: str) -> Vm:
    """Take a virtual machine's power away, and with it what it has not written to its disks; give it back and wait until it has booted.

    Disks have what the machine has asked them to keep: the emulator hands that to this computer, which does not lose it.

    Raises:
        TestbedError: it does not come back by itself.
    """
    with _lock(name):
        vm = load(name)
        emulator.end(_container(name))
        shutil.rmtree(vm.sockets, ignore_errors=True)  # nobody is at the other end any more
        _start(vm)
        machines.wait_for_systemd(vm)
        machines.settle(vm)
        return vm


def down_all(images: bool = False) -> list[str]:
    """Remove all virtual machines of this checkout and return their names.

    Args:
        images: Remove what their disks began as, too.
    """
    removed = names()
    for name in removed:
        down(name)
    if images:
        shutil.rmtree(DISKS, ignore_errors=True)
        podman.remove_images(IMAGE, emulator.IMAGE)
    return removed
