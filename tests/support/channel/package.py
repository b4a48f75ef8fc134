"""Write .conda packages: a zip with two zstd-compressed tar archives, one of files and one of facts."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backports import zstd

from channel.common import EPOCH, PLACEHOLDER, PLATFORM, sha256

ZIP_TIME = (2024, 1, 1, 0, 0, 0)
ZSTD_LEVEL = 6
"""Compression level: 19 is usual and saves a fifth, but takes a minute for the whole channel."""


@dataclass
class Package:
    """A package whose files lie in a folder of their own, laid out as in an environment."""

    name: str
    version: str
    root: Path
    depends: list[str]
    license: str = ""
    summary: str = ""
    abi: str = ""
    """Python's tag (cp313) where the files belong to one version of Python."""
    noarch: str = ""
    """`python` or `generic` for a package that fits every platform, else empty."""
    entry_points: list[str] = field(default_factory=list)
    """Console scripts that conda makes when it links a `noarch: python` package."""

    @property
    def subdir(self) -> str:
        """The channel's folder that the package belongs in."""
        return "noarch" if self.noarch else PLATFORM


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in sorted([*names, *links]))


def path_entry(root: Path, path: Path) -> dict[str, Any]:
    """Describe one file for paths.json, with the placeholder if its text holds it."""
    entry: dict[str, Any] = {"_path": path.relative_to(root).as_posix()}
    if path.is_symlink():
        target = path.resolve()
        digest, size = (sha256(target), target.stat().st_size) if target.is_file() else ("", 0)
        return {**entry, "path_type": "softlink", "sha256": digest, "size_in_bytes": size}
    content = path.read_bytes()
    entry |= {
        "path_type": "hardlink",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_in_bytes": len(content),
    }
    if PLACEHOLDER.encode() in content:
        entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
    return entry


def build_string(package: Package, entries: list[dict[str, Any]], modes: Mapping[str, int]) -> str:
    """Return the package's build: it changes with the content, so no cache ever mixes two of them up."""
    facts = [package.depends, package.entry_points, package.noarch, package.license, package.summary]
    content = json.dumps([facts, entries, sorted(modes.items())], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return f"h{digest}_0_{package.abi}" if package.abi else f"h{digest}_0"


def _tar_member(archive: tarfile.TarFile, name: str, path: Path) -> None:
    info = archive.gettarinfo(path, name)
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = EPOCH
    if info.islnk():  # conda makes its own hard links; two names of one file are two files here
        info.type, info.size = tarfile.REGTYPE, path.stat().st_size
    if info.isreg():
        with path.open("rb") as stream:
            archive.addfile(info, stream)
    else:
        archive.addfile(info)


def _info_member(archive: tarfile.TarFile, name: str, content: Any) -> None:
    data = json.dumps(content, indent=1, sort_keys=True).encode()
    info = tarfile.TarInfo(f"info/{name}")
    info.size, info.mtime, info.mode = len(data), EPOCH, 0o644
    archive.addfile(info, io.BytesIO(data))


def write_package(package: Package, channel: Path) -> Path:
    """Pack into the channel's folder and return the path of the new .conda file."""
    paths = sorted(_files(package.root))
    entries = [path_entry(package.root, path) for path in paths]
    modes = {path.relative_to(package.root).as_posix(): path.lstat().st_mode & 0o777 for path in paths}
    build = build_string(package, entries, modes)
    stem = f"{package.name}-{package.version}-{build}"
    index = {
        "arch": None if package.noarch else "x86_64",
        "build": build,
        "build_number": 0,
        "depends": package.depends,
        "license": package.license,
        "name": package.name,
        "platform": None if package.noarch else "linux",
        "subdir": package.subdir,
        "timestamp": EPOCH * 1000,
        "version": package.version,
    }
    if package.noarch:
        index["noarch"] = package.noarch
    files_tar, info_tar = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=files_tar, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in paths:
            _tar_member(archive, path.relative_to(package.root).as_posix(), path)
    with tarfile.open(fileobj=info_tar, mode="w", format=tarfile.GNU_FORMAT) as archive:
        _info_member(archive, "index.json", index)
        _info_member(archive, "paths.json", {"paths": entries, "paths_version": 1})
        _info_member(archive, "about.json", {"license": package.license, "summary": package.summary})
        if package.noarch == "python":
            _info_member(
                archive,
                "link.json",
                {"noarch": {"type": "python", "entry_points": package.entry_points}, "package_metadata_version": 1},
            )
    result = channel / package.subdir / f"{stem}.conda"
    result.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(result, "w") as whole:
        members = {
            "metadata.json": json.dumps({"conda_pkg_format_version": 2}).encode(),
            f"pkg-{stem}.tar.zst": zstd.compress(files_tar.getbuffer(), level=ZSTD_LEVEL),
            f"info-{stem}.tar.zst": zstd.compress(info_tar.getbuffer(), level=ZSTD_LEVEL),
        }
        for name, data in members.items():
            whole.writestr(zipfile.ZipInfo(name, ZIP_TIME), data)
    return result
