# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image that a hub starts from: an image definition of its machine, or one derived from it for what the hub adds.

A hub adds features, conda environments and Debian packages. Hubs that add the same to the same definition share one image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from .. import features, images
from . import checks
from .problems import Bad, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_APT = checks.text(images.APT, "it is not the name of a Debian package", "Write a package's name, such as graphviz")


def _features(value: Any) -> list[str]:
    remedy = "Write a list of features, such as [lsp, myst]"
    wanted = checks.names(checks.text(re.compile(r".+\Z"), "it is not a feature's name", remedy), remedy)(value)
    problems = features.check(wanted)
    if problems:
        raise Bad(*_divided(problems[0].removeprefix("features: ")))
    return wanted


def _divided(line: str) -> tuple[str, str]:
    """What is wrong, and the remedy, of a line that says both."""
    what, _colon, remedy = line.rpartition(": ")
    return what, remedy[:1].upper() + remedy[1:]


def _environment(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Bad("it is not a mapping", "Write an environment with a name, such as {name: geo, conda: [geopandas]}")
    return {key: item for key, item in value.items() if item is not None}


#: What a hub may add, by the key of an image definition that it is added to.
ADDITIONS = {"features": "hub_features", "environments": "hub_environments", "apt": "hub_apt"}
#: All that the image follows from; devices decide which variant of a feature a hub gets.
VARIABLES: dict[str, checks.Check] = {
    "hub_image": checks.text(
        re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z"),
        "it is not an image's name",
        "Write a name of hub_image_definitions",
    ),
    "hub_features": _features,
    "hub_environments": checks.listing(_environment, "Write a list of environments"),
    "hub_apt": checks.names(_APT, "Write a list of Debian packages"),
    "hub_devices": checks.names(checks.device, "Write a list of devices"),
}
#: What tells entries of these lists apart. A hub's entry takes the place of its definition's.
_NAMES: dict[str, Callable[[Any], str]] = {
    "features": lambda wish: features.split(wish)[0],
    "environments": lambda environment: str(environment["name"]),
    "apt": str,
}


class Wish(NamedTuple):
    """What a hub starts from."""

    image: str
    """Name of the image definition."""
    additions: dict[str, list[Any]]
    """What the hub adds to it, by the definition's keys; those without anything are left out."""

    @property
    def name(self) -> str:
        """Name of the image. Definitions have no dot in their names, so that a derived one can be told by it."""
        if not self.additions:
            return self.image
        content = json.dumps([self.image, self.additions], sort_keys=True)
        return f"{self.image[:54]}.{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    def definition(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """The definition of the image, derived from the one that is called ``image``."""
        result = {**base, "name": self.name}
        for key, added in self.additions.items():
            name = _NAMES[key]
            names = {name(one) for one in added}
            result[key] = [*(one for one in base.get(key) or [] if name(one) not in names), *added]
        return result


def wish(values: Mapping[str, Any], directory: str) -> Wish:
    """The wish of a hub whose variables have passed VARIABLES; relative paths start from ``directory``."""
    additions = {key: values[name] for key, name in ADDITIONS.items() if values[name]}
    if "features" in additions:
        additions["features"] = features.for_devices(additions["features"], values["hub_devices"])
    if "environments" in additions:
        additions["environments"] = [_absolute(environment, directory) for environment in additions["environments"]]
    return Wish(values["hub_image"], additions)


def _absolute(environment: Mapping[str, Any], directory: str) -> dict[str, Any]:
    paths = {
        key: os.path.abspath(os.path.join(directory, value))
        for key, value in environment.items()
        if key in ("requirements", "conda_lock") and value and isinstance(value, str)
    }
    return {**environment, **paths}


def check(wanted: Wish, machine: str, definitions: Any) -> Iterable[tuple[str, str, str, str]]:
    """What is wrong with a wish: key, value, what, remedy. The machine's own role judges everything else about its definitions."""
    known = {}
    if isinstance(definitions, list):
        known = {one["name"]: one for one in definitions if isinstance(one, dict) and isinstance(one.get("name"), str)}
    base = known.get(wanted.image)
    if base is None:
        guess = nearest(wanted.image, known)
        hint = f"The nearest is {guess}; or add it to" if guess else "Add it to"
        what = f"machine {machine} has no image definition of that name"
        yield "hub_image", shown(wanted.image), what, f"{hint} hub_image_definitions"
    elif wanted.additions and base.get("source", "build") != "build":
        what = f"the image {wanted.image} is not built by its machine, so nothing can be added to it"
        for key in wanted.additions:
            remedy = "Choose another hub_image, or put it into that image where it is made"
            yield ADDITIONS[key], shown(wanted.additions[key]), what, remedy
    yield from _check_environments(wanted, base or {})


def _check_environments(wanted: Wish, base: Mapping[str, Any]) -> Iterable[tuple[str, str, str, str]]:
    chosen = [*wanted.additions.get("features", []), *(base.get("features") or [])]
    brought = {} if features.check(chosen) else features.environments(chosen)
    seen: set[str] = set()
    for number, environment in enumerate(wanted.additions.get("environments", [])):
        key, name = f"hub_environments[{number}]", environment.get("name")
        for line in images.check_environment("it", environment, seen):
            yield key, shown(name), *_divided(line.removeprefix("it: ").removeprefix(f"{name}: "))
        if name in brought:
            yield (
                key,
                shown(name),
                f"the feature {brought[name]} brings an environment of that name",
                "Name yours otherwise",
            )


def features_of(definition: Mapping[str, Any]) -> Optional[list[str]]:
    """Features that the image of a definition has, sorted; None if that is not known here."""
    if not definition or definition.get("source", "build") != "build":
        return None
    chosen = definition.get("features") or []
    return None if features.check(chosen) else sorted(features.for_devices(chosen))


def of_hub(variables: Mapping[str, Any], directory: str, definitions: Any) -> Optional[Wish]:
    """The wish of a hub, None if anything is wrong with it."""
    values = {}
    try:
        for key, check_value in VARIABLES.items():
            checks.screen(variables.get(key))
            values[key] = check_value(variables.get(key))
    except Bad:
        return None
    wanted = wish(values, directory)
    return None if any(check(wanted, "", definitions)) else wanted


def derived(definitions: Iterable[Mapping[str, Any]], wishes: Iterable[Wish]) -> list[dict[str, Any]]:
    """The definitions that a machine needs for its hubs' wishes beside its own, sorted by name."""
    known = {definition["name"]: definition for definition in definitions}
    wanted = {wish.name: wish for wish in wishes if wish.additions and wish.image in known}
    return [wish.definition(known[wish.image]) for _name, wish in sorted(wanted.items())]
