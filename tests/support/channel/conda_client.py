"""The conda program as a package: conda's Python modules with a shell side of our own."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from channel.common import FILES, ChannelError, Suite, replace_once, write
from channel.debian import compiled_depends
from channel.package import Package

INSIDE = "conda_lock/_vendor/conda/"
PATCHES = {
    "common/io.py": (
        ("logging._acquireLock()", "logging._lock.acquire()"),
        ("logging._releaseLock()", "logging._lock.release()"),
    ),
    "gateways/logging.py": (("self.TOKEN_REPLACE(", "type(self).__dict__['TOKEN_REPLACE']("),),
}
"""What conda 24.7, which knows Python up to 3.12, needs for 3.13: file -> (old, new)."""
REQUIRES = (
    "archspec",
    "boltons >=23.0.0",
    "charset-normalizer",
    "conda-package-handling >=2.2.0",
    "conda-package-streaming >=0.9.0",
    "distro >=1.5.0",
    "frozendict >=2.4.2",
    "jsonpatch >=1.32",
    "packaging >=23.0",
    "platformdirs >=3.10.0",
    "pluggy >=1.0.0",
    "pycosat >=0.6.3",
    "requests >=2.28.0,<3",
    "ruamel.yaml >=0.11.14",
    "setuptools >=60.0.0",
    "tqdm >=4",
    "truststore >=0.8.0",
    "zstandard >=0.19.0",
)
"""What conda 24.7 imports. menuinst is for desktops and left out; the solver is conda's own (`classic`)."""


def stage_conda(suite: Suite, carrier: Path, root: Path) -> Package:
    """Lay out conda in `root` from the wheel that carries its modules, and return it as a package."""
    modules = root / suite.site_packages
    with zipfile.ZipFile(carrier) as archive:
        for name in archive.namelist():
            if not name.startswith(INSIDE) or name.endswith("/"):
                continue
            content = archive.read(name)
            if name.endswith(".py"):
                content = re.sub(rb"\bconda_lock\._?vendor\.conda\b", b"conda", content)
                for old, new in PATCHES.get(name.removeprefix(INSIDE), ()):
                    content = replace_once(content.decode(), old, new, name).encode()
                if re.search(rb"(?<!\.)\bconda_lock\b", content):  # `.conda_lock` is a file of its own
                    raise ChannelError(
                        f"{name}: conda_lock is still named; adapt tests/support/channel/conda_client.py"
                    )
            write(modules / "conda" / name.removeprefix(INSIDE), content)
    version_file = (modules / "conda/_version.py").read_text()
    found = re.search(r"^__version__ = version = '([\d.]+)'$", version_file, re.MULTILINE)
    if found is None:
        raise ChannelError("conda/_version.py names no version; adapt tests/support/channel/conda_client.py")
    version = found[1]
    metadata = f"Metadata-Version: 2.1\nName: conda\nVersion: {version}\nLicense-Expression: BSD-3-Clause\n"
    write(modules / f"conda-{version}.dist-info/METADATA", metadata)
    write(modules / f"conda-{version}.dist-info/INSTALLER", "conda\n")

    hook = (FILES / "conda.sh").read_text()
    write(root / "etc/profile.d/conda.sh", hook)
    write(modules / "conda/shell/etc/profile.d/conda.sh", hook)  # `conda shell.posix hook` reads it here
    for program in ("bin/conda", "condabin/conda"):
        write(root / program, (FILES / "conda").read_text(), 0o755)
    for script in ("activate", "deactivate"):
        write(root / "bin" / script, (FILES / script).read_text())
    write(root / "condarc.d/channel.yml", (FILES / "condarc.yml").read_text())
    return Package(
        name="conda",
        version=version,
        root=root,
        depends=sorted([*REQUIRES, *compiled_depends(suite)]),
        license="BSD-3-Clause",
        summary="conda's Python package with a small shell side",
        abi=f"cp{suite.tag}",
    )
