# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a machine is: what fills up, what expires, what waits for a reboot. It only reads; what cannot be read is None, and among the problems."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Optional

#: Folders whose file systems fill: images; homes; all else.
DISKS = ("/var/lib/ananke", "/home", "/")
PATIENCE = 10
"""Seconds that the machine's proxy may take to show its certificate."""

Run = Callable[[Sequence[str], bytes], tuple[int, str]]


class Machine:
    """A machine; ``root`` is a folder in place of / in tests."""

    def __init__(self, run: Run, root: str = "") -> None:
        self.run, self.root = run, root
        self.problems: list[str] = []

    def text(self, path: str) -> str:
        """A file's content, '' if it cannot be read."""
        try:
            return Path(self.root + path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def memory(self) -> dict[str, Optional[int]]:
        """Bytes of memory, and how many can be had without swapping."""
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", self.text("/proc/meminfo"), re.M))
        return {key: int(found[name]) * 1024 if name in found else None for key, name in MEMORY.items()}

    def load(self) -> Optional[float]:
        """Processes that have worked or waited for a disk, on average of fifteen minutes."""
        parts = self.text("/proc/loadavg").split()
        return float(parts[2]) if len(parts) > 2 else None

    def disks(self) -> list[dict[str, Any]]:
        """The file systems that fill, each once."""
        found, seen = [], set()
        for path in DISKS:
            try:
                status, space = os.stat(self.root + path), os.statvfs(self.root + path)
            except OSError:
                continue
            if status.st_dev not in seen:
                seen.add(status.st_dev)
                blocks = {"size": space.f_blocks, "used": space.f_blocks - space.f_bfree, "free": space.f_bavail}
                found.append({"path": path, **{key: count * space.f_frsize for key, count in blocks.items()}})
        return found

    def certificate(self, name: str, port: int) -> Optional[dict[str, Any]]:
        """The certificate that browsers get to see here, whether or not it is trusted; None if there is none."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
                context.wrap_socket(plain, server_hostname=name) as secure,
            ):
                certificate = secure.getpeercert(binary_form=True) or b""
        except (OSError, ValueError) as error:
            self.problems.append(f"no certificate for {name} on port {port} ({error}): systemctl status nginx says why")
            return None
        status, output = self.run(["openssl", "x509", "-inform", "DER", "-noout", "-enddate"], certificate)
        ends = re.search(r"notAfter=(.+)", output)
        if status or not ends:
            self.problems.append(f"the certificate for {name} cannot be read: {' '.join(output.split())}")
            return None
        end = datetime.fromtimestamp(ssl.cert_time_to_seconds(ends[1].strip()), UTC)
        return {"host": name, "not_after": end.isoformat(), "days": int((end.timestamp() - time.time()) // 86400)}

    def reboot(self) -> list[str]:
        """The packages that wait for a reboot; empty if none does."""
        if not os.path.exists(self.root + REBOOT):
            return []
        return sorted(set(self.text(f"{REBOOT}.pkgs").split())) or ["unknown"]

    def backups(self) -> dict[str, dict[str, Any]]:
        """By hub, how its last backup went."""
        found = {}
        for path in sorted(Path(self.root + BACKUPS).glob("[a-z]*.json")):
            try:
                noted = json.loads(path.read_text(encoding="utf-8"))
                found[path.stem] = {key: noted.get(key) for key in ("time", "complete", "error")}
            except (OSError, ValueError, AttributeError) as error:
                self.problems.append(f"{path} cannot be read ({error}): the next backup of that hub writes it anew")
        return found


MEMORY = {"size": "MemTotal", "available": "MemAvailable"}
REBOOT = "/run/reboot-required"
BACKUPS = "/var/lib/ananke/backup"


def look(machine: Machine, name: str, port: int) -> dict[str, Any]:
    """All of it."""
    return {
        "memory": machine.memory(),
        "cpus": os.cpu_count(),
        "load": machine.load(),
        "disks": machine.disks(),
        "certificate": machine.certificate(name, port),
        "backups": machine.backups(),
        "reboot": machine.reboot(),
        "problems": machine.problems,
    }
