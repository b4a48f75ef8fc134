# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on a machine's TCP ports, read from the kernel without a single process."""

from __future__ import annotations

import pwd
import socket
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files

LISTEN = "0A"
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def parse(table: str) -> dict[int, int]:
    """Listening ports of one table of the kernel: port -> UID of the socket's owner."""
    return {port: uid for port, uid, _inode in _listening(table)}


def _listening(table: str) -> t.Iterator[tuple[int, int, int]]:
    """Port, UID and inode of each listening socket.

    Source: proc_net_tcp in the kernel's documentation (field 2 address:port in hexadecimal, 4 state, 8 UID, 10 inode).
    """
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN:
            yield int(fields[1].rpartition(":")[2], 16), int(fields[7]), int(fields[9])


def listeners() -> dict[int, int]:
    """Listening ports of this machine, IPv4 and IPv6: port -> UID of the socket's owner."""
    found: dict[int, int] = {}
    for table in reversed(TABLES):
        found.update(parse(files.read(table) or ""))
    return found


def inodes(ports: t.Collection[int]) -> set[int]:
    """Which sockets listen on these ports; a program that has begun to listen anew has others."""
    tables = (files.read(table) or "" for table in TABLES)
    return {inode for table in tables for port, _uid, inode in _listening(table) if port in ports}


def primary_address() -> str:
    """The machine's IPv4 address on its way to the outside; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))
        return str(probe.getsockname()[0])


def taken(hubs: t.Iterable[dict[str, t.Any]], found: dict[int, int] | None = None) -> list[str]:
    """Complaints about hubs on whose port somebody else listens already.

    :param hubs: dictionaries with ``name``, ``port`` and ``container_admin``, whose own processes may listen there
    :param found: what :func:`listeners` returns, if it is known
    """
    present = listeners() if found is None else found
    problems = []
    for hub in hubs:
        owner = present.get(hub["port"])
        if owner is None:
            continue
        try:
            who = pwd.getpwuid(owner).pw_name
        except KeyError:
            who = f"UID {owner}"
        if who != hub["container_admin"]:
            problems.append(
                f"{hub['name']}: hub_port: {hub['port']} is in use by a process of {who}; choose another port,"
                f" or see which process it is: ss -ltnp 'sport = :{hub['port']}'"
            )
    return problems
