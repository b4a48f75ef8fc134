# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of other machines, mounted by sshfs when somebody looks into them.

Each is mounted at FOLDER/NAME/files. Hubs get FOLDER/NAME, the folder around it: a container starts although the other machine is
down, and what is mounted later reaches it (mounts of the machine propagate to containers that ask for that).
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Run

FOLDER = "/srv/ananke/data"
KEYS = "/etc/ananke/data"
UNITS = "/etc/systemd/system"
NOTES = f"{files.RUN_DIR}/data"
"""What each data set was last put in force with; gone after a boot, which puts in force what is there."""
MOUNTS = "/proc/self/mountinfo"
PATIENCE = 30
"""Seconds that a mount may take."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}\Z")
_SOURCE = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*@([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\]):[^\s,%\\\"']+\Z")
_HOST_KEY = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}\Z")


class DataSetError(Exception):
    """What is wrong, and what to do about it."""


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One folder of another machine."""

    name: str
    source: str
    host_keys: tuple[str, ...]
    private_key: str | None = dataclasses.field(default=None, repr=False)
    port: int = 22
    read_only: bool = True
    uid: int = 0
    gid: int = 0
    umask: str = "0022"
    idle: int = 600

    @property
    def where(self) -> str:
        """Where it is mounted."""
        return f"{FOLDER}/{self.name}/files"

    @property
    def mount(self) -> str:
        """Name of the unit that mounts it."""
        return f"{_stem(self.name)}.mount"

    @property
    def automount(self) -> str:
        """Name of the unit that waits for somebody to look."""
        return f"{_stem(self.name)}.automount"

    @property
    def key(self) -> str:
        """Path of the private key."""
        return f"{KEYS}/{self.name}/key"

    @property
    def known_hosts(self) -> str:
        """Path of the other machine's host keys."""
        return f"{KEYS}/{self.name}/known_hosts"


@dataclasses.dataclass
class Outcome:
    """What was (or would be) done, which public keys to give away, and what does not work."""

    done: list[str]
    public_keys: dict[str, str]
    made: list[str]
    """Names of the data sets whose key was made just now."""
    problems: list[str]


def check(sets: t.Sequence[DataSet]) -> None:
    """Refuse what cannot work.

    :raises DataSetError: says which, and what to write
    """
    names = [one.name for one in sets]
    for one in sets:
        if not _NAME.match(one.name):
            raise DataSetError(
                f"data set {one.name!r}: a name is of lower case letters, digits, _ and -, 31 at most, such as corpus"
            )
        if names.count(one.name) > 1:
            raise DataSetError(f"data set {one.name}: the name is there twice; give each its own")
        if not _SOURCE.match(one.source):
            raise DataSetError(
                f"data set {one.name}: source {one.source!r} is not USER@HOST:/FOLDER, without spaces, quotes, commas, % and \\"
            )
        for key in one.host_keys:
            if not _HOST_KEY.match(key):
                raise DataSetError(
                    f"data set {one.name}: {key!r} is not a host key: write its kind and the key, such as ssh-ed25519 AAAA..., as in"
                    " /etc/ssh/ssh_host_ed25519_key.pub of the other machine"
                )
        if not one.host_keys:
            raise DataSetError(
                f"data set {one.name}: host_keys is empty: write the other machine's host key, as its admin gives it to you; no machine is"
                " trusted at first sight"
            )
        if not re.match(r"0?[0-7]{3}\Z", one.umask):
            raise DataSetError(
                f'data set {one.name}: umask {one.umask!r} is not octal: write it in quotes, such as "0022"'
            )


def mount_unit(one: DataSet) -> str:
    """The unit that mounts it. The processes stay root's, with the one capability that mounting needs."""
    options = [
        "ro" if one.read_only else "rw",
        *("nosuid", "nodev", "noexec", "allow_other", "default_permissions"),
        *(f"uid={one.uid}", f"gid={one.gid}", f"umask={one.umask}", f"port={one.port}"),
        *(f"IdentityFile={one.key}", "IdentitiesOnly=yes", "BatchMode=yes", "PreferredAuthentications=publickey"),
        *(f"UserKnownHostsFile={one.known_hosts}", "GlobalKnownHostsFile=none", f"HostKeyAlias={one.name}"),
        *("StrictHostKeyChecking=yes", "UpdateHostKeys=no", "ControlPath=none"),
        # otherwise what ssh says is lost
        "sshfs_verbose",
        # without an answer for 45 s the connection is given up, and made anew when somebody looks again
        *("reconnect", "ServerAliveInterval=15", "ServerAliveCountMax=3", "ConnectTimeout=10"),
    ]
    return f"""\
# Managed by ananke.jupyterhub
[Unit]
Description=Data set {one.name}
Wants=network-online.target
After=network-online.target nss-lookup.target
# who looks again and again while the other machine is down does not put an end to it
StartLimitIntervalSec=0

[Mount]
What={one.source}
Where={one.where}
Type=fuse.sshfs
Options={",".join(options)}
TimeoutSec={PATIENCE}
CapabilityBoundingSet=CAP_SYS_ADMIN
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service @mount
"""


def automount_unit(one: DataSet) -> str:
    """The unit that waits for somebody to look."""
    return f"""\
# Managed by ananke.jupyterhub
[Unit]
Description=Data set {one.name} on demand

[Automount]
Where={one.where}
TimeoutIdleSec={one.idle or "infinity"}
DirectoryMode=0755

[Install]
WantedBy=multi-user.target
"""


def ensure(sets: t.Sequence[DataSet], run: Run, dry: bool) -> Outcome:
    """Bring all data sets of the machine to the wanted state, and mount each once to see that it works.

    :param dry: only say what would be done
    :raises DataSetError: a value cannot be, or systemd refuses
    """
    check(sets)
    outcome = Outcome([], {}, [], [])
    for name in _present():
        if name not in {one.name for one in sets}:
            outcome.done.append(f"data set {name} removed")
            if not dry:
                _remove(name, run)
    for one in sets:
        written = _write(one, run, dry, outcome)
        if written or not _waits(one) or files.stale(f"{NOTES}/{one.name}", _paths(one)):
            outcome.done.append(f"data set {one.name} put in force")
            if not dry:
                _put_in_force(one, run)
        outcome.public_keys[one.name] = (files.read(f"{one.key}.pub") or "").strip()
    if not dry:
        outcome.problems += [problem for one in sets for problem in _problems(one, outcome.public_keys[one.name], run)]
    return outcome


def _stem(name: str) -> str:
    """systemd's name for the path FOLDER/NAME/files."""
    return f"{FOLDER}/{name}/files".strip("/").replace("-", "\\x2d").replace("/", "-")


def _present() -> list[str]:
    """Names of the data sets that the machine has."""
    begin, end = _stem("\0").split("\0")
    pattern = re.compile(re.escape(begin) + r"([a-z0-9_\\-]+)" + re.escape(end) + r"\.automount\Z")
    found = filter(None, map(pattern.match, sorted(os.listdir(UNITS))))
    return [match[1].replace("\\x2d", "-") for match in found]


def _texts(one: DataSet) -> dict[str, tuple[str, int]]:
    """Content and mode of each file but the key that is made on the machine."""
    texts = {
        one.known_hosts: ("".join(f"{one.name} {key}\n" for key in one.host_keys), 0o600),
        f"{UNITS}/{one.mount}": (mount_unit(one), 0o644),
        f"{UNITS}/{one.automount}": (automount_unit(one), 0o644),
    }
    if one.private_key is not None:
        texts[one.key] = (one.private_key.strip() + "\n", 0o600)
    return texts


def _paths(one: DataSet) -> list[str]:
    return [path for path in [*_texts(one), one.key] if os.path.exists(path)]


def _write(one: DataSet, run: Run, dry: bool, outcome: Outcome) -> bool:
    """Write the files; returns whether any was not as wanted."""
    changed = [path for path, (text, mode) in _texts(one).items() if files.differs(path, text, mode)]
    make = one.private_key is None and not os.path.exists(one.key)
    if make:
        outcome.done.append(f"{one.key} made")
        outcome.made.append(one.name)
    outcome.done += [f"{path} written" for path in changed]
    if dry:
        return make or bool(changed)
    files.folder(KEYS, 0o700)
    files.folder(os.path.dirname(one.key), 0o700)
    if make:
        _checked(run, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"data set {one.name}", "-f", one.key])
    for path in changed:
        files.write(path, *_texts(one)[path])
    if one.key in changed:
        status, public = run(["ssh-keygen", "-y", "-P", "", "-f", one.key])
        if status:
            raise DataSetError(
                f"data set {one.name}: private_key is not a private key without a passphrase: {public.strip()}"
            )
        files.write(f"{one.key}.pub", public, 0o600)
    return make or bool(changed)


def _waits(one: DataSet) -> bool:
    """Whether somebody who looks there now gets it."""
    fields = [line.split() for line in (files.read(MOUNTS) or "").splitlines()]
    return any(line[4] == one.where and "autofs" in line[line.index("-") :] for line in fields)


def _put_in_force(one: DataSet, run: Run) -> None:
    files.folder(os.path.dirname(one.where))
    _checked(run, ["systemctl", "daemon-reload"])
    # a mount that is in use is detached, and its users see the new one
    _checked(run, ["systemctl", "stop", one.automount])
    run(["systemctl", "stop", one.mount])
    _checked(run, ["systemctl", "enable", "--now", "--quiet", one.automount])
    files.folder(NOTES)
    files.write(f"{NOTES}/{one.name}", files.digests(_paths(one)), 0o600)


def _remove(name: str, run: Run) -> None:
    one = DataSet(name, "", ())
    _checked(run, ["systemctl", "disable", "--now", "--quiet", one.automount])
    run(["systemctl", "stop", one.mount])
    for unit in (one.mount, one.automount):
        files.restore(f"{UNITS}/{unit}", None, 0)
    _checked(run, ["systemctl", "daemon-reload"])
    shutil.rmtree(os.path.dirname(one.key), ignore_errors=True)
    files.restore(f"{NOTES}/{name}", None, 0)
    for folder in (one.where, os.path.dirname(one.where)):
        if os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)


def _problems(one: DataSet, public: str, run: Run) -> list[str]:
    """Mount it; what stands against that, and what to do."""
    if run(["systemctl", "start", one.mount])[0] == 0:
        return []
    _status, journal = run(["journalctl", f"--unit={one.mount}", "--lines=12", "--output=cat"])
    return [f"data set {one.name}: {one.source} cannot be mounted: {advice(journal, one.name, public)}"]


def advice(journal: str, name: str, public: str) -> str:
    """What to do about a mount that failed."""
    if "Host key verification failed" in journal:
        return (
            "the other machine shows another host key than host_keys has. Ask its admin for the right one, in person or by a signed mail; a"
            " changed key may be somebody else's machine"
        )
    if "Permission denied" in journal:
        return (
            f"the other machine refuses the login. Ask its admin to put this line into ~/.ssh/authorized_keys of the account there:"
            f' restrict,command="internal-sftp" {public}'
        )
    if "No such file" in journal:
        return "the folder does not exist there: correct source"
    lines = [line.strip() for line in journal.splitlines() if line.strip() and name not in line]
    reason = f"{lines[-1]} " if lines else ""
    return f"{reason}(is it down, or does a firewall block the port?). It is tried again whenever somebody looks into {FOLDER}/{name}/files"


def _checked(run: Run, argv: t.Sequence[str]) -> None:
    status, output = run(argv)
    if status:
        raise DataSetError(f"{' '.join(argv)}: {output.strip()}: look at it on the machine, then run again")
