"""Updates to the next JupyterHub: people are told, what is new has to prove itself, and what does not work makes place for what did."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from acting import INVENTORY, send, succeed
from browsing import PAGE_MS, Person
from conftest import Visit
from facts import Demo, Hub, Machine
from playwright.sync_api import expect
from replace_image import PODMAN, record_of, share_store

import playbook
from testbed.waiting import until

GRACE = 25
OWN_FILE = "/opt/conda/envs/jhub/etc/jupyterhub/jupyterhub_config.d/90_fault.py"
#: Files of a hub admin's own that do no harm but with the new JupyterHub, and what the run then says.
FAULTS = {
    "start": ("raise RuntimeError('the new image has a mistake')", "the new image has a mistake"),
    "migration": (
        "import sqlite3\n"
        "with sqlite3.connect('/var/lib/jupyterhub/jupyterhub.sqlite') as database:\n"
        "    database.execute('DROP TABLE api_tokens')\n"
        "    database.execute('UPDATE alembic_version SET version_num = 1')\n",
        "JupyterHub ended 3 times",
    ),
    "kernel": (
        "import pathlib\npathlib.Path('/opt/conda/envs/python3/bin/python').unlink(missing_ok=True)\n",
        "does not work: the kernel",
    ),
}


def build(**definition: object) -> None:
    """Build the image of the standard definition, which no hub uses yet."""
    images = json.dumps({"hub_image_definitions": [{"name": "standard", **definition}]})
    playbook.succeed("images", INVENTORY, "--tags", "hub_image", "--extra-vars", images, timeout=1500)


@pytest.fixture(scope="module")
def new_image(demo: Demo, machine: Machine) -> Iterator[str]:
    """The hubs' definition stands for an image with the next JupyterHub now, from which no hub runs; yields its ID."""
    path, before = record_of(machine, demo.hubs["sandbox"].image_id())
    database = f"{demo.hubs['sandbox'].folder}/data/jupyterhub.sqlite"
    sandbox = demo.hubs["sandbox"]
    sandbox.admin(f"cp -p {database} ~/kept.sqlite")
    build(jupyterhub=6)
    new = json.loads(machine.as_root(f"cat {path}").stdout)
    assert new["id"] != before["id"]
    try:
        yield str(new["id"]).removeprefix("sha256:")
    finally:
        build()
        # an older JupyterHub cannot read what the newer one has made of it
        sandbox.admin(f"systemctl --user stop {sandbox.unit} && mv ~/kept.sqlite {database}", timeout=300)
        playbook.succeed("hubs", INVENTORY, timeout=900)
        machine.as_root(f"{PODMAN} image rm {new['reference']}", check=False)
        share_store(machine)


def update(*more: str, **variables: Any) -> playbook.Outcome:
    """Run the playbook with what the image's definition stands for now."""
    options = {"ananke_update_grace": GRACE, **variables}
    return playbook.run(
        "update", INVENTORY, "--skip-tags", "hub_image", *more, "--extra-vars", json.dumps(options), timeout=900
    )


def said(outcome: playbook.Outcome) -> str:
    return " ".join(outcome.output.split())


@contextmanager
def faulty(hub: Hub, fault: str) -> Iterator[None]:
    lines = "".join(f"    {line}\n" for line in FAULTS[fault][0].splitlines())
    send(hub, OWN_FILE, f"import jupyterhub\nif jupyterhub.version_info >= (6,):\n{lines}")
    try:
        yield
    finally:
        hub.exec(f"rm -f {OWN_FILE}")


def is_as_before(hub: Hub, image: str, outcome: playbook.Outcome, *words: str) -> None:
    """The old state is back within a minute, and the report says why."""
    text = said(outcome)
    assert outcome.status, text
    for word in words:
        assert word in text, text[-4000:]
    back = re.search(r"the state before is back, after (\d+) s", text)
    assert back, text[-4000:]
    assert int(back[1]) < 60
    assert (hub.image_id(), hub.healthy()) == (image, True)
    assert hub.exec("ls /run/ananke/closing.json", check=False).returncode, "the hub is open"
    assert hub.admin(f"ls -d {hub.folder}/before", check=False).returncode, "no copy is left"


@pytest.mark.usefixtures("new_image")
def test_the_first_hub_fails_and_no_other_is_touched(demo: Demo) -> None:
    first, second = demo.hubs["math101"], demo.hubs["sandbox"]
    image, other = first.image_id(), second.container_id()
    with faulty(first, "start"):
        outcome = update("--limit", "math101,sandbox", ananke_update_canary="math101", ananke_update_grace=1)
    is_as_before(first, image, outcome, "JupyterHub ended 3 times", FAULTS["start"][1])
    assert second.container_id() == other
    assert outcome.recap["math101"].failed == 1
    assert "sandbox" not in outcome.recap or outcome.recap["sandbox"].changed == 0


@pytest.mark.parametrize("fault", ["migration", "kernel"])
@pytest.mark.usefixtures("new_image")
def test_what_does_not_work_is_not_left(fault: str, demo: Demo, students: list[Person], visit: Visit) -> None:
    """The database is the old JupyterHub's again, too, which knows the student as before."""
    hub, visitor = demo.hubs["sandbox"], visit(students[0])
    image, lab = hub.image_id(), visitor.enter(hub)
    lab.kernel().run("open('kept', 'w').write('x')")
    with faulty(hub, fault):
        outcome = update("--limit", "sandbox", ananke_update_grace=1)
    is_as_before(hub, image, outcome, FAULTS[fault][1])
    assert visitor.return_to(hub).kernel().run("print(open('kept').read())").strip() == "x"


def test_people_are_told_and_come_back(new_image: str, demo: Demo, students: list[Person], visit: Visit) -> None:
    """One works and one wants to begin, while check mode, the update and a second run go on."""
    hub, visitor, late = demo.hubs["sandbox"], visit(students[0]), visit(students[1])
    succeed(hub, "hub_servers", state="stopped")
    lab = visitor.launch(hub)
    lab.kernel().run("open('essay', 'w').write('words')")
    container = hub.container_id()
    foretold = update("--limit", "sandbox", "--check")
    assert (foretold.status, hub.container_id()) == (0, container), foretold.output[-3000:]

    outcomes: list[playbook.Outcome] = []
    run = threading.Thread(target=lambda: outcomes.append(update("--limit", "sandbox")))
    run.start()
    closed = "ls /run/ananke/closing.json"
    until(lambda: hub.exec(closed, check=False).returncode == 0, 120, "the hub closes")
    began = time.monotonic()
    home = visitor.context.new_page()
    home.goto(f"{hub.url}hub/home")
    assert "Save your work now" in home.locator("body").inner_text()
    home.close()
    late.sign_in()
    late.click_hub(hub)
    late.page.get_by_text("No server starts until the update is done").first.wait_for()
    # JupyterLab asks the hub every quarter of a minute
    notification = lab.page.locator(".jp-toast-message").filter(has_text="This hub is")
    expect(notification).to_contain_text("Save your work now", timeout=PAGE_MS)
    if time.monotonic() - began < GRACE - 5:
        assert hub.container_id() == container, "the grace is kept"
    run.join(300)

    (done,) = outcomes
    assert not done.status, done.output[-4000:]
    assert done.recap["sandbox"].changed == foretold.recap["sandbox"].changed == 4
    told = said(done)
    away = re.search(r"([\d.]+) s without the hub", told)
    assert away, told[-3000:]
    assert float(away[1]) < 60
    assert "Proven: a launch up to the LMS" in told, told[-3000:]
    assert (hub.image_id(), hub.container_id() == container) == (new_image, False)
    assert hub.exec("/opt/conda/envs/jhub/bin/jupyterhub --version").stdout.startswith("6.")
    expect(notification).to_have_count(0, timeout=PAGE_MS)
    again = visitor.return_to(hub)
    assert again.kernel().run("print(open('essay').read())").strip() == "words"
    assert late.enter(hub).kernel().run("print(1)").strip() == "1"
    assert hub.exec("ls -d /var/lib/private/ananke-probe", check=False).returncode, "who proved it is gone"
    assert update("--limit", "sandbox").recap["sandbox"].changed == 0


def test_a_canary_that_is_no_hub_is_refused() -> None:
    outcome = update("--limit", "sandbox", ananke_update_canary="sandbx")
    assert outcome.status
    assert "none of this run's hubs: sandbox" in said(outcome)
    assert outcome.changed == 0
