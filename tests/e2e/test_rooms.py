"""Rooms: people who work on one notebook at the same time, and those who may not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from acting import settled, succeed
from browsing import KERNEL_JS, SERVER_START_MS, STEP_MS, Lab, Person, Visitor
from conftest import ROOT, Visit
from facts import Demo, DemoError, Hub
from playwright.sync_api import Error, expect

import playbook
from testbed.waiting import until

INVENTORY = ROOT / "inventories/demo"
NOTEBOOK = "shared.ipynb"
PRIVATE, PUBLIC = "room-project", "room-forum"
# the one is a member by name, the other by a group; nobody of this hub is a hub admin
SETTINGS = {
    "hub_groups": {"team": ["ustudent1"]},
    "hub_rooms": [
        {"name": "project", "title": "Project of team A", "users": ["uteacher"], "groups": ["team"]},
        {"name": "forum", "title": "Forum", "public": True},
    ],
    "hub_features": ["rtc"],
    "hub_user_memory": "1G",
    "hub_user_cpus": None,
}


def describe(hub: Hub, **changes: Any) -> playbook.Outcome:
    """Apply the hub's playbook, with rooms as these changes have them."""
    return playbook.succeed(
        "hubs", INVENTORY, "--limit", hub.name, "--extra-vars", json.dumps({**SETTINGS, **changes}), count=True
    )


@pytest.fixture(scope="module")
def house(demo: Demo) -> Iterator[Hub]:
    """The hub `sandbox` with two rooms and with the feature that they need."""
    hub = demo.hubs["sandbox"]
    try:
        playbook.succeed("images", INVENTORY, "--tags", "hub_image", "--extra-vars", json.dumps(SETTINGS))
        assert describe(hub).changed == 1
        assert describe(hub).changed == 0
        yield hub
    finally:
        playbook.succeed("hubs", INVENTORY, "--limit", hub.name)
        hub.exec(f"rm -rf /var/lib/private/{PRIVATE} /var/lib/private/{PUBLIC}")


@dataclass
class Desk:
    """A person in a room, with the shared notebook open."""

    visitor: Visitor
    lab: Lab

    def open(self) -> None:
        page = self.visitor.page
        page.goto(f"{self.lab.base}lab/tree/{NOTEBOOK}?reset")
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.wait_for(timeout=2 * STEP_MS)
        self.lab.dismiss_news()

    def write(self, code: str) -> None:
        """Type into the first cell, at its end."""
        page = self.visitor.page
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+End")
        page.keyboard.insert_text(code)

    def run(self) -> None:
        self.visitor.page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
        self.visitor.page.keyboard.press("Control+Enter")

    def sees(self, text: str) -> None:
        """Wait until the first cell holds the text."""
        cell = self.visitor.page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
        expect(cell).to_contain_text(text, timeout=STEP_MS)

    def sees_output(self, text: str) -> None:
        output = self.visitor.page.locator(".jp-Notebook .jp-CodeCell .jp-OutputArea-output").first
        expect(output).to_contain_text(text, timeout=STEP_MS)

    def me(self) -> str:
        """Who the room takes this visitor for."""
        return str(self.lab.api("GET", "api/me")["identity"]["username"])


def together(visitor: Visitor) -> bool:
    """Whether the JupyterLab of this page lets people work together."""
    page_config = visitor.page.locator("#jupyter-config-data").text_content() or "{}"
    return json.loads(page_config).get("disableRTC") is False


def come_in(visitor: Visitor, hub: Hub) -> Desk:
    """Answer the question that is asked on the first visit to a room, and wait for its JupyterLab."""
    question, lab = visitor.page.locator("#ananke-entrance"), visitor.page.locator("#jp-main-dock-panel")
    question.or_(lab).first.wait_for(timeout=SERVER_START_MS)
    if question.count():
        question.get_by_role("button", name="Enter").click(no_wait_after=True)
    return Desk(visitor, visitor.lab(hub))


def enter(visitor: Visitor, hub: Hub, account: str) -> Desk:
    """By the address that never changes, whether the room's server runs or not."""
    visitor.page.goto(f"{hub.url}hub/spawn/{account}", wait_until="commit")
    desk = come_in(visitor, hub)
    assert desk.lab.user == account
    return desk


@pytest.fixture(scope="module")
def student1(students: list[Person]) -> Person:
    return next(person for person in students if person.id == "student1")


@pytest.fixture(scope="module")
def stranger(students: list[Person]) -> Person:
    return next(person for person in students if person.id == "student2")


@pytest.fixture
def desks(house: Hub, instructor: Person, student1: Person, visit: Visit) -> tuple[Desk, Desk]:
    """The teacher and a student in the private room, at the same notebook."""
    teacher, student = visit(instructor), visit(student1)
    teacher.enter(house)
    assert not together(teacher), "in people's own servers, collaboration is off"
    teacher.page.goto(f"{house.url}hub/home")
    teacher.page.get_by_role("link", name="Project of team A").click(no_wait_after=True)
    first = come_in(teacher, house)
    assert first.lab.user == PRIVATE
    cell: dict[str, Any] = {
        "cell_type": "code",
        "source": "",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "id": "first",
    }
    metadata = {"kernelspec": {"name": first.lab.kernel_name(), "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    first.lab.api("PUT", f"api/contents/{NOTEBOOK}", {"type": "notebook", "content": notebook})
    first.open()
    student.enter(house)
    second = enter(student, house, PRIVATE)
    second.open()
    return first, second


def test_two_people_edit_one_notebook(
    desks: tuple[Desk, Desk], screenshots: Path, request: pytest.FixtureRequest
) -> None:
    teacher, student = desks
    assert together(teacher.visitor)
    assert together(student.visitor)
    assert (teacher.me(), student.me()) == ("uteacher", "ustudent1")

    teacher.write("half = 21")
    student.sees("half = 21")
    student.write("\nprint('together', 2 * half)")
    teacher.sees("print('together', 2 * half)")
    student.run()
    student.sees_output("together 42")
    teacher.sees_output("together 42")
    (session,) = teacher.lab.sessions()
    assert session["path"].endswith(NOTEBOOK)

    page = teacher.visitor.page
    page.locator('.jp-SideBar li[title^="Collaboration"]').click()
    present = page.locator(".jp-CollaboratorsList")
    expect(present.get_by_text("ustudent1", exact=True).first).to_be_visible()
    shot = screenshots / "room.png"
    page.screenshot(path=shot)
    if request.config.getoption("--update-docs-images"):
        shutil.copy(shot, ROOT / "docs/images/room.png")


def test_modules_act_on_a_room_as_on_a_user(house: Hub, desks: tuple[Desk, Desk]) -> None:
    assert PRIVATE in [server["user"] for server in succeed(house, "hub_servers")["servers"]]
    told = succeed(house, "dynamic_user_command", user=PRIVATE, argv=["ls", NOTEBOOK])
    assert told["stdout"].strip() == NOTEBOOK
    settled(house, "dynamic_user_ownership", users=[PRIVATE])
    assert desks[0].lab.api("GET", f"api/contents/{NOTEBOOK}?content=0")["writable"]


def refused_everywhere(visitor: Visitor, hub: Hub, account: str) -> None:
    """Pages, API, files and WebSockets of a room that runs."""
    page, base = visitor.page, f"{hub.url}user/{account}/"
    for path, status in ((f"hub/spawn/{account}", 404), (f"hub/user/{account}/lab", 404), (f"user/{account}/lab", 403)):
        refusal = visitor.refused(lambda path=path: page.goto(hub.url + path), hub)
        assert refusal.status == status, path
        assert "Only its members can enter it" in refusal.text
    assert visitor.hub_api(hub, f"users/{account}")[0] == 404
    page.goto(f"{hub.url}hub/home")
    page.evaluate(KERNEL_JS)
    for method, path in (("GET", f"api/contents/{NOTEBOOK}"), ("GET", "api/me"), ("POST", "api/kernels")):
        call = "([base, method, path]) => window.anankeKernel.api(base, method, path, null)"
        answer = page.evaluate(call, [base, method, path])
        assert answer["status"] == 403, (path, answer)
    for path in (f"api/collaboration/room/json:notebook:{NOTEBOOK}", "api/events/subscribe", "terminals/websocket/1"):
        opened = page.evaluate(
            """(address) => new Promise((resolve) => {
                const socket = new WebSocket(address);
                socket.onopen = () => resolve(true);
                socket.onerror = () => resolve(false);
            })""",
            base.replace("https", "wss", 1) + path,
        )
        assert not opened, path


@pytest.mark.usefixtures("desks")
def test_somebody_else_is_refused(house: Hub, stranger: Person, visit: Visit) -> None:
    visitor = visit(stranger)
    visitor.enter(house)
    refused_everywhere(visitor, house, PRIVATE)
    visitor.page.goto(f"{house.url}hub/home")
    expect(visitor.page.get_by_role("link", name="Forum")).to_be_visible()
    expect(visitor.page.get_by_role("link", name="Project of team A")).to_have_count(0)


def test_a_public_room_is_open_to_everybody(house: Hub, stranger: Person, visit: Visit) -> None:
    visitor = visit(stranger)
    visitor.enter(house)
    visitor.page.goto(f"{house.url}hub/home")
    visitor.page.get_by_role("link", name="Forum").click(no_wait_after=True)
    expect(visitor.page.get_by_role("heading", name="Enter “Forum”?")).to_be_visible(timeout=SERVER_START_MS)
    desk = come_in(visitor, house)
    assert desk.lab.user == PUBLIC
    assert together(visitor)
    assert desk.me() == "ustudent2"
    assert desk.lab.kernel().run("import os; print(os.path.expanduser('~'))").strip() == f"/var/lib/{PUBLIC}"


def test_a_link_of_the_course_leads_into_a_room(house: Hub, student1: Person, visit: Visit) -> None:
    """As a tool of the LMS whose target is the room: the announcement of a launch with another target_link_uri."""
    visitor = visit(student1)
    visitor.enter(house)
    (start,) = {url for url in visitor.requests if url.startswith(f"{house.url}hub/lti13/oauth_login")}
    announced = {name: values[0] for name, values in parse_qs(urlsplit(start).query).items()}
    announced["target_link_uri"] = f"{house.url}hub/spawn/{PRIVATE}"
    visitor.page.goto(f"{house.url}hub/lti13/oauth_login?{urlencode(announced)}", wait_until="commit")
    assert come_in(visitor, house).lab.user == PRIVATE


def test_who_loses_access_is_out_at_once_and_so_is_everybody_of_a_closed_room(
    house: Hub, desks: tuple[Desk, Desk]
) -> None:
    teacher, student = desks
    kernel = student.lab.kernel()
    assert kernel.run("print(1)").strip() == "1"
    assert describe(house, hub_groups={"team": []}).changed == 1
    house.wait_healthy()
    until(lambda: not kernel.connected(), 60, "the student's open connection has ended")
    with pytest.raises((DemoError, Error)):
        kernel.run("print(2)")
    again = enter(teacher.visitor, house, PRIVATE)
    assert again.lab.api("GET", f"api/contents/{NOTEBOOK}?content=0")["name"] == NOTEBOOK
    refused_everywhere(student.visitor, house, PRIVATE)

    describe(house, hub_rooms=[])
    house.wait_healthy()
    assert house.exec(f"systemctl is-active jupyter-{PRIVATE}", check=False).stdout.strip() != "active"
    teacher.visitor.page.goto(f"{house.url}hub/home")
    expect(teacher.visitor.page.get_by_role("link", name="Project of team A")).to_have_count(0)
    refusal = teacher.visitor.refused(lambda: teacher.visitor.page.goto(f"{house.url}hub/spawn/{PRIVATE}"), house)
    assert refusal.status == 404
    assert house.exec(f"ls /var/lib/private/{PRIVATE}/{NOTEBOOK}").stdout, "files of a closed room are kept"
