# SPDX-License-Identifier: GPL-3.0-or-later
"""Load ``jupyterhub_config.d/*.py`` in the order of their names; an error names the file and the line."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from .description import DescriptionError


class ConfigurationError(Exception):
    """A configuration file cannot be loaded. The text is one line: file, line, reason."""


def files(folder: Path) -> list[Path]:
    """The configuration files, in the order in which they are loaded. Hidden files and folders are left out."""
    try:
        return sorted(
            path for path in folder.iterdir() if path.suffix == ".py" and path.is_file() and path.name[0] != "."
        )
    except OSError as error:
        raise ConfigurationError(f"{folder}: cannot be read: {error.strerror}") from None


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def _run(path: Path, c: Any) -> None:
    def load_subconfig(name: str, folder: str | None = None) -> None:
        _run(Path(folder) / name if folder else path.parent / name, c)

    code = compile(path.read_bytes(), str(path), "exec")
    namespace = {"__file__": str(path), "__name__": "__main__", "c": c, "get_config": lambda: c}
    exec(code, {**namespace, "load_subconfig": load_subconfig})  # noqa: S102 - configuration of JupyterHub is Python


def load_file(path: Path, c: Any) -> None:
    """Run one file with ``c``, ``get_config`` and ``load_subconfig``, as JupyterHub would. Raises ConfigurationError."""
    name = f"{path.parent.name}/{path.name}"
    try:
        _run(path, c)
    except DescriptionError as error:
        raise ConfigurationError(_one_line(error)) from None
    except SyntaxError as error:
        raise ConfigurationError(f"{name}, line {error.lineno}: {_one_line(error.msg)}") from None
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise ConfigurationError(f"{name}{where}: {type(error).__name__}: {_one_line(error)}") from error


def load(c: Any, folder: Path) -> list[Path]:
    """Run all files of ``folder``. Returns them. Raises ConfigurationError."""
    found = files(folder)
    if not found:
        raise ConfigurationError(f"{folder}: holds no configuration; run the playbook again to restore it")
    for path in found:
        load_file(path, c)
    return found


def load_or_exit(c: Any, folder: Path) -> None:
    """For ``jupyterhub_config.py``: load all files, or end the hub with one line that says why."""
    try:
        load(c, folder)
    except ConfigurationError as error:
        raise SystemExit(f"The hub does not start. {error}") from None
