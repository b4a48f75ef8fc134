"""What the collection's own units may do on a machine."""

from __future__ import annotations

from exposure import exposures
from testbed.machine import Machine

LEVELS = {
    "ananke-access-restore": 3.8,
    "ananke-backup@test_instance": 6.4,
    "ananke-certificates": 4.1,
    "ananke-quotas": 2.1,
    "ananke-report": 6.4,
}
"""docs/security/units.md."""


def test_units_are_no_more_exposed_than_documented(machine: Machine) -> None:
    found = exposures(lambda script: machine.exec("sh", "-c", script).stdout, "ananke-*")
    assert set(found) == set(LEVELS)
    # versions of systemd differ by a tenth
    assert {name: level for name, level in found.items() if level > LEVELS[name] + 0.1} == {}
