# Copyright: (c) 2026, The ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes one image on a machine: image_job.py FOLDER, where FOLDER has job.json and what that needs.

It runs in a systemd unit of its own, so that it does not depend on Ansible's connection. Images are built in
a store of their own, on the kernel's overlay: writing small files there is ten times faster than through the
shared store's fuse-overlayfs. Only the finished image is copied, and of that only the new layers.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# lies beside this file on the machine
from image_store import (
    LOCK,
    STORAGE_CONF,
    StoreError,
    find,
    kept_shared,
    read_images,
    sha256,
    told,
    write_file,
    write_record,
)

BUILD_RUN = "/run/ananke/builds"
CONTEXT = "/run/ananke-context"


PULL_REMEDIES = {
    "certificate signed by unknown authority": "the machine does not trust the registry's certificate; write the certificate of its"
    " authority to /etc/containers/certs.d/{registry}/ca.crt on the machine",
    "x509:": "the registry's certificate is not valid for {registry}",
    "manifest unknown": "{registry} has no image with this digest; correct the reference",
    "name unknown": "{registry} has no image of this name; correct the reference",
    "unauthorized": "{registry} wants a login; as root on the machine: podman login {registry}",
    "denied": "{registry} lets nobody have it who is not logged in; as root on the machine: podman login {registry}",
    "no such host": "the machine does not know the host {registry}; correct the reference, or the machine's name servers",
    "connection refused": "nothing answers at {registry}; start the registry, or correct the reference",
    "timeout": "{registry} does not answer; check the way from the machine to it, and hub_image_proxy",
}
"""Words of podman or of a registry, and what to do; the first that fit count."""


def say(text: str) -> None:
    """Print a heading; these lines are what people see while the image is made."""
    print(f"==> {text}", flush=True)


def podman(
    *arguments: str, conf: str = STORAGE_CONF, check: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run podman, on the shared store if not told otherwise.

    Raises:
        StoreError: it failed and `check` is true; its output is in the log.
    """
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": conf}
    done = subprocess.run(["podman", *arguments], env=environment, text=True, check=False, **options)
    if check and done.returncode != 0:
        raise StoreError(f"podman {arguments[0]} failed with status {done.returncode}")
    return done


def pull(reference: str, conf: str = STORAGE_CONF) -> None:
    """Pull an image from a registry.

    Raises:
        StoreError: it failed; the message says what to do about it.
    """
    say(f"Pulling {reference}")
    done = podman("pull", "--quiet", reference, conf=conf, check=False, stderr=subprocess.PIPE)
    if done.returncode != 0:
        print(done.stderr, flush=True)
        raise StoreError(f"{reference} cannot be pulled: {pull_remedy(done.stderr, reference.partition('/')[0])}")


def pull_remedy(errors: str, registry: str) -> str:
    """What podman's words about a failed pull mean, and what to do."""
    for words, remedy in PULL_REMEDIES.items():
        if words in errors:
            return remedy.format(registry=registry)
    return "see the output"


class BuildStore:
    """The store in which images are built, and which remembers their layers."""

    def __init__(self, builds: str) -> None:
        """Prepare the store below the folder of the jobs."""
        self.root = os.path.join(builds, "store")
        self.conf = os.path.join(builds, "storage.conf")
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        text = f'[storage]\ndriver = "overlay"\ngraphroot = "{self.root}"\nrunroot = "{BUILD_RUN}"\n'
        write_file(self.conf, text, 0o600)

    def podman(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run podman on this store; see `podman`."""
        return podman(*arguments, conf=self.conf, **options)

    def address(self, reference: str) -> str:
        """Return where podman, working on another store, finds an image of this one."""
        return f"containers-storage:[overlay@{self.root}+{BUILD_RUN}]{reference}"

    def remove_leftovers(self) -> None:
        """Remove the containers of builds that were killed; there are no others in this store."""
        left = self.podman("ps", "--all", "--external", "--quiet", stdout=subprocess.PIPE).stdout.split()
        if left:
            self.podman("rm", "--force", *left, stdout=subprocess.DEVNULL)

    def forget_older(self, reference: str) -> None:
        """Remove builds that this one replaces; the layers that it shares with them stay."""
        repository = reference.rpartition(":")[0]
        for other in read_images(self.root):
            if other != reference and other.rpartition(":")[0] == repository:
                self.podman("untag", other, other)
        self.podman("image", "prune", "--force", stdout=subprocess.DEVNULL)


def _import_base(
    build_store: BuildStore,
    reference: str,
    suite: str,
    sources: Sequence[str],
    packages: Sequence[str],
    exclude: Sequence[str],
) -> None:
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
            *['--aptopt=Acquire::Languages "none"', *(f"--dpkgopt={line}" for line in exclude)],
            *[f"--include={','.join(packages)}", suite, "-", *sources],
        ],
        stdout=subprocess.PIPE,
    )
    draft = f"{reference}-draft"
    try:
        # a draft, so that what a failed bootstrap left behind is never taken for a base
        build_store.podman("import", "--quiet", "-", draft, stdin=bootstrap.stdout)
    finally:
        if bootstrap.stdout:
            bootstrap.stdout.close()
        status = bootstrap.wait()
    if status != 0:
        build_store.podman("untag", draft)
        raise StoreError(f"mmdebstrap failed with status {status}: check the suite and the mirror")
    build_store.podman("tag", draft, reference)
    build_store.podman("untag", draft, draft)


def _make_build(job: Mapping[str, Any], folder: str, reference: str) -> None:
    build_store = BuildStore(os.path.dirname(folder))
    build_store.remove_leftovers()
    base, bootstrap = job["base"], job["bootstrap"]
    if base not in read_images(build_store.root):
        if bootstrap:
            _import_base(build_store, base, **bootstrap)
        else:
            pull(base, build_store.conf)
    os.makedirs(os.path.join(folder, "empty"), exist_ok=True)
    context = os.path.join(folder, "context")
    # more than this process may have itself is refused where the machine is a container
    limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}")) for name in ("nofile", "nproc")}
    build_store.podman(
        "build",
        *[f"--ulimit={name}={soft}:{hard}" for name, (soft, hard) in limits.items()],
        *["--network=host", "--layers", "--pull=never", f"--volume={context}:{CONTEXT}:ro"],
        *[f"--tag={reference}", f"--file={os.path.join(folder, 'Containerfile')}", os.path.join(folder, "empty")],
    )
    say("Copying the image to the shared store")
    with kept_shared(job["store"]):
        podman("pull", "--quiet", build_store.address(reference))
    build_store.forget_older(reference)


def _make_load(job: Mapping[str, Any], folder: str, reference: str) -> None:
    archive = os.path.join(folder, job["archive"])
    say("Checking the archive")
    found = sha256(archive)
    if found != job["checksum"]:
        raise StoreError(f"the archive's SHA-256 is {found}, declared is {job['checksum']}: correct either")
    say("Loading the archive")
    with kept_shared(job["store"]):
        lines = podman("load", "--quiet", f"--input={archive}", stdout=subprocess.PIPE).stdout.split()
    images = [word for word in lines if ":" in word and not word.endswith(":")]
    if len(images) != 1:
        raise StoreError(f"the archive holds {len(images)} images: save exactly one with `podman save`")
    _rename(job["store"], images[0], reference)


def _make_pull(job: Mapping[str, Any], _folder: str, reference: str) -> None:
    with kept_shared(job["store"]):
        pull(job["reference"])
    _rename(job["store"], job["reference"], reference)


def _rename(store: str, given: str, reference: str) -> None:
    """Give an image its name here in place of the one that it came with, under which nobody would know that it may go."""
    with kept_shared(store):
        podman("tag", given, reference)
        podman("untag", given, given)


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
        if first not in read_images(store):
            MAKERS[job["source"]](job, folder, first)
        with kept_shared(store):
            for reference in job["references"][1:]:
                podman("tag", first, reference)
        images = read_images(store)
        for name, reference in zip(job["names"], job["references"], strict=True):
            image = find(images, name, reference)
            if image is None:
                raise StoreError(f"podman succeeded, but {reference} is not in {store}: is {STORAGE_CONF} right?")
            write_record(image, job["records"])
    say(f"Done: {', '.join(job['references'])}")


def reason(error: Exception, folder: str) -> str:
    """Why the job in a folder failed, in words; what podman said of it is in the job's log."""
    try:
        with open(os.path.join(folder, "job.json"), encoding="utf-8") as handle:
            job = json.load(handle)
        with open(job["log"], encoding="utf-8", errors="replace") as handle:
            return told(str(error), handle.read(), job["store"], os.path.dirname(folder))
    except (OSError, ValueError, KeyError):
        return str(error)


def main(arguments: Sequence[str]) -> int:
    """Run the job in a folder and leave its result there, whatever it is."""
    folder = arguments[0]
    result: dict[str, Any] = {"rc": 1, "error": "the job stopped unexpectedly"}
    try:
        run_job(folder)
        result = {"rc": 0, "error": ""}
    except (StoreError, OSError, ValueError, KeyError) as error:
        result = {"rc": 1, "error": reason(error, folder)}
        say(f"Failed: {error}")
    finally:
        # what was sent is large, and may hold the proxy's password
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
        write_file(os.path.join(folder, "result.json"), json.dumps(result) + "\n", 0o600)
    return int(result["rc"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
