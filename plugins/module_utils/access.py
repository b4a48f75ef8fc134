# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that decide who can reach a machine: put in force on trial, kept once a fresh login has confirmed them.

A trial keeps what it replaces in a folder, and starts a timer that puts it back. Confirming ends both. A
boot during a trial puts the old state back as well, before sshd and the firewall start. All of that works without
Ansible and without this module, by one short shell script on the machine.
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, files, logins, sockets

STATE_DIR = "/var/lib/ananke/access"
TRIAL = f"{STATE_DIR}/trial"
RESTORE = "/usr/local/lib/ananke/access-restore"
UNIT = "ananke-access-restore.service"
TIMER = "ananke-access-restore.timer"
FIREWALL = "/etc/nftables.conf"
FIREWALL_DIR = "/etc/nftables.d"
FIREWALL_TABLE = "inet ananke"
FIREWALL_LOADED = f"{files.RUN_DIR}/firewall.loaded"
SSHD = "/usr/sbin/sshd"
NFT = "/usr/sbin/nft"
ACCUMULATING = frozenset({"port", "listenaddress", "allowusers", "hostkey"})
"""Keywords of which sshd takes every line; of all others it takes the first."""

SCRIPT = f"""\
#!/bin/sh
# Managed by ananke.jupyterhub
# Takes back a change of SSH or of the firewall that no login has confirmed.
set -u
export LC_ALL=C
mkdir -p {files.RUN_DIR}
exec 9>{files.RUN_DIR}/access.lock && flock 9
cd {TRIAL} 2>/dev/null || exit 0
while read -r number path; do
    if [ -e "$number" ]; then
        cp -p "$number" "$path.ananke-restored" && mv -f "$path.ananke-restored" "$path"
    else
        rm -f "$path"
    fi
done <manifest
if grep -qs '^table {FIREWALL_TABLE}' {FIREWALL}; then
    {NFT} -f {FIREWALL}
elif {NFT} list table {FIREWALL_TABLE} >/dev/null 2>&1; then
    {NFT} delete table {FIREWALL_TABLE}
fi
sha256sum {FIREWALL} {FIREWALL_DIR}/*.nft >{FIREWALL_LOADED} 2>/dev/null
sha256sum {logins.DIRECTORY}/* >{logins.APPLIED} 2>/dev/null
systemctl --no-block reload-or-restart ssh.service
rm -rf {STATE_DIR}/restored
mv {TRIAL} {STATE_DIR}/restored
systemctl --no-block stop {TIMER} 2>/dev/null
echo "A change of SSH or of the firewall was taken back, as no login has confirmed it"
"""
UNIT_TEXT = f"""\
# Managed by ananke.jupyterhub
[Unit]
Description=Take back a change of SSH or of the firewall that no login has confirmed
ConditionPathExists={TRIAL}
RequiresMountsFor={STATE_DIR} /usr/local/lib
DefaultDependencies=no
After=local-fs.target systemd-tmpfiles-setup.service
Before=ssh.service nftables.service network-pre.target

[Service]
Type=oneshot
ExecStart={RESTORE}
# Only what needs no mounts: this has to work on a machine whose file systems are in disorder, too.
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_NET_ADMIN
LockPersonality=true
MemoryDenyWriteExecute=true
NoNewPrivileges=true
RestrictAddressFamilies=AF_NETLINK AF_UNIX
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""

Run = t.Callable[..., tuple[int, str]]
"""``run(argv)`` runs a command and returns its exit status and its output."""


class AccessError(Exception):
    """What is wrong, and what to do about it. Nothing was changed, or the old state is back."""


class Change(t.NamedTuple):
    """A file that is wanted; ``content`` None means: removed."""

    path: str
    content: str | None
    mode: int = 0o644


def foretell(changes: t.Sequence[Change]) -> list[str]:
    """What :func:`begin` would do, in words; nothing where all is as wanted."""
    done = [
        f"{change.path} {'removed' if change.content is None else 'written'}"
        for change in changes
        if (os.path.lexists(change.path) if change.content is None else files.differs(*change))
    ]
    if _of_firewall(changes) and (done or firewall_pending()):
        done.append("firewall loaded")
    if done and _of_sshd(changes):
        done.append("sshd reloaded")
    return done


def firewall_pending() -> bool:
    """Whether the kernel filters by something else than what is on disk."""
    return _firewall_is_ours() and files.stale(FIREWALL_LOADED, _firewall_files())


def check_admins(names: t.Sequence[str], password: bool) -> None:
    """Whether these accounts could log in with what is demanded of them.

    :raises AccessError: one could not
    """
    shadow = files.read("/etc/shadow") or ""
    for name in names:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise AccessError(
                f"host admin {name} has no account on the machine: create it, or correct ananke_host_admins; nothing was changed"
            ) from None
        if entry.pw_uid == 0:
            raise AccessError(
                "root does not log in by SSH: create an account with sudo, give it a key and a password, and let Ansible"
                " log in as that one (ansible_user); nothing was changed"
            )
        if password and (accounts.password_field(shadow, name) or "*")[0] in "!*":
            raise AccessError(
                f"host admin {name} has no password, but is to log in with key and password: set one on the machine with"
                f" `sudo passwd {name}`, or set ssh_password to false; nothing was changed"
            )
        if not (files.read(os.path.join(entry.pw_dir, ".ssh/authorized_keys")) or "").strip():
            raise AccessError(
                f"host admin {name} has no key: write one to {entry.pw_dir}/.ssh/authorized_keys (ssh-copy-id does);"
                " nothing was changed"
            )


def begin(changes: t.Sequence[Change], token: str, timeout: int, run: Run) -> list[str]:
    """Put files in force on trial; returns what was done, in words. Nothing is done, and no trial begins, where all is as wanted.

    :param token: what :func:`confirm` must show
    :param timeout: seconds until the old state comes back
    :raises AccessError: refused by sshd or nft, or not in force; the old state is back
    """
    if os.path.exists(TRIAL):  # of a run that was killed, or of another controller, which then hears of it
        restore(run)
    with files.lock("access", files.RUN_DIR):
        done = foretell(changes)
        if not done:
            return []
        if _of_sshd(changes) and run(["systemctl", "is-active", "--quiet", "ssh.socket"])[0] == 0:
            raise AccessError(
                "ssh.socket listens in sshd's place, and knows nothing of sshd's ports: `systemctl disable --now ssh.socket` and"
                " `systemctl enable --now ssh.service`, then run again; nothing was changed"
            )
        if FIREWALL in (change.path for change in changes) and not _firewall_is_replaceable():
            raise AccessError(
                f"{FIREWALL} holds rules that are not ours: put them into firewall_rules, or into {FIREWALL_DIR}/NAME.nft as lines of the input"
                " chain, remove the file, and run again; nothing was changed"
            )
        _keep(changes, token)
        _arm(timeout, run)
        for change in changes:
            files.folder(os.path.dirname(change.path))
            files.restore(*change)
        problem = _refused(changes, run) or _activate(changes, run)
    if problem:
        restore(run)
        raise AccessError(f"{problem}; the old state is back")
    return done


def confirm(token: str, run: Run) -> None:
    """End the trial: what it brought stays.

    :raises AccessError: the trial is over
    """
    with files.lock("access", files.RUN_DIR):
        if files.read(f"{TRIAL}/token") != token:
            raise AccessError(
                "the change was taken back before this login came: run again, with a longer access_timeout if the network is slow"
            )
        os.rename(TRIAL, f"{STATE_DIR}/confirmed")
        run(["systemctl", "stop", TIMER])
        shutil.rmtree(f"{STATE_DIR}/confirmed")


def restore(run: Run) -> None:
    """Take the trial back now.

    :raises AccessError: that failed
    """
    status, output = run([RESTORE])
    if status:
        raise AccessError(
            f"the old state did not come back: {output.strip()}; look at {TRIAL}, which holds the old files"
        )


def unmatched(own: str, whole: str, keywords: t.Iterable[str]) -> list[str]:
    """The keywords whose values in force are not those of our own file.

    :param own: output of ``sshd -T`` for our own file alone
    :param whole: the same for the whole configuration
    :param keywords: those that our own file sets
    """

    def values(text: str, keyword: str) -> set[str]:
        return {line.partition(" ")[2] for line in text.splitlines() if line.partition(" ")[0] == keyword}

    return sorted(keyword for keyword in keywords if values(own, keyword) != values(whole, keyword))


def keywords(text: str) -> set[str]:
    """The keywords that a file of sshd's configuration sets for all logins, in lower case."""
    found = set()
    for line in text.splitlines():
        words = line.split()
        if words and words[0].lower() == "match":
            break
        if words and not words[0].startswith("#") and words[0].lower() != "include":
            found.add(words[0].lower())
    return found


def _of_sshd(changes: t.Sequence[Change]) -> bool:
    return any(change.path.startswith(("/etc/ssh/", "/etc/pam.d/sshd")) for change in changes)


def _of_firewall(changes: t.Sequence[Change]) -> bool:
    """Whether these changes bring a firewall, or belong to the one that is in force."""
    paths = [change.path for change in changes]
    fragments = any(path.startswith(f"{FIREWALL_DIR}/") for path in paths)
    return FIREWALL in paths or (fragments and _firewall_is_ours())


def _firewall_is_ours() -> bool:
    return f"\ntable {FIREWALL_TABLE}" in (files.read(FIREWALL) or "")


def _firewall_is_replaceable() -> bool:
    """Whether the file is ours, absent, or as Debian ships it: without a single rule."""
    code = [line.partition("#")[0].split() for line in (files.read(FIREWALL) or "").splitlines()]
    harmless = {"table", "chain", "type", "flush", "}"}
    return _firewall_is_ours() or all(
        words[0] in harmless and "policy" not in words and "drop" not in words for words in code if words
    )


def _firewall_files() -> list[str]:
    fragments = sorted(os.listdir(FIREWALL_DIR)) if os.path.isdir(FIREWALL_DIR) else []
    return [FIREWALL, *(os.path.join(FIREWALL_DIR, name) for name in fragments if name.endswith(".nft"))]


def _keep(changes: t.Sequence[Change], token: str) -> None:
    """Write down the old state; the folder appears whole or not at all."""
    files.folder(STATE_DIR, 0o700)
    draft = f"{STATE_DIR}/draft"
    shutil.rmtree(draft, ignore_errors=True)
    os.mkdir(draft, mode=0o700)
    for number, change in enumerate(changes):
        if os.path.exists(change.path):
            shutil.copy2(change.path, f"{draft}/{number}")
    manifest = "".join(f"{number} {change.path}\n" for number, change in enumerate(changes))
    files.write(f"{draft}/manifest", manifest, 0o600)
    files.write(f"{draft}/token", token, 0o600)
    os.rename(draft, TRIAL)


def _arm(timeout: int, run: Run) -> None:
    files.folder(os.path.dirname(RESTORE))
    for path, text, mode in ((RESTORE, SCRIPT, 0o755), (f"/etc/systemd/system/{UNIT}", UNIT_TEXT, 0o644)):
        if files.differs(path, text, mode):
            files.write(path, text, mode)
    timer = ["systemd-run", "--quiet", f"--on-active={timeout}", "--timer-property=AccuracySec=1s", f"--unit={UNIT}"]
    for argv in (["systemctl", "daemon-reload"], ["systemctl", "enable", "--quiet", UNIT], timer):
        status, output = run(argv)
        if status:
            shutil.rmtree(TRIAL)
            raise AccessError(
                f"no timer could be started that would take the change back: {output.strip()}; nothing was changed"
            )


def _refused(changes: t.Sequence[Change], run: Run) -> str:
    """What sshd or nft say against the files; empty where nothing."""
    if _of_firewall(changes):
        status, output = run([NFT, "--check", "--file", FIREWALL])
        if status:
            return f"nft refuses the firewall: {output.strip()}"
    if not _of_sshd(changes):
        return ""
    status, whole = run([SSHD, "-T"])
    if status:
        return f"sshd refuses its configuration: {whole.strip()}"
    for change in changes:
        if change.path.startswith("/etc/ssh/sshd_config.d/") and change.content:
            own = run([SSHD, "-T", "-f", change.path])[1]
            wrong = unmatched(own, whole, keywords(change.content))
            if wrong:
                return (
                    f"{', '.join(wrong)}: something else than {change.path} says is in force. Look into /etc/ssh/sshd_config for lines"
                    " that set the same, and remove them; it must include /etc/ssh/sshd_config.d/*.conf at its beginning"
                )
    return ""


def _same(former: set[int], ports: t.Sequence[int]) -> bool:
    """Whether sshd still listens as it did before."""
    return bool(former) and former <= sockets.inodes(ports)


def _activate(changes: t.Sequence[Change], run: Run) -> str:
    """Let kernel and sshd take the files; what went wrong, empty where nothing."""
    if _of_firewall(changes):
        status, output = run([NFT, "--file", FIREWALL])
        if status:
            return f"the firewall does not load: {output.strip()}"
        files.write(FIREWALL_LOADED, files.digests(_firewall_files()), 0o644)
    if not _of_sshd(changes):
        return ""
    ports = [int(line.split()[1]) for line in run([SSHD, "-T"])[1].splitlines() if line.startswith("port ")]
    former = sockets.inodes(ports)
    status, _output = run(["systemctl", "reload-or-restart", "ssh.service"])
    deadline = time.monotonic() + 10
    # sshd closes its sockets only after systemctl has come back; those say nothing of the new configuration
    while status or _same(former, ports) or not set(ports) <= set(sockets.listeners()):
        if status or time.monotonic() > deadline:
            # its own words; systemd has a line for each session that goes on
            own = ["--unit=ssh.service", "--identifier=sshd"]
            _status, journal = run(["journalctl", *own, "--lines=6", "--output=cat"])
            return f"sshd does not listen on port {', '.join(map(str, ports))}: {journal.strip()}"
        time.sleep(0.1)
    logins.note()
    return ""
