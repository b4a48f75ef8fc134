"""Base images without a registry: Debian's minimal root file system, from the Debian mirror."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from testbed import podman
from testbed.common import RUN_DIR, TestbedError, digest, locked

REPOSITORY = "localhost/ananke-base"
SUITES = ("trixie", "bookworm")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
OPTIONS = ["--variant=minbase", "--format=tar", f"--keyring={KEYRING}"]


def mirror(environment: dict[str, str] | None = None) -> str:
    """Return the Debian mirror: ANANKE_DEBIAN_MIRROR, or Debian's own; security is beside it."""
    environment = dict(os.environ) if environment is None else environment
    return (environment.get("ANANKE_DEBIAN_MIRROR") or "http://deb.debian.org/debian").rstrip("/")


def sources(suite: str, debian: str) -> list[str]:
    """Return the lines of sources.list for a suite."""
    security = f"{debian.removesuffix('/debian')}/debian-security"
    return [
        f"deb {debian} {suite} main",
        f"deb {debian} {suite}-updates main",
        f"deb {security} {suite}-security main",
    ]


def check_suite(suite: str) -> None:
    """Raise TestbedError unless the suite is one that the collection supports."""
    if suite not in SUITES:
        raise TestbedError(f"suite {suite!r}: choose one of {', '.join(SUITES)}")


def reference(suite: str) -> str:
    """Return the name of the base image; its tag follows from what it is made of."""
    check_suite(suite)
    return f"{REPOSITORY}:{suite}-{digest(*OPTIONS, *sources(suite, mirror()))}"


def ensure(suite: str) -> str:
    """Return the name of the base image, which is built if it is not there (25 s).

    Raises:
        TestbedError: unknown suite, or the mirror or mmdebstrap failed.
    """
    name = reference(suite)
    with locked(RUN_DIR / f"base-{suite}.lock"):
        if podman.exists("image", name):
            return name
        print(f"Building {name} from {mirror()}", file=sys.stderr)
        # a file without a name: whatever kills us, nothing stays behind and no half of it is imported
        with tempfile.TemporaryFile(dir="/var/tmp") as archive:
            built = subprocess.run(
                ["mmdebstrap", *OPTIONS, suite, "-", "-"],
                input="".join(f"{line}\n" for line in sources(suite, mirror())).encode(),
                stdout=archive,
                stderr=subprocess.PIPE,
                check=False,
            )
            if built.returncode != 0:
                tail = built.stderr.decode(errors="replace").strip()[-2000:]
                raise TestbedError(f"mmdebstrap of {suite} from {mirror()} failed: {tail}")
            archive.seek(0)
            podman.run(
                ["import", "--quiet", "--change", 'CMD ["/bin/bash"]', "-", name],
                stdin=archive,
                capture_output=True,
            )
    return name
