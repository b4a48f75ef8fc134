"""An assignment, and what teachers and students do with it in their servers, by nbgrader's commands."""

from __future__ import annotations

import json
from typing import Any

NAME = "sheet1"
COMMAND = """
import os, pathlib, sqlite3, subprocess
home = pathlib.Path.home()
os.chdir(home)
def nbgrader(*arguments):
    done = subprocess.run(["nbgrader", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
"""
EXCHANGE = "exchange = pathlib.Path('/opt/nbgrader_exchange') / os.environ['ANANKE_COURSE']\n"
FETCH = f"""{COMMAND}
nbgrader("fetch_assignment", "{NAME}")
work = home / "{NAME}/problem.ipynb"
text = work.read_text()
assert "2 * x" not in text
work.write_text(text.replace("raise NotImplementedError()", "return x + x"))
nbgrader("submit", "{NAME}")
"""
GRADE = f"""{COMMAND}
nbgrader("collect", "{NAME}")
nbgrader("autograde", "{NAME}")
nbgrader("generate_feedback", "{NAME}")
nbgrader("release_feedback", "{NAME}")
book = sqlite3.connect(home / os.environ["ANANKE_COURSE"] / "gradebook.db")
tables = "submitted_assignment a join submitted_notebook n on n.assignment_id = a.id join grade g on g.notebook_id = n.id"
print(book.execute("select student_id, auto_score from " + tables).fetchall())
"""  # noqa: S608 - nobody else's words are in it
FEEDBACK = f"""{COMMAND}
nbgrader("fetch_feedback", "{NAME}")
print(len(list((home / "{NAME}/feedback").rglob("problem.html"))))
"""
# what somebody sees of what others have submitted, and whether they can change what is released
LOOK = f"""{COMMAND}{EXCHANGE}
def refused(act):
    try:
        act()
    except OSError:
        return True
    return False
print([
    (exchange / "outbound/{NAME}/problem.ipynb").is_file(),
    [path.name for path in (exchange / "inbound").iterdir()],
    refused((exchange / "outbound/{NAME}/problem.ipynb").unlink),
    refused((exchange / "outbound/mine").mkdir),
    refused(lambda: list((exchange / "feedback").iterdir())),
    refused((exchange.parent / "mine").mkdir),
])
"""


def cell(name: str, source: str, **more: Any) -> dict[str, Any]:
    """A cell of an assignment."""
    kind = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3, "grade_id": name}
    known = {"id": name, "metadata": {"nbgrader": {**kind, **more}}, "source": source}
    return {"cell_type": "code", **known, "outputs": [], "execution_count": None}


def release() -> str:
    """What a teacher does to make an assignment and hand it out."""
    solved = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
    cells = [
        cell("double", solved, solution=True),
        cell("test", "assert double(4) == 8", grade=True, locked=True, points=3),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    sheet = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return f"""{COMMAND}
source = home / os.environ["ANANKE_COURSE"] / "source/{NAME}"
source.mkdir(parents=True)
(source / "problem.ipynb").write_text({json.dumps(sheet)!r})
nbgrader("generate_assignment", "{NAME}")
nbgrader("release_assignment", "{NAME}")
"""
