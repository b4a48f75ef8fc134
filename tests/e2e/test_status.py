"""The playbook `status`: a table, data, and a page that tell how all hubs and their machine are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from acting import INVENTORY
from browsing import Person
from conftest import Visit
from facts import Demo, Hub
from playwright.sync_api import Browser

import playbook


@pytest.fixture
def broken(demo: Demo) -> Iterator[tuple[Hub, Hub]]:
    """A hub whose JupyterHub is stopped, and one whose container is."""
    ill, gone = demo.hubs["physics"], demo.hubs["sandbox"]
    ill.exec("systemctl stop jupyterhub")
    gone.admin(f"systemctl --user stop {gone.unit}")
    yield ill, gone
    ill.exec("systemctl start jupyterhub")
    gone.admin(f"systemctl --user start {gone.unit}")
    for hub in (ill, gone):
        hub.wait_healthy()


def test_all_hubs_in_one_report(
    demo: Demo,
    broken: tuple[Hub, Hub],
    students: list[Person],
    visit: Visit,
    browser: Browser,
    tmp_path: Path,
    screenshots: Path,
) -> None:
    lab = visit(students[0]).enter(demo.hubs["math101"])
    folder = tmp_path / "status"
    done = playbook.succeed("status", INVENTORY, "--extra-vars", f"ananke_status_dir={folder}", timeout=300)
    assert done.changed == 0
    said = " ".join(done.output.split())
    assert "1 of 3 hubs healthy" in said, done.output[-4000:]
    assert "physics: the hub does not answer: journalctl -u jupyterhub in the container says why" in said
    gone = "sandbox: it could not be asked: container ananke-sandbox: sandbox has no such container. If its hub is stopped, start it"
    assert gone in said, done.output[-4000:]

    assert {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {
        "status.json": "0o600",
        "status.html": "0o600",
    }
    found = json.loads((folder / "status.json").read_text())
    assert found["summary"]["healthy"] == 1
    hubs = {hub["name"]: hub for hub in found["hubs"]}
    assert (hubs["math101"]["healthy"], hubs["physics"]["healthy"], hubs["sandbox"]["healthy"]) == (True, False, False)
    assert (hubs["physics"]["reached"], hubs["sandbox"]["reached"]) == (True, False)
    math = hubs["math101"]
    assert math["users"]["active"] >= 1
    assert math["users"]["known"] >= 1
    assert math["users"]["week"] >= 1
    assert set(math["memory"]) == {"used", "size"}  # not known where a test machine has no control groups of version 2
    assert 0 < math["disk"]["used"] < math["disk"]["size"]
    assert math["image"]["days"] == 0, "its image was built for these tests"
    assert math["url"] == demo.hubs["math101"].url
    (machine,) = found["machines"]
    assert machine["certificate"]["host"] == "hubs.localhost"
    assert machine["certificate"]["days"] > 0
    assert machine["memory"]["available"] < machine["memory"]["size"]

    page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"file://{folder}/status.html")
    rows = page.locator("table").first.locator("tr")
    assert [row.locator("td").nth(2).inner_text() for row in rows.all()[1:]] == ["healthy", "NOT HEALTHY", "NO ANSWER"]
    assert page.locator("svg").count() >= 3
    assert requests == [f"file://{folder}/status.html"], "the page needs nothing else"
    page.screenshot(path=screenshots / "status.png")
    page.context.close()
    lab.close_kernels()
