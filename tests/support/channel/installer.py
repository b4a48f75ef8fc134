"""The installer: a shell script with a compressed archive behind it, used like Miniforge's."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conda_package_streaming.package_streaming import stream_conda_component

from channel.common import EPOCH, FILES, PLATFORM, ChannelError, Suite, sha256, write

BASE = ("python", "conda", "pip")
"""What the base environment is asked to hold; their requirements come with them."""


@dataclass(frozen=True)
class Chosen:
    """A package of the base environment: its file in the channel and its record there."""

    path: Path
    record: dict[str, Any]

    @property
    def stem(self) -> str:
        """Name of the folder that the package is unpacked into."""
        return self.path.name.removesuffix(".conda")


def base_packages(channel: Path) -> list[Chosen]:
    """Return what the base environment consists of: BASE and what they need.

    The channel has one version of each package, so there is nothing to solve. ChannelError names what it lacks.
    """
    offered = {}
    for subdir in (PLATFORM, "noarch"):
        repodata = json.loads((channel / subdir / "repodata.json").read_text())
        for name, record in repodata["packages.conda"].items():
            offered[record["name"]] = Chosen(channel / subdir / name, record)
    chosen: dict[str, Chosen] = {}
    todo = [(name, "the base environment") for name in BASE]
    while todo:
        name, by = todo.pop()
        if name in chosen or name.startswith("__"):
            continue
        if name not in offered:
            raise ChannelError(
                f"{by} needs {name}, which the channel lacks; add it to packages.in and run channel lock"
            )
        chosen[name] = offered[name]
        todo += [(spec.split()[0], name) for spec in offered[name].record["depends"]]
    return sorted(chosen.values(), key=lambda item: item.stem)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), EPOCH, 0o644
    archive.addfile(info, io.BytesIO(data))


def _payload(chosen: list[Chosen], url: str) -> bytes:
    output = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=output, mode="wb", compresslevel=4, mtime=EPOCH) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for item in chosen:
            for component in ("pkg", "info"):
                with item.path.open("rb") as conda_file:
                    for members, member in stream_conda_component(item.path.name, conda_file, component):
                        member.name = f"{item.stem}/{member.name}"
                        archive.addfile(member, members.extractfile(member) if member.isreg() else None)
            record = {**item.record, "fn": item.path.name, "url": f"{url}/{item.record['subdir']}/{item.path.name}"}
            record["channel"] = f"{url}/{item.record['subdir']}"
            _add(archive, f"{item.stem}/info/repodata_record.json", json.dumps(record, indent=1).encode())
        _add(archive, "link_base.py", (FILES / "link_base.py").read_bytes())
    return output.getvalue()


def write_installer(suite: Suite, channel: Path, target: Path) -> Path:
    """Write the installer of the channel's base environment, and TARGET.sha256 beside it."""
    chosen = base_packages(channel)
    payload = _payload(chosen, "https://channel.invalid/conda")
    python = next(item for item in chosen if item.record["name"] == "python")
    versions = {str(item.record["name"]): item.record["version"] for item in chosen}
    modules = []
    for item in chosen:
        modules.append(
            f"{item.stem}/site-packages" if item.record.get("noarch") else f"{item.stem}/{suite.site_packages}"
        )
    script = (FILES / "installer.sh").read_text()
    values = {
        "NAME": f"Python {versions['python']} and conda {versions['conda']} for Debian {suite.name}",
        "PAYLOAD_SHA256": hashlib.sha256(payload).hexdigest(),
        "PYTHON": f"{python.stem}/bin/python{suite.python}",
        "MODULES": " ".join(modules),
        "GLIBC": suite.glibc,
    }
    for key, value in values.items():
        script = script.replace(f"@{key}@", value)
    script = script.replace("@END@\n", "")
    script = script.replace("@PAYLOAD_LINE@", str(script.count("\n") + 1))
    write(target, script.encode() + payload, 0o755)
    write(target.with_name(f"{target.name}.sha256"), f"{sha256(target)}  {target.name}\n")
    return target
