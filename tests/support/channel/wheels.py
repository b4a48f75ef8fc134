"""Turn wheels into conda packages."""

from __future__ import annotations

import configparser
import csv
import io
import json
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from channel.common import PLACEHOLDER, ChannelError, Suite, run, write
from channel.debian import compiled_depends
from channel.package import Package

CONDA_NAMES = {
    "backports-zstd": "backports.zstd",
    "ipython-pygments-lexers": "ipython_pygments_lexers",
    "jupyter-client": "jupyter_client",
    "jupyter-core": "jupyter_core",
    "pure-eval": "pure_eval",
    "ruamel-yaml": "ruamel.yaml",
    "stack-data": "stack_data",
    "typing-extensions": "typing_extensions",
}
"""Names on conda-forge that differ from the normalised name on PyPI."""


def conda_name(name: str) -> str:
    """Return the name that a PyPI project has on conda-forge."""
    normal = canonicalize_name(name)
    return CONDA_NAMES.get(normal, normal)


def download(suite: Suite, lock: Path, target: Path) -> list[Path]:
    """Fetch the wheels that a lock file pins, each verified by its hash, into `target`."""
    target.mkdir(parents=True)
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17, 12, 5)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    run(
        [
            *(
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-cache-dir",
                "--no-deps",
            ),
            *("--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--python-version={suite.python}"),
            *(f"--platform={platform}" for platform in platforms),
            *("--dest", str(target), "--requirement", str(lock)),
        ]
    )
    return sorted(target.glob("*.whl"))


def depends(metadata: Message, suite: Suite) -> list[str]:
    """Return the requirements of a wheel as conda writes them, as far as they hold for this suite on Linux."""
    environment = {
        "python_version": suite.python,
        "python_full_version": f"{suite.python}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{suite.python}.0",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "extra": "",
    }
    result = []
    for line in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            bounds = ",".join(sorted(str(bound) for bound in requirement.specifier))
            result.append(f"{conda_name(requirement.name)} {bounds}".strip())
    return sorted(result)


def console_scripts(text: str) -> dict[str, str]:
    """Return name -> module:function from an entry_points.txt."""
    points = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    points.optionxform = str  # type: ignore[assignment,method-assign]
    points.read_string(text)
    if not points.has_section("console_scripts"):
        return {}
    return {name: re.sub(r"\s*\[.*\]$", "", value) for name, value in points.items("console_scripts")}


def script_text(entry: str) -> str:
    """Return the program for an entry point `module:function`."""
    module, _, function = entry.partition(":")
    first = function.split(".")[0]
    return (
        f"#!{PLACEHOLDER}/bin/python\nimport sys\n\nfrom {module} import {first}\n\n"
        f"if __name__ == '__main__':\n    sys.exit({function}())\n"
    )


@dataclass(frozen=True)
class Layout:
    """Where the parts of a wheel go in a conda package."""

    data: str
    """The wheel's folder of files that are not modules: NAME-VERSION.data."""
    modules: str
    scripts: str
    headers: str

    def place(self, name: str) -> str:
        """Return the path in the package of a member of the wheel."""
        path = PurePosixPath(name)
        if path.parts[0] != self.data:
            return f"{self.modules}/{name}"
        rest = "/".join(path.parts[2:])
        targets = {
            "purelib": f"{self.modules}/{rest}",
            "platlib": f"{self.modules}/{rest}",
            "scripts": f"{self.scripts}/{rest}",
            "headers": f"{self.headers}/{rest}",
            "data": rest,
        }
        if path.parts[1] not in targets:
            raise ChannelError(f"wheel member {name}: unknown kind of data; adapt tests/support/channel/wheels.py")
        return targets[path.parts[1]]


def _record(text: str, placed: Mapping[str, str], layout: Layout, suite: Suite) -> str:
    """Rewrite a RECORD to where the files will be in an environment, as pip does, so that pip can replace them."""
    up = "/".join([".."] * len(PurePosixPath(suite.site_packages).parts))
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    for row in csv.reader(io.StringIO(text)):
        if not row:
            continue
        path = placed.get(row[0], f"{layout.modules}/{row[0]}")
        if path.startswith(f"{layout.modules}/"):
            row[0] = path.removeprefix(f"{layout.modules}/")
        else:
            path = f"bin/{path.removeprefix(layout.scripts + '/')}" if path.startswith(f"{layout.scripts}/") else path
            row = [f"{up}/{path}", "", ""]
        writer.writerow(row)
    return output.getvalue()


def _content(name: str, data: bytes) -> bytes:
    """Make programs and kernel specifications start the Python of their environment."""
    parts = PurePosixPath(name).parts
    if len(parts) > 2 and parts[1] == "scripts" and parts[0].endswith(".data"):
        return re.sub(rb"\A#!python\w*", f"#!{PLACEHOLDER}/bin/python".encode(), data)
    if parts[-1] == "kernel.json" and "kernels" in parts:
        kernel = json.loads(data)
        if kernel["argv"][0] in ("python", "python3"):
            kernel["argv"][0] = f"{PLACEHOLDER}/bin/python"
        return json.dumps(kernel, indent=1).encode()
    return data


def stage_wheel(suite: Suite, wheel: Path, root: Path) -> Package:
    """Lay out a wheel in `root` and return it as a package: noarch if it is pure, else for this Python."""
    _, version, _, tags = parse_wheel_filename(wheel.name)
    pure = all(tag.abi == "none" and tag.platform == "any" for tag in tags)
    with zipfile.ZipFile(wheel) as archive:
        info = next(name.split("/")[0] for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = BytesParser().parsebytes(archive.read(f"{info}/METADATA"))
        name = str(metadata["Name"])
        layout = Layout(
            data=f"{info.removesuffix('.dist-info')}.data",
            modules="site-packages" if pure else suite.site_packages,
            scripts="python-scripts" if pure else "bin",
            headers=f"include/python{suite.python}/{name}",
        )
        placed = {}
        for member in archive.infolist():
            if member.is_dir():
                continue
            placed[member.filename] = layout.place(member.filename)
            program = placed[member.filename].startswith(f"{layout.scripts}/") or member.external_attr >> 16 & 0o111
            content = _content(member.filename, archive.read(member))
            write(root / placed[member.filename], content, 0o755 if program else 0o644)
    folder = root / layout.modules / info
    write(folder / "INSTALLER", "conda\n")
    record = folder / "RECORD"
    write(record, _record(record.read_text(), placed, layout, suite) + f"{info}/INSTALLER,,\n")
    points = folder / "entry_points.txt"
    scripts = console_scripts(points.read_text()) if points.is_file() else {}
    if not pure:
        for script, entry in scripts.items():
            write(root / "bin" / script, script_text(entry), 0o755)
    needs = depends(metadata, suite)
    return Package(
        name=conda_name(name),
        version=str(version),
        root=root,
        depends=sorted([*needs, "python"] if pure else [*needs, *compiled_depends(suite)]),
        license=str(metadata.get("License-Expression") or metadata.get("License") or "").splitlines()[0:1][0]
        if (metadata.get("License-Expression") or metadata.get("License"))
        else "",
        summary=str(metadata.get("Summary") or ""),
        abi="" if pure else f"cp{suite.tag}",
        noarch="python" if pure else "",
        entry_points=[f"{script} = {entry}" for script, entry in scripts.items()] if pure else [],
    )
