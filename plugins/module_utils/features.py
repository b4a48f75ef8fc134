# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Features of hubs: which there are, what is wrong with a list of them, and what the program needs that installs them.

Everything here runs on the controller. A feature is a folder of the collection's ``features``:

* ``feature.yml``: ``title``, ``description``, and ``applies``: what makes it be seen (``reload`` of pages, another start of ``server``, or ``hub``);
* ``jhub.txt``, ``python3.txt``: locked packages of these environments; ``jhub-only.txt``: such of jhub that are installed without what they depend
  on. They are made from the files ``.in``;
* ``rootfs``: files. In a path, ``lib/python3`` stands for the folder of the environment's Python;
* ``check.py``: proves in a hub that the feature works; what checks share is in ``features/checks.py``.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_feature_sets

FOLDER = Path(__file__).resolve().parents[2] / "features"
SCHEMA = ("title", "description", "applies")
APPLIES = hub_feature_sets.EFFECTS[1:]
LOCKS = tuple(hub_feature_sets.LOCKS)


class FeatureError(Exception):
    """A feature's folder is not as it must be: a mistake in the collection."""


@dataclass(frozen=True)
class Feature:
    """A feature, all of it."""

    name: str
    title: str
    description: str
    applies: str
    main: tuple[str, str]
    """Environment and name of the package whose version is that of the feature."""
    packages: dict[str, str]
    """Texts of its lock files."""
    files: dict[str, dict[str, Any]]
    """Path in the hub, and ``content`` and ``executable`` of each file."""
    check: str


def names() -> list[str]:
    """All features."""
    return sorted(path.parent.name for path in FOLDER.glob("*/feature.yml"))


def check(wanted: Any) -> list[str]:
    """What is wrong with a list of features, one line each."""
    known = names()
    if not isinstance(wanted, (list, tuple)):
        return [f"features is {wanted!r}: write a list, e.g. [{known[0]}]"]
    problems = []
    for index, name in enumerate(wanted):
        if not isinstance(name, str) or name not in known:
            near = difflib.get_close_matches(str(name).lower().replace("-", "_"), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            problems.append(f"features: {name!r} is no feature: {hint}")
        elif name in wanted[:index]:
            problems.append(f"features: {name!r} is there twice: keep one")
    return problems


def load(name: str) -> Feature:
    """A feature that `check` knows. Raises FeatureError and OSError."""
    folder = FOLDER / name
    described = yaml_load((folder / "feature.yml").read_text(encoding="utf-8"))
    if not isinstance(described, dict) or set(described) != set(SCHEMA) or described["applies"] not in APPLIES:
        raise FeatureError(
            f"{folder}/feature.yml must have {', '.join(SCHEMA)}; applies is one of {', '.join(APPLIES)}"
        )
    packages = {lock: (folder / f"{lock}.txt").read_text() for lock in LOCKS if (folder / f"{lock}.txt").exists()}
    return Feature(
        name=name,
        title=described["title"],
        description=described["description"],
        applies=described["applies"],
        main=_main(folder, packages),
        packages=packages,
        files=_files(folder / "rootfs"),
        check=(folder / "check.py").read_text(encoding="utf-8"),
    )


def _main(folder: Path, packages: Iterable[str]) -> tuple[str, str]:
    """The first requirement of jhub or of python3."""
    for lock in ("jhub", "python3"):
        found = (
            re.search(r"^[A-Za-z0-9][\w.-]*", (folder / f"{lock}.in").read_text(), re.M) if lock in packages else None
        )
        if found:
            return lock, found[0]
    raise FeatureError(f"{folder} has neither jhub.in nor python3.in with a package")


def _files(root: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            content = path.read_text(encoding="utf-8")
            found[f"/{path.relative_to(root)}"] = {"content": content, "executable": os.access(path, os.X_OK)}
    return found


def parameters(wanted: Iterable[str]) -> dict[str, Any]:
    """What the program `hub_feature_sets` needs to know of features that `check` knows. Raises FeatureError and OSError."""
    definitions = {}
    for feature in map(load, wanted):
        definitions[feature.name] = {
            "title": feature.title,
            "applies": feature.applies,
            "main": list(feature.main),
            "packages": feature.packages,
            "files": feature.files,
            "check": feature.check,
        }
    return {"features": definitions, "checks": (FOLDER / "checks.py").read_text(encoding="utf-8")}


def entries(name: str) -> dict[str, bytes]:
    """Files that a step of an image needs to install the feature: its parameters and the program. Raises FeatureError and OSError."""
    wish = {**parameters([name]), "exactly": False}
    return {
        "feature.json": json.dumps(wish, sort_keys=True, indent=1).encode(),
        "hub_feature_sets.py": Path(hub_feature_sets.__file__).read_bytes(),
    }
