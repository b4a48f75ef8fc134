# SPDX-License-Identifier: GPL-3.0-or-later
"""Every launch from the LMS is good for one login, also across restarts of the hub."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

#: Seconds for which a used launch is remembered. A launch's cookie is refused after 10 minutes, so this leaves a
#: wide margin for clocks.
REMEMBERED = 24 * 3600


class UsedLaunches:
    """The launches that were used, in a small SQLite file of their own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def use(self, nonce: str, now: float | None = None) -> bool:
        """Whether ``nonce`` is used for the first time; it is marked as used, durably, before this returns.

        Raises sqlite3.Error or OSError if that cannot be stored; the launch must then be refused.
        """
        seconds = time.time() if now is None else now
        digest = hashlib.sha256(nonce.encode("utf-8", "surrogatepass")).digest()
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(self.path, timeout=10)) as connection, connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS used (nonce BLOB PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID"
            )
            connection.execute("DELETE FROM used WHERE until < ?", (seconds,))
            added = connection.execute(
                "INSERT INTO used VALUES (?, ?) ON CONFLICT DO NOTHING", (digest, seconds + REMEMBERED)
            )
            return added.rowcount == 1
