# Copyright: (c) 2026, The ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine's shared image store: what is in it, that everybody may read it, and the job that fills it.

Runs on the machine with nothing but Python's standard library. The module imports it; the job of
an image is this same file, run as a program in a systemd unit of its own, so that it does not depend
on Ansible's connection.

The store is read as files: a `podman` of root, even one that only lists images, would take the
store's metadata away from the container admins.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from typing import Any, Iterator, Mapping, Optional, Sequence  # noqa: UP035 - the machine's Python decides

STORE = "/var/lib/ananke/store"
STORAGE_CONF = "/etc/ananke/storage.conf"
RECORDS = "/var/lib/ananke/images"
BUILDS = "/var/lib/ananke/builds"
LOGS = "/var/log/ananke"
LOCK = "/run/ananke/images.lock"
CONTEXT = "/run/ananke-context"

LOCK_FILES = (
    "storage.lock",
    "overlay-images/images.lock",
    "overlay-layers/layers.lock",
)
"""Opened by every reader of the store; a reader cannot create them."""


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
            reference: Image("", reference, entry["id"], entry.get("digest", ""), entry.get("created", ""))
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
    return Image(name, reference, found.id, found.digest, found.created) if found else None


def same_content(images: Mapping[str, Image], reference: str) -> Optional[str]:
    """Return another reference with the same content-addressed tag: the same image under another name."""
    repository, _colon, tag = reference.rpartition(":")
    prefix = repository.rpartition("/")[0] + "/"
    return next((other for other in sorted(images) if other.startswith(prefix) and other.endswith(f":{tag}")), None)


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


def read_record(name: str, records: str = RECORDS) -> Optional[dict[str, Any]]:
    """Return what is recorded as the image of a definition; None if nothing readable is."""
    try:
        with open(os.path.join(records, f"{name}.json"), encoding="utf-8") as handle:
            record = json.load(handle)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_record(image: Image, records: str = RECORDS) -> None:
    """Record at once what a definition stands for now."""
    os.makedirs(records, mode=0o755, exist_ok=True)
    write_file(os.path.join(records, f"{image.name}.json"), json.dumps(asdict(image), indent=1) + "\n", 0o644)


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


# ---------------------------------------------------------------------------------------------------------------
# the job: runs as a program, in its own unit


def say(text: str) -> None:
    """Print a heading; these lines are what people see while the image is made."""
    print(f"==> {text}", flush=True)


def podman(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run podman on the shared store.

    Raises:
        StoreError: it failed; its output is in the log.
    """
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": STORAGE_CONF}
    done = subprocess.run(["podman", *arguments], env=environment, text=True, check=False, **options)
    if done.returncode != 0:
        raise StoreError(f"podman {arguments[0]} failed with status {done.returncode}")
    return done


def _import_base(reference: str, suite: str, sources: Sequence[str], packages: Sequence[str]) -> None:
    """Bootstrap a Debian and import it.

    It has all packages of the image already: dpkg is several times faster here than in a build's layer.
    """
    if not shutil.which("mmdebstrap"):
        say("Installing mmdebstrap")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "-q", "-y", "--no-install-recommends", "install", "mmdebstrap", "debian-archive-keyring"]
        if subprocess.run(install, env=environment, check=False).returncode != 0:
            raise StoreError("mmdebstrap cannot be installed: install it, or give the image a base.reference")
    say(f"Bootstrapping Debian {suite} with {len(packages)} packages")
    # device nodes cannot carry the attributes by which a shared store keeps owners and modes
    bootstrap = subprocess.Popen(
        [
            *["mmdebstrap", "--variant=minbase", "--skip=output/dev", "--format=tar"],
            *['--aptopt=Acquire::Languages "none"', f"--include={','.join(packages)}", suite, "-", *sources],
        ],
        stdout=subprocess.PIPE,
    )
    draft = f"{reference}-draft"
    try:
        # a draft, so that what a failed bootstrap left behind is never taken for a base
        podman("import", "--quiet", "-", draft, stdin=bootstrap.stdout)
    finally:
        if bootstrap.stdout:
            bootstrap.stdout.close()
        status = bootstrap.wait()
    if status != 0:
        podman("untag", draft)
        raise StoreError(f"mmdebstrap failed with status {status}: check the suite and the mirror")
    podman("tag", draft, reference)
    podman("untag", draft, draft)


def _make_build(job: Mapping[str, Any], folder: str, reference: str) -> None:
    base, bootstrap = job["base"], job["bootstrap"]
    if base not in read_images(job["store"]):
        if bootstrap:
            _import_base(base, **bootstrap)
        else:
            say(f"Pulling {base}")
            podman("pull", "--quiet", base)
    os.makedirs(os.path.join(folder, "empty"), exist_ok=True)
    context = os.path.join(folder, "context")
    # more than this process may have itself is refused where the machine is a container
    limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}")) for name in ("nofile", "nproc")}
    podman(
        "build",
        *[f"--ulimit={name}={soft}:{hard}" for name, (soft, hard) in limits.items()],
        *["--network=host", "--layers", "--pull=never", f"--volume={context}:{CONTEXT}:ro"],
        *[f"--tag={reference}", f"--file={os.path.join(folder, 'Containerfile')}", os.path.join(folder, "empty")],
    )


def _make_load(job: Mapping[str, Any], folder: str, reference: str) -> None:
    archive = os.path.join(folder, job["archive"])
    say("Checking the archive")
    whole = hashlib.sha256()
    with open(archive, "rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            whole.update(chunk)
    if whole.hexdigest() != job["checksum"]:
        raise StoreError(f"the archive's SHA-256 is {whole.hexdigest()}, declared is {job['checksum']}: correct either")
    say("Loading the archive")
    lines = podman("load", "--quiet", f"--input={archive}", stdout=subprocess.PIPE).stdout.split()
    images = [word for word in lines if ":" in word and not word.endswith(":")]
    if len(images) != 1:
        raise StoreError(f"the archive holds {len(images)} images: save exactly one with `podman save`")
    podman("tag", images[0], reference)


def _make_pull(job: Mapping[str, Any], _folder: str, reference: str) -> None:
    say(f"Pulling {job['reference']}")
    podman("pull", "--quiet", job["reference"])
    podman("tag", job["reference"], reference)


MAKERS = {"build": _make_build, "load": _make_load, "pull": _make_pull}


def run_job(folder: str) -> None:
    """Make the image that job.json in this folder describes, tag it with all its names, record it.

    Raises:
        StoreError, OSError: it failed.
    """
    with open(os.path.join(folder, "job.json"), encoding="utf-8") as handle:
        job = json.load(handle)
    store = job["store"]
    os.environ.update(job["environment"])
    os.umask(0o022)
    os.makedirs(os.path.dirname(LOCK), mode=0o755, exist_ok=True)
    first = job["references"][0]
    with open(LOCK, "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = threading.Event()

        def keep_shared() -> None:
            # hubs start from the store while it grows; podman keeps closing what it writes
            while not finished.wait(0.5):
                share(store)

        sharer = threading.Thread(target=keep_shared, daemon=True)
        sharer.start()
        try:
            if first not in read_images(store):
                # a killed build leaves its containers behind; nothing else has containers in this store
                left = podman("ps", "--all", "--external", "--quiet", stdout=subprocess.PIPE).stdout.split()
                if left:
                    podman("rm", "--force", *left, stdout=subprocess.DEVNULL)
                MAKERS[job["source"]](job, folder, first)
            for reference in job["references"][1:]:
                podman("tag", first, reference)
        finally:
            finished.set()
            sharer.join()
            share(store)
        images = read_images(store)
        for name, reference in zip(job["names"], job["references"], strict=True):
            image = find(images, name, reference)
            if image is None:
                raise StoreError(f"podman succeeded, but {reference} is not in {store}: is {STORAGE_CONF} right?")
            write_record(image, job["records"])
    shutil.rmtree(os.path.join(folder, "context"), ignore_errors=True)
    say(f"Done: {', '.join(job['references'])}")


def main(arguments: Sequence[str]) -> int:
    """Run the job in a folder and leave its result there, whatever it is."""
    folder = arguments[0]
    result: dict[str, Any] = {"rc": 1, "error": "the job stopped unexpectedly"}
    try:
        run_job(folder)
        result = {"rc": 0, "error": ""}
    except (StoreError, OSError, ValueError, KeyError) as error:
        result = {"rc": 1, "error": str(error)}
        say(f"Failed: {error}")
    finally:
        write_file(os.path.join(folder, "result.json"), json.dumps(result) + "\n", 0o600)
    return int(result["rc"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
