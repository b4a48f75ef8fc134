# Copyright: (c) 2026, The ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine's shared image store: what is in it, what of it is recorded, and that everybody may read it.

Runs on the machine with nothing but Python's standard library: the module imports it, and so does the
job that makes an image, a program in a systemd unit of its own.

The store is read as files: it is quicker, and a `podman` of root that writes to the store takes its
metadata away from the container admins until it is shared again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Iterator, Mapping, Optional, Sequence  # noqa: UP035 - the machine's Python decides

STORE = "/var/lib/ananke/store"
STORAGE_CONF = "/etc/ananke/storage.conf"
RECORDS = "/var/lib/ananke/images"
BUILDS = "/var/lib/ananke/builds"
LOGS = "/var/log/ananke"
LOCK = "/run/ananke/images.lock"
"""Held by whoever adds images to the store or removes them."""
FULL = ("no space left on device", "disk quota exceeded")
"""Words, in lower case, of the kernel and of all who tell what it said."""
HISTORY = 10
"""Former images of a definition that its record names."""

LOCK_FILES = (
    "storage.lock",
    "overlay-images/images.lock",
    "overlay-layers/layers.lock",
)
"""Opened by every reader of the store; a reader cannot create them."""

_DERIVED = re.compile(r"localhost/ananke/[a-z0-9_-]+\.[0-9a-f]{8}:[0-9a-f]{12}")


class StoreError(Exception):
    """Something that the host admin has to know: what, where and what to do next."""


@dataclass(frozen=True)
class Image:
    """An image in the store, or the record of one."""

    name: str
    reference: str
    id: str
    digest: str
    created: str
    layer: str = field(default="", compare=False, repr=False)
    """The topmost layer, of an image in the store."""

    @property
    def record(self) -> dict[str, str]:
        """What is recorded of it."""
        return {key: value for key, value in asdict(self).items() if key != "layer"}


def read_images(store: str = STORE) -> dict[str, Image]:
    """Return the store's images by reference; an absent or empty store has none.

    Raises:
        StoreError: the list of images is there but cannot be read.
    """
    path = os.path.join(store, "overlay-images", "images.json")
    try:
        with open(path, encoding="utf-8") as handle:
            entries = json.load(handle)
        return {
            reference: Image(
                "", reference, entry["id"], entry.get("digest", ""), entry.get("created", ""), entry.get("layer", "")
            )
            for entry in entries
            for reference in entry.get("names") or []
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: cannot be understood ({error}): repair or remove the image store {store}") from error


def find(images: Mapping[str, Image], name: str, reference: str) -> Optional[Image]:
    """Return a definition's image, or None."""
    found = images.get(reference)
    return replace(found, name=name) if found else None


def same_content(images: Mapping[str, Image], reference: str) -> Optional[str]:
    """Return another reference with the same content-addressed tag: the same image under another name."""
    repository, _colon, tag = reference.rpartition(":")
    prefix = repository.rpartition("/")[0] + "/"
    return next((other for other in sorted(images) if other.startswith(prefix) and other.endswith(f":{tag}")), None)


def is_derived(reference: str) -> bool:
    """Whether an image was made for what hubs add to a definition: names of definitions have no dot."""
    return bool(_DERIVED.fullmatch(reference))


def _shared_paths(store: str) -> Iterator[tuple[str, int]]:
    """Return the paths that readers need, with the permissions that they need on them."""
    yield store, 0o755
    for name in ("overlay", "overlay-images", "overlay-layers"):
        folder = os.path.join(store, name)
        if not os.path.isdir(folder):
            continue
        yield folder, 0o755
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                yield entry.path, 0o755
                if name == "overlay-images":
                    yield from ((inner.path, 0o644) for inner in os.scandir(entry.path) if inner.is_file())
            elif name != "overlay" and entry.is_file(follow_symlinks=False):
                yield entry.path, 0o644


def share(store: str = STORE, dry_run: bool = False) -> list[str]:
    """Let everybody read the store, create its lock files, and return the paths that this changed.

    With `dry_run` nothing is changed. What vanishes meanwhile is left out.
    """
    changed: list[str] = []
    if not os.path.isdir(os.path.join(store, "overlay-images")):
        return changed
    for name in LOCK_FILES:
        path = os.path.join(store, name)
        if not os.path.exists(path):
            changed.append(path)
            if not dry_run:
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o644))
    for path, mode in _shared_paths(store):
        try:
            if os.stat(path).st_mode & mode != mode:
                changed.append(path)
                if not dry_run:
                    os.chmod(path, mode)
        except FileNotFoundError:
            continue
    return changed


@contextmanager
def kept_shared(store: str = STORE) -> Iterator[None]:
    """Keep the shared store readable while podman writes to it: hubs start from it at any time."""
    finished = threading.Event()

    def repeat() -> None:
        while not finished.wait(0.5):
            share(store)

    sharer = threading.Thread(target=repeat, daemon=True)
    sharer.start()
    try:
        yield
    finally:
        finished.set()
        sharer.join()
        share(store)


def read_record(name: str, records: str = RECORDS) -> Optional[dict[str, Any]]:
    """Return what is recorded as the image of a definition; None if nothing readable is."""
    try:
        with open(os.path.join(records, f"{name}.json"), encoding="utf-8") as handle:
            record = json.load(handle)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def recorded(image: Image, records: str = RECORDS) -> bool:
    """Whether exactly this is recorded as the image of its definition."""
    record = read_record(image.name, records) or {}
    return {key: value for key, value in record.items() if key != "previous"} == image.record


def former(name: str, reference: str, records: str = RECORDS) -> list[str]:
    """What a definition stood for before it stood for ``reference``, the latest first."""
    record = read_record(name, records) or {}
    previous = record.get("previous")
    known = [record.get("reference"), *(previous if isinstance(previous, list) else [])]
    return [one for one in dict.fromkeys(known) if isinstance(one, str) and one != reference][:HISTORY]


def write_record(image: Image, records: str = RECORDS) -> None:
    """Record at once what a definition stands for now, and what it stood for before."""
    os.makedirs(records, mode=0o755, exist_ok=True)
    record = {**image.record, "previous": former(image.name, image.reference, records)}
    write_file(os.path.join(records, f"{image.name}.json"), json.dumps(record, indent=1) + "\n", 0o644)


def forget(reference: str, records: str = RECORDS) -> None:
    """Remove the record of a derived image that is gone."""
    name = reference.rpartition("/")[2].partition(":")[0]
    if (read_record(name, records) or {}).get("reference") == reference:
        os.unlink(os.path.join(records, f"{name}.json"))


def room(folders: Sequence[str]) -> str:
    """How much is free where these folders are, or would be, in words: the fullest file system first."""
    found: dict[int, list[str]] = {}
    for path in folders:
        while not os.path.exists(path):
            path = os.path.dirname(path)
        found.setdefault(os.stat(path).st_dev, []).append(path)
    usages = [(shutil.disk_usage(paths[0]), " and ".join(dict.fromkeys(paths))) for paths in found.values()]
    usages.sort(key=lambda one: one[0].free)
    return ", ".join(f"{use.free >> 20} of {use.total >> 20} MiB are free at {paths}" for use, paths in usages)


def told(error: str, said: str, store: str, builds: str) -> str:
    """An error in words, with what to do if it was a full disk; a program that fails by that says so in its output only.

    Args:
        error: The error.
        said: What programs have said.
        store: The image store.
        builds: Folder of the jobs.
    """
    if not any(words in f"{error}\n{said}".lower() for words in FULL):
        return error
    # podman's layers, and where it puts what it is about to copy
    places = [os.path.join(store, "overlay"), builds, os.environ.get("TMPDIR", "/var/tmp")]  # noqa: S108
    return (
        f"{error}: the disk is full. What was begun is no image, and hubs go on with theirs; now {room(places)}. Make room or enlarge that, and run again. "
        f"Layers of earlier builds, which only make builds quicker, go by CONTAINERS_STORAGE_CONF={builds}/storage.conf podman image rm --all --force"
    )


def sha256(path: str) -> str:
    """Return the SHA-256 of a file, which may be larger than memory, in hexadecimal digits."""
    whole = hashlib.sha256()
    with open(path, "rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            whole.update(chunk)
    return whole.hexdigest()


def write_file(path: str, text: str, mode: int) -> None:
    """Replace a file at once: a reader or a kill never meets half of it."""
    draft = f"{path}.new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        os.fchmod(descriptor, mode)
        handle.write(text)
        handle.flush()
        os.fsync(descriptor)
    os.replace(draft, path)


def unit_name(key: str) -> str:
    """Return the name of the unit that makes the image with this key."""
    return f"ananke-image-{key}.service"
