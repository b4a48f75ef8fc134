"""Installs one release of the test LMS on a machine. Run by the role with the release as JSON on standard input.

    {"home": FOLDER, "name": DIGEST, "files": {PATH: TEXT}, "settings": {...}}

A release is a folder of its own that is complete or absent under its name, so a run that was killed anywhere is
finished by the next one. Environments are shared by releases with equal requirements.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

KEEP = 2


def install(home: Path, name: str, files: dict[str, str], settings: dict[str, object]) -> None:
    """Write files and settings below `home`/releases/`name`, and build its environment if there is none."""
    release = home / "releases" / name
    shutil.rmtree(release, ignore_errors=True)
    for relative, text in files.items():
        path = release / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (release / "settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    venv = environment(home, release / "requirements.txt")
    (release / "venv").symlink_to(venv)
    subprocess.run([release / "venv/bin/python", "-m", "compileall", "-q", release / "test_lms"], check=True)
    subprocess.run(
        [release / "venv/bin/python", "-m", "test_lms", "--check", "--config", release / "settings.json"],
        cwd=release,
        check=True,
    )
    # Dangles, and so counts as absent, once an upgrade of the machine takes the Python away that it was built with.
    (release / "complete").symlink_to("venv/bin/python")


def environment(home: Path, requirements: Path) -> Path:
    """The virtual environment for `requirements` and this Python; built where it is missing or half built."""
    python = os.path.realpath(sys.executable)
    key = hashlib.sha256(requirements.read_bytes() + python.encode()).hexdigest()[:12]
    venv = home / f"venv-{key}"
    if not (venv / "complete").exists():
        ensure_pip()
        subprocess.run([python, "-m", "venv", "--clear", venv], check=True)
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "--only-binary=:all:", "-r", str(requirements)], check=True)
        (venv / "complete").touch()
    return venv


def ensure_pip() -> None:
    """Install Debian's python3-venv where it is missing; here, as only a new environment needs it."""
    if importlib.util.find_spec("ensurepip") is None:
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "python3-venv"], check=True)


def prune(home: Path) -> None:
    """Remove all but the newest releases, and the environments that none of them uses."""
    releases = sorted((home / "releases").iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in releases[KEEP:]:
        shutil.rmtree(old)
    used = {os.path.realpath(release / "venv") for release in releases[:KEEP]}
    for venv in home.glob("venv-*"):
        if str(venv) not in used:
            shutil.rmtree(venv)


def main() -> int:
    os.umask(0o022)
    wanted = json.load(sys.stdin)
    home = Path(wanted["home"])
    try:
        install(home, wanted["name"], wanted["files"], wanted["settings"])
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))} ended with {error.returncode}", file=sys.stderr)
        return 1
    prune(home)
    return 0


if __name__ == "__main__":
    sys.exit(main())
