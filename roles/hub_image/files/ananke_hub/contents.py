# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image consists of, recorded when it is built, and what has been changed in a hub's container since.

``python -m ananke_hub.contents`` writes the record. All is taken from names of files and short lists, so that looking starts nothing. Needs no
more than Python's own library: ``hub_info`` uses this file with another Python than that of ``jhub``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONDA = "opt/conda"
FEATURES = "opt/install/features"
RECORD = "opt/install/contents.json"
_DEBIAN = re.compile(r"^Package: (.+)\n(?:.+\n)*?Status: install ok installed\n(?:.+\n)*?Version: (.+)$", re.M)

Contents = dict[str, Any]
Change = dict[str, str | None]


def debian(root: Path) -> dict[str, str]:
    """Versions of Debian's packages."""
    return dict(_DEBIAN.findall((root / "var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")))


def packages(prefix: Path) -> dict[str, str]:
    """Versions of all packages of an environment, from conda and from pip."""
    found = {}
    for path in prefix.glob("conda-meta/*-*-*.json"):
        name, version, _build = path.stem.rsplit("-", 2)
        found[normal(name)] = version
    for path in prefix.glob("lib/python3*/site-packages/*.dist-info"):
        name, _dash, version = path.stem.rpartition("-")
        if not (path / "INSTALLER").exists() or (path / "INSTALLER").read_text().strip() != "conda":
            found[normal(name)] = version
    return found


def normal(name: str) -> str:
    """A package's name, of all its spellings the one that PyPI uses."""
    return re.sub(r"[-_.]+", "-", name).lower()


def look(root: Path) -> Contents:
    """What there is now. Raises OSError."""
    environments = {path.parent.name: packages(path.parent) for path in root.glob(f"{CONDA}/envs/*/conda-meta")}
    features = {path.stem: json.loads(path.read_text())["packages"] for path in root.glob(f"{FEATURES}/[a-z]*.json")}
    return {
        "debian": debian(root),
        "environments": {"base": packages(root / CONDA), **environments},
        "features": features,
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Names of what is there on one side alone, or differs."""
    yield from (name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name))


def presence(kind: str, image: dict[str, Any], now: dict[str, Any]) -> Iterator[Change]:
    """What has come or gone as a whole."""
    for name in sorted(image.keys() ^ now.keys()):
        yield change(kind, name, "" if name in image else None, "" if name in now else None)


def changes(image: Contents, now: Contents) -> Iterator[Change]:
    """What differs from the image. What features brought, there or then, is told as their feature alone."""
    moved = list(presence("feature", image["features"], now["features"]))
    yield from moved
    brings = {**image["features"], **now["features"]}
    told = {environment for one in moved for environment in brings[str(one["name"])]}
    for one in presence("environment", image["environments"], now["environments"]):
        if one["name"] not in told:
            yield one
    features = [*image["features"].values(), *now["features"].values()]
    for environment in sorted(image["environments"].keys() & now["environments"].keys()):
        brought = {normal(name) for feature in features for name in feature.get(environment, ())}
        before, after = image["environments"][environment], now["environments"][environment]
        for name in differences(before, after):
            if name not in brought:
                yield change("package", name, before.get(name), after.get(name), environment)
    for name in differences(image["debian"], now["debian"]):
        yield change("debian", name, image["debian"].get(name), now["debian"].get(name))


WORDS = {"feature": "feature {}", "environment": "environment {}", "debian": "Debian package {}"}


def change(kind: str, name: str, image: str | None, now: str | None, environment: str | None = None) -> Change:
    """One difference, also in words."""
    what = WORDS.get(kind, f"package {{}} of environment {environment}").format(name)
    if image is None:
        text = f"{what} was added: {now}".removesuffix(": ")
    elif now is None:
        text = f"{what} was removed"
    else:
        text = f"{what} is {now}, not {image}"
    return {"kind": kind, "name": name, "environment": environment, "image": image, "now": now, "text": text}


def drift(root: Path) -> list[Change]:
    """What differs from the image. Raises OSError and ValueError where that cannot be told."""
    return list(changes(json.loads((root / RECORD).read_text()), look(root)))


if __name__ == "__main__":
    (Path("/") / RECORD).write_text(json.dumps(look(Path("/")), indent=1, sort_keys=True) + "\n")
