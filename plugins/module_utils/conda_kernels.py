# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels of conda environments in a hub: a program of :mod:`inside`, run as root where the hub's Jupyter is. It starts no other program.

A kernel is a kernelspec below the environment ``jhub``, which starts the environment's kernel with the environment activated. Where ``jhub`` has
nb_conda_kernels, that lists each environment's own kernelspecs and activates by itself; a kernelspec in ``jhub`` would list the kernel twice. Then
the environment's own kernelspec is what is written, or hidden.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shlex
import shutil
import typing as t

FOLDER = "/opt/conda/envs"
LAUNCHER = "/opt/install/kernel"
"""Starts Python of an environment that is named first, with the environment activated."""
MARK = "ananke_environment"
"""Metadata of this collection's kernelspecs: the environment's path."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
KERNELS = "share/jupyter/kernels"
SPEC = "kernel.json"
HIDDEN = "kernel.json.hidden"
"""An environment's own kernelspec that nb_conda_kernels must not see."""
IPYKERNEL = ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
Spec = dict[str, t.Any]


class Failure(Exception):
    """What is wrong, and what to do."""


class Kernels:
    """The kernelspecs of a hub, as they are and as they shall be. Kernelspecs are known by their folders."""

    def __init__(self, parameters: dict[str, t.Any]) -> None:
        self.name = str(parameters["environment"])
        self.display_name: str | None = parameters.get("display_name")
        self.envs = os.path.normpath(parameters.get("prefix_folder") or FOLDER)
        self.jhub = os.path.normpath(parameters.get("jhub") or os.path.join(self.envs, "jhub"))
        self.prefix = os.path.join(self.envs, self.name)
        if not NAME.fullmatch(self.name) or self.name in ("jhub", "base"):
            raise Failure(
                f"environment {self.name!r} is none for kernels: name one that users work in, such as python3"
            )
        if self.display_name is not None and not (self.display_name.strip() and self.display_name.isprintable()):
            raise Failure(f"display_name {self.display_name!r} cannot be shown: write some words on one line")
        if not os.path.isdir(self.jhub):
            raise Failure(f"{self.jhub} is missing: name the hub's container, or where its Jupyter is (jhub)")
        self.dynamic = bool(glob.glob(f"{glob.escape(self.jhub)}/lib/python*/site-packages/nb_conda_kernels"))
        self.specs = own_specs(self.jhub)
        self.write: dict[str, Spec] = {}
        self.remove: dict[str, Spec] = {}

    def environment(self, spec: Spec) -> str:
        """Path of the environment whose kernel a kernelspec starts; "" if there is none."""
        words = " ".join(map(str, spec.get("argv") or []))
        names = re.findall(re.escape(self.envs) + r"/([A-Za-z0-9_][\w.-]*)", words)
        named = sorted((os.path.join(self.envs, name) for name in names), key=lambda path: path == self.jhub)
        return str((spec.get("metadata") or {}).get(MARK) or (named or [""])[0])

    def present(self) -> None:
        """Decide what has to be written. Raises Failure."""
        if not os.path.isdir(f"{self.prefix}/conda-meta"):
            raise Failure(f"environment {self.name}: {self.prefix} is missing: make it with conda_environment")
        own = own_specs(self.prefix, HIDDEN) | own_specs(self.prefix)
        python = [folder for folder, spec in own.items() if "ipykernel" in " ".join(map(str, spec.get("argv") or []))]
        wishes = {}
        if glob.glob(f"{glob.escape(self.prefix)}/lib/python*/site-packages/ipykernel_launcher.py"):
            folder = (python or [f"{self.prefix}/{KERNELS}/python3"])[0]
            wishes.update(self.wish(folder, own.get(folder), {}, True))
        for folder, spec in own.items():
            if folder not in python and spec.get("argv"):
                wishes.update(self.wish(folder, spec, spec, not wishes))
        if not wishes:
            raise Failure(
                f"environment {self.name} has no kernel: add ipykernel, or another language's kernel, to its packages with conda_environment"
            )
        for folder, spec in wishes.items():
            old = read(f"{folder}/{SPEC}")
            if old and not self.dynamic and self.environment(old) != self.prefix:
                raise Failure(f"{folder} is the kernel of something else: remove it, or name the environment otherwise")
            if any(old.get(key) != spec[key] for key in ("argv", "display_name", "language")):
                self.write[folder] = spec
        languages = {spec["language"] for spec in wishes.values()}
        for folder, spec in self.specs.items():
            again = self.dynamic or is_ours(spec) or spec.get("language") in languages
            if again and self.environment(spec) == self.prefix and folder not in wishes:
                self.remove[folder] = spec

    def wish(self, own: str, found: Spec | None, base: Spec, first: bool) -> dict[str, Spec]:
        """The kernelspec for one of the environment's own (``base``; of ipykernel {}), where it belongs.

        Several kernels of an environment are told apart by their language.
        """
        language = base.get("language") or "python"
        title = self.display_name or self.name
        title = title if first else f"{title} ({language})"
        metadata = {**({} if base else {"debugger": True}), **(base.get("metadata") or {}), MARK: self.prefix}
        if self.dynamic:
            usual = {"argv": [f"{self.prefix}/bin/python", *IPYKERNEL], "display_name": "Python", "language": language}
            spec = {
                **usual,
                **(found or {}),
                "metadata": {**((found or {}).get("metadata") or metadata), MARK: self.prefix},
            }
            return {own: {**spec, "display_name": title} if self.display_name else spec}
        argv = self.started(base.get("argv") or ["python", *IPYKERNEL], not base)
        folder = f"{self.jhub}/{KERNELS}/{self.name}" + ("" if first else f"-{os.path.basename(own)}")
        return {folder: {**base, "argv": argv, "display_name": title, "language": language, "metadata": metadata}}

    def started(self, argv: list[str], python: bool) -> list[str]:
        """A command that is run with the environment activated. Raises Failure."""
        if python and os.access(LAUNCHER, os.X_OK):
            return [LAUNCHER, self.prefix, *argv[1:]]
        activate = os.path.join(os.path.dirname(self.envs), "bin/activate")
        if not os.access(activate, os.R_OK):
            raise Failure(f"{activate} is missing, which activates environments: is prefix_folder conda's?")
        # A function gives the script its argument: not every shell's dot command does.
        script = f'activate() {{ . {shlex.quote(activate)}; }}; activate {shlex.quote(self.prefix)} && exec "$@"'
        return ["/bin/sh", "-c", script, "sh", *argv]

    def absent(self) -> None:
        """Decide what has to be removed."""
        own = own_specs(self.prefix) if self.dynamic else {}
        self.remove |= own | {folder: one for folder, one in self.specs.items() if self.environment(one) == self.prefix}

    def stale(self) -> None:
        """This collection's kernelspecs whose environment is gone have to be removed, too."""
        for folder, spec in self.specs.items():
            gone = is_ours(spec) and not os.path.isdir(f"{self.environment(spec)}/conda-meta")
            if gone and folder not in self.write:
                self.remove[folder] = spec

    def change(self) -> None:
        """Do what was decided. Raises OSError."""
        for folder, spec in self.write.items():
            os.makedirs(folder, mode=0o755, exist_ok=True)
            path = f"{folder}/.{SPEC}.new"
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(shown(spec))
            os.chmod(path, 0o644)
            os.replace(path, f"{folder}/{SPEC}")
            if os.path.exists(f"{folder}/{HIDDEN}"):
                os.unlink(f"{folder}/{HIDDEN}")
            for logo in glob.glob(f"{glob.escape(self.prefix)}/lib/python*/site-packages/ipykernel/resources/logo-*"):
                if spec["language"] == "python":
                    shutil.copy(logo, folder)
        for folder in self.remove:
            if folder.startswith(f"{self.prefix}/"):
                os.replace(f"{folder}/{SPEC}", f"{folder}/{HIDDEN}")
            else:
                shutil.rmtree(folder)

    def result(self) -> dict[str, t.Any]:
        """What there is once that is done, and what differs. Call it before."""
        specs = {**self.specs, **self.write}
        for prefix in map(os.path.dirname, glob.glob(f"{glob.escape(self.envs)}/*/conda-meta") if self.dynamic else []):
            specs = own_specs(prefix) | specs
        diff = []
        for folder in sorted({*self.write, *self.remove}):
            old, new = read(f"{folder}/{SPEC}"), self.write.get(folder)
            path, texts = f"{folder}/{SPEC}", [shown(one) if one else "" for one in (old, new)]
            diff.append({"before_header": path, "after_header": path, "before": texts[0], "after": texts[1]})
        return {
            "changed": bool(self.write or self.remove),
            "kernels": [self.listed(*one) for one in sorted(specs.items()) if one[0] not in self.remove],
            "removed": [self.listed(*one)["name"] for one in sorted(self.remove.items())],
            "diff": diff,
            "commands": [],
        }

    def listed(self, folder: str, spec: Spec) -> dict[str, t.Any]:
        """What the result says of a kernel, under the name that Jupyter has for it."""
        name, prefix = os.path.basename(folder), self.environment(spec)
        if not folder.startswith(f"{self.jhub}/"):
            prefix = folder.removesuffix(f"/{KERNELS}/{name}")
            short = {"python3": "py", "ir": "r"}.get(name, name)
            name = f"conda-env-{os.path.basename(prefix)}-{short}"
        title = str(spec.get("display_name") or name)
        return {"name": name, "display_name": title, "environment": os.path.basename(prefix), "ours": is_ours(spec)}


def own_specs(prefix: str, name: str = SPEC) -> dict[str, Spec]:
    """Kernelspecs of an environment, from folder to content."""
    return {os.path.dirname(one): read(one) for one in sorted(glob.glob(f"{glob.escape(prefix)}/{KERNELS}/*/{name}"))}


def is_ours(spec: Spec) -> bool:
    """Whether a kernelspec is this collection's; those of an image have no mark, but its launcher."""
    return MARK in (spec.get("metadata") or {}) or (spec.get("argv") or [""])[0] == LAUNCHER


def read(path: str) -> Spec:
    """A kernelspec; {} where there is none, or it is damaged."""
    try:
        with open(path, encoding="utf-8") as stream:
            spec = json.load(stream)
    except (OSError, ValueError):
        spec = {}
    return spec if isinstance(spec, dict) else {}


def shown(spec: Spec) -> str:
    """A kernelspec as text."""
    return json.dumps(spec, indent=1, ensure_ascii=False) + "\n"


def main(parameters: dict[str, t.Any]) -> dict[str, t.Any]:
    """Offer an environment's kernel in a hub, or no longer. Raises Failure.

    Parameters: ``environment``, ``state`` (present, absent), ``display_name``, ``prefix_folder``, ``jhub``, ``check``.
    """
    kernels = Kernels(parameters)
    try:
        (kernels.absent if parameters.get("state") == "absent" else kernels.present)()
        kernels.stale()
        result = kernels.result()
        if not parameters.get("check"):
            kernels.change()
    except OSError as error:
        full = ": make room, and run again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise Failure(f"kernel of {kernels.name}: {error.filename}: {error.strerror}{full}") from error
    return result
