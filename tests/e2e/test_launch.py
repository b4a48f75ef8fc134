"""From the LMS to a cell's output, as instructors and students do it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from browsing import Person, site
from conftest import ROOT, Visit
from facts import Demo, Hub
from playwright.sync_api import Response, expect

CELL = """\
import sys, statistics
marks = [3, 1, 4, 1, 5, 9, 2, 6]
print("mean", statistics.mean(marks), "in", sys.prefix)"""


def test_lms_and_hub_are_different_sites_over_https(demo: Demo, hub: Hub) -> None:
    assert demo.lms_url.startswith("https://")
    assert hub.url.startswith("https://")
    assert site(demo.lms_url) != site(hub.url)


@pytest.mark.parametrize("role", ["instructor", "student"])
def test_launch_from_course_to_output(
    role: str,
    instructor: Person,
    students: list[Person],
    hub: Hub,
    visit: Visit,
    screenshots: Path,
    request: pytest.FixtureRequest,
) -> None:
    person = instructor if role == "instructor" else students[0]
    visitor = visit(person)
    lab = visitor.launch(hub)
    assert lab.user == "u" + person.id

    assert lab.run_cell(CELL) == "mean 3.875 in /opt/conda/envs/python3"
    assert not [url for url in visitor.requests if "/lab/api/build" in url], "it asks for a build that nobody can make"

    lab.dismiss_news()
    shot = screenshots / f"jupyterlab-{role}.png"
    visitor.page.screenshot(path=shot)
    if role == "student" and request.config.getoption("--update-docs-images"):
        images = ROOT / "docs/images"
        images.mkdir(parents=True, exist_ok=True)
        shutil.copy(shot, images / "jupyterlab.png")


def test_login_does_not_depend_on_a_browser_s_grace_for_new_cookies(
    students: list[Person], hub: Hub, visit: Visit
) -> None:
    """The LMS posts from another site: cookies of the login must say SameSite=None, or slow logins fail."""
    visitor = visit(students[0])
    answers: list[Response] = []
    visitor.context.on("response", lambda answer: answers.append(answer))
    visitor.enter(hub)
    set_by_login = [
        header["value"]
        for answer in answers
        if answer.url.startswith(hub.url + "hub/lti13/oauth_login")
        for header in answer.headers_array()
        if header["name"].lower() == "set-cookie"
    ]
    launch_cookies = [line for line in set_by_login if not line.startswith("_xsrf=") and "Max-Age=0" not in line]
    assert launch_cookies
    for line in launch_cookies:
        flags = [part.strip().lower() for part in line.split(";")]
        assert "samesite=none" in flags, line.partition("=")[0]
        assert "secure" in flags
        assert "httponly" in flags


def test_only_declared_admins_administer_the_hub(
    instructor: Person, students: list[Person], hub: Hub, visit: Visit
) -> None:
    declared = set(hub.description()["admins"])
    seen = {}
    for person in (instructor, *students[:2]):
        visitor = visit(person)
        lab = visitor.enter(hub)
        user = visitor.user_at(hub)
        assert user is not None
        assert user["name"] == lab.user
        page = visitor.page.goto(f"{hub.url}hub/admin")
        assert page is not None
        if user["admin"]:
            assert page.status == 200
            expect(visitor.page.get_by_text(lab.user).first).to_be_visible()
        else:
            assert page.status == 403
        status, listing = visitor.hub_api(hub, "users")
        assert user["admin"] or status == 403 or {each["name"] for each in listing} <= {lab.user}
        seen[lab.user] = bool(user["admin"])
    assert seen == {name: name in declared for name in seen}
    assert any(seen.values()), "the demo's instructor must be a declared admin, or this proves nothing"
    assert not all(seen.values())
