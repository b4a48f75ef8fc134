# Copyright: (c) 2026, The ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prove that JupyterLab will offer exactly the declared kernels and that a cell runs in each: check_kernels.py NAME..."""

from __future__ import annotations

import sys

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import start_new_kernel

TIMEOUT = 120
"""Seconds for a kernel's start; slow disks are slow."""


def prefix_of(name: str) -> str:
    """Run a cell in a kernel and return the prefix of the Python that ran it."""
    manager, client = start_new_kernel(kernel_name=name, startup_timeout=TIMEOUT)
    answer: list[str] = []
    try:
        client.execute_interactive(
            "import os, sys; print(sys.prefix, os.environ['CONDA_PREFIX'])",
            timeout=TIMEOUT,
            output_hook=lambda message: answer.append(message["content"].get("text", "")),
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return "".join(answer).strip()


def main(declared: list[str]) -> int:
    """Check all kernels and return the exit status."""
    offered = sorted(KernelSpecManager().find_kernel_specs())
    if offered != sorted(declared):
        print(f"JupyterLab offers the kernels {offered}, declared are {sorted(declared)}", file=sys.stderr)
        return 1
    for name in declared:
        prefix = f"/opt/conda/envs/{name}"
        answer = prefix_of(name)
        if answer != f"{prefix} {prefix}":
            print(f"A cell in the kernel {name} answered {answer!r}, expected was {prefix}", file=sys.stderr)
            return 1
        print(f"A cell ran in the kernel {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
