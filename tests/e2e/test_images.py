"""Former images go when nobody needs them any more, and not before."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from facts import Demo, Machine
from replace_image import PODMAN, apply_hub, derive, record_of, share_store, write_record

import playbook

INVENTORY = playbook.ROOT / "inventories/demo"
REPOSITORY = "localhost/ananke/standard"
LATEST, IN_A_UNIT, IN_A_CONTAINER, BELOW_ANOTHER, UNUSED = (f"{REPOSITORY}:{letter * 12}" for letter in "abcde")


def former(machine: Machine) -> set[str]:
    """Images in the store that are there for this test."""
    names = machine.as_root(f"{PODMAN} images --format '{{{{.Repository}}}}:{{{{.Tag}}}}'").stdout.split()
    share_store(machine)
    return {LATEST, IN_A_UNIT, IN_A_CONTAINER, BELOW_ANOTHER, UNUSED} & set(names)


@pytest.fixture
def images(demo: Demo) -> Iterator[dict[str, str]]:
    """Former images of the definition, by name, with their IDs."""
    machine = demo.machine
    path, record = record_of(machine, demo.hubs["sandbox"].image_id())
    made = {IN_A_UNIT: derive(machine, record["id"], IN_A_UNIT)}
    for name in (LATEST, IN_A_CONTAINER, BELOW_ANOTHER, UNUSED):
        # no hub runs from these: a file is enough, with a layer of its own
        machine.as_root(f"cd $(mktemp -d) && echo {name} >file && tar c file | {PODMAN} import --quiet - {name}")
        made[name] = machine.as_root(f"{PODMAN} image inspect --format '{{{{.Id}}}}' {name}").stdout.strip()
    share_store(machine)
    record = {key: value for key, value in record.items() if key != "previous"}
    write_record(machine, path, {**record, "previous": [LATEST, IN_A_UNIT]})
    yield made
    demo.hubs["math101"].admin("podman rm --ignore kept; podman rmi --ignore above")
    write_record(machine, path, {**record, "previous": []})
    apply_hub(demo.hubs["sandbox"])
    machine.as_root(f"{PODMAN} image rm {' '.join(former(machine))} 2>&1", check=False)
    share_store(machine)


def images_play(*options: str) -> playbook.Outcome:
    return playbook.succeed("images", INVENTORY, "--tags", "hub_image", "--diff", *options)


def test_former_images_go_when_nobody_needs_them(demo: Demo, machine: Machine, images: dict[str, str]) -> None:
    sandbox, neighbour = demo.hubs["sandbox"], demo.hubs["math101"]
    path, record = record_of(machine, sandbox.image_id())
    # a hub that moved to a former image and is stopped now: its unit alone still names it
    write_record(machine, path, {**record, "reference": IN_A_UNIT})
    apply_hub(sandbox)
    write_record(machine, path, record)
    sandbox.admin(f"systemctl --user stop {sandbox.unit}")
    neighbour.admin(f"podman create --name kept {IN_A_CONTAINER} true")
    containerfile = f"FROM {BELOW_ANOTHER}\nENV A=1\n"
    neighbour.admin(f"printf %s '{containerfile}' | podman build --quiet --pull=never --tag above -")
    before = former(machine)
    assert before == set(images)

    foretold = images_play("--check")
    assert foretold.recap["demo"].changed == 1
    assert former(machine) == before
    assert UNUSED in foretold.output
    assert not any(name in foretold.output for name in before - {UNUSED}), foretold.output
    assert images_play().recap["demo"].changed == 1
    assert former(machine) == before - {UNUSED}
    assert images_play().changed == 0
    # the stopped hub starts, and from its own image
    sandbox.admin(f"systemctl --user start {sandbox.unit}")
    sandbox.wait_healthy()
    assert sandbox.image_id() == images[IN_A_UNIT]

    neighbour.admin("podman rm kept && podman rmi above")
    apply_hub(sandbox)
    assert images_play().recap["demo"].changed == 1
    assert former(machine) == {LATEST}
    assert images_play("--extra-vars", json.dumps({"hub_image_keep": 0})).recap["demo"].changed == 1
    assert former(machine) == set()
    for hub in demo.hubs.values():
        assert hub.healthy()
    assert images_play("--check").changed == 0
