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


def load_file(path: Path, c: Any) -> None:
    """Run one file with ``c`` and ``get_config()``, as JupyterHub would. Raises ConfigurationError."""
    name = f"{path.parent.name}/{path.name}"
    try:
        code = compile(path.read_bytes(), str(path), "exec")
    except OSError as error:
        raise ConfigurationError(f"{name}: cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ConfigurationError(f"{name}{f', line {line}' if line else ''}: {_one_line(reason)}") from None
    try:
        exec(code, {"__file__": str(path), "__name__": "__main__", "c": c, "get_config": lambda: c})  # noqa: S102
    except DescriptionError as error:
        raise ConfigurationError(_one_line(error)) from None
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
