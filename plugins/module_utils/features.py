# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Features of hubs: which there are, what is wrong with a list of them, and what the program needs that installs them.

Everything here runs on the controller. A feature is a folder of the collection's ``features``:

* ``feature.yml``: ``title``, ``description``, and ``applies``: what makes it be seen (``reload`` of pages, another start of ``server``, or ``hub``);
* ``jhub.txt``, ``python3.txt``: locked packages of these environments; ``jhub-only.txt``: such of jhub that are installed without what they depend
  on. They are made from the files ``.in``;
* ``environment.txt``: locked packages of a conda environment of the feature's own, whose ``name`` and ``python`` are named by ``environment`` of
  ``feature.yml``. Of a feature with variants, there is ``environment-VARIANT.txt`` for each;
* ``rootfs``: files. In a path, ``lib/python3`` stands for the folder of the environment's Python;
* ``check.py``: proves in a hub that the feature works; what checks share is in ``features/checks.py``. Where its last line is a mapping in JSON,
  that is the feature's report.

A wish is the name of a feature, or ``NAME:VARIANT``. Without a variant, a running hub gets ``gpu`` if it has NVIDIA devices, and an image ``cpu``.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_feature_sets

FOLDER = Path(__file__).resolve().parents[2] / "features"
SCHEMA = {"title": str, "description": str, "applies": str}
ENVIRONMENT = {"name": str, "python": str}
APPLIES = hub_feature_sets.EFFECTS[1:]
LOCKS = tuple(hub_feature_sets.LOCKS)
VARIANTS = ("cpu", "gpu")
NVIDIA = ("nvidia.com/", "/dev/nvidia")
"""How entries of hub_devices begin that give a hub GPUs for CUDA."""


class FeatureError(Exception):
    """A feature's folder is not as it must be: a mistake in the collection."""


@dataclass(frozen=True)
class Feature:
    """A feature, all of it."""

    name: str
    title: str
    description: str
    applies: str
    environment: dict[str, str]
    """``name`` and ``python`` of the environment that the feature brings; empty if it brings none."""
    variant: str
    main: tuple[str, str]
    """Environment and name of the package whose version is that of the feature."""
    packages: dict[str, str]
    """Texts of its lock files; that of an environment of its own by the environment's name."""
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
    problems: list[str] = []
    seen: set[str] = set()
    for wish in wanted:
        name, variant = split(wish) if isinstance(wish, str) else (str(wish), "")
        if not isinstance(wish, str) or name not in known:
            near = difflib.get_close_matches(name.lower().replace("-", "_"), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            problems.append(f"features: {wish!r} is no feature: {hint}")
        elif wish != name and variant not in variants(name):
            choice = " or ".join([name, *(f"{name}:{one}" for one in variants(name))])
            problems.append(f"features: {wish!r} names a variant that {name} has not: write {choice}")
        elif name in seen:
            problems.append(f"features: {name!r} is there twice: keep one")
        seen.add(name)
    return problems


def split(wish: str) -> tuple[str, str]:
    """Name and variant of a wish; "" if it leaves the variant open."""
    name, _colon, variant = wish.partition(":")
    return name, variant


def variants(name: str) -> list[str]:
    """The variants of a feature; most have none."""
    return [variant for variant in VARIANTS if (FOLDER / name / f"environment-{variant}.txt").exists()]


def for_devices(wanted: Iterable[str], devices: Iterable[str] = ()) -> list[str]:
    """Features that `check` knows, with the variants that were left open named as a hub with these devices (hub_devices) needs them."""
    variant = "gpu" if any(device.startswith(NVIDIA) for device in devices) else "cpu"
    return [f"{wish}:{variant}" if not split(wish)[1] and variants(wish) else wish for wish in wanted]


def environments(wanted: Iterable[str]) -> dict[str, str]:
    """Environments that features bring which `check` knows, and the features. Each has a kernel of its name. Raises FeatureError and OSError."""
    found = [load(wish) for wish in for_devices(wanted)]
    return {one.environment["name"]: one.name for one in found if one.environment}


def load(wish: str) -> Feature:
    """A feature that `check` knows; its variant has to be named. Raises FeatureError and OSError."""
    name, variant = split(wish)
    folder = FOLDER / name
    described = yaml_load((folder / "feature.yml").read_text(encoding="utf-8"))
    environment: dict[str, str] = described.get("environment") or {} if isinstance(described, dict) else {}
    schema = {**SCHEMA, **({"environment": dict} if environment else {})}
    if (
        not _fits(described, schema)
        or (environment and not _fits(environment, ENVIRONMENT))
        or described["applies"] not in APPLIES
    ):
        raise FeatureError(
            f"{folder}/feature.yml must have {', '.join(SCHEMA)}, and environment with {' and '.join(ENVIRONMENT)} if it brings one;"
            f" applies is one of {', '.join(APPLIES)}"
        )
    locks = {lock: lock for lock in LOCKS}
    if environment:
        locks[environment["name"]] = f"environment-{variant}" if variant else "environment"
    packages = {
        key: (folder / f"{lock}.txt").read_text() for key, lock in locks.items() if (folder / f"{lock}.txt").exists()
    }
    return Feature(
        name=name,
        title=described["title"],
        description=described["description"],
        applies=described["applies"],
        environment=environment,
        variant=variant,
        main=_main(folder, {key: locks[key] for key in packages}),
        packages=packages,
        files=_files(folder / "rootfs"),
        check=(folder / "check.py").read_text(encoding="utf-8"),
    )


def _fits(value: Any, schema: Mapping[str, type]) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == schema.keys()
        and all(isinstance(value[key], kind) for key, kind in schema.items())
    )


def _main(folder: Path, locks: Mapping[str, str]) -> tuple[str, str]:
    """The first package that is required: in the environment of its own, in jhub, or in python3."""
    for environment in [*(locks.keys() - {*LOCKS}), "jhub", "python3"]:
        text = (folder / f"{locks[environment]}.in").read_text() if environment in locks else ""
        if found := re.search(r"^[A-Za-z0-9][\w.-]*", text, re.M):
            return environment, found[0]
    raise FeatureError(f"{folder} has no lock whose .in names a package")


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
    for wish in wanted:
        name, variant = split(wish)
        choice = [load(f"{name}:{one}") for one in ([variant] if variant else variants(name))]
        feature = choice[0] if choice else load(name)
        definitions[name] = {
            "title": feature.title,
            "applies": feature.applies,
            "environment": feature.environment,
            "files": feature.files,
            "check": feature.check,
            # the hub chooses where there are several
            "variants": {
                one.variant: {"main": list(one.main), "packages": one.packages} for one in choice or [feature]
            },
        }
    return {"features": definitions, "checks": (FOLDER / "checks.py").read_text(encoding="utf-8")}


def entries(wish: str) -> dict[str, bytes]:
    """Files that a step of an image needs to install the feature: its parameters and the program. Raises FeatureError and OSError."""
    content = {**parameters(for_devices([wish])), "exactly": False, "building": True}
    return {
        "feature.json": json.dumps(content, sort_keys=True, indent=1).encode(),
        "hub_feature_sets.py": Path(hub_feature_sets.__file__).read_bytes(),
    }
