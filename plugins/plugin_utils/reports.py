# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all reports need: tables for a terminal, pages, files, and the action that puts them together."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

Report = dict[str, Any]


class ReportAction(ActionBase):
    """Puts together what hosts told, as a table and, if wanted, as files. Never looks at a host."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    FILES: str
    """Name of the report's files, without their endings."""
    table: Callable[[Report], str]
    page: Callable[[Report], str]

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Do the task and return its result."""
        result = super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(
            argument_spec={
                "hubs": {"type": "list", "elements": "str", "required": True},
                "machines": {"type": "list", "elements": "str", "required": True},
                "directory": {"type": "path"},
            }
        )
        now = datetime.datetime.now(datetime.UTC)
        found = self.report(options["hubs"], options["machines"], (task_vars or {})["hostvars"], now)
        result.update(changed=False, report=found, msg=self.table(found))
        if options["directory"]:
            result["files"] = write(Path(options["directory"]), self.FILES, found, self.page(found))
            result["msg"] += "\n" + "\n".join(f"written: {path}" for path in result["files"])
        return result

    def report(
        self, hubs: Sequence[str], machines: Sequence[str], variables: Mapping[str, Any], now: datetime.datetime
    ) -> Report:
        """What these hosts told, by the variables of all hosts."""
        raise NotImplementedError


def reason(told: Mapping[str, Any]) -> str:
    """Why a host told nothing."""
    return " ".join(str(told.get("msg") or "the run did not come so far").split())


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table, its columns one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def template(name: str, **filters: Callable[..., Any]) -> Template:
    """A page without its content; all texts are escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)


def write(folder: Path, name: str, found: Mapping[str, Any], page: str) -> list[str]:
    """Write a report as data and as a page; they are meant for the host admin alone, as they tell what is wrong where."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"{name}.json": json.dumps(found, indent=2) + "\n", f"{name}.html": page}
    for file, text in texts.items():
        fresh = folder / f".{file}.new"
        fresh.touch(mode=0o600)
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o600)
        fresh.rename(folder / file)
    return [str(folder / file) for file in texts]
