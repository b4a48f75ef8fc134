"""Fifty hubs on one machine, from a table of courses: made, unchanged, changed, removed, added, rebooted."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from browsing import Person
from conftest import Visit
from facts import Demo, Hub, Machine

import playbook
from testbed.waiting import until

HUBS = 50
INVENTORY = playbook.ROOT / "inventories/demo"
FOLDER = playbook.ROOT / "build/fleet"  # as deep as inventories/demo, for its paths
ASK = """
import sys, urllib.request
for hub in sys.argv[1:]:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{hub}hub/health", timeout=60)
    except OSError:
        print(hub)
"""


class Fleet:
    """A fleet's file and its table of courses, beside the inventory of the demo."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.base = demo.hubs["sandbox"].url.removesuffix("sandbox/")
        self.courses = [self.course(number) for number in range(HUBS)]
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        self.write()

    def course(self, number: int) -> dict[str, str]:
        """A line of the table. Every tenth course is one for which nothing is kept."""
        name = f"course{number:02}"
        profile = "persistent" if number % 10 else "forget"
        return {"name": name, "profile": profile, "hub_lti_client_ids": name, "hub_cull_timeout": ""}

    def write(self) -> None:
        fleet: dict[str, Any] = {
            "plugin": "ananke.jupyterhub.fleet",
            "machines": {"demo": {"test_lms_courses": [self.linked(HUBS - 1), self.linked(0)]}},
            "courses": ["courses.csv"],
        }
        (FOLDER / "demo.fleet.yml").write_text(yaml.safe_dump(fleet))
        with (FOLDER / "courses.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, self.courses[0])
            table.writeheader()
            table.writerows(self.courses)

    def linked(self, number: int) -> dict[str, Any]:
        """A course of the LMS with a link to its hub."""
        name = f"course{number:02}"
        tool = {"title": "JupyterHub", "client_id": name, "url": f"{self.base}{name}/"}
        return {"id": name, "title": f"Course {number}", "tools": [tool]}

    def hub(self, number: int) -> Hub:
        name = f"course{number:02}"
        return Hub(name, f"{self.base}{name}/", f"ananke-{name}", name, self.demo.machine)

    @property
    def names(self) -> list[str]:
        return [course["name"] for course in self.courses]

    def run(self, name: str, *more: str) -> playbook.Outcome:
        """Run a playbook; the demo's own hubs are left out where only hubs are concerned."""
        inventories = ("--inventory", str(FOLDER / "demo.fleet.yml"))
        return playbook.succeed(name, INVENTORY, *inventories, *more, timeout=1200)

    def hubs(self, *more: str) -> playbook.Outcome:
        return self.run("hubs", "--limit", "course*", *more)

    def ports(self) -> dict[str, int]:
        listed = subprocess.run(
            ["ansible-inventory", "--inventory", FOLDER / "demo.fleet.yml", "--list"],
            cwd=playbook.ROOT,
            env=playbook.environment(),
            check=True,
            capture_output=True,
        )
        known = json.loads(listed.stdout)["_meta"]["hostvars"]
        return {name: known[name]["hub_port"] for name in self.names}

    def silent(self) -> list[str]:
        """The hubs that do not answer, by port and path."""
        hubs = [f"{port}/{name}/" for name, port in self.ports().items()]
        return self.demo.machine.as_root(shlex.join(["python3", "-c", ASK, *hubs]), timeout=60 * HUBS).stdout.split()

    def containers(self) -> dict[str, str]:
        """What each hub's container is called by podman."""
        said = self.demo.machine.as_root("cd /run/user; grep . */ananke-course*.cid").stdout
        lines = [line.split(":") for line in said.splitlines()]
        return {Path(path).stem.removeprefix("ananke-"): container for path, container in lines}


@pytest.fixture(scope="module")
def fleet(demo: Demo) -> Iterator[Fleet]:
    yield Fleet(demo)
    shutil.rmtree(FOLDER, ignore_errors=True)


def touched(outcome: playbook.Outcome) -> set[str]:
    return {name for name, host in outcome.recap.items() if host.changed}


def test_they_are_made_by_one_run_and_the_second_changes_nothing(fleet: Fleet) -> None:
    first = fleet.run("site")
    assert touched(first) >= set(fleet.names)
    assert fleet.silent() == []
    second = fleet.run("site")
    assert touched(second) == set(), second.output[-4000:]
    print(f"{HUBS} hubs: first run of site.yml {first.wall:.0f} s, second {second.wall:.0f} s")


def test_a_changed_hub_is_the_only_one_that_is_touched(fleet: Fleet) -> None:
    before = fleet.containers()
    fleet.courses[7]["hub_cull_timeout"] = "1234"
    fleet.write()
    assert touched(fleet.hubs("--check")) == {"course07"}
    assert touched(fleet.hubs()) == {"course07"}
    assert fleet.containers() == before, "labs go on"
    assert fleet.hub(7).description()["culling"]["timeout"] == 1234
    assert fleet.hub(8).description()["culling"]["timeout"] != 1234


def test_one_goes_and_one_comes_and_no_other_moves(fleet: Fleet) -> None:
    ports, before = fleet.ports(), fleet.containers()
    chosen = ("--limit", "course23", "--extra-vars", "ananke_remove=course23")
    assert touched(fleet.run("remove", *chosen)) == {"course23"}
    fleet.courses[23] = fleet.course(HUBS)
    fleet.write()
    assert touched(fleet.hubs()) == {f"course{HUBS}"}
    left = set(fleet.names) - {f"course{HUBS}"}
    assert {name: fleet.ports()[name] for name in left} == {name: ports[name] for name in left}
    assert {name: fleet.containers()[name] for name in left} == {name: before[name] for name in left}
    assert "course23" not in fleet.containers()


def test_all_come_back_after_a_reboot(fleet: Fleet, machine: Machine, students: list[Person], visit: Visit) -> None:
    """Nobody logs in again, files are as they were, and nothing is left to do."""
    hub = fleet.hub(HUBS - 1)
    visitor = visit(students[0])
    visitor.enter(hub).kernel().run("open('essay', 'w').write('words')")
    before = fleet.containers()
    began = time.monotonic()
    machine.reboot()
    booted = time.monotonic()
    until(lambda: fleet.silent() == [], 900, "all hubs answer")
    print(f"{HUBS} hubs: down and up {booted - began:.0f} s, all healthy {time.monotonic() - booted:.0f} s later")
    assert not set(before.values()) & set(fleet.containers().values()), "all are new containers"
    assert visitor.return_to(hub).kernel().run("print(open('essay').read())").strip() == "words"
    assert visit(students[1]).enter(fleet.hub(0)).kernel().run("print(6 * 7)").strip() == "42"
    assert touched(fleet.run("site")) == set()
