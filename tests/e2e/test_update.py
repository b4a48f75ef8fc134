"""Updates: people are told, what is new has to prove itself, and what does not work makes place for what did."""

from __future__ import annotations

import json
import re
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from acting import INVENTORY, succeed
from browsing import Person
from conftest import Visit
from facts import Demo, Hub, Machine
from replace_image import PODMAN, record_of, share_store, write_record

import playbook
from testbed.waiting import until

REFERENCE = "localhost/ananke-e2e:updated"
FAULT = "/var/lib/jupyterhub/fault"
GRACE = 25
#: What the new image does before JupyterHub starts: nothing, unless the hub's data name a fault.
SCRIPT = """#!/bin/sh
case $(cat /var/lib/jupyterhub/fault 2>/dev/null) in
start)
    mkdir -p /run/systemd/system/jupyterhub.service.d
    printf '[Service]\\nExecStart=\\nExecStart=/bin/sh -c "echo the new image has a mistake; exit 3"\\n' >/run/systemd/system/jupyterhub.service.d/fault.conf
    systemctl daemon-reload ;;
migration)
    /opt/conda/envs/jhub/bin/python -c 'import sqlite3
with sqlite3.connect("/var/lib/jupyterhub/jupyterhub.sqlite") as database:
    database.execute("DROP TABLE api_tokens")
    database.execute("UPDATE alembic_version SET version_num = \\"halfway\\"")' ;;
kernel)
    mv /opt/conda/envs/python3/bin/python /opt/conda/envs/python3/bin/python.gone ;;
esac
"""
DROP_IN = "[Service]\nExecStartPost=/usr/local/sbin/fault\n"


@pytest.fixture(scope="module")
def new_image(demo: Demo, machine: Machine) -> Iterator[str]:
    """What the hubs' image definition stands for now is another image than the hubs run on; yields its ID."""
    path, record = record_of(machine, demo.hubs["sandbox"].image_id())
    drop_in = "rootfs/etc/systemd/system/ananke-init.service.d"
    containerfile = f"FROM {record['id']}\nCOPY rootfs/ /\n"
    machine.as_root(
        f"set -e; context=$(mktemp -d); cd $context; mkdir -p rootfs/usr/local/sbin {drop_in};"
        f"printf %s {shlex.quote(containerfile)} >Containerfile; printf %s {shlex.quote(DROP_IN)} >{drop_in}/fault.conf;"
        f"printf %s {shlex.quote(SCRIPT)} >rootfs/usr/local/sbin/fault; chmod 755 rootfs/usr/local/sbin/fault;"
        f"{PODMAN} build --quiet --pull=never --ulimit=nofile=1024:20000 --tag {REFERENCE} .; rm -r $context",
        timeout=500,
    )
    share_store(machine)
    image_id = machine.as_root(f"{PODMAN} image inspect --format '{{{{.Id}}}}' {REFERENCE}").stdout.strip()
    write_record(machine, path, {**record, "reference": REFERENCE, "id": image_id})
    try:
        yield image_id
    finally:
        write_record(machine, path, record)
        playbook.succeed("hubs", INVENTORY, timeout=900)
        machine.as_root(f"{PODMAN} image rm {REFERENCE}", check=False)
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
    hub.exec(f"echo {fault} > {FAULT}")
    try:
        yield
    finally:
        hub.exec(f"rm -f {FAULT}")


def is_as_before(hub: Hub, image: str, outcome: playbook.Outcome, *words: str) -> None:
    """The old state is back within a minute, and the report says why."""
    text = said(outcome)
    assert outcome.status, text
    for word in words:
        assert word in text, text[-4000:]
    back = re.search(r"the state before is back, after (\d+) s", text)
    assert back, text[-4000:]
    assert int(back[1]) < 60
    assert hub.image_id() == image
    assert hub.healthy()
    assert hub.exec("ls /run/ananke/closing.json", check=False).returncode, "the hub is open"
    assert hub.admin(f"ls -d {hub.folder}/before", check=False).returncode, "no copy is left"


@pytest.mark.usefixtures("new_image")
def test_the_first_hub_fails_and_no_other_is_touched(demo: Demo) -> None:
    first, second = demo.hubs["math101"], demo.hubs["sandbox"]
    image, other = first.image_id(), second.container_id()
    with faulty(first, "start"):
        outcome = update("--limit", "math101,sandbox", ananke_update_canary="math101")
    is_as_before(first, image, outcome, "JupyterHub ended 3 times", "the new image has a mistake")
    assert second.container_id() == other
    assert outcome.recap["math101"].failed == 1
    assert "sandbox" not in outcome.recap or outcome.recap["sandbox"].changed == 0


@pytest.mark.parametrize(
    ("fault", "words"), [("migration", "JupyterHub ended 3 times"), ("kernel", "does not work: the kernel")]
)
@pytest.mark.usefixtures("new_image")
def test_what_does_not_work_is_not_left(
    fault: str, words: str, demo: Demo, students: list[Person], visit: Visit
) -> None:
    hub, visitor = demo.hubs["sandbox"], visit(students[0])
    image, lab = hub.image_id(), visitor.enter(hub)
    lab.kernel().run("open('kept', 'w').write('x')")
    with faulty(hub, fault):
        outcome = update("--limit", "sandbox", ananke_update_grace=1)
    is_as_before(hub, image, outcome, words)
    again = visitor.return_to(hub)
    assert again.kernel().run("print(open('kept').read())").strip() == "x"


def test_people_are_told_and_come_back(
    new_image: str, demo: Demo, students: list[Person], visit: Visit, tmp_path: Path
) -> None:
    """One works and one wants to begin, while check mode, the update and a second run go on."""
    hub, visitor, late = demo.hubs["sandbox"], visit(students[0]), visit(students[1])
    succeed(hub, "hub_servers", state="stopped")
    lab = visitor.enter(hub)
    lab.kernel().run("open('essay', 'w').write('words')")
    container = hub.container_id()
    foretold = update("--limit", "sandbox", "--check")
    assert (foretold.status, foretold.recap["sandbox"].changed, hub.container_id()) == (0, 2, container)

    outcomes: list[playbook.Outcome] = []
    run = threading.Thread(target=lambda: outcomes.append(update("--limit", "sandbox")))
    run.start()
    closed = "ls /run/ananke/closing.json"
    until(lambda: hub.exec(closed, check=False).returncode == 0, 120, "the hub closes")
    began = time.monotonic()
    visitor.page.goto(f"{hub.url}hub/home")
    assert "Save your work now" in visitor.page.locator("body").inner_text()
    late.sign_in()
    late.click_hub(hub)
    late.page.get_by_text("No server starts until the update is done").first.wait_for()
    if time.monotonic() - began < GRACE - 5:
        assert hub.container_id() == container, "the grace is kept"
    run.join(300)

    (done,) = outcomes
    assert not done.status, done.output[-4000:]
    told = said(done)
    away = re.search(r"([\d.]+) s without the hub", told)
    assert away, told[-3000:]
    assert float(away[1]) < 60
    assert "Proven: a launch up to the LMS's signature" in told
    assert (hub.image_id(), hub.container_id() == container) == (new_image, False)
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
