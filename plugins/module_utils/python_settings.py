# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a configuration file in Python sets, read from its syntax tree. Nothing of it is ever executed.

Understood are statements of the file itself that assign, or add to, names, attributes and items: ``c.JupyterHub.base_url = "/a/"``,
``config["volumes"].append(("data", "/data"))``. Whatever else there is, conditions and functions among it, is told as it stands.
"""

from __future__ import annotations

import ast
import dataclasses
import typing as t
import warnings

BUDGET = 65536
"""Parts of a value, its texts' characters among them, beyond which it is not followed."""
DEPTH = 12
"""Lists and mappings inside each other beyond which a value is not followed."""
LARGEST = 10**15
"""Numbers beyond are no setting."""
ADDING = {"add": True, "append": True, "extend": False, "update": False}
"""Methods that add to a value, and whether their argument is one entry."""
MAKING = ("set", "list", "tuple", "dict", "frozenset")


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()
"""Stands for a value, or for a part of one, that only a run of the file would tell."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One statement that sets something."""

    file: str
    line: int
    name: str
    """Such as ``c.JupyterHub.base_url``, or ``config.port`` for an item."""
    value: t.Any
    adds: bool = False
    """Whether the value is added to what there was."""


@dataclasses.dataclass(frozen=True)
class Other:
    """One statement that is not understood."""

    file: str
    line: int
    what: str
    texts: tuple[str, ...] = ()
    """Texts that occur in it, by which it may be known."""


def read(file: str, text: str) -> list[Setting | Other]:
    """What a file sets, in its order. Whatever the text is, this neither runs it nor fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the file's author has seen them
            tree = ast.parse(text)
        return _File(file).read(tree)
    except SyntaxError as error:
        return [Other(file, error.lineno or 1, "no Python that can be read")]
    except (ValueError, RecursionError, MemoryError):
        return [Other(file, 1, "no Python that can be read")]


def added(before: t.Any, value: t.Any) -> t.Any:
    """A value to which another one was added."""
    if isinstance(before, list) and isinstance(value, list):
        return _bounded(before + value)
    if isinstance(before, dict) and isinstance(value, dict):
        return _bounded({**before, **value})
    return UNKNOWN


def known(value: t.Any) -> bool:
    """Whether all parts of a value are known."""
    if isinstance(value, list):
        return all(map(known, value))
    if isinstance(value, dict):
        return all(map(known, value.values()))
    return value is not UNKNOWN


class _File:
    """One file, with what its plain names stand for at the statement that is read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.names: dict[str, t.Any] = {}
        self.found: list[Setting | Other] = []

    def read(self, tree: ast.Module) -> list[Setting | Other]:
        """All statements of the file."""
        for statement in tree.body:
            self._statement(statement)
        return self.found

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Pass)):
            return
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._set(node, target, node.value, False)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._set(node, node.target, node.value, False)
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Add, ast.BitOr)):
            self._set(node, node.target, node.value, True)
        elif isinstance(node, ast.Expr):
            self._expression(node)
        elif not isinstance(node, ast.AnnAssign):
            self._other(node)

    def _expression(self, node: ast.Expr) -> None:
        call = node.value
        if isinstance(call, ast.Constant):  # a text that explains something
            return
        if not isinstance(call, ast.Call):
            return self._other(node)
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if method == "update" and not call.args and all(one.arg for one in call.keywords):
            value = {str(one.arg): self._value(one.value) for one in call.keywords}
            return self._note(node, t.cast(ast.Attribute, call.func).value, value, True)
        if method not in ADDING or len(call.args) != 1 or call.keywords:
            return self._other(node)
        value = self._value(call.args[0])
        self._note(node, t.cast(ast.Attribute, call.func).value, [value] if ADDING[method] else value, True)

    def _set(self, node: ast.stmt, target: ast.expr, value: ast.expr, adds: bool) -> None:
        if _calls(value, "get_config"):
            return
        self._note(node, target, self._value(value), adds)

    def _note(self, node: ast.stmt, target: ast.expr, value: t.Any, adds: bool) -> None:
        name = _name(target)
        if not name:
            return self._other(node)
        if "." not in name:
            self.names[name] = added(self.names.get(name, UNKNOWN), value) if adds else value
        self.found.append(Setting(self.name, node.lineno, name, value, adds))

    def _other(self, node: ast.stmt) -> None:
        texts = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        self.found.append(Other(self.name, node.lineno, _kind(node), tuple(texts)))

    def _value(self, node: ast.expr) -> t.Any:
        """What an expression stands for, as plain data; sets and tuples are lists."""
        if isinstance(node, ast.Constant):
            plain = node.value is None or isinstance(node.value, (str, bool)) or _number(node.value)
            return node.value if plain else UNKNOWN
        if isinstance(node, ast.Name):
            return self.names.get(node.id, UNKNOWN)
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return _bounded([self._value(one) for one in node.elts])
        if isinstance(node, ast.Dict):
            keys = [UNKNOWN if one is None else self._value(one) for one in node.keys]
            if not all(isinstance(one, str) for one in keys):
                return UNKNOWN
            return _bounded({key: self._value(node.values[number]) for number, key in enumerate(keys)})
        if isinstance(node, ast.JoinedStr):
            return self._text(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self._value(node.operand)
            return -number if _number(number) else UNKNOWN
        if isinstance(node, ast.BinOp):
            return _calculated(node.op, self._value(node.left), self._value(node.right))
        if isinstance(node, ast.Call):
            return self._made(node)
        return UNKNOWN

    def _text(self, node: ast.JoinedStr) -> t.Any:
        parts = []
        for one in node.values:
            if isinstance(one, ast.FormattedValue):
                if one.format_spec is not None or one.conversion != -1:
                    return UNKNOWN
                one = one.value
            value = self._value(one)
            if not isinstance(value, (str, int)) or isinstance(value, bool):
                return UNKNOWN
            parts.append(str(value))
        return _bounded("".join(parts))

    def _made(self, node: ast.Call) -> t.Any:
        """``set()``, ``list([1, 2])`` and the like."""
        if not any(_calls(node, name) for name in MAKING) or node.keywords or len(node.args) > 1:
            return UNKNOWN
        if not node.args:
            return {} if _calls(node, "dict") else []
        value = self._value(node.args[0])
        return value if isinstance(value, dict if _calls(node, "dict") else list) else UNKNOWN


def _calls(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _name(node: ast.expr) -> str:
    """The name of what is set, parts separated by dots; empty for what has none."""
    parts: list[str] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            if not isinstance(node.slice.value, str) or not node.slice.value.isidentifier():
                return ""
            parts.append(node.slice.value)
        else:
            return ""
        node = node.value
    return ".".join(reversed([*parts, node.id]))


def _kind(node: ast.stmt) -> str:
    """A statement in a word; nothing of its text, which may hold a secret."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return f"{'class' if isinstance(node, ast.ClassDef) else 'function'} {node.name}"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = _name(node.value.func)
        return f"call of {called}" if called else "call"
    if isinstance(node, ast.Expr):
        return "expression"
    words: dict[type[ast.AST], str] = {ast.If: "condition (if)", ast.With: "block (with)", ast.Try: "block (try)"}
    return words.get(type(node), "loop" if isinstance(node, (ast.For, ast.While)) else type(node).__name__.lower())


def _number(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def _calculated(operator: ast.operator, left: t.Any, right: t.Any) -> t.Any:
    if isinstance(operator, (ast.Add, ast.BitOr)) and isinstance(left, (list, dict)):
        return added(left, right)
    if isinstance(operator, ast.Add) and isinstance(left, str) and isinstance(right, str):
        return _bounded(left + right)
    if not (_number(left) and _number(right)):
        return UNKNOWN
    if isinstance(operator, ast.Pow):
        small = isinstance(left, int) and isinstance(right, int) and abs(left) <= 1024 and 0 <= right <= 64
        result = left**right if small else UNKNOWN
    elif isinstance(operator, (ast.Div, ast.FloorDiv)):
        result = UNKNOWN if right == 0 else left // right if isinstance(operator, ast.FloorDiv) else left / right
    elif isinstance(operator, ast.Add):
        result = left + right
    elif isinstance(operator, ast.Sub):
        result = left - right
    elif isinstance(operator, ast.Mult):
        result = left * right
    else:
        return UNKNOWN
    return result if _number(result) else UNKNOWN


def _bounded(value: t.Any) -> t.Any:
    """The value, unless it is so large or so deep that somebody has made it for that: ``a = [a, a]``, sixty times."""
    left, budget = [(value, 0)], BUDGET
    while left:
        one, depth = left.pop()
        budget -= 1 + (len(one) if isinstance(one, (str, list, dict)) else 0)
        if budget < 0 or depth > DEPTH:
            return UNKNOWN
        if isinstance(one, (list, dict)):
            parts = one if isinstance(one, list) else [*one, *one.values()]
            left.extend((part, depth + 1) for part in parts)
    return value
