# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a hub does not work: what it needs of its machine, looked at from the ground up, and what to do about what is missing.

It only reads. A check whose ground is missing is not made: one cause gives one failure.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import pwd
import re
import socket
import ssl
import time
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, files, nginx, removal, sockets
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Run

PATIENCE = 10
"""Seconds that a server on the machine may take."""
CONTROLLERS = ("cpu", "memory", "pids")
SUBORDINATE = 65536
"""IDs that a hub's container needs."""
ROOM, FILES = 64 << 20, 1000
"""Bytes and files that a file system must have left."""
LEFT = 7
"""Days that a certificate must be good for."""

Seen = tuple[t.Optional[bool], str]
"""Whether a check passed (None: it could not be made), and what was seen."""


@dataclasses.dataclass
class Hub:
    """A hub, as its inventory says."""

    name: str
    account: str
    port: int
    path: str
    image: str
    server_name: str
    https_port: int = 443
    root: str = ""
    """A folder in place of / in tests."""
    run: Run = lambda _argv: (1, "")

    def entry(self) -> pwd.struct_passwd | None:
        """Its account."""
        try:
            return pwd.getpwnam(self.account)
        except KeyError:
            return None

    @property
    def home(self) -> str:
        """Where its account is at home."""
        entry = self.entry()
        return entry.pw_dir if entry else ""

    @property
    def uid(self) -> int:
        """Its account's UID; -1 without an account."""
        entry = self.entry()
        return entry.pw_uid if entry else -1

    def own(self, *argv: str) -> tuple[int, str]:
        """Status and output of a command of the account, in its session."""
        surroundings = [f"HOME={self.home}", f"XDG_RUNTIME_DIR=/run/user/{self.uid}", "PATH=/usr/bin:/bin"]
        return self.run(
            [
                "runuser",
                f"--user={self.account}",
                "--",
                "env",
                "--chdir=/",
                "--ignore-environment",
                *surroundings,
                *argv,
            ]
        )


def account(hub: Hub) -> Seen:
    """The account is there."""
    entry = hub.entry()
    return entry is not None, f"UID {entry.pw_uid}, home {entry.pw_dir}" if entry else "there is no such account"


def expiry(hub: Hub) -> Seen:
    """The account has not expired."""
    gone = accounts.has_expired(files.read(f"{hub.root}/etc/shadow") or "", hub.account)
    return not gone, "has expired, so nothing of the account can run" if gone else "has not expired"


def subordinate_ids(hub: Hub) -> Seen:
    """The account may use enough IDs."""
    counts = []
    for kind in ("uid", "gid"):
        granted = removal.ranges(files.read(f"{hub.root}/etc/sub{kind}") or "", hub.account)
        counts.append(sum(int(one.partition(":")[2]) for one in granted))
    return min(counts) >= SUBORDINATE, f"{counts[0]} UIDs and {counts[1]} GIDs, {SUBORDINATE} are needed"


def linger(hub: Hub) -> Seen:
    """Its services run without a login."""
    there = os.path.exists(f"{hub.root}/var/lib/systemd/linger/{hub.account}")
    return there, "is on" if there else "is off, so nothing of the account runs unless somebody is logged in"


def manager(hub: Hub) -> Seen:
    """Its systemd runs."""
    there = os.path.exists(f"{hub.root}/run/user/{hub.uid}/systemd/private")
    return there, f"user@{hub.uid}.service {'runs' if there else 'does not run'}"


def cgroups(hub: Hub) -> Seen:
    """Limits can be enforced."""
    path = f"/sys/fs/cgroup/user.slice/user-{hub.uid}.slice/user@{hub.uid}.service/cgroup.controllers"
    text = files.read(hub.root + path)
    machine = files.read(f"{hub.root}/sys/fs/cgroup/cgroup.controllers") or ""
    if text is None or not set(CONTROLLERS) & set(machine.split()):
        return None, "this machine has no controllers of its own, as in some containers: no limit is enforced here"
    missing = [name for name in CONTROLLERS if name not in text.split()]
    return not missing, f"the account may use {text.strip()}" + (
        f"; {', '.join(missing)} is missing" if missing else ""
    )


def podman(hub: Hub) -> Seen:
    """The account's podman works."""
    status, said = hub.own("podman", "info", "--format", "podman {{.Version.Version}}, {{.Store.GraphDriverName}}")
    return status == 0, _short(said)


def image(hub: Hub) -> Seen:
    """The machine has the hub's image, and the account's podman sees it."""
    text = files.read(f"{hub.root}/var/lib/ananke/images/{hub.image}.json")
    try:
        reference = str(json.loads(text or "")["reference"])
    except (ValueError, KeyError, TypeError):
        return False, f"this machine has no image {hub.image}"
    status, said = hub.own("podman", "image", "exists", reference)
    return status == 0, f"{reference}" + (
        "" if status == 0 else f": the account's podman does not see it {_short(said)}"
    )


def room(hub: Hub) -> Seen:
    """The file systems of the home and of images have room."""
    tight, told = [], []
    for path in (hub.home, "/var/lib/ananke"):
        try:
            space = os.statvfs(hub.root + path)
        except OSError as error:
            return False, f"{path}: {error.strerror}"
        free, nodes = space.f_bavail * space.f_frsize, space.f_favail
        told.append(f"{path} has {free >> 20} MiB")
        if free < ROOM or (space.f_files and nodes < FILES):
            tight.append(f"{path} has {free >> 20} MiB and {nodes} files left")
    return not tight, "; ".join(tight or told)


def unit(hub: Hub) -> Seen:
    """The container's unit is there and runs."""
    status, said = hub.own(
        *("systemctl", "--user", "show", f"ananke-{hub.name}.service"),
        "--property=LoadState,ActiveState,SubState,Result,NRestarts",
    )
    known = dict(re.findall(r"^(\w+)=(.*)$", said, re.M))
    if status or not known:
        return False, _short(said)
    if known.get("LoadState") != "loaded":
        return False, f"ananke-{hub.name}.service is not there"
    what = ", ".join(f"{name} {known.get(name, '?')}" for name in ("ActiveState", "SubState", "Result", "NRestarts"))
    return known.get("ActiveState") == "active", what


def container(hub: Hub) -> Seen:
    """The container runs."""
    status, said = hub.own("podman", "container", "inspect", "--format", "{{.State.Status}}", f"ananke-{hub.name}")
    return status == 0 and said.strip() == "running", _short(said)


def port(hub: Hub) -> Seen:
    """Nobody else listens on the hub's port."""
    wish = {"name": hub.name, "port": hub.port, "container_admin": hub.account}
    foreign = sockets.taken([wish])
    if foreign:
        return False, "; ".join(foreign)
    return True, f"{hub.port} is the hub's" if hub.port in sockets.listeners() else f"{hub.port} is free"


def health(hub: Hub) -> Seen:
    """The hub answers on its port."""
    return _answer(lambda: http.client.HTTPConnection("127.0.0.1", hub.port, timeout=PATIENCE), hub)


def web_server(hub: Hub) -> Seen:
    """nginx runs, with a configuration that it takes."""
    status, said = hub.run(["nginx", "-t", "-q"])
    if status:
        return False, _short(said)
    state = hub.run(["systemctl", "is-active", "nginx.service"])[1].strip()
    return state == "active", f"nginx.service is {state}"


def location(hub: Hub) -> Seen:
    """The hub has its public path."""
    path = f"{hub.root}{nginx.LOCATIONS_DIR}/{hub.name}.conf"
    text = files.read(path)
    if text is None:
        return False, f"{path} is not there"
    return (
        f":{hub.port}" in text and hub.path in text,
        f"{path} {'leads' if f':{hub.port}' in text else 'does not lead'} to port {hub.port}",
    )


class _Named(http.client.HTTPSConnection):
    """To this machine, whatever name the server is asked by."""

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.sock = context.wrap_socket(plain, server_hostname=self.host)


def public(hub: Hub) -> Seen:
    """The hub answers through nginx."""
    return _answer(lambda: _Named(hub.server_name, hub.https_port), hub)


def cookies(hub: Hub) -> Seen:
    """The hub knows that browsers come by https: nginx passes on how they came."""
    connection = _Named(hub.server_name, hub.https_port)
    try:
        connection.request("GET", f"{hub.path}hub/login", headers={"Host": _host(hub)})
        given = connection.getresponse().headers.get_all("Set-Cookie") or []
    except (OSError, http.client.HTTPException) as error:
        return False, str(error)
    finally:
        connection.close()
    if not given:
        return None, "the hub has set no cookie"
    plain = [one.partition("=")[0] for one in given if "secure" not in one.lower().replace(" ", "").split(";")]
    return not plain, f"cookie {', '.join(plain)} is not Secure" if plain else f"{len(given)} cookies, all Secure"


def certificate(hub: Hub) -> Seen:
    """Browsers that trust what this machine trusts accept the certificate."""
    context = ssl.create_default_context()
    try:
        with (
            socket.create_connection(("127.0.0.1", hub.https_port), timeout=PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=hub.server_name) as secure,
        ):
            ends = dict(secure.getpeercert() or {})["notAfter"]
    except ssl.SSLCertVerificationError as error:
        if "self-signed certificate in" in error.verify_message or "unable to get" in error.verify_message:
            return None, f"its authority is none that this machine trusts: {error.verify_message}"
        return False, error.verify_message
    except (OSError, KeyError) as error:
        return False, str(error)
    days = int((ssl.cert_time_to_seconds(str(ends)) - time.time()) // 86400)
    return days >= LEFT, f"it is good for {days} days"


def clock(hub: Hub) -> Seen:
    """The machine's clock is set by somebody."""
    status, said = hub.run(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if status:
        return None, _short(said)
    return (True if said.strip() == "yes" else None), f"synchronised: {said.strip()}"


def _host(hub: Hub) -> str:
    return hub.server_name if hub.https_port == 443 else f"{hub.server_name}:{hub.https_port}"


def _answer(connect: t.Callable[[], http.client.HTTPConnection], hub: Hub) -> Seen:
    connection = connect()
    try:
        connection.request("GET", f"{hub.path}hub/health", headers={"Host": _host(hub)})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return False, f"{hub.path}hub/health: {error or type(error).__name__}"
    finally:
        connection.close()
    return status == 200, f"{hub.path}hub/health: status {status}"


def _short(text: str) -> str:
    return " ".join(text.split())[-400:]


class Check(t.NamedTuple):
    """One check of the machine."""

    look: t.Callable[[Hub], Seen]
    needs: tuple[str, ...]
    """Checks without which it is not made."""
    remedy: str
    """With {hub}, {account}, {uid}, {port}, {image}, {server_name}."""


CHECKS = (
    Check(account, (), "run playbooks/hubs.yml --limit {hub}, which makes the account"),
    Check(
        subordinate_ids,
        ("account",),
        "usermod --add-subuids and --add-subgids, then as the account: podman system migrate",
    ),
    Check(expiry, ("account",), accounts.revival("{account}")),
    Check(linger, ("expiry",), "loginctl enable-linger {account}"),
    Check(
        manager,
        ("linger",),
        "systemctl start user@{uid}.service; journalctl --unit=user@{uid}.service says why it does not run",
    ),
    Check(cgroups, ("manager",), "run playbooks/machines.yml --tags cgroups, and reboot if it says so"),
    Check(
        podman, ("manager", "subordinate_ids"), "run playbooks/machines.yml --tags podman; as the account: podman info"
    ),
    Check(image, ("podman",), "run playbooks/images.yml --limit with the hub's machine"),
    Check(room, ("account",), "clear up there, or enlarge it: playbooks/grow.yml for homes"),
    Check(port, (), "end what listens there, or choose another hub_port and run playbooks/hubs.yml"),
    Check(
        unit,
        ("manager", "image"),
        "as the account: journalctl --user --unit=ananke-{hub}; then playbooks/hubs.yml --limit {hub}",
    ),
    Check(container, ("unit",), "as the account: systemctl --user restart ananke-{hub}"),
    Check(health, ("container", "services"), "~/hubs/{hub}/shell journalctl --unit=jupyterhub says why"),
    Check(web_server, (), "nginx -t names what is wrong; then systemctl restart nginx"),
    Check(location, ("web_server",), "run playbooks/hubs.yml --limit {hub}, which writes it"),
    Check(public, ("health", "location"), "run playbooks/hubs.yml --limit {hub}; /var/log/nginx/error.log says why"),
    Check(
        cookies,
        ("public",),
        "nginx must pass X-Forwarded-Proto: run playbooks/machines.yml --tags reverse_proxy, then hubs.yml",
    ),
    Check(
        certificate, ("web_server",), "see docs/security/tls.md: the name must be {server_name}, and the chain complete"
    ),
    Check(clock, (), "set up a time server: playbooks/machines.yml --tags baseline"),
)
INSIDE = {
    "services": "~/hubs/{hub}/shell systemctl status jupyterhub jupyterhub-proxy",
    "configuration": "correct what it names, in ~/hubs/{hub}/jupyterhub_config.d or in the inventory",
    "database": "bring it back: playbooks/restore.yml --limit {hub}; or look whether the disk is full",
    "description": "run playbooks/hubs.yml --limit {hub}, which writes it",
    "lti": "enter the values of ~/hubs/{hub}/lms.txt in the LMS, then set hub_lti_issuer and hub_lti_client_ids",
    "lti_dns": "correct the name in hub_lti_*, or the machine's name servers, or add it to hub_extra_hosts",
    "lti_jwks": "correct hub_lti_jwks_endpoint; where its certificate is refused, name its authority in hub_ca_certificates",
    "lti_clock": "set the clock: timedatectl; launches of a clock that is wrong are refused",
    "lti_authorize": "correct hub_lti_authorize_url, see docs/host-admin/lms.md",
}
"""What to do about checks inside the container."""


def examine(hub: Hub, inside: t.Callable[[], list[t.Sequence[t.Any]]]) -> list[dict[str, t.Any]]:
    """All findings: ``check``, ``passed`` (None: not looked at), ``said``, ``remedy`` (empty unless it failed).

    :param inside: looks inside the container, and returns name, passed and what was seen of each check there
    """
    found: dict[str, tuple[t.Optional[bool], str, str]] = {}
    words = {
        "hub": hub.name,
        "account": hub.account,
        "uid": hub.uid,
        "port": hub.port,
        "image": hub.image,
        "server_name": hub.server_name,
    }
    for check in CHECKS:
        name = check.look.__name__
        missing = [need for need in check.needs if need in found and found[need][0] is not True]
        passed, said = (None, f"not looked at, as {missing[0]} has not passed") if missing else check.look(hub)
        found[name] = (passed, said, check.remedy)
        if name == "container":
            for told, fine, seen in inside() if passed else []:
                found[told] = (fine, seen, INSIDE[told])
    return [
        {"check": name, "passed": passed, "said": said, "remedy": remedy.format(**words) if passed is False else ""}
        for name, (passed, said, remedy) in found.items()
    ]
