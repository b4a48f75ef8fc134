"""Fixtures of the end-to-end tests; see docs/developers/e2e.md."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "roles/test_lms/files/app")]

import facts  # noqa: E402
from browsing import Person, Visitor, chromium, linked_hubs, people, started  # noqa: E402
from facts import Demo, Hub, Machine  # noqa: E402
from playwright.sync_api import Browser, Playwright  # noqa: E402

Visit = Callable[..., Visitor]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-docs-images", action="store_true", help="write the screenshots that the documentation shows"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The second run comes first, as nothing has touched the hubs since the first one; fifty hubs come last, as they stay."""
    items.sort(key=lambda item: "test_a_second_run_changes_nothing" not in item.name)
    items.sort(key=lambda item: item.path.stem == "test_fleet")


@pytest.fixture(scope="session")
def demo() -> Demo:
    """The running demo; runs of playbooks go to the same one."""
    running = facts.load()
    os.environ["ANANKE_DEMO"] = running.machine.name
    return running


@pytest.fixture(scope="session")
def machine(demo: Demo) -> Machine:
    return demo.machine


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with started() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def browser(playwright: Playwright, demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(playwright, tmp_path_factory.mktemp("home"), demo.ca) as browser:
        yield browser


@pytest.fixture(scope="session")
def cast(browser: Browser, demo: Demo) -> list[Person]:
    """Everybody whom the LMS offers."""
    return people(browser, demo)


@pytest.fixture(scope="session")
def instructor(cast: list[Person]) -> Person:
    return next(person for person in cast if person.role == "instructor")


@pytest.fixture(scope="session")
def students(cast: list[Person]) -> list[Person]:
    found = [person for person in cast if person.role == "student"]
    assert len(found) >= 2, "the demo's LMS must offer two students"
    return found


@pytest.fixture(scope="session")
def hubs(browser: Browser, demo: Demo, instructor: Person) -> list[Hub]:
    """The hubs that courses link; the first is the one that most tests use."""
    found = linked_hubs(browser, demo, instructor)
    assert len(found) >= 2, "the demo's courses must link two hubs"
    return found


@pytest.fixture(scope="session")
def hub(hubs: list[Hub]) -> Hub:
    return hubs[0]


@pytest.fixture(scope="session")
def other_hub(hubs: list[Hub]) -> Hub:
    """Another course's hub."""
    return hubs[-1]


@pytest.fixture
def faulty_lms(browser: Browser, demo: Demo) -> None:
    """The LMS makes faulty launches on request."""
    page = browser.new_page()
    page.goto(demo.lms_url + "/")
    allowed = "Faulty launches are allowed" in page.locator("body").inner_text()
    page.close()
    assert allowed, "set test_lms_allow_faults: true for the LMS of this demo and apply the role test_lms"


@pytest.fixture
def visit(browser: Browser, demo: Demo) -> Iterator[Visit]:
    """Makes browsers of their own for people: visit(person) or visit() for nobody."""
    visitors: list[Visitor] = []

    def new(person: Person | None = None) -> Visitor:
        visitors.append(Visitor(browser.new_context(viewport={"width": 1280, "height": 800}), demo, person))
        return visitors[-1]

    yield new
    for visitor in visitors:
        visitor.close()


@pytest.fixture
def screenshots() -> Path:
    folder = ROOT / "build/screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
