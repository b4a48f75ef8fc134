"""A hub moves to another image and back, by the collection's own play.

What `playbooks/images.yml` does when a definition changes is to build an image in the machine's shared store and to
note it in the definition's record. Here the new image is the old one with a label, which takes seconds instead of minutes;
the rest is what every run does.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from facts import ROOT, DemoError, Hub, Machine

import playbook

RECORDS = "/var/lib/ananke/images"
PODMAN = "CONTAINERS_STORAGE_CONF=/etc/ananke/storage.conf podman"


def record_of(machine: Machine, image_id: str) -> tuple[str, dict[str, str]]:
    """Path and content of the record that stands for an image."""
    for path in machine.as_root(f"ls {RECORDS}/*.json").stdout.split():
        record = json.loads(machine.as_root(f"cat {shlex.quote(path)}").stdout)
        if record["id"].removeprefix("sha256:") == image_id.removeprefix("sha256:"):
            return path, record
    raise DemoError(f"no record in {RECORDS} stands for image {image_id}")


def write_record(machine: Machine, path: str, record: dict[str, str]) -> None:
    machine.as_root(f"printf %s {shlex.quote(json.dumps(record))} >{path}.new && mv {path}.new {path}")


def share_store(machine: Machine) -> None:
    """Give the store back to all hubs: root's podman leaves modes of its own in what it writes."""
    folders = ". overlay overlay/*"
    machine.as_root(f"cd /var/lib/ananke/store && chmod a+rX {folders} && chmod -R a+rX overlay-images overlay-layers")


def apply_hub(hub: Hub) -> playbook.Outcome:
    """Run the hubs' play for one hub."""
    limit = ("--limit", hub.name)
    return playbook.succeed("hubs", ROOT / "inventories/demo", *limit, timeout=500, ANANKE_DEMO=hub.machine.name)


def definitions(image: dict[str, str]) -> tuple[str, ...]:
    """Options of a run that add an image definition to the standard one."""
    images = {"hub_image_definitions": [{"name": "standard"}, image]}
    return ("--tags", "hub_image,hub", "--extra-vars", json.dumps(images))


def check_move(sandbox: Hub, image: dict[str, str], image_id: str, folder: Path) -> None:
    """The hub `sandbox` moves to the image that a definition brings, runs from it, and moves back.

    Args:
        sandbox: The hub.
        image: The definition.
        image_id: The ID of what it must bring.
        folder: Takes an inventory.
    """
    machine, name, inventory = sandbox.machine, image["name"], ROOT / "inventories/demo"
    moved = folder / "hosts.yml"
    moved.write_text(f"hubs: {{hosts: {{sandbox: {{hub_image: {name}}}}}}}\n")
    options = ("--inventory", str(moved), *definitions(image))
    try:
        outcome = playbook.succeed("site", inventory, *options)
        assert {host for host, done in outcome.recap.items() if done.changed} == {"demo", "sandbox"}
        assert sandbox.image_id() == image_id
        sandbox.wait_healthy()
        assert playbook.succeed("site", inventory, *options).changed == 0
    finally:
        playbook.succeed("site", inventory, "--tags", "hub_image,hub")
        machine.as_root(
            f"{PODMAN} image rm $({PODMAN} images --quiet localhost/ananke/{name}); rm {RECORDS}/{name}.json"
        )
        share_store(machine)


def derive(machine: Machine, image_id: str, reference: str) -> str:
    """Make another image of one in the machine's store, and return its ID."""
    containerfile = f"FROM {image_id}\nLABEL ananke.e2e={reference}\n"
    machine.as_root(
        f"context=$(mktemp -d) && printf %s {shlex.quote(containerfile)} >$context/Containerfile && "
        f"{PODMAN} build --quiet --pull=never --ulimit=nofile=1024:20000 --tag {reference} $context && rm -r $context",
        timeout=500,
    )
    share_store(machine)
    return machine.as_root(f"{PODMAN} image inspect --format '{{{{.Id}}}}' {reference}").stdout.strip()
