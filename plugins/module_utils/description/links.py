# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links that bring a repository's files into the home of whoever follows them (nbgitpuller), for an instructor's course page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from . import checks
from .problems import Bad, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KEYS = ("title", "repository", "branch", "folder", "path")
_REMEDY = "Write {title: Sheet 1, repository: https://git.example.org/math101.git, path: sheet1.ipynb}"
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z")
_BRANCH = re.compile(r"(?!.*(?:\.\.|//|\.lock\Z|/\Z))[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}\Z")
_PATH = re.compile(r"[^/\\?#*\"<>|:]{1,200}(?:/[^/\\?#*\"<>|:]{1,200})*\Z")


def _repository(value: Any) -> str:
    remedy = "Write the address from which everybody can clone it, such as https://git.example.org/math101.git"
    if isinstance(value, str) and value.startswith(("git@", "ssh://")):
        raise Bad("students have no key for it", remedy)
    if isinstance(value, str) and value.startswith(("http://", "git://")):
        raise Bad("it is not https, so files could be forged on their way", remedy)
    return checks.https_url(value, remedy, query=False).rstrip("/")


def _path(value: Any) -> str:
    remedy = "Write the path of a file or folder in the repository, such as sheets/sheet1.ipynb, or leave it out"
    path = str(checks.text(_PATH, "it is not a path inside the repository", remedy)(value))
    if {".", "..", ".git"} & set(path.split("/")):
        raise Bad("it contains ., .. or .git", remedy)
    return path


_CHECKS: dict[str, checks.Check] = {
    "title": checks.text(
        re.compile(r"\S(?:.{0,98}\S)?\Z"), "it is not one to 100 characters", "Write what the link opens"
    ),
    "repository": _repository,
    "branch": checks.text(
        _BRANCH, "it is not the name of a branch", "Write a branch's name, or leave it out for the repository's own"
    ),
    "folder": checks.text(
        _FOLDER,
        "it is not a folder's name",
        "Write letters, digits, . _ and -, or leave it out for the repository's name",
    ),
    "path": _path,
}


def _link(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Bad("it is not a mapping", _REMEDY)
    for key in value:
        if key not in _KEYS:
            raise Bad(f"{key} is unknown, the nearest is {nearest(key, _KEYS)}", _REMEDY)
    result = {}
    for key in _KEYS:
        if value.get(key) is None:
            if key in ("title", "repository"):
                raise Bad(f"{key} is missing", _REMEDY)
            continue
        try:
            result[key] = str(_CHECKS[key](value[key]))
        except Bad as error:
            raise error.inside(f".{key}", shown(value[key])) from None
    name = urlsplit(result["repository"]).path.rpartition("/")[2].removesuffix(".git")
    if "folder" not in result and not _FOLDER.match(name):
        raise Bad(
            "no folder's name follows from the repository", "Add folder, the name of the folder in students' homes"
        )
    return {"folder": name, **result}


def links(value: Any) -> list[dict[str, str]]:
    """hub_links, each with its folder: ``{title, repository, folder, branch, path}``, the last two where they are given."""
    result: list[dict[str, str]] = checks.listing(_link, f"Write a list of links. {_REMEDY}")(value)
    sources: dict[str, tuple[str, str]] = {}
    for number, link in enumerate(result):
        source = (link["repository"], link.get("branch", ""))
        if sources.setdefault(link["folder"], source) != source:
            raise Bad(
                f"an earlier link puts another repository or branch into the folder {link['folder']}",
                "Give one of them another folder",
                f"[{number}]",
                shown(link["title"]),
            )
    return result


def address(public_url: str, link: Mapping[str, str]) -> str:
    """The link itself: pulls the repository, then opens the path in JupyterLab."""
    opened = "/".join(filter(None, (link["folder"], link.get("path"))))
    query = {
        "repo": link["repository"],
        **({"branch": link["branch"]} if "branch" in link else {}),
        "targetpath": link["folder"],
        "urlpath": f"lab/tree/{quote(opened)}",
    }
    return f"{public_url}hub/user-redirect/git-pull?{urlencode(query)}"


def section(public_url: str, wanted: Sequence[Mapping[str, str]]) -> list[str]:
    """What the sheet for the LMS says of them; nothing where there are none."""
    if not wanted:
        return []
    lines = [
        "",
        "Links that copy files of a repository into a student's home, update them at each visit, and open them in JupyterLab.",
        "For each, add an activity with this tool to the course and enter the link as the activity's own tool URL (target link",
        "URI), so that the LMS logs the student in on the way. In other places of the course, it works for who is logged in.",
    ]
    for link in wanted:
        lines += ["", f"  {link['title']}", f"    {address(public_url, link)}"]
    return lines
