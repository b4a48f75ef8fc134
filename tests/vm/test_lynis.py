"""What Lynis says of a hardened machine with a hub on it: its index, and nothing that docs/security/lynis.md does not answer."""

from __future__ import annotations

import json
import re

import pytest
from guest import Guest

from testbed.common import BUILD, REPOSITORY

GATE = 85
REPORT = "/var/log/lynis-report.dat"
ANSWERS = REPOSITORY / "docs/security/lynis.md"
TEST = re.compile(r"^\| `([A-Z0-9-]+)`", re.MULTILINE)


@pytest.fixture(scope="module")
def report(students: Guest) -> dict[str, list[str]]:
    """Lynis' report, while two people work in the hub."""
    students.root("lynis audit system --cronjob --quiet || true")
    found: dict[str, list[str]] = {}
    for line in students.root(f"cat {REPORT}").splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found.setdefault(name.removesuffix("[]"), []).append(value)
    shown = {name: found.get(name, []) for name in ("hardening_index", "lynis_version", "warning", "suggestion")}
    (BUILD / "lynis.json").write_text(json.dumps(shown, indent=2) + "\n")
    return found


def test_the_index_is_above_the_gate(report: dict[str, list[str]]) -> None:
    assert int(report["hardening_index"][0]) >= GATE


def test_nothing_is_warned_of(report: dict[str, list[str]]) -> None:
    assert report.get("warning", []) == []


def test_each_suggestion_that_is_left_has_its_reason(report: dict[str, list[str]]) -> None:
    left = {one.partition("|")[0] for one in report["suggestion"]}
    assert left <= set(TEST.findall(ANSWERS.read_text()))
