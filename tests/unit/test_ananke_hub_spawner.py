# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of users' servers, as far as they can be judged without systemd; the queue of starts."""

from __future__ import annotations

import asyncio
import json
import time
import types
from pathlib import Path

import pytest

from ananke_hub.paths import Paths
from ananke_hub.spawner import AnankeSpawner, Queue, StartFailed
from ananke_hub.units import HIDDEN_PATHS, unit_properties


def test_a_unit_is_an_island() -> None:
    properties = unit_properties("u1")
    for name in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "PrivateDevices", "RestrictNamespaces", "PrivateIPC"):
        assert properties[name] == "yes", name
    assert properties["User"] == "u1"
    assert properties["ProtectSystem"] == "strict"
    assert properties["UMask"] == "0077"
    assert properties["CapabilityBoundingSet"] == ""
    assert properties["InaccessiblePaths"] == [f"-{path}" for path in HIDDEN_PATHS]
    for name in ("/var/lib/jupyterhub", "/etc/ananke", "/opt/conda/envs/jhub/etc/jupyterhub"):
        assert name in HIDDEN_PATHS


def test_limits() -> None:
    limits = ("MemoryMax", "MemorySwapMax", "TasksMax", "CPUQuota")
    assert not set(limits) & set(unit_properties("u1"))
    properties = unit_properties("u1", memory=1073741824, swap=0, tasks=100, cpus=0.5)
    assert [properties[name] for name in limits] == ["1073741824", "0", "100", "50%"]
    assert unit_properties("u1", cpus=0.001)["CPUQuota"] == "1%"


def test_paths_that_an_admin_opens() -> None:
    properties = unit_properties("u1", readwrite_paths=["/opt/nbgrader_exchange"], private_devices=False)
    assert properties["ReadWritePaths"] == ["/opt/nbgrader_exchange"]
    assert properties["PrivateDevices"] == "no"


async def test_starts_queue_in_their_order() -> None:
    queue, order, running, most = Queue(2), [], 0, 0

    async def start(number: int) -> None:
        nonlocal running, most
        await queue.enter(number)
        try:
            running += 1
            most = max(most, running)
            order.append(number)
            await asyncio.sleep(0.01)
        finally:
            running -= 1
            queue.leave()

    tasks = [asyncio.create_task(start(number)) for number in range(7)]
    await asyncio.sleep(0.005)
    assert queue.before(0) is None
    assert [queue.before(number) for number in (2, 3, 6)] == [0, 1, 4]
    await asyncio.gather(*tasks)
    assert order == list(range(7))
    assert most == 2


async def test_who_gives_up_waiting_frees_the_place() -> None:
    queue = Queue(1)
    await queue.enter("a")
    waiting = asyncio.create_task(queue.enter("b"))
    await asyncio.sleep(0)
    assert queue.before("b") == 0
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert queue.before("b") is None
    queue.leave()
    await asyncio.wait_for(queue.enter("c"), 1)


def test_who_is_leaving_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANANKE_ROOT", str(tmp_path))
    user = types.SimpleNamespace(name="u1", url="/", id=1, settings={}, escaped_name="u1")
    spawner = AnankeSpawner(user=user)
    spawner.refuse_departing()
    departures = Paths.current().departures
    departures.mkdir(parents=True)
    (departures / "u12").touch()
    spawner.refuse_departing()
    (departures / "u1").touch()
    with pytest.raises(StartFailed, match="just being archived"):
        spawner.refuse_departing()


async def test_a_hub_that_closes_starts_nothing_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANANKE_ROOT", str(tmp_path))
    closing = Paths.current().closing
    closing.parent.mkdir(parents=True)
    closing.write_text(json.dumps({"at": 0, "until": time.time() + 600}))
    spawner = AnankeSpawner(user=types.SimpleNamespace(name="ualice", id=1, url="/"), concurrent_starts=1)
    queue = Queue(1)
    monkeypatch.setattr(AnankeSpawner, "_queue", queue)
    await queue.enter("a server that takes long to start")
    with pytest.raises(StartFailed) as refused:
        await asyncio.wait_for(spawner.start(), 5)
    assert refused.value.status_code == 503
    assert "Come back in a few minutes" in refused.value.jupyterhub_message
