# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said about a bad value: host, key, value, what is wrong, what to write instead."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

#: Stands for a value in messages where none was given.
NOT_SET = "(not set)"
#: Longest value, in characters, that a message repeats.
SHOWN = 80
#: Names whose values no message repeats: an environment often holds secrets, and misspelt names still sound like them.
_SECRET = re.compile(r"environment|image_proxy|pass|secret|token(?!_url)|hash|credential|private", re.IGNORECASE)


class Bad(ValueError):
    """A value cannot be used.

    ``what`` says what is wrong with it and ``remedy`` what to write instead, both without a full stop. ``where`` is the
    place inside the variable, such as ``[0].target``; ``value`` the text to show instead of the whole value.
    """

    def __init__(self, what: str, remedy: str, where: str = "", value: Optional[str] = None) -> None:
        super().__init__(what)
        self.what, self.remedy, self.where, self.value = what, remedy, where, value

    def inside(self, where: str, value: Optional[str] = None) -> Bad:
        """The same, seen from the container that holds the value at ``where``."""
        return Bad(self.what, self.remedy, where + self.where, self.value if self.value is not None else value)


class Problem(NamedTuple):
    """One thing that is wrong in the inventory."""

    host: str
    key: str
    value: str
    what: str
    remedy: str

    def __str__(self) -> str:
        line = f"{self.host}: {self.key} = {self.value}: {self.what}. {self.remedy}"
        line += "" if line.endswith("?") else "."
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class Unusable:
    """Takes the place of a value that could not be worked out, such as a template with an undefined variable."""

    def __init__(self, source: str, reason: str) -> None:
        self.source, self.reason = source, reason


def shown(value: Any) -> str:
    """``value`` as a message repeats it: JSON in one ASCII line of at most SHOWN characters."""
    if isinstance(value, Unusable):
        return shown(value.source)
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def shown_of(key: str, value: Any) -> str:
    """Like shown(), but keeps the value of a key to itself whose name sounds like a secret."""
    return "(not shown)" if _SECRET.search(key) else shown(value)


def nearest(word: str, words: Iterable[str]) -> str:
    """The one of ``words`` that looks most like ``word``, '' if there are none."""
    found = difflib.get_close_matches(word, sorted(words), n=1, cutoff=0.0)
    return found[0] if found else ""
