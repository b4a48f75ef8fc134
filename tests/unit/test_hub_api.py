"""Servers of a real JupyterHub with the image's configuration, listed, started and stopped by the program for hub_servers."""

from __future__ import annotations

import concurrent.futures
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from ananke_hub_support import Hub, Lms, description, free_port
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_api

from testbed.waiting import until

USERS = ["u1", "u2", "u3", "u4", "u5", "u6", "uslow", "udead", "ulate", "uteacher1"]

# what a hub user's server is here: it answers, some late and some never
SERVER = """\
import http.server, os, sys, time, urllib.parse
name = os.environ["JUPYTERHUB_USER"]
if name == "uslow":
    time.sleep(1.5)
if name == "udead":
    sys.exit(7)
if name == "ulate":
    time.sleep(60)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
port = urllib.parse.urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).port
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

# answers come in pages of three users, slow starts and stops go on without an answer, and the hub puts off a third start at a time
SETTINGS = """
import sys
c.JupyterHub.api_page_max_limit = 3
c.JupyterHub.tornado_settings["slow_spawn_timeout"] = 0.5
c.JupyterHub.tornado_settings["slow_stop_timeout"] = 0.02
c.JupyterHub.concurrent_spawn_limit = 2
c.Spawner.cmd = [sys.executable, {program!r}]
c.Spawner.args = []
c.Spawner.http_timeout = 3
c.Spawner.start_timeout = 2
c.SimpleLocalProcessSpawner.home_dir_template = {homes!r}
c.SimpleLocalProcessSpawner.interrupt_timeout = 1
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root, lms = tmp_path_factory.mktemp("hub"), Lms()
    running = Hub(root, lms, description(users=[name for name in USERS if name != "uteacher1"]))
    program = root / "server.py"
    program.write_text(SERVER)
    settings = SETTINGS.format(program=str(program), homes=str(root / "homes/{username}"))
    (running.paths.config_d / "91_servers.py").write_text(settings)
    try:
        running.start_proxy()
        running.start_hub()
        yield running
    finally:
        act(running, state="stopped")
        running.close()
        lms.close()


@pytest.fixture(autouse=True)
def none_runs(hub: Hub) -> Iterator[None]:
    yield
    act(hub, state="stopped")
    assert act(hub)["servers"] == []


def act(running: Hub, /, **parameters: Any) -> dict[str, Any]:
    """Call the program as the module does."""
    place = {"root": str(running.root), "hub": f"http://127.0.0.1:{running.hub_port}"}
    defaults = {"state": "listed", "users": None, "idle_for": None, "wait": True, "timeout": 20, "parallel": 4}
    defaults["grace"] = 0
    result = hub_api.main({**place, **defaults, "check": False, **parameters})
    return json.loads(json.dumps(result))  # it must be of what JSON can hold


def failure(hub: Hub, /, **parameters: Any) -> tuple[str, dict[str, Any]]:
    with pytest.raises(hub_api.Failure) as caught:
        act(hub, **parameters)
    arguments = caught.value.args
    return str(arguments[0]), arguments[1] if len(arguments) > 1 else {}


def running(result: dict[str, Any]) -> list[str]:
    return [server["user"] for server in result["servers"]]


def test_start_list_restart_stop(hub: Hub) -> None:
    result = act(hub, state="started", users=["u1", "uteacher1"])
    assert (result["changed"], result["users_started"], result["users_stopped"]) == (True, ["u1", "uteacher1"], [])
    assert result["diff"] == {
        "before": "u1: stopped\nuteacher1: stopped\n",
        "after": "u1: running\nuteacher1: running\n",
    }
    assert sorted(result["commands"]) == [
        "POST /math101/hub/api/users/u1/server",
        "POST /math101/hub/api/users/uteacher1/server",
    ]
    assert result["users_known"] == len(USERS)
    first, second = result["servers"]
    assert (first["user"], first["ready"], first["pending"], first["admin"]) == ("u1", True, None, False)
    assert (second["user"], second["admin"]) == ("uteacher1", True)
    assert first["url"] == "https://hubs.example.org/math101/user/u1/"
    assert hub.browser().get("/math101/user/u1/").status_code == 200

    again = act(hub, state="started", users=["u1"])
    assert (again["changed"], again["users_started"], again["commands"]) == (False, [], [])
    listed = act(hub)
    assert (listed["changed"], running(listed), listed["diff"]) == (
        False,
        ["u1", "uteacher1"],
        {"before": "", "after": ""},
    )

    new = act(hub, state="restarted", users=["u1", "u2"])
    assert running(new) == ["u1", "u2"]  # the others are not meant
    assert (new["changed"], new["users_stopped"], new["users_started"]) == (True, ["u1"], ["u1", "u2"])
    assert new["diff"]["after"] == "u1: restarted\nu2: running\n"
    assert new["servers"][0]["started"] > first["started"]
    assert act(hub)["servers"][2]["started"] == second["started"]

    ended = act(hub, state="stopped")
    assert (ended["changed"], ended["users_stopped"], ended["servers"]) == (True, ["u1", "u2", "uteacher1"], [])
    assert hub.browser().get("/math101/user/u1/").status_code != 200
    assert act(hub, state="stopped")["changed"] is False
    assert act(hub, state="stopped", users=["u1"])["changed"] is False


def test_more_users_than_a_page_and_more_starts_than_the_hub_takes(hub: Hub) -> None:
    wanted = ["u1", "u2", "u3", "u4", "u5"]
    result = act(hub, state="started", users=wanted, parallel=5)
    assert running(result) == result["users_started"] == wanted
    assert running(act(hub)) == wanted
    assert act(hub)["users_known"] == len(USERS)
    assert act(hub, state="stopped", users=["u5", "u5"])["users_stopped"] == ["u5"]
    assert act(hub, state="stopped", parallel=5)["users_stopped"] == wanted[:4]


def test_no_names_are_not_all_names(hub: Hub) -> None:
    act(hub, state="started", users=["u1"])
    assert act(hub, state="stopped", users=[])["changed"] is False
    assert running(act(hub)) == ["u1"]
    assert running(act(hub, users=["u2"])) == []


def test_check_mode_says_the_same_and_does_nothing(hub: Hub) -> None:
    act(hub, state="started", users=["u1"])
    run = ["u1"]
    for state, users, after in (
        ("started", ["u2", "u1"], ["u1", "u2"]),
        ("restarted", ["u1", "u3"], ["u1", "u2", "u3"]),
        ("stopped", ["u3", "u4"], ["u1", "u2"]),
        ("stopped", None, []),
    ):
        foretold = act(hub, state=state, users=users, check=True)
        assert foretold["commands"] == []
        assert running(act(hub)) == run
        real = act(hub, state=state, users=users)
        same = ("changed", "users_started", "users_stopped", "failures", "diff")
        assert {key: foretold[key] for key in same} == {key: real[key] for key in same}, (state, users)
        run = running(act(hub))
        assert run == after
    assert act(hub, state="stopped", check=True)["changed"] is False


def test_a_slow_start_is_waited_for_or_not(hub: Hub) -> None:
    result = act(hub, state="started", users=["uslow"], wait=False)
    assert (result["users_started"], result["servers"][0]["ready"]) == (["uslow"], False)
    assert result["servers"][0]["pending"] == "spawn"
    # somebody else's start is waited for, and is no change
    other = act(hub, state="started", users=["uslow"])
    assert (other["changed"], other["servers"][0]["ready"]) == (False, True)


def test_nobody_waits_who_need_not(hub: Hub) -> None:
    first = act(hub, state="started", users=["u1"])["servers"][0]
    result = act(hub, state="restarted", users=["u1"], wait=False)
    assert (result["users_stopped"], result["users_started"], result["changed"]) == (["u1"], ["u1"], True)
    assert act(hub, state="started", users=["u1"])["servers"][0]["started"] > first["started"]
    # while it stops, it is asked to start: the hub refuses that for a while
    assert act(hub, state="stopped", users=["u1"], wait=False)["users_stopped"] == ["u1"]
    assert act(hub, state="started", users=["u1"])["servers"][0]["ready"] is True
    # somebody else was quicker
    connected = hub_api.connect(str(hub.root), f"http://127.0.0.1:{hub.hub_port}")
    assert connected.change("POST", "u1", time.monotonic() + 5) is False
    assert connected.changes == []


def test_a_start_can_be_stopped(hub: Hub) -> None:
    act(hub, state="started", users=["uslow"], wait=False)
    assert act(hub, state="stopped", users=["uslow"])["users_stopped"] == ["uslow"]


def test_servers_that_do_not_come_up(hub: Hub) -> None:
    message, result = failure(hub, state="started", users=["udead", "ulate", "u1"])
    assert message.startswith("2 of 3 servers could not be started: udead: ")
    assert [one["user"] for one in result["failures"]] == ["udead", "ulate"]
    dead, late = (one["reason"] for one in result["failures"])
    assert dead.startswith("Spawn failed: ") or "failed to start [status=7]" in dead
    assert late.startswith("Spawn failed: ")
    assert (result["users_started"], running(result), result["changed"]) == (["u1"], ["u1"], True)
    assert result["diff"]["after"] == "u1: running\n"


def test_a_start_that_takes_too_long(hub: Hub) -> None:
    message, result = failure(hub, state="started", users=["ulate"], timeout=1)
    assert "not ready in time" in message
    assert "journalctl -u jupyter-ulate" in message
    assert (result["users_started"], result["changed"]) == ([], True)


def test_idle_servers_only(hub: Hub) -> None:
    act(hub, state="started", users=["u1"])
    assert act(hub, state="stopped", idle_for=3600)["changed"] is False
    time.sleep(1)
    assert act(hub, state="stopped", idle_for=1)["users_stopped"] == ["u1"]
    # who has no server has no idle one
    assert act(hub, state="restarted", users=["u1"], idle_for=1)["changed"] is False


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({}, True),
        ({"last_activity": None}, True),  # since its start
        ({"last_activity": None, "started": None}, False),
        ({"last_activity": "2999-01-01T00:00:00.000000Z"}, False),
        ({"ready": False, "pending": "spawn"}, False),
        ({"ready": True, "pending": "check"}, False),
    ],
)
def test_what_is_idle(changes: dict[str, Any], idle: bool) -> None:
    stamps = {"started": "2026-01-01T00:00:00.000000Z", "last_activity": "2026-01-01T00:10:00.000000Z"}
    server = {"ready": True, "pending": None, **stamps, **changes}
    planned = hub_api.plan({"name": "u1", "servers": {"": server}}, "stopped", 60)
    assert (planned is not None) is idle


def test_an_unknown_user_is_refused_before_anything_happens(hub: Hub) -> None:
    message, _result = failure(hub, state="started", users=["u1", "uteacher"])
    assert message.startswith("users: uteacher (did you mean uteacher1?): nobody so called")
    assert act(hub)["servers"] == []


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"state": "started"}, "users: say whose"),
        ({"state": "started", "users": ["u1"], "idle_for": 5}, "idle_for: not with state started"),
        ({"idle_for": 5}, "idle_for: not with state listed"),
        ({"state": "stopped", "idle_for": -1}, "idle_for: -1 is too little"),
        ({"state": "stopped", "parallel": 0}, "parallel: 0 is too little"),
    ],
)
def test_what_makes_no_sense(hub: Hub, parameters: dict[str, Any], says: str) -> None:
    assert failure(hub, **parameters)[0].startswith(says)


def test_the_service_may_do_no_more_than_it_needs(hub: Hub) -> None:
    api = f"http://127.0.0.1:{hub.hub_port}/math101/hub/api"
    headers = {"Authorization": f"token {hub.paths.api_token.read_text().strip()}"}

    def status(method: str, path: str) -> int:
        return requests.request(method, f"{api}/{path}", headers=headers, timeout=10, json={}).status_code

    assert status("GET", "users/u1") == 200
    for method, path in (
        ("POST", "users/unew"),
        ("PATCH", "users/u1"),
        ("POST", "users/u1/tokens"),
        ("GET", "users/u1/tokens"),
        ("GET", "services"),
        ("GET", "proxy"),
        ("POST", "shutdown"),
        ("GET", "info"),
    ):
        assert status(method, path) in (403, 404), (method, path)
    user = requests.get(f"{api}/users/u1", headers=headers, timeout=10).json()
    assert "auth_state" not in user
    assert "state" not in user["servers"]


def test_who_is_known_and_who_is_forgotten(hub: Hub) -> None:
    """Also while the list of users still has them."""
    act(hub, state="started", users=["u1"])
    people = {one["user"]: one for one in act(hub, state="known")["people"]}
    assert sorted(people) == sorted(USERS)
    assert [name for name, one in people.items() if one["admin"]] == ["uteacher1"]
    assert [name for name, one in people.items() if one["runs"]] == ["u1"]
    assert people["u6"]["unseen"] is None
    browser = hub.browser()
    assert hub.launch(browser, "6").status_code == 302
    assert browser.get("/math101/hub/home").status_code == 200
    (seen,) = [one["unseen"] for one in act(hub, state="known")["people"] if one["user"] == "u6"]
    assert 0 <= seen < 60
    done = act(hub, state="forgotten", users=["u6"])
    assert (done["changed"], done["forgotten"]) == (True, ["u6"])
    assert done["commands"] == ["DELETE /math101/hub/api/users/u6"]
    assert "u6" not in [one["user"] for one in act(hub, state="known")["people"]]
    assert act(hub, state="forgotten", users=["u6"])["changed"] is False
    # a declared user who was deleted comes back by a launch, while the hub runs on
    assert hub.launch(hub.browser(), "6").status_code == 302


def test_a_hub_of_an_older_image_does_not_say_who_was_there() -> None:
    with pytest.raises(hub_api.Failure, match="bring it to a new image"):
        hub_api.unseen({"name": "u1"})


def elsewhere(tmp_path: Path, token: str | None) -> str:
    """A container's root with this token."""
    (tmp_path / "etc/ananke").mkdir(parents=True)
    (tmp_path / "etc/ananke/hub.json").write_text(json.dumps(description()))
    (tmp_path / "var/lib/jupyterhub").mkdir(parents=True)
    if token is not None:
        (tmp_path / "var/lib/jupyterhub/api_token").write_text(token)
    return str(tmp_path)


def test_a_token_that_the_hub_does_not_know(hub: Hub, tmp_path: Path) -> None:
    message, _result = failure(hub, root=elsewhere(tmp_path, "0" * 64 + "\n"))
    assert "does not accept the token" in message
    assert "systemctl restart jupyterhub.service" in message
    assert "0" * 64 not in message


def test_an_old_image_has_no_token(hub: Hub, tmp_path: Path) -> None:
    message, _result = failure(hub, root=elsewhere(tmp_path, None))
    assert "/var/lib/jupyterhub/api_token" in message
    assert "bring the hub to a new one" in message


def test_no_hub(hub: Hub, tmp_path: Path) -> None:
    assert "name a hub's container" in failure(hub, root=str(tmp_path))[0]


def test_a_hub_that_does_not_answer(hub: Hub) -> None:
    begun = time.monotonic()
    message, _result = failure(hub, hub=f"http://127.0.0.1:{free_port()}", state="stopped")
    assert "does not answer" in message
    assert "systemctl status jupyterhub" in message
    assert time.monotonic() - begun < 2


# ---------------------------------------------------------------------------------------------------------------
# hubs that are emptied


@pytest.fixture
def closes(hub: Hub) -> Iterator[Path]:
    """The file that says so."""
    yield hub.paths.closing
    act(hub, state="reopened")


def test_drained_closes_and_stops_all(hub: Hub, closes: Path) -> None:
    act(hub, state="started", users=["u1", "u2"])
    foretold = act(hub, state="drained", check=True)
    assert (foretold["users_stopped"], closes.exists()) == (["u1", "u2"], False)
    done = act(hub, state="drained", grace=2)
    assert (done["changed"], done["users_stopped"], done["servers"]) == (True, ["u1", "u2"], [])
    said = json.loads(closes.read_text())
    assert said["at"] <= time.time()
    assert said["until"] > time.time() + hub_api.REOPENS


def test_closed_tells_and_stops_nobody(hub: Hub, closes: Path) -> None:
    act(hub, state="started", users=["u1"])
    assert act(hub, state="closed", grace=60, check=True)["changed"]
    assert not closes.exists()
    closed = act(hub, state="closed", grace=60)
    assert (closed["changed"], closed["users_stopped"], [one["user"] for one in closed["servers"]]) == (
        True,
        [],
        ["u1"],
    )
    assert json.loads(closes.read_text())["at"] > time.time() + 30
    assert not act(hub, state="closed", grace=60)["changed"]
    assert act(hub, state="drained", grace=1)["users_stopped"] == ["u1"]


def test_the_grace_ends_when_everybody_has_gone(hub: Hub, closes: Path) -> None:
    act(hub, state="started", users=["u1"])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        drained = pool.submit(act, hub, state="drained", grace=60)
        until(closes.exists, 10, "the hub closes")
        assert json.loads(closes.read_text())["at"] > time.time() + 30
        act(hub, state="stopped", users=["u1"])
        assert drained.result(15)["users_stopped"] == []


def test_an_empty_hub_is_drained_at_once(hub: Hub, closes: Path) -> None:
    began = time.monotonic()
    assert act(hub, state="drained", grace=60)["changed"] is False
    assert time.monotonic() - began < 10
    assert closes.exists()


def test_a_hub_is_reopened_once(hub: Hub, closes: Path) -> None:
    act(hub, state="drained")
    assert act(hub, state="reopened", check=True)["changed"]
    assert closes.exists()
    assert act(hub, state="reopened")["changed"]
    assert not closes.exists()
    assert not act(hub, state="reopened")["changed"]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"state": "drained", "users": ["u1"]}, "for all of the hub"),
        ({"state": "closed", "users": ["u1"]}, "for all of the hub"),
        ({"state": "drained", "grace": -1}, "0 or more"),
        ({"state": "stopped", "grace": 5}, "only with states closed and drained"),
    ],
)
def test_what_no_draining_is(hub: Hub, wish: dict[str, Any], words: str) -> None:
    assert words in failure(hub, **wish)[0]
