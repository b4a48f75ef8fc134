"""Proof that a test machine is what it claims to be: every promise of the test bed, kept once for real."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from testbed import machine, podman
from testbed.common import BUILD, TestbedError, write_file
from testbed.waiting import until

ACCOUNT = "prover"
UID = 2001
INSIDE_PORT = 8100
PAGE = "the page of a container"
CONTEXT = """FROM localhost/prove-base
RUN apt-get update -q
RUN DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \\
    systemd systemd-sysv dbus python3 libnss-systemd ca-certificates
STOPSIGNAL SIGRTMIN+3
"""
STORAGE = '[storage]\ndriver = "overlay"\n'
UNIT = f"""[Unit]
Description=A container with systemd that comes back with its machine
[Service]
ExecStartPre=-/usr/bin/podman rm --force --time 0 inner
ExecStart=/usr/bin/podman run --rm --name inner --cap-add SYS_ADMIN -p 127.0.0.1:{INSIDE_PORT}:8000 \
  -v %h/page:/srv:ro localhost/prove /sbin/init
ExecStartPost=/bin/sh -c 'until podman exec inner systemctl is-active -q multi-user.target; do sleep 0.2; done'
ExecStartPost=/usr/bin/podman exec inner systemd-run -q -u web python3 -m http.server -d /srv 8000
ExecStop=/usr/bin/podman stop --time 10 inner
Restart=on-failure
[Install]
WantedBy=default.target
"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the steps are the output."""


@contextlib.contextmanager
def _local_service(folder: Path) -> Iterator[int]:
    """Serve a folder on the developer's 127.0.0.1 and give its port."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()


def _fetch(url: str) -> str:
    """Return a shell command that fetches a URL with nothing but Python, as bare machines have no curl."""
    return f"python3 -c 'import urllib.request as r; print(r.urlopen(\"{url}\", timeout=20).read(2000).decode())'"


class Proof:
    """One machine's proof: steps that either hold or raise TestbedError, with the seconds that they took."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.name = f"prove-{suite}"
        self.times: dict[str, float] = {}
        self.machine: machine.Machine | None = None

    @property
    def it(self) -> machine.Machine:
        assert self.machine is not None
        return self.machine

    def step(self, title: str, action: Callable[[], object]) -> None:
        """Do one step and note how long it took."""
        begin = time.monotonic()
        action()
        self.times[title] = round(time.monotonic() - begin, 2)
        print(f"{self.times[title]:8.2f} s  {self.suite}: {title}", flush=True)

    def root(self, script: str) -> str:
        """Run a script as root over SSH and return its output."""
        return str(self.it.ssh("sudo sh -eu -s", input=script).stdout).strip()

    def account(self, script: str) -> str:
        """Run a script as the unprivileged account, in its own session, and return its output."""
        environment = (
            f"cd; export XDG_RUNTIME_DIR=/run/user/{UID} DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{UID}/bus"
        )
        command = f"sudo -u {ACCOUNT} -H sh -eu -s"
        return str(self.it.ssh(command, input=f"{environment}\n{script}").stdout).strip()

    def expect(self, what: str, found: str, wanted: str) -> None:
        """Raise TestbedError unless `wanted` is in `found`."""
        if wanted not in found:
            raise TestbedError(f"{self.name}: {what}: expected {wanted!r}, found {found!r}")

    def up(self) -> None:
        """A machine is made and its published port chosen."""
        self.machine = machine.up(self.name, self.suite, publish=[":8080"])
        self.expect("state", self.root("systemctl is-system-running"), "running")
        self.expect("failed units", f"[{self.root('systemctl list-units --failed --no-legend')}]", "[]")

    def up_again(self) -> None:
        """A second `up` finds the same machine."""
        pid = self.it.pid()
        again = machine.up(self.name)
        self.expect("PID after a second up", str(again.pid()), str(pid))
        self.expect("the machine", repr(again), repr(self.machine))

    def protects_the_kernel(self) -> None:
        """Kernel settings cannot be written from a machine, those of its own network can."""
        before = Path("/proc/sys/kernel/pid_max").read_text()
        refused = self.it.ssh("sudo sysctl -w kernel.pid_max=123456", check=False)
        if refused.returncode == 0 or Path("/proc/sys/kernel/pid_max").read_text() != before:
            raise TestbedError(f"{self.name}: kernel.pid_max could be written from inside")
        self.expect("net sysctl", self.root("sysctl -w net.ipv4.ip_forward=1"), "= 1")

    def network(self) -> None:
        """PyPI and npm over TLS, and the developer's own 127.0.0.1."""
        self.root(_fetch("https://pypi.org/simple/pip/"))
        self.root(_fetch("https://registry.npmjs.org/configurable-http-proxy/latest"))
        with _local_service(self.it.directory) as port:
            page = self.root(_fetch(f"http://{machine.DEVELOPER}:{port}/id_ed25519.pub"))
        self.expect("the developer's 127.0.0.1", page, "ssh-ed25519")

    def install(self) -> None:
        """The packages of rootless podman."""
        self.root(
            "apt-get update -q\nDEBIAN_FRONTEND=noninteractive apt-get install -y -q "
            "podman dbus-user-session uidmap slirp4netns passt fuse-overlayfs mmdebstrap"
        )

    def bootstrap(self) -> None:
        """A base image made on the machine."""
        self.root(
            f"mmdebstrap --quiet --variant=minbase --format=tar {self.suite} - | podman import -q - localhost/prove-base"
        )

    def build(self) -> None:
        """Root's `podman build --network=host`, on native overlay."""
        self.root(f"mkdir -p /root/context\ncat >/root/context/Containerfile <<'END'\n{CONTEXT}END")
        self.root("podman build -q --network=host -t localhost/prove /root/context")
        self.expect("root's storage", self.root("podman info --format '{{.Store.GraphDriverName}}'"), "overlay")

    def make_account(self) -> None:
        """An unprivileged account with linger and a copy of the image."""
        self.root(
            f"useradd --create-home --shell /bin/bash --uid {UID} {ACCOUNT}\nloginctl enable-linger {ACCOUNT}\n"
            f"until [ -S /run/user/{UID}/bus ]; do sleep 0.1; done\n"
            "podman save -q -o /var/lib/ananke/prove.tar localhost/prove\nchmod 644 /var/lib/ananke/prove.tar"
        )
        self.account(
            "mkdir -p .config/containers .config/systemd/user page\n"
            f"echo '{PAGE}' >page/index.html\n"
            f"cat >.config/containers/storage.conf <<'END'\n{STORAGE}END\n"
            f"cat >.config/systemd/user/inner.service <<'END'\n{UNIT}END\n"
            "podman load -q -i /var/lib/ananke/prove.tar"
        )
        storage = self.account("podman info --format '{{.Store.GraphDriverName}} {{.Store.GraphStatus}}'")
        self.expect("rootless storage", storage, "overlay")
        self.expect("rootless storage", storage, "Native Overlay Diff:")

    def start_container(self) -> None:
        """A rootless container with systemd, as a unit of the account."""
        self.account("systemctl --user daemon-reload\nsystemctl --user enable --now inner.service")
        self.check_container()

    def check_container(self) -> None:
        """It runs without failures, has dynamic users and is reached by its port and nothing else."""
        state = self.account("podman exec inner systemctl is-system-running --wait || true")
        self.expect("the container's state", state, "running")
        dynamic = self.account(
            "podman exec inner systemd-run -q --wait --pipe -p DynamicUser=yes -p StateDirectory=home1 "
            "sh -c 'id -u; touch /var/lib/home1/file; touch /opt/file 2>&1 || true'"
        )
        if not 61184 <= int(dynamic.splitlines()[0]) <= 65519:
            raise TestbedError(f"{self.name}: DynamicUser got UID {dynamic.splitlines()[0]}")
        self.expect("/opt for a dynamic user", dynamic, "Read-only file system")
        self.expect("the container's port", self.root(_fetch(f"http://127.0.0.1:{INSIDE_PORT}/")), PAGE)

    def container_network(self) -> None:
        """From inside the inner container: the Debian mirror, and the developer's 127.0.0.1."""
        self.account("podman exec inner apt-get update -q")
        with _local_service(self.it.directory) as port:
            page = self.account(f"podman exec inner {_fetch(f'http://{machine.DEVELOPER}:{port}/id_ed25519.pub')}")
        self.expect("the developer's 127.0.0.1 from a container", page, "ssh-ed25519")

    def published(self) -> None:
        """A service of the machine on the developer's 127.0.0.1."""
        self.root(f"systemd-run -q -u page python3 -m http.server -d /home/{ACCOUNT}/page 8080")
        url = f"http://127.0.0.1:{self.it.published['8080']}/"

        def page() -> str:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())

        until(page, 10, f"{url} answers", lambda found: PAGE in found, passing=OSError)

    def comes_back(self, how: Callable[[str], machine.Machine]) -> None:
        """After a reboot or a crash: another boot, the same files, and the container by itself."""
        self.root("date +%s.%N >/var/lib/ananke/stamp; cp /var/lib/ananke/stamp /etc/stamp; sync")
        stamp, boot, pid = self.root("cat /var/lib/ananke/stamp"), self.it.boot_id(), self.it.pid()
        how(self.name)
        if self.it.boot_id() == boot or self.it.pid() == pid:
            raise TestbedError(f"{self.name}: it is still the same boot")
        if float(self.root("ps -o etimes= -p 1")) > 60:
            raise TestbedError(f"{self.name}: its systemd is older than the reboot")
        self.expect("a file after it", self.root("cat /etc/stamp"), stamp)
        self.expect("a volume after it", self.root("cat /var/lib/ananke/stamp"), stamp)
        show = "systemctl --user is-active inner.service || true"
        until(lambda: self.account(show), 60, "the container's unit runs", lambda state: state == "active")
        self.check_container()

    def inotify(self) -> None:
        """How many inotify instances there are, and how many a user may have."""
        limit = int(self.root("cat /proc/sys/fs/inotify/max_user_instances"))
        count = "find /proc/[0-9]*/fd -lname anon_inode:inotify 2>/dev/null | wc -l"
        inner = int(self.account("podman exec inner sh -c '" + count + "'"))
        whole = int(self.root(count))
        print(f"            inotify instances: limit of a user {limit}, inner container {inner}, machine {whole}")

    def removed(self) -> None:
        """Nothing is left."""
        container, folder = self.it.container, self.it.directory
        machine.down(self.name)
        left = podman.output(["volume", "ls", "--quiet"]).split()
        if machine.state(container) or folder.exists() or any(name.startswith(f"{container}.") for name in left):
            raise TestbedError(f"{self.name}: something is left of it")

    def run(self) -> None:
        """Go through all steps, then write the times to build/prove-SUITE.json."""
        machine.down(self.name)
        steps: list[tuple[str, Callable[[], object]]] = [
            ("image", lambda: machine.image(self.suite)),
            ("machine up", self.up),
            ("machine up, unchanged", self.up_again),
            ("kernel settings are out of reach", self.protects_the_kernel),
            ("PyPI, npm, the developer's 127.0.0.1", self.network),
            ("apt-get install podman", self.install),
            ("mmdebstrap | podman import", self.bootstrap),
            ("root's podman build", self.build),
            ("account with linger, podman load", self.make_account),
            ("rootless systemd container, DynamicUser", self.start_container),
            ("network of the container", self.container_network),
            ("published port", self.published),
            ("inotify", self.inotify),
            ("reboot, container back", lambda: self.comes_back(machine.reboot)),
            ("crash, container back", lambda: self.comes_back(machine.crash)),
            ("machine down", self.removed),
        ]
        for title, action in steps:
            self.step(title, action)
        write_file(BUILD / f"{self.name}.json", json.dumps(self.times, indent=2) + "\n")
