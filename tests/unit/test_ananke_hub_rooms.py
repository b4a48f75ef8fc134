# SPDX-License-Identifier: GPL-3.0-or-later
"""Rooms: who may enter the servers of room accounts, in a real JupyterHub and at each of its starts."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ananke_hub_support import Browser, Hub, Lms, description, make_root, running
from traitlets.config import Config

from ananke_hub import config, loader, rooms
from ananke_hub.authenticator import LmsAuthenticator
from ananke_hub.check import check_traits
from ananke_hub.description import parse
from ananke_hub.spawner import AnankeSpawner, StartFailed
from ananke_hub.usernames import is_room_account, may_be_room_account, username


def room(name: str, *users: str, groups: tuple[str, ...] = (), public: bool = False, title: str = "") -> dict[str, Any]:
    """A room as descriptions have it."""
    return {"name": name, "title": title or name, "public": public, "users": list(users), "groups": list(groups)}


GROUPS = {"team": ["u2", "u4"]}
ROOMS = [room("private", "u1", groups=("team",), title="A <b>room</b>"), room("forum", public=True)]


@pytest.fixture(scope="module")
def lms() -> Iterator[Lms]:
    platform = Lms()
    yield platform
    platform.close()


@pytest.fixture
def hub(tmp_path: Path, lms: Lms) -> Iterator[Hub]:
    with running(tmp_path, lms, description(groups=GROUPS, rooms=ROOMS)) as hub:
        yield hub


def change(hub: Hub, **changes: Any) -> None:
    """Restart the hub with another description."""
    known = json.loads(hub.paths.description.read_text())
    hub.paths.description.write_text(json.dumps({**known, **changes}))
    hub.restart_hub()


def browser_of(hub: Hub, who: str) -> Browser:
    browser = hub.browser()
    assert hub.launch(browser, who).status_code == 302
    return browser


def may(hub: Hub, browser: Browser, name: str) -> set[str]:
    """What a person may do with the room's server, as the hub's own API and its pages say."""
    answer = browser.get(f"{hub.base}hub/api/user", headers={"Referer": f"https://hubs.example.org{hub.base}hub/home"})
    assert answer.status_code == 200, answer.text
    found = {scope.partition("!")[0] for scope in answer.json()["scopes"] if scope.endswith(f"!user=room-{name}")}
    entered = browser.get(f"{hub.base}hub/user/room-{name}/lab").status_code
    assert entered == (424 if "access:servers" in found else 404)
    if "servers" not in found:
        assert browser.get(f"{hub.base}hub/spawn/room-{name}").status_code == 404
        assert browser.get(f"{hub.base}hub/spawn-pending/room-{name}").status_code == 404
    return found


MEMBER = {"access:servers", "servers", "delete:servers", "read:servers", "read:users:name"}


def test_members_may_start_and_enter_and_nothing_else(hub: Hub) -> None:
    by_name, by_group, stranger = (browser_of(hub, who) for who in "123")
    assert may(hub, by_name, "private") == MEMBER
    assert may(hub, by_group, "private") == MEMBER
    assert may(hub, stranger, "private") == set()
    for browser in (by_name, by_group, stranger):
        assert may(hub, browser, "forum") == MEMBER
        assert browser.get(f"{hub.base}hub/admin").status_code == 403


def test_the_home_page_has_the_rooms_that_are_open_to_its_reader(hub: Hub) -> None:
    member, stranger, admin = (browser_of(hub, who) for who in ("1", "3", "teacher1"))
    for browser, count in ((member, 2), (admin, 2), (stranger, 1)):
        page = browser.get(f"{hub.base}hub/home").text
        assert page.count("/hub/spawn/room-") == count
        assert ("A &lt;b&gt;room&lt;/b&gt;" in page) is (count == 2)
    refused = stranger.get(f"{hub.base}hub/user/room-private/lab").text
    assert 'id="ananke-no-room"' in refused
    assert f'href="{hub.base}hub/home"' in refused


def test_a_launch_leads_into_a_room(hub: Hub) -> None:
    target = f"{hub.base}hub/spawn/room-forum"
    browser = hub.browser()
    asked = hub.begin(browser, target_link_uri=f"https://hubs.example.org{target}")
    answer = hub.end(browser, asked["state"], hub.lms.sign(hub.lms.claims(asked["nonce"])))
    assert answer.headers["Location"] == target


def test_who_is_no_longer_declared_loses_access(hub: Hub) -> None:
    by_name, by_group, other = (browser_of(hub, who) for who in "124")
    change(hub, groups={"team": ["u4"]}, rooms=[room("private", "u9", groups=("team",)), room("forum", "u1")])
    assert may(hub, by_name, "private") == set()
    assert may(hub, by_group, "private") == set()
    assert may(hub, other, "private") == MEMBER
    assert may(hub, by_name, "forum") == MEMBER
    assert may(hub, by_group, "forum") == set()
    change(hub, groups={}, rooms=[room("forum", "u2")])
    for browser in (by_name, by_group, other):
        assert may(hub, browser, "private") == set()
    assert may(hub, by_group, "forum") == MEMBER
    change(hub, rooms=[])
    assert may(hub, by_group, "forum") == set()
    assert 'id="ananke-rooms"' not in by_group.get(f"{hub.base}hub/home").text


def test_rooms_of_a_hub_that_lets_in_few(hub: Hub) -> None:
    change(hub, users=["u1", "u2"], groups={}, rooms=[room("a", "u1"), room("forum", public=True)])
    member, other, stranger = (hub.browser() for _number in range(3))
    assert [
        hub.launch(browser, who).status_code for browser, who in zip((member, other, stranger), "123", strict=True)
    ] == [302, 302, 403]
    assert (may(hub, member, "a"), may(hub, other, "a")) == (MEMBER, set())
    assert may(hub, other, "forum") == MEMBER


def test_nobody_logs_in_as_a_room(hub: Hub) -> None:
    """Prefixes that lead there are refused; here a file of the admin's takes the prefix away."""
    (hub.paths.config_d / "95_mine.py").write_text("c.LmsAuthenticator.username_prefix = ''\n")
    hub.restart_hub()
    for name, status in (("roommate", 302), ("room-forum", 403), ("room-none", 403)):
        assert hub.launch(hub.browser(), name).status_code == status, name


@pytest.mark.parametrize(("name", "answer"), [("u1", True), ("u2", False), ("room-a", True), ("room-b", False)])
async def test_a_room_s_server_may_ask_a_hub_that_lets_in_few(name: str, answer: bool) -> None:
    authenticator = LmsAuthenticator(allow_all=False, allowed_users={"u1"}, room_accounts={"room-a"})
    assert await authenticator.refresh_user(types.SimpleNamespace(name=name, admin=False, groups=[])) is answer


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("prefix", ["u", "m", "roam", "roo-", "x-room-"])
def test_no_id_gives_a_person_the_name_of_a_room(prefix: str) -> None:
    assert not may_be_room_account(prefix)
    for identifier in ("room-a", "om-a", "-a", "1", "Room-a"):
        assert not is_room_account(username(prefix, identifier))


# ---------------------------------------------------------------- the server of a room


def spawner(name: str, **settings: Any) -> AnankeSpawner:
    user = types.SimpleNamespace(name=name, url="/", id=1, settings={}, escaped_name=name)
    return AnankeSpawner(user=user, room_visitors=settings)


def test_people_work_together_in_rooms_only() -> None:
    assert spawner("room-a").get_args() == ["--YDocExtension.disable_rtc=False"]
    assert spawner("u1").get_args() == []


def test_a_closed_room_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "can_collaborate", lambda: True)
    spawner("room-a", **{"room-a": None}).refuse_closed_room()
    spawner("u1").refuse_closed_room()
    with pytest.raises(StartFailed, match="hub_rooms"):
        spawner("room-b", **{"room-a": None}).refuse_closed_room()


def test_a_room_needs_the_feature() -> None:
    assert not rooms.can_collaborate(), "this computer has no jupyter-collaboration"
    with pytest.raises(StartFailed, match="lacks the feature rtc"):
        spawner("room-a", **{"room-a": None}).refuse_closed_room()


@pytest.mark.parametrize(
    ("then", "now", "lost"),
    [
        (["u1"], ["u1"], False),
        (["u1"], ["u1", "u2"], False),
        (["u1"], None, False),
        (None, None, False),
        (["u1", "u2"], ["u1"], True),
        (None, ["u1"], True),
    ],
)
def test_a_server_is_stopped_when_somebody_loses_access(
    then: list[str] | None, now: list[str] | None, lost: bool
) -> None:
    before = spawner("room-a")
    before.visitors = then
    after = spawner("room-a", **{"room-a": now})
    after.load_state(json.loads(json.dumps(before.get_state())))
    assert after.somebody_lost_access() is lost


def test_the_server_of_a_former_room_is_stopped_and_nobody_elses() -> None:
    assert spawner("room-a", **{"room-b": None}).somebody_lost_access()
    person = spawner("u1", **{"room-b": None})
    assert not person.somebody_lost_access()
    assert "visitors" not in person.get_state()


# ---------------------------------------------------------------- configuration


def test_who_may_enter_as_the_spawner_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANANKE_ROOT", str(tmp_path))
    monkeypatch.setattr(config, "_loaded", {})
    paths, c = make_root(tmp_path, description(groups=GROUPS, rooms=ROOMS)), Config()
    loader.load(c, paths.config_d)
    check_traits(c)
    assert c.AnankeSpawner.room_visitors == {"room-private": ["u1", "u2", "u4"], "room-forum": None}
    assert c.DeclaredUsers.room_accounts == {"room-private", "room-forum"}
    assert c.Authenticator.manage_groups is True


def test_a_public_room_is_open_to_whom_the_hub_is_open() -> None:
    hub = parse(description(users=["u1"], rooms=[room("forum", public=True)]))
    assert rooms.visitors(hub, hub.rooms[0]) == {"u1", "uteacher1"}
