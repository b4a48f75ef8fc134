"""Fixtures of the tests on a hardened machine: molecule's scenario `hardened`, or by hand on such a machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support")]

from testbed import machine as machines  # noqa: E402
from testbed.client import Client  # noqa: E402
from testbed.machine import Machine  # noqa: E402


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
