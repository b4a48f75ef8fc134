# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things stand in a fleet's files: lines of YAML keys, and tables of courses. Nothing here knows Ansible."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

import yaml

Path = tuple[str, ...]
#: What a table's cell means beside text; YAML's lists and mappings are read, too.
WORDS = {"true": True, "false": False, "null": None}


class Place(NamedTuple):
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Problem(NamedTuple):
    """What is wrong at a place, and what to do."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class Entry(NamedTuple):
    """A hub as it was written: its keys and values, and where each of them stands."""

    name: str
    values: dict[str, Any]
    place: Place
    places: dict[str, Place]


class Lines:
    """The lines of a YAML file's keys, by their path of keys."""

    def __init__(self, file: str, text: str) -> None:
        """Raises yaml.YAMLError where the text is no YAML."""
        self.file = file
        self.known: dict[Path, int] = {}
        self.problems: list[Problem] = []
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            self._walk(root, ())

    def place(self, *path: str) -> Place:
        """Where a key stands, or the nearest that contains it."""
        while path and path not in self.known:
            path = path[:-1]
        return Place(self.file, self.known.get(path, 1))

    def _walk(self, node: yaml.Node, path: Path) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            name = (*path, str(key.value))
            line = key.start_mark.line + 1
            if name in self.known:
                text = f"{'.'.join(name)} is there twice, first in line {self.known[name]}; remove one of them"
                self.problems.append(Problem(Place(self.file, line), text))
            self.known.setdefault(name, line)
            self._walk(value, name)


def table(file: str, text: str) -> tuple[list[Entry], list[Problem]]:
    """The hubs of a table of courses, and what is wrong with it.

    Args:
        file: Its name, for messages.
        text: CSV with a line of headings, one of them ``name``; commas, semicolons or tabs between the cells.
    """
    problems: list[Problem] = []
    first = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=first.count)
    rows = _rows(text.removeprefix("\ufeff"), delimiter)
    heading = next(rows, None)
    if heading is None:
        return [], [
            Problem(Place(file, 1), "it is empty; its first line names the columns, such as name,machine,profile")
        ]
    line, headings = heading
    names = [cell.strip() for cell in headings]
    for number, name in enumerate(names):
        if not name:
            problems.append(Problem(Place(file, line), f"column {number + 1} has no name; name it, or remove it"))
        elif name in names[:number]:
            problems.append(Problem(Place(file, line), f"column {name} is there twice; remove one of them"))
    if "name" not in names:
        problems.append(
            Problem(Place(file, line), "there is no column 'name', which has the names of the hubs; add it")
        )
    if problems:
        return [], problems
    entries = []
    for line, cells in rows:
        place = Place(file, line)
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(names):
            text = f"there are {len(cells)} cells for {len(names)} columns; put a cell that contains {delimiter!r} in double quotes"
            problems.append(Problem(place, text))
            continue
        values: dict[str, Any] = {}
        for name, cell in zip(names, map(str.strip, cells), strict=False):
            if not cell:
                continue
            try:
                values[name] = _value(cell)
            except yaml.YAMLError:
                problems.append(
                    Problem(place, f"{name}: {cell!r} begins like a list or mapping of YAML, and is none; close it")
                )
        hub = values.pop("name", None)
        if isinstance(hub, str):
            entries.append(Entry(hub, values, place, dict.fromkeys(values, place)))
        else:
            problems.append(Problem(place, "this row has no name; write the hub's name in the column 'name'"))
    return entries, problems


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows, each with the line that it begins in."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    line = 1
    for cells in reader:
        if cells:
            yield line, cells
        line = reader.line_num + 1


def _value(cell: str) -> Optional[Any]:
    """What a cell means: text, unless it is one of a few words, or a list or mapping of YAML."""
    if cell in WORDS:
        return WORDS[cell]
    return yaml.safe_load(cell) if cell[0] in "[{" and not cell.startswith("{{") else cell
