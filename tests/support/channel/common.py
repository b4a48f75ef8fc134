"""What every part of the channel builder shares: suites, paths, errors, running programs."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = HERE / "files"
EPOCH = 1_704_067_200
"""Modification time, in seconds since 1970, of everything packed (2024-01-01): same input, same bytes."""
PLACEHOLDER = "/opt/conda_channel_prefix_placeholder"
"""Stands in text files for the folder of the environment; conda replaces it when it links the file."""
PLATFORM = "linux-64"


class ChannelError(Exception):
    """The channel could not be built or served; the message says why and what to do."""


@dataclass(frozen=True)
class Suite:
    """A Debian release and the Python in it."""

    name: str
    python: str
    """Version of Python as in `python3.13`."""
    glibc: str
    """Lowest version of glibc that this suite's Python runs with."""
    extra_debs: tuple[str, ...] = ()
    """Packages that hold a part of this Python's standard library, beside the usual ones."""

    @property
    def tag(self) -> str:
        """Version without a dot, as in wheel and ABI tags: 313."""
        return self.python.replace(".", "")

    @property
    def lock(self) -> Path:
        """The file that pins the wheels for this suite."""
        return HERE / f"{self.name}.lock.txt"

    @property
    def site_packages(self) -> str:
        """Folder of installed modules, relative to an environment."""
        return f"lib/python{self.python}/site-packages"


SUITES = {
    suite.name: suite
    for suite in (
        Suite("trixie", "3.13", "2.41"),
        Suite("bookworm", "3.11", "2.36", ("python3-distutils", "python3-lib2to3")),
    )
}


def run(
    command: Sequence[str | os.PathLike[str]], *, text: str = "", environment: Mapping[str, str] | None = None
) -> str:
    """Run a program with `text` as its input and return its output; ChannelError with its last lines if it fails."""
    words = [os.fspath(word) for word in command]
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, env=environment, check=False)
    except FileNotFoundError as error:
        raise ChannelError(
            f"{words[0]} is not installed; install the Debian packages that docs/developers name"
        ) from error
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ChannelError(f"{' '.join(words[:6])} ... failed with code {done.returncode}:\n{tail}")
    return done.stdout


def sha256(path: Path) -> str:
    """Return the hex digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def replace_once(text: str, old: str, new: str, where: str) -> str:
    """Replace the one occurrence of `old`; ChannelError if there is not exactly one.

    What is patched here belongs to others and may change: then this must be noticed, not passed over.
    """
    if text.count(old) != 1:
        raise ChannelError(
            f"{where}: expected {old!r} once, found it {text.count(old)} times; adapt tests/support/channel"
        )
    return text.replace(old, new)


def write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write a file with its folders and set its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
