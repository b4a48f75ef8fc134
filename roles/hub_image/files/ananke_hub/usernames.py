# SPDX-License-Identifier: GPL-3.0-or-later
"""From a person's id in the LMS to a user name that Debian and systemd accept.

A hub user's name is also the name of their home in /var/lib/private and of a systemd dynamic user, so it must be
short and plain, must never be that of a system account, and two people must never share one.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata

MAX_LENGTH = 31
#: Accounts of rooms are called so, and nobody else: no prefix of people's names leads there.
ROOM_PREFIX = "room-"
#: As whom a hub proves that it works (``ananke_hub.probe``); nobody can log in so.
PROBE_ACCOUNT = "ananke-probe"
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")
_HASH_LENGTH = 16
_HASHED = re.compile(rf".*-[a-z2-7]{{{_HASH_LENGTH}}}\Z")

#: System accounts of Debian and directories of /var/lib: a home of such a name would take over the existing one.
#: Do not extend this list: that would give people new names. The spawner refuses whatever else is taken.
RESERVED = frozenset(
    """
    adm apt aspell avahi backup bin binfmts boot ca-certificates chrony daemon dbus debconf dev dhcpcd
    dictionaries-common disk dpkg emacsen-common etc exim4 extrausers games ghostscript git gnats grub hub
    initscripts irc jupyterhub list logrotate lp mail man messagebus misc mysql news nfs nginx nobody nvidia
    operator os-prober pam polkit polkitd polkit-1 postfix postgres private proxy python root saned shells sshd sudo
    sync sys syslog systemd systemd-coredump systemd-network systemd-resolve systemd-timesync tcpdump tpm tss ubuntu
    ucf udev udisks2 update-notifier upower urandom usbmux usbutils uucp uuidd users vim wheel www-data xml-core
    """.split()  # noqa: SIM905 - eighty names read better as text
)


def _digest(identifier: str) -> str:
    """80 bits of the id's hash, in 16 lower case letters and digits."""
    raw = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).digest()[:10]
    return base64.b32encode(raw).decode("ascii").lower()


def _slug(identifier: str) -> str:
    """What can be read of an odd id."""
    decomposed = unicodedata.normalize("NFKD", identifier).encode("ascii", "ignore").decode("ascii").lower()
    return re.sub(r"[^a-z0-9]+", "-", decomposed).strip("-")


def is_room_account(name: str) -> bool:
    """Whether this is the user name of a room, and not of a person."""
    return name.startswith(ROOM_PREFIX)


def may_be_room_account(prefix: str) -> bool:
    """Whether a name that starts with ``prefix`` can be that of a room account."""
    return prefix.startswith(ROOM_PREFIX) or ROOM_PREFIX.startswith(prefix)


def username(prefix: str, identifier: str) -> str:
    """The user name of the person whose id in the LMS is ``identifier``.

    A short, plain id is kept as it is (``u`` + ``1234`` is ``u1234``). Every other id (long, with capitals or
    special characters, or such that the name would be a system account's) gets a readable rest and a suffix made
    from its hash, always the same. Plain ids that look like such a name get one too, so that no person can have
    another's name by choosing an id.

    Raises ValueError for an empty id.
    """
    if not identifier:
        raise ValueError("an empty id has no user name")
    name = prefix + identifier
    if (
        _PLAIN.match(identifier)
        and len(name) <= MAX_LENGTH
        and not _HASHED.match(name)
        and name not in RESERVED
        and not name.startswith("systemd-")
    ):
        return name
    room = MAX_LENGTH - len(prefix) - 1 - _HASH_LENGTH
    readable = _slug(identifier)[:room].strip("-")
    return f"{prefix}{readable}-{_digest(identifier)}"
