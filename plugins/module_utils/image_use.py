# Copyright: (c) 2026, The ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which images of a machine's shared store somebody still needs, read from files without a single process.

Podman cannot tell: containers are in the stores of their accounts, and root's podman knows only its own. So everything is looked at that
can name an image, or a layer of one: units, also of hubs that are not started, containers, also stopped ones, and images that somebody has built on
top of a shared one. Where something cannot be read nothing is known, which is an error here and no permission to remove anything.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Sequence  # noqa: UP035 - the machine's Python decides

from ansible_collections.ananke.jupyterhub.plugins.module_utils.accounts import FIRST_UID, LINGER_DIR
from ansible_collections.ananke.jupyterhub.plugins.module_utils.image_store import Image, StoreError

SUBUID = "/etc/subuid"
SYSTEM_UNITS = ("/etc/containers/systemd", "/etc/systemd/user")
SYSTEM_STORAGE_CONF = ("/etc/containers/storage.conf",)
UNITS = (".config/containers/systemd", ".config/systemd/user")
STORAGE = ".local/share/containers/storage"
LARGEST = 64 * 2**20
"""Bytes of a file that are read; no list of layers is near."""

_ELSEWHERE = re.compile(r"^\s*(?:graphroot|rootless_storage_path)\s*=", re.MULTILINE)
_ALL_ELSEWHERE = re.compile(r"^\s*rootless_storage_path\s*=", re.MULTILINE)


@dataclass(frozen=True)
class Use:
    """What names images and layers on a machine."""

    units: str
    images: frozenset[str]
    layers: frozenset[str]

    def names(self, image: Image) -> bool:
        """Whether a unit or a container names this image."""
        return image.reference in self.units or image.id[:12] in self.units or image.id in self.images


def look() -> Use:
    """Look at all accounts of the machine that may have containers.

    Raises:
        StoreError: something cannot be read or understood, so that nothing is known.
    """
    try:
        return _look(_homes())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"it is not known which images are in use: {error}") from error


def unused(candidates: Sequence[str], images: Mapping[str, Image], store: str, use: Use) -> list[str]:
    """Those of the candidates, names among the store's ``images``, that can go and take nothing along that anybody needs.

    Raises:
        StoreError: the store's list of layers cannot be understood.
    """
    path = os.path.join(store, "overlay-layers", "layers.json")
    try:
        parents = {layer["id"]: layer.get("parent", "") for layer in json.loads(_read(path) or "[]")}
        layers = {name: _chain(image.layer, parents) for name, image in images.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: cannot be understood ({error!r}): repair or remove the image store {store}"
        ) from error
    rest = [name for name in candidates if not use.names(images[name])]
    staying = {layer for name in images if name not in rest for layer in layers[name]}
    result = []
    for name in rest:
        # layers that another image has as well stay with that one
        if use.layers.isdisjoint(layers[name] - staying):
            result.append(name)
        else:
            staying |= layers[name]
    return result


def _chain(top: str, parents: Mapping[str, str]) -> set[str]:
    """A layer and all below it."""
    layers: set[str] = set()
    while top and top not in layers:
        layers.add(top)
        top = parents[top]
    return layers


def _homes() -> list[str]:
    """Homes of the accounts that may have containers: those from 1000 on, those that linger, those with subordinate UIDs.

    A directory service need not list its accounts, so the first alone would not do.
    """
    named = {*_names(LINGER_DIR), *(line.split(":")[0] for line in _read(SUBUID).splitlines())}
    homes = {entry.pw_dir for entry in pwd.getpwall() if entry.pw_uid >= FIRST_UID}
    for name in named:
        try:
            home = pwd.getpwnam(name).pw_dir
        except KeyError:
            continue  # the account is gone
        if not os.path.isdir(home):
            raise StoreError(f"it is not known which images are in use: {home}, the home of {name}, is not there")
        homes.add(home)
    return sorted(homes)


def _look(homes: list[str]) -> Use:
    for path in SYSTEM_STORAGE_CONF:
        _refuse(path, _ALL_ELSEWHERE)
    texts = [_read(path) for folder in SYSTEM_UNITS for path in _files(folder)]
    images: set[str] = set()
    layers: set[str] = set()
    for home in homes:
        _refuse(os.path.join(home, ".config/containers/storage.conf"), _ELSEWHERE)
        texts += [_read(path) for folder in UNITS for path in _files(os.path.join(home, folder))]
        storage = os.path.join(home, STORAGE)
        for folder in _names(storage):
            if folder.endswith("-containers"):
                images.update(one["image"] for one in _lists(os.path.join(storage, folder), "containers.json"))
            elif folder.endswith("-images"):
                found = _lists(os.path.join(storage, folder), "images.json")
                layers.update(one["layer"] for one in found if one.get("layer"))
            elif folder.endswith("-layers"):
                found = _lists(os.path.join(storage, folder), "layers.json")
                layers.update(one["parent"] for one in found if one.get("parent"))
    return Use("\n".join(texts), frozenset(images), frozenset(layers))


def _refuse(path: str, pattern: re.Pattern[str]) -> None:
    if pattern.search(_read(path)):
        raise StoreError(f"it is not known which images are in use: {path} has containers stored elsewhere")


def _lists(folder: str, name: str) -> Iterator[dict[str, Any]]:
    """The entries of a store's list and of that of its short-lived containers."""
    for path in (name, f"volatile-{name}"):
        yield from json.loads(_read(os.path.join(folder, path)) or "[]")


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files(folder: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise error

    for inner, _folders, names in os.walk(folder, onerror=fail):
        yield from (os.path.join(inner, name) for name in names)


def _read(path: str) -> str:
    """A file's text; '' where there is none. Its owner is not trusted: it may be a pipe that nobody writes to, or endless."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    with os.fdopen(descriptor, "rb") as handle:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        data = handle.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise StoreError(f"it is not known which images are in use: {path} is larger than {LARGEST} bytes")
    return data.decode("utf-8", "replace")
