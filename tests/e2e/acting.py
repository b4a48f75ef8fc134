"""Modules that act inside a hub, run as its container admin."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from facts import ROOT, DemoError, Hub

import playbook

INVENTORY = ROOT / "inventories/demo"


def act(hub: Hub, module: str, *, check: bool = False, container: str | None = None, **options: Any) -> dict[str, Any]:
    """Run a module in the hub's container ("": on its machine) and return its result, also where it failed."""
    container = hub.container if container is None else container
    task = {
        f"ananke.jupyterhub.{module}": {**({"container": container} if container else {}), **options},
        "become_user": hub.container_admin,
        "check_mode": check,
    }
    return playbook.task(INVENTORY, hub.name, task)


def succeed(hub: Hub, module: str, **options: Any) -> dict[str, Any]:
    """The same, for what must succeed."""
    result = act(hub, module, **options)
    if result.get("failed"):
        raise DemoError(f"{module} failed: {result.get('msg')}\n{result.get('exception', '')}{result['said']}")
    return result


def settled(hub: Hub, module: str, **options: Any) -> dict[str, Any]:
    """Run a module as it should be: check mode foretells, the run changes what was foretold, a second run changes nothing."""
    foretold = succeed(hub, module, check=True, **options)
    done = succeed(hub, module, **options)
    assert foretold["changed"] == done["changed"], (foretold, done)
    again = succeed(hub, module, **options)
    assert not again["changed"], again
    return done


def send(hub: Hub, path: str, text: str) -> None:
    """Write a file in the hub's container."""
    hub.exec(f"mkdir -p {shlex.quote(str(Path(path).parent))} && printf %s {shlex.quote(text)} > {shlex.quote(path)}")
