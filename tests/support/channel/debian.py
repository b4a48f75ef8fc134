"""Debian's Python as a conda package: it finds its own files wherever its folder is put."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from channel.common import EPOCH, FILES, ChannelError, Suite, replace_once, run, write
from channel.package import Package
from testbed import base

LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
GLIBC = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|util|resolv|anl|nsl|BrokenLocale))\.so\.[126]")
"""Libraries of glibc itself: they come from the system, whose kernel interface and name service they fit."""
LEFT_OUT = ("EXTERNALLY-MANAGED", "idlelib", "nis.*.so", "sitecustomize.py", "test", "tkinter", "turtle*")
"""Parts of Debian's standard library that the package has no use for: Debian's rules, tests, windows, NIS."""


@dataclass(frozen=True)
class Source:
    """The unpacked Debian packages of a suite."""

    suite: Suite
    root: Path

    def library(self, name: str) -> Path | None:
        """Return where a library was unpacked to; older releases have a part of them outside /usr."""
        return next((path for folder in LIBRARIES if (path := self.root / folder / name).exists()), None)

    def _loaded(self, program: Path) -> list[str]:
        loader = self.library("ld-linux-x86-64.so.2")
        folders = ":".join(str(self.root / folder) for folder in LIBRARIES)
        return [str(loader), "--library-path", folders, str(program)]

    def tool(self, name: str) -> list[str]:
        """Return the command that runs a program of the unpacked packages, on whatever Linux this is."""
        return self._loaded(self.root / "usr/bin" / name)

    def python(self, prefix: Path) -> list[str]:
        """Return the command that runs a relocated Python before it is installed."""
        return self._loaded(prefix / f"bin/python{self.suite.python}")


def unpack(suite: Suite, root: Path) -> Source:
    """Unpack Debian's signed packages of Python into `root`; nothing is installed, started or mounted."""
    names = [f"python{suite.python}-venv", "python3-pycosat", "patchelf", *suite.extra_debs]
    options = ["--quiet", "--variant=extract", f"--include={','.join(names)}", f"--keyring={base.KEYRING}"]
    lines = "".join(f"{line}\n" for line in base.sources(suite.name, base.mirror()))
    run(["mmdebstrap", *options, suite.name, root, "-"], text=lines)
    return Source(suite, root)


def _needed(source: Source, path: Path) -> list[str]:
    return run([*source.tool("patchelf"), "--print-needed", path]).split()


def _bundle_libraries(source: Source, extensions: Iterable[Path], target: Path) -> None:
    """Copy every library that the programs need, and that glibc does not have, into `target`."""
    todo = list(extensions)
    seen: set[str] = set()
    while todo:
        binary = todo.pop()
        for name in _needed(source, binary):
            if name in seen or GLIBC.fullmatch(name):
                continue
            seen.add(name)
            found = source.library(name)
            if found is None:
                raise ChannelError(f"{binary.name} needs {name}, which the Debian packages did not bring")
            copy = target / name
            shutil.copyfile(found.resolve(), copy)
            copy.chmod(0o755)
            run([*source.tool("patchelf"), "--set-rpath", "$ORIGIN", copy])
            todo.append(copy)


def _patch_standard_library(library: Path, wheels: Iterable[Path]) -> None:
    """Undo what ties Debian's standard library to /usr and to dist-packages.

    Debian's own wheel of pip looks for certificates in one file only, so ensurepip gets pip's (and setuptools') own.
    """
    sysconfig = next(path for path in (library / "sysconfig.py", library / "sysconfig/__init__.py") if path.is_file())
    old = "prefix_scheme = 'posix_local'"
    write(sysconfig, replace_once(sysconfig.read_text(), old, "prefix_scheme = 'posix_prefix'", str(sysconfig)))

    for data in library.glob("_sysconfigdata_*.py"):
        lines = data.read_text().splitlines(keepends=True)
        kept = [line for line in lines if "'WHEEL_PKG_DIR'" not in line]
        if len(kept) != len(lines) - 1:
            raise ChannelError(f"{data.name}: WHEEL_PKG_DIR expected once; adapt tests/support/channel/debian.py")
        write(data, "".join(kept))

    ensurepip = library / "ensurepip/__init__.py"
    text = ensurepip.read_text()
    text = replace_once(text, "    _ensurepip_is_disabled_in_debian_for_system()\n", "", str(ensurepip))
    bundled = library / "ensurepip/_bundled"
    bundled.mkdir()
    for name in ("pip", "setuptools"):
        variable = f"_{name.upper()}_VERSION"
        if variable not in text:
            continue
        wheel = next(wheel for wheel in wheels if wheel.name.startswith(f"{name}-"))
        version = wheel.name.split("-")[1]
        text, count = re.subn(rf"^{variable} = .*$", f'{variable} = "{version}"', text, flags=re.MULTILINE)
        if count != 1:
            raise ChannelError(f"{ensurepip}: {variable} expected once; adapt tests/support/channel/debian.py")
        shutil.copyfile(wheel, bundled / f"{name}-{version}-py3-none-any.whl")
    write(ensurepip, text)

    write(library / "sitecustomize.py", (FILES / "sitecustomize.py").read_text())


def _touch(root: Path) -> None:
    """Give all files the packed time before Python notes it in the byte code."""
    for path in root.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (EPOCH, EPOCH))


def stage_python(source: Source, wheels: Iterable[Path], root: Path) -> Package:
    """Lay out the relocatable Python in `root` and return it as a package; `wheels` hold pip and setuptools."""
    suite, python = source.suite, f"python{source.suite.python}"
    library, binaries, libraries = root / "lib" / python, root / "bin", root / "lib"
    left_out = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(source.root / "usr/lib" / python, library, ignore=left_out)  # links become files
    _patch_standard_library(library, wheels)
    (root / suite.site_packages).mkdir()
    write(root / suite.site_packages / "README.txt", "Modules that conda and pip install are put here.\n")

    binaries.mkdir()
    program = binaries / python
    shutil.copyfile(source.root / "usr/bin" / python, program)
    program.chmod(0o755)
    for name in ("python3", "python"):
        (binaries / name).symlink_to(python)
    extensions = sorted((library / "lib-dynload").glob("*.so"))
    run([*source.tool("patchelf"), "--set-rpath", "$ORIGIN/../lib", program])
    for extension in extensions:
        run([*source.tool("patchelf"), "--set-rpath", "$ORIGIN/../..", extension])
    _bundle_libraries(source, [program, *extensions], libraries)
    _touch(root)

    version = run([*source.python(root), "-B", "-I", "-c", "import platform; print(platform.python_version())"]).strip()
    return Package(
        name="python",
        version=version,
        root=root,
        depends=[f"__glibc >={suite.glibc}", f"python_abi {suite.python}.* *_cp{suite.tag}"],
        license="PSF-2.0",
        summary="Debian's Python, relocatable",
        abi=f"cp{suite.tag}",
    )


def stage_python_abi(suite: Suite, root: Path) -> Package:
    """Return the package without files that ties compiled modules to one version of Python."""
    root.mkdir()
    return Package("python_abi", suite.python, root, [], "CC0-1.0", "ABI of Python", f"cp{suite.tag}", "generic")


def stage_pycosat(source: Source, root: Path) -> Package:
    """Return conda's SAT solver; PyPI has no wheel of it."""
    suite = source.suite
    modules = source.root / "usr/lib/python3/dist-packages"
    metadata = next(modules.glob("pycosat-*.*-info"))
    extension = next(modules.glob(f"pycosat.cpython-{suite.tag}-*.so"))
    site = root / suite.site_packages
    site.mkdir(parents=True)
    shutil.copyfile(extension, site / extension.name)
    run([*source.tool("patchelf"), "--set-rpath", "$ORIGIN/../..", site / extension.name])
    _bundle_libraries(source, [site / extension.name], root / "lib")
    if metadata.is_dir():
        shutil.copytree(metadata, site / metadata.name)
    else:
        shutil.copyfile(metadata, site / metadata.name)
    version = metadata.name.split("-")[1].removesuffix(".dist").removesuffix(".egg")
    return Package("pycosat", version, root, compiled_depends(suite), "MIT", "SAT solver", f"cp{suite.tag}")


def compiled_depends(suite: Suite) -> list[str]:
    """Return what a package with compiled modules needs."""
    return [f"python {suite.python}.*", f"python_abi {suite.python}.* *_cp{suite.tag}"]


def compile_all(source: Source, python: Path, roots: Iterable[Path]) -> None:
    """Byte-compile staged modules with the suite's own Python; the paths in the byte code start at the environment.

    Two at a time; compileall's own `-j` would start Python without the suite's loader.
    """

    def compile_one(root: Path) -> None:
        _touch(root)
        library = root / "lib" / f"python{source.suite.python}"
        if library.is_dir():
            command = [
                *source.python(python),
                "-B",
                "-s",
                "-P",
                "-m",
                "compileall",
                "-q",
                "-s",
                str(root),
                str(library),
            ]
            run(command, environment={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"})  # same input, same bytes

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, roots))
