# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of hub users as hubs make them: ``username`` is the same as in the image's ``ananke_hub.usernames``, and a unit test holds both together."""

from __future__ import annotations

import base64
import hashlib
import re
import typing as t
import unicodedata

MAX_LENGTH = 31
HASH_LENGTH = 16
FORMER_PREFIX = "u"
"""What precedes the LMS's id in names of the former system."""
CLAIMS = {"sub": "lms_uid", "email": "email", "given_name": "first", "family_name": "last"}
"""Claims of a launch that the former system kept in its user data, and how it called them."""
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")
_HASHED = re.compile(rf".*-[a-z2-7]{{{HASH_LENGTH}}}\Z")
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


def username(prefix: str, identifier: str) -> str:
    """The name of the person whose id in the LMS this is."""
    name = prefix + identifier
    if (
        _PLAIN.match(identifier)
        and len(name) <= MAX_LENGTH
        and not _HASHED.match(name)
        and name not in RESERVED
        and not name.startswith("systemd-")
    ):
        return name
    plain = unicodedata.normalize("NFKD", identifier).encode("ascii", "ignore").decode("ascii").lower()
    readable = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[: MAX_LENGTH - len(prefix) - 1 - HASH_LENGTH].strip("-")
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).digest()[:10]
    return f"{prefix}{readable}-{base64.b32encode(digest).decode('ascii').lower()}"


def renamed(former: str, entry: t.Any, key: str, prefix: str) -> str:
    """The name that a user of the former system has from now on.

    The former system put ``u`` before the id and made all letters small. What its user data kept of the person says how the id is really
    written; without that, as the name has it.

    :param former: the former name
    :param entry: what the former user data have of the person; None where there is nothing
    :param key: claim of a launch that names are made from
    :param prefix: what precedes it from now on
    """
    if not former.startswith(FORMER_PREFIX) or former == FORMER_PREFIX:
        return former
    kept = entry.get(CLAIMS.get(key, "")) if isinstance(entry, dict) else None
    identifier = str(kept).strip() if isinstance(kept, (str, int)) else ""
    if f"{FORMER_PREFIX}{identifier}".lower() != former:
        identifier = former[len(FORMER_PREFIX) :]
    return username(prefix, identifier)
