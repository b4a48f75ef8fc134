# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of hubs and machines: what it has of what they told, and how it looks."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.plugin_utils import status
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Page

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
GIB = 2**30


def told(**more: Any) -> dict[str, Any]:
    """What a healthy hub tells."""
    return {
        "health": {"healthy": True},
        "versions": {"jupyterhub": "5.5.4", "image_built": "2026-11-01T12:00:00+00:00"},
        "users": {"active": 3, "week": 41, "known": 120},
        "limits": {"container": {"memory": 8 * GIB, "memory_used": 2 * GIB}},
        "disk": [{"path": "/var/lib/private", "size": 50 * GIB, "used": 10 * GIB, "free": 38 * GIB}],
        "problems": [],
        **more,
    }


def described(name: str = "math101") -> dict[str, Any]:
    """What hub_description returns."""
    return {
        "hub": {"name": name, "machine": "north", "image": "standard"},
        "description": {"public_url": f"https://hubs-north.example.org/{name}/"},
    }


def machine(**more: Any) -> dict[str, Any]:
    """What a machine tells."""
    return {
        "memory": {"size": 64 * GIB, "available": 16 * GIB},
        "cpus": 16,
        "load": 3.2,
        "disks": [{"path": "/", "size": 100 * GIB, "used": 20 * GIB, "free": 75 * GIB}],
        "certificate": {"host": "hubs-north.example.org", "not_after": "2027-01-21T12:00:00+00:00", "days": 60},
        "reboot": [],
        "problems": [],
        **more,
    }


def report(hub: dict[str, Any], north: dict[str, Any] | None = None, lost: tuple[str, ...] = ()) -> dict[str, Any]:
    """A report of one hub and its machine."""
    machines = [status.machine("north", machine() if north is None else north)]
    return status.report([status.hub("math101", described(), hub, lost, NOW)], machines, NOW)


def test_a_healthy_hub() -> None:
    assert status.table(report(told())).splitlines() == [
        "hub      machine  state    servers  week  known  memory              homes                 backup  image    certificate",
        "math101  north    healthy  3        41    120    2.0 GiB of 8.0 GiB  10.0 GiB of 50.0 GiB  none    21 days  60 days",
        "1 of 1 hubs healthy, 3 users' servers run, on 1 machines",
    ]


def test_what_has_to_be_done() -> None:
    full = [{"path": "/var/lib/private", "size": 10 * GIB, "used": 9 * GIB, "free": 0}]
    lines = status.table(
        report(
            told(health={"healthy": False}, problems=["the hub does not answer: look"], disk=full),
            machine(
                certificate={"host": "hubs-north.example.org", "not_after": "x", "days": 3},
                reboot=["linux-image-amd64"],
                problems=["nginx is gone"],
            ),
            ("package numpy was added to environment python3",),
        )
    ).splitlines()
    assert "NOT HEALTHY" in lines[1]
    assert lines[2:] == [
        "north: nginx is gone",
        "north: the certificate of hubs-north.example.org expires in 3 days: renew it, or see why it does not renew itself",
        "north: a reboot is needed for linux-image-amd64; hubs come back by themselves, kernels end",
        "math101: the hub does not answer: look",
        "math101: the disk of its homes is nearly full, 9.0 GiB of 10.0 GiB: clear it up, or enlarge it (playbooks/grow.yml)",
        "math101: its next image will be without this, unless it is declared:",
        "  package numpy was added to environment python3",
        "0 of 1 hubs healthy, 3 users' servers run, on 1 machines",
    ]


def test_who_could_not_be_asked() -> None:
    found = report({"unreachable": True, "msg": "ssh: connect to host\n north port 22"}, {"unreachable": True})
    lines = status.table(found).splitlines()
    assert "NO ANSWER" in lines[1]
    assert "north: it could not be asked: the run did not come so far" in lines
    assert "math101: it could not be asked: ssh: connect to host north port 22" in lines
    assert found["summary"] == {"hubs": 1, "healthy": 0, "machines": 1, "servers": 0}
    assert "NO ANSWER" in status.page(found)


def test_a_hub_that_was_never_described() -> None:
    found = status.report([status.hub("math101", {}, {}, [], NOW)], [], NOW)
    assert found["hubs"][0]["machine"] is None
    assert "math101  ?" in status.table(found)
    assert "math101" in status.page(found)


def test_the_page_needs_nothing_else() -> None:
    page = Page(status.page(report(told())))
    assert page.references == ["https://hubs-north.example.org/math101/"]
    assert "script" not in page.tags
    assert "svg" in page.tags
    assert "@import" not in status.page(report(told()))


TEXT = st.text(st.sampled_from("<>&\"'{}%ab \n"), min_size=1, max_size=12)


@settings(deadline=None)
@given(TEXT, TEXT, TEXT)
def test_nothing_that_a_hub_tells_becomes_markup(name: str, problem: str, lost: str) -> None:
    """Names of packages and errors come from whoever works in a hub."""
    plain = Page(status.page(report(told(problems=["a"]), lost=("a",)))).tags
    hub = status.hub(f"a{name}", described(), told(problems=["a" + problem]), ["a" + lost], NOW)
    found = status.report([hub], [status.machine("north", machine())], NOW)
    assert Page(status.page(found)).tags == plain
    assert json.loads(json.dumps(found)) == found


NUMBERS = st.one_of(st.none(), st.integers(0, 2**62))


@settings(deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_whatever_is_known_can_be_shown(used: int, size: int, active: int, week: int, known: int) -> None:
    hub = told(
        users={"active": active, "week": week, "known": known},
        limits={"container": {"memory": size, "memory_used": used}},
        disk=[{"path": "/", "size": size, "used": used, "free": None}],
        versions={},
    )
    found = report(hub, machine(memory={"size": size, "available": used}, load=None, certificate=None))
    assert "math101" in status.table(found)
    assert "math101" in status.page(found)


def test_sizes() -> None:
    shown = [status.size(count) for count in (None, 0, 1023, 1024, 1536 * 1024, 200 * GIB, 5000 * 1024 * GIB)]
    assert shown == ["?", "0 B", "1023 B", "1.0 KiB", "1.5 MiB", "200 GiB", "5000 TiB"]


SAVED = {"time": "2026-11-22T02:00:00+00:00", "complete": True, "error": ""}


@pytest.mark.parametrize(
    ("known", "cell", "words"),
    [
        ({"math101": SAVED}, "today", ""),
        ({"math101": {**SAVED, "time": "2026-11-19T02:00:00+00:00"}}, "3 days ago", "its last backup is 3 days old"),
        ({"math101": {**SAVED, "complete": False}}, "today", "some files could not be backed up"),
        ({"math101": {**SAVED, "error": "no space"}}, "today", "its last backup failed: no space"),
        ({"math101": {"error": "no space"}}, "never", "its last backup failed: no space"),
        ({}, "never", "it was never backed up yet"),
        (None, "?", ""),
    ],
)
def test_backups_that_are_wanted(known: dict[str, Any] | None, cell: str, words: str) -> None:
    wanted = {**described(), "backup": {"repository": "/srv/backup", "password": "s3cret phrase"}}
    found = status.report([status.hub("math101", wanted, told(), (), NOW, known)], [], NOW)
    lines = status.table(found).splitlines()
    assert f"  {cell}  " in lines[1]
    assert [words in line for line in lines[2:-1]] == ([True] if words else [])
    assert "s3cret" not in json.dumps(found)
    assert cell in status.page(found)
