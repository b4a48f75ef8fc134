"""A class begins: thirty students open the hub from the LMS within ten seconds, and nobody sees an error."""

from __future__ import annotations

import json
from collections.abc import Iterator

import classroom
import pytest
import yaml
from acting import INVENTORY, succeed
from facts import Demo, Hub

import playbook

CLASS = [f"class{number:02}" for number in range(1, 31)]
SECONDS = 10
NOTICED = 30
"""Seconds after which one wants to be told why one waits."""


def member(name: str) -> dict[str, str]:
    """A student whom the LMS is to know."""
    number = name.removeprefix("class")
    return {
        "id": name,
        "given_name": "Student",
        "family_name": number,
        "email": f"{name}@example.org",
        "role": "student",
    }


@pytest.fixture
def enrolled(demo: Demo, hub: Hub) -> Iterator[list[str]]:
    """The class, whom the LMS knows only meanwhile; of their servers and homes nothing is left."""
    people = yaml.safe_load((INVENTORY / "group_vars/machines.yml").read_text())["test_lms_people"]
    more = json.dumps({"test_lms_people": [*people, *map(member, CLASS)]})
    try:
        playbook.succeed("machines", INVENTORY, "--tags", "test_lms", "--extra-vars", more)
        yield CLASS
    finally:
        playbook.succeed("machines", INVENTORY, "--tags", "test_lms")
        running = [server["user"] for server in succeed(hub, "hub_servers")["servers"]]
        users = [name for name in running if name.startswith("uclass")]
        succeed(hub, "hub_servers", state="stopped", users=users, parallel=10, timeout=300)
        hub.exec("rm -rf /var/lib/private/uclass* /var/lib/uclass*")


def test_a_class_begins(demo: Demo, hub: Hub, enrolled: list[str]) -> None:
    starts = classroom.begin(enrolled, demo.lms_url, hub.url, demo.ca, within=SECONDS - 2)
    clicks = [start.clicked for start in starts]
    assert max(clicks) - min(clicks) <= SECONDS, "the computer that tests is too busy for thirty people"
    assert [(start.person, start.problem, start.statuses) for start in starts if start.problem or start.errors] == []
    assert [start.user for start in starts] == [f"u{name}" for name in enrolled]
    assert [start.person for start in starts if start.seconds > NOTICED and not start.told] == [], (
        "they were told nothing"
    )
    running = {server["user"]: server["ready"] for server in succeed(hub, "hub_servers")["servers"]}
    assert [name for name in enrolled if not running.get(f"u{name}")] == []
