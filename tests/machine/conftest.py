"""Fixtures of the tests on a hardened machine: molecule's scenario `hardened`, or by hand on such a machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support")]

import playbook  # noqa: E402
from testbed import machine as machines  # noqa: E402
from testbed.client import Client  # noqa: E402
from testbed.machine import Machine  # noqa: E402

INVENTORY = Path(os.environ.get("ANANKE_INVENTORY", ROOT / "tests/machine/inventory"))
"""Of the machine that ANANKE_MACHINE names."""
Apply = Callable[..., playbook.Outcome]


@pytest.fixture(scope="session")
def machine() -> Machine:
    """The machine; its `exec` runs programs as root, past SSH."""
    return machines.load(os.environ.get("ANANKE_MACHINE", "hardened"))


@pytest.fixture(scope="session")
def client(machine: Machine) -> Client:
    """Somebody else on the machine's network."""
    client = Client(machine)
    client.attach()
    return client


@pytest.fixture(scope="session")
def apply(machine: Machine) -> Apply:
    """Run the machines' playbook again: `apply("ssh", ssh_port=987)`."""

    def run(tags: str, *arguments: str, **variables: object) -> playbook.Outcome:
        return playbook.run(
            "machines", INVENTORY, "--tags", tags, "--extra-vars", json.dumps(variables), *arguments, timeout=300
        )

    del machine
    return run
