# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kernels a hub user's JupyterLab offers: those of the hub, and those of conda environments that the user has made.

Nothing is registered and conda is not asked: an environment is listed as long as it lies in the user's home and has a kernel (for Python, the
package ipykernel). Its kernels run with the environment activated.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

ACTIVATED = "/usr/local/lib/ananke/activated"
KERNELS = "share/jupyter/kernels"


def environments(home: Path) -> list[Path]:
    """Conda environments in a home: those with a name, and those that conda has noted since they were made with a path."""
    conda = home / ".conda"
    try:
        noted = (conda / "environments.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        noted = []
    own = home.resolve()
    found = {path.resolve() for path in [*(conda / "envs").glob("*"), *map(Path, filter(None, noted))]}
    return sorted(
        home / path.relative_to(own)
        for path in found
        if path.is_relative_to(own) and (path / "conda-meta/history").is_file()
    )


def kernel_name(home: Path, prefix: Path, folder: Path) -> str:
    """Name of an environment's kernel, always the same and that of no other."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", f"own-{prefix.name}-{folder.name}")
    plain = prefix.parent == home / ".conda/envs" and name == f"own-{prefix.name}-{folder.name}"
    return name if plain else f"{name}-{hashlib.sha256(bytes(prefix)).hexdigest()[:8]}"


def own_kernels(home: Path) -> Iterator[tuple[str, Path, Path]]:
    """Name, environment and folder of each kernel."""
    for prefix in environments(home):
        for spec in sorted((prefix / KERNELS).glob("*/kernel.json")):
            yield kernel_name(home, prefix, spec.parent), prefix, spec.parent


def activated(prefix: Path, folder: Path) -> KernelSpec:
    """The kernel of an environment, started with the environment activated. Raises NoSuchKernel where its description is damaged."""
    try:
        spec = KernelSpec.from_resource_dir(str(folder))
    except Exception as error:  # whatever the user's file holds
        raise NoSuchKernel(str(folder)) from error
    language = "" if spec.language == "python" else f", {spec.language}"
    spec.argv = [ACTIVATED, str(prefix), *spec.argv]
    spec.display_name = f"{prefix.name} (own{language})"
    return spec


class UserKernels(KernelSpecManager):
    """Kernels of the hub and of the user's own environments."""

    def _own(self, others: dict[str, str]) -> dict[str, tuple[Path, Path]]:
        """Environments' kernels by name, without those that the user offers by a kernelspec (among ``others``) as well."""
        own = {name: (prefix, folder) for name, prefix, folder in own_kernels(Path.home())}
        if not own:
            return {}
        started = []
        for folder in others.values():
            try:
                started.append(KernelSpec.from_resource_dir(folder).argv[0])
            except Exception:  # noqa: S112 - Jupyter itself will say so
                continue
        return {
            name: (prefix, folder)
            for name, (prefix, folder) in own.items()
            if not any(program.startswith(f"{prefix}/") for program in started)
        }

    def find_kernel_specs(self) -> dict[str, str]:
        """Folders by names."""
        others: dict[str, str] = super().find_kernel_specs()
        return {**others, **{name: str(folder) for name, (prefix, folder) in self._own(others).items()}}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The kernel of this name. Raises NoSuchKernel."""
        for name, prefix, folder in own_kernels(Path.home()) if kernel_name.startswith("own-") else ():
            if name == kernel_name:
                return activated(prefix, folder)
        return super().get_kernel_spec(kernel_name)
