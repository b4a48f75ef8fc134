"""What every part of the test bed shares: where it is, what its things are called, and its error."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
BUILD = REPOSITORY / "build"
RUN_DIR = Path("/run/ananke-testbed")
"""State of the whole developer's machine, shared by all checkouts: podman's store is shared as well."""

EXTRA_CAS = Path("/usr/local/share/ca-certificates")


class TestbedError(RuntimeError):
    """Something that the developer has to know: the message says what, where and what to do next."""

    __test__ = False  # the name begins like a test's; pytest is not to collect it


def prefix(environment: dict[str, str] | None = None, repository: Path = REPOSITORY) -> str:
    """Return what the names of this checkout's containers and volumes begin with.

    The default contains a hash of the repository's path, so that checkouts do not meet.
    ANANKE_TESTBED_PREFIX sets another one.

    Raises:
        TestbedError: the prefix cannot begin a container's name.
    """
    environment = dict(os.environ) if environment is None else environment
    chosen = environment.get("ANANKE_TESTBED_PREFIX", "")
    if not chosen:
        return f"ananke-{hashlib.sha256(str(repository).encode()).hexdigest()[:6]}"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,29}", chosen):
        raise TestbedError(
            f"ANANKE_TESTBED_PREFIX is {chosen!r}: use at most 30 lower case letters, digits and dashes, a letter first"
        )
    return chosen


def digest(*parts: str | bytes) -> str:
    """Return 12 hexadecimal digits that change with any of the parts, or with their division into parts."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:12]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file for the time of a `with` block; a killed holder frees it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_file(path: Path, content: str, mode: int = 0o644) -> None:
    """Replace a file at once, so that a reader or a kill never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as handle:
        os.fchmod(descriptor, mode)
        handle.write(content)
    draft.replace(path)


def extra_cas(folder: Path = EXTRA_CAS) -> list[Path]:
    """Return the certificates of private authorities that this machine trusts, sorted by path."""
    return sorted(path for path in folder.rglob("*.crt") if path.is_file())
