"""Disks that are full: what would need room is refused or ends with what to do, all else goes on, and the next run completes it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from acting import INVENTORY
from browsing import Person
from conftest import Visit
from facts import Demo, Machine
from narrow import LAYERS, STORE, NarrowHub, narrow_hub, narrow_store
from replace_image import PODMAN, RECORDS, definitions, share_store
from work import Work, database_is_whole

import playbook

# no kernel, so that nothing is tried in it; the steps before this one are there from the first build
IMAGE = {"name": "narrow", "environments": [{"name": "extra", "conda": ["python=3.13"], "kernel": ""}]}
SETTING = {"hub_cull_timeout": 1300}
CONTAINER = {**SETTING, "hub_extra_hosts": {"lms.localhost": "host-gateway", "full.example": "192.0.2.1"}}


def said(outcome: playbook.Outcome) -> str:
    return " ".join(outcome.output.split())


@pytest.fixture
def images(machine: Machine) -> Iterator[list[str]]:
    """Options of a run that builds one more image; it goes again."""
    yield ["--tags", "hub_image", *definitions(IMAGE)[2:]]
    names = f"$({PODMAN} images --quiet localhost/ananke/{IMAGE['name']})"
    machine.as_root(f"{PODMAN} image rm --force {names}; rm -f {RECORDS}/{IMAGE['name']}.json", check=False)
    share_store(machine)


def record(machine: Machine) -> str:
    """What the definition stands for, "" for nothing; what is not recorded is not in the store's list of images either."""
    text = machine.as_root(f"cat {RECORDS}/{IMAGE['name']}.json", check=False).stdout
    listed = machine.as_root(f"grep ananke/{IMAGE['name']}: {STORE}/overlay-images/images.json", check=False).stdout
    reference = str(json.loads(text)["reference"]) if text else ""
    assert (reference in listed) if text else not listed
    return reference


def answers_from(machine: Machine, image: str) -> str:
    """What the new environment's Python says, run from the image's files in the store."""
    try:
        python = "/opt/conda/envs/extra/bin/python -c 'print(6 * 7)'"
        return machine.as_root(f"chroot $({PODMAN} image mount {image}) {python}").stdout.strip()
    finally:
        machine.as_root(f"{PODMAN} image unmount --force {image}", check=False)
        share_store(machine)


def test_an_image_for_which_the_store_has_no_room(
    images: list[str], demo: Demo, machine: Machine, students: list[Person], visit: Visit
) -> None:
    """It is built, and does not fit into the store: nothing of it is taken for an image, and hubs do not notice."""
    work = Work(visit(students[0]), demo.hubs["sandbox"])
    with narrow_store(machine):
        failed = playbook.run("images", INVENTORY, *images, timeout=1500)
        assert failed.status, "it did fit"
        for words in (
            "the disk is full. What was begun is no image",
            f"MiB are free at {LAYERS}",
            "Make room or enlarge that, and run again",
        ):
            assert words in said(failed), failed.output[-5000:]
        assert record(machine) == ""
        work.goes_on()
        assert all(hub.healthy() for hub in demo.hubs.values())
    assert visit(students[1]).enter(demo.hubs["sandbox"]).kernel().run("print(6 * 7)").strip() == "42"
    assert playbook.succeed("images", INVENTORY, *images, timeout=1500).recap["demo"].changed == 1
    assert answers_from(machine, record(machine)) == "42"
    assert playbook.succeed("images", INVENTORY, *images).changed == 0
    work.goes_on()
    work.ends()


@pytest.fixture
def narrow(demo: Demo) -> Iterator[NarrowHub]:
    """The hub `sandbox` on a small disk of its own, and in the end as its inventory says."""
    with narrow_hub(demo.hubs["sandbox"]) as hub:
        yield hub
    playbook.succeed("hubs", INVENTORY, "--limit", "sandbox")


def test_a_hub_without_room_is_changed_when_there_is_some(
    narrow: NarrowHub, students: list[Person], visit: Visit
) -> None:
    """Settings and a new container are refused before anybody is told or a server is stopped; kernels go on."""
    hub = narrow.hub
    work = Work(visit(students[0]), hub)
    work.goes_on()
    before = (hub.description(), hub.container_id())

    def run(name: str, variables: dict[str, object]) -> playbook.Outcome:
        options = json.dumps({**variables, "ananke_update_grace": 1})
        return playbook.run(name, INVENTORY, "--limit", "sandbox", "--skip-tags", "hub_image", "--extra-vars", options)

    narrow.fill()
    for refused in (run("hubs", SETTING), run("update", CONTAINER)):
        assert refused.status
        assert refused.recap["sandbox"].changed == 0, refused.output[-3000:]
        assert "hub sandbox: the disk is full" in said(refused), refused.output[-3000:]
        assert "Nothing was changed: delete what is not needed there, or enlarge the home" in said(refused)
    assert (hub.description(), hub.container_id(), hub.healthy()) == (*before, True)
    narrow.clear()

    work.goes_on()
    assert database_is_whole(hub)
    assert visit(students[1]).enter(hub).kernel().run("print(6 * 7)").strip() == "42"
    updated = run("update", CONTAINER)
    assert updated.status == 0, updated.output[-3000:]
    assert hub.description()["culling"]["timeout"] == SETTING["hub_cull_timeout"]
    assert hub.container_id() != before[1]
    work.is_taken_up_again()
    assert run("hubs", CONTAINER).changed == 0
