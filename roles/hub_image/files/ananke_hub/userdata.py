# SPDX-License-Identifier: GPL-3.0-or-later
"""The user data file: who the hub's users are in the LMS.

``/var/lib/jupyterhub/user_data.json`` maps user names to ``given_name``, ``family_name``, ``name``, ``email``,
``lms_user_id``, ``roles``, ``first_login`` and ``last_login`` (UTC). It is personal data: mode 0600, and only what
an LMS sent.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .files import write_atomically

ROLES_CLAIM = "https://purl.imsglobal.org/spec/lti/claim/roles"
TEXT_FIELDS = ("given_name", "family_name", "name", "email")
MAX_TEXT = 256  # characters of one field
MAX_ROLES = 32
# Control characters, lone surrogates and unassigned codes have no place in a name; neither have line separators and
# the marks that reverse text, with which a name can disguise what stands beside it. Joiners (U+200C, U+200D) are
# part of real names.
_REVERSING = re.compile("[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_DROPPED_CATEGORIES = frozenset({"Cc", "Cs", "Cn", "Co", "Zl", "Zp"})


def clean(value: object, limit: int = MAX_TEXT) -> str:
    """A text that came from outside, as one harmless line of at most ``limit`` characters; "" for anything but text
    and numbers.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value)[: 4 * limit]
    text = _REVERSING.sub("", re.sub(r"[\t\n\v\f\r\x85\u2028\u2029]", " ", text))
    text = "".join(c for c in text if unicodedata.category(c) not in _DROPPED_CATEGORIES)
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip()[:limit].rstrip()


def from_claims(claims: Mapping[str, Any], lms_user_id: str) -> dict[str, Any]:
    """What is kept of a launch's claims."""
    roles = claims.get(ROLES_CLAIM)
    entry: dict[str, Any] = {field: clean(claims.get(field)) for field in TEXT_FIELDS}
    entry["lms_user_id"] = clean(lms_user_id)
    entry["roles"] = [text for role in roles[:MAX_ROLES] if (text := clean(role))] if isinstance(roles, list) else []
    return entry


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time; the lock is a file of its own, because the data file is replaced on every write."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read(path: Path) -> dict[str, dict[str, Any]]:
    """All entries; empty where there is no file yet. Raises ValueError if the file is damaged."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(data, dict) or not all(isinstance(entry, dict) for entry in data.values()):
        raise ValueError("not a mapping of user names to mappings")
    return data


def record(path: Path, name: str, entry: Mapping[str, Any], now: datetime | None = None) -> Path | None:
    """Store ``entry`` for the user ``name`` and the time of this login.

    Fields that the LMS no longer sends keep their last value. A damaged file is put aside, never overwritten: its
    new path is returned (else None). Raises OSError if nothing could be written; the old content is then still
    there.
    """
    time = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    with _locked(path):
        put_aside = None
        try:
            users = read(path)
        except ValueError:
            put_aside = path.with_name(f"{path.name}.damaged-{time}")
            path.rename(put_aside)
            users = {}
        known = users.get(name, {})
        users[name] = {
            **known,
            **{key: value for key, value in entry.items() if value or key not in known},
            "first_login": known.get("first_login", time),
            "last_login": time,
        }
        text = json.dumps(users, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        write_atomically(path, text.encode(), 0o600)
    return put_aside
