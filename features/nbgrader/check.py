# SPDX-License-Identifier: GPL-3.0-or-later
"""An assignment goes the whole way: made, released, fetched, validated, submitted, collected, graded, and back as feedback. A student has no Formgrader."""

import json
import os
import sys
import urllib.parse
from pathlib import Path

import checks

COURSE, NAME = "course", "sheet1"
SOLVED = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
TEST = "from ipykernel.kernelapp import IPKernelApp\nassert IPKernelApp.instance().transport == 'ipc'\nassert double(4) == 8"
here = Path.cwd()
exchange, teacher, student = here / "exchange", here / "teacher", here / "student"
inbound = exchange / COURSE / "inbound" / "root"
for folder in (exchange / COURSE / "outbound", exchange / COURSE / "feedback", inbound, teacher, student):
    folder.mkdir(parents=True)
os.environ |= {"ANANKE_COURSE": COURSE, "ANANKE_EXCHANGE": str(exchange)}


def cell(name: str, source: str, **more: object) -> dict:
    """A cell of an assignment."""
    kind = {
        "grade": False,
        "solution": False,
        "locked": False,
        "task": False,
        "schema_version": 3,
        "grade_id": name,
        **more,
    }
    return {
        "cell_type": "code",
        "id": name,
        "metadata": {"nbgrader": kind},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def sit(home: Path, students: bool = False) -> None:
    """What follows happens in somebody's home."""
    os.chdir(home)
    limited = f"{sys.prefix}/share/ananke/nbgrader-student" if students else ""
    os.environ |= {"HOME": str(home), "JUPYTER_CONFIG_PATH": limited}


def act(server: checks.Server, path: str) -> None:
    """Ask nbgrader for something that must succeed."""
    answer = server.ask(path, {})
    assert answer["success"], f"{path}: {answer}"


def assignment(server: checks.Server, action: str) -> dict:
    """The student's list of assignments, after something was done with this one."""
    query = urllib.parse.urlencode({"course_id": COURSE, "assignment_id": NAME})
    answer = server.ask(f"assignments/{action}?{query}", {})
    assert answer["success"], f"{action}: {answer}"
    return {one["status"]: one for one in answer["value"]}


sit(teacher)
with checks.server() as server:
    server.labextensions("@jupyter/nbgrader")
    sheet = teacher / COURSE / "source" / NAME / "problem.ipynb"
    sheet.parent.mkdir(parents=True)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [cell("double", SOLVED, solution=True), cell("test", TEST, grade=True, locked=True, points=3)]
    sheet.write_text(
        json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
    )
    act(server, f"formgrader/api/assignment/{NAME}/assign")
    act(server, f"formgrader/api/assignment/{NAME}/release")

sit(student, students=True)
with checks.server() as server:
    disabled = server.page().get("disabledExtensions", [])
    assert "@jupyter/nbgrader:formgrader" in disabled, f"a student has Formgrader: {disabled}"
    try:
        raise AssertionError(f"a student's server answers as Formgrader: {server.ask('formgrader/api/assignments')}")
    except RuntimeError:
        pass  # 404
    assert "fetched" in assignment(server, "fetch")
    work = student / NAME / "problem.ipynb"
    text = work.read_text()
    assert "2 * x" not in text, "the student sees the solution"
    work.write_text(text.replace("raise NotImplementedError()", "return x + x"))
    told = server.ask("assignments/validate?" + urllib.parse.urlencode({"path": f"{NAME}/problem.ipynb"}), {})
    assert told["success"], f"not validated: {told}"
    assert told["value"] == {}, f"validated: {told}"
    (student / NAME / "link").symlink_to("/etc/hostname")
    assert "submitted" in assignment(server, "submit")
(sent,) = inbound.iterdir()
(sent / "secret").symlink_to("/etc/passwd")
forged = inbound / sent.name.replace("root+", "other+")
forged.mkdir()

sit(teacher)
with checks.server() as server:
    act(server, f"formgrader/api/assignment/{NAME}/collect")
    taken = teacher / COURSE / "submitted"
    assert [path.name for path in taken.iterdir()] == ["root"], "what somebody submitted for others was collected"
    assert (taken / "root" / NAME / "problem.ipynb").is_file()
    assert not (taken / "root" / NAME / "secret").exists(), "a link was followed where it leads"
    act(server, f"formgrader/api/submission/{NAME}/root/autograde")
    (found,) = [one for one in server.ask(f"formgrader/api/submissions/{NAME}") if one["student"] == "root"]
    assert (found["score"], found["max_score"]) == (3, 3), f"graded: {found}"
    act(server, f"formgrader/api/assignment/{NAME}/generate_feedback")
    act(server, f"formgrader/api/assignment/{NAME}/release_feedback")

sit(student, students=True)
with checks.server() as server:
    assignment(server, "fetch_feedback")
    assert list((student / NAME / "feedback").rglob("problem.html")), "the student has no feedback"
