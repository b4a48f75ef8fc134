# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hub users' servers, by JupyterHub's API: a program that travels into the hub, see :mod:`.inside`.

The token is that of JupyterHub's service ``ananke``. Moments that end a wait are those of ``time.monotonic``.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime
import difflib
import functools
import http.client
import json
import os
import time
import typing as t
import urllib.parse

DESCRIPTION = "/etc/ananke/hub.json"
TOKEN = "/var/lib/jupyterhub/api_token"  # noqa: S105 - a path
CLOSING = "/run/ananke/closing.json"  # ananke_hub.closing reads it
REOPENS = 900  # seconds after which a hub opens by itself that was closed for something that never came
ADDRESS = "http://127.0.0.1:8081"  # where the hub listens in its container, behind the proxy
PAGE = 200  # users in one answer; JupyterHub gives no more
POLL = 0.2  # seconds between the first looks at a server that starts or stops
LEAST_ANSWER = 10  # seconds that an answer may take, however little time is left
LONGEST_PAUSE = 5
"""Seconds between two tries of a request that the hub puts off. Its own advice, up to a minute, is meant for a whole course's browsers."""

Model = dict[str, t.Any]  # what JupyterHub says about a user or a server
quote = functools.partial(urllib.parse.quote, safe="")  # a user's name in a path


class Failure(Exception):
    """What is wrong, and what to do about it; then, if anything was done before, a partial result."""


class Problem(Exception):
    """Why one request or one server did not go well."""


@dataclasses.dataclass
class Outcome:
    """What is to become, or became, of one server; ``reason`` says why it is not in the wanted state."""

    user: str
    stopped: bool = False
    started: bool = False
    reason: str = ""


class Answer(t.NamedTuple):
    """What the hub said."""

    status: int
    text: str

    @property
    def message(self) -> str:
        """The hub's own words, for people."""
        try:
            return str(json.loads(self.text)["message"])
        except (ValueError, KeyError, TypeError):
            return f"the hub answered {self.status}"


class Hub:
    """JupyterHub's API, with the patience that it needs."""

    def __init__(self, address: str, base_url: str, token: str) -> None:
        """:param address: ``http://HOST:PORT``"""
        self.host = urllib.parse.urlsplit(address).netloc
        self.path = f"{base_url}hub/api/"
        kinds = "application/jupyterhub-pagination+json, application/json, text/event-stream"
        self.headers = {"Authorization": f"token {token}", "Accept": kinds}
        self.answered = False
        self.changes: list[str] = []  # the requests that changed something

    def once(self, method: str, path: str, timeout: float) -> Answer:
        """One request. Raises OSError or HTTPException."""
        connection = http.client.HTTPConnection(self.host, timeout=timeout)
        try:
            connection.request(method, self.path + path, headers=self.headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode(errors="replace"))
        finally:
            connection.close()

    def ask(self, method: str, path: str, until: float) -> Answer:
        """A request, made again while the hub puts it off and, once it has answered, while it is away. Raises Problem."""
        pause = POLL
        while True:
            left = until - time.monotonic()
            try:
                answer = self.once(method, path, max(left, LEAST_ANSWER))
                self.answered = True
                if answer.status not in (429, 503) or left <= pause:
                    return answer
            except (OSError, http.client.HTTPException) as error:
                if not self.answered or left <= pause:
                    raise Problem(f"the hub does not answer at {self.host}: {error}") from error
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def users(self, until: float, **query: t.Any) -> tuple[list[Model], int]:
        """Users, all unless ``query`` has a limit, and how many fit the query. Raises Failure."""
        found: dict[str, Model] = {}
        following: Model | None = {"offset": 0}
        while following:
            path = "users?" + urllib.parse.urlencode({"limit": PAGE, "offset": following["offset"], **query})
            try:
                answer = self.ask("GET", path, until)
            except Problem as error:
                raise Failure(f"{error}. Look at it in the container: systemctl status jupyterhub") from error
            if answer.status in (401, 403):
                raise Failure(
                    f"the hub does not accept the token in {TOKEN}; probably it started before the token was made."
                    " Restart it in the container, which ends no server: systemctl restart jupyterhub.service"
                )
            if answer.status != 200:
                raise Failure(f"the hub does not list its users: {answer.message}")
            page = json.loads(answer.text)
            found.update((user["name"], user) for user in page["items"])
            following = None if "limit" in query else page["_pagination"]["next"]
        return [found[name] for name in sorted(found)], page["_pagination"]["total"]

    def server(self, user: str, until: float) -> Model | None:
        """Somebody's server, None where it does not run. Raises Problem."""
        answer = self.ask("GET", f"users/{quote(user)}", until)
        if answer.status != 200:
            raise Problem(answer.message)
        return server_of(json.loads(answer.text))

    def change(self, method: str, user: str, until: float) -> bool:
        """Ask for a start (POST) or a stop (DELETE); False for a server that runs already. Raises Problem."""
        for pause in pauses(until):
            answer = self.ask(method, f"users/{quote(user)}/server", until)
            if answer.status in (201, 202, 204):
                self.changes.append(f"{method} {self.path}users/{quote(user)}/server")
                return True
            if answer.status == 400 and "already running" in answer.message:
                return False
            if answer.status != 400 or "is pending" not in answer.message:
                break
            time.sleep(pause)  # it is still being stopped
        raise Problem(self.why(user) if answer.message == "Internal Server Error" else answer.message)

    def wait(self, user: str, until: float, up: bool) -> None:
        """Return when the server can be used, or has gone. Raises Problem."""
        for pause in pauses(until):
            server = self.server(user, until)
            if server is None and up:
                raise Problem(self.why(user))
            if server is None or (up and server["ready"]):
                return
            time.sleep(pause)
        did = "was not ready in time, but may become so" if up else "did not stop in time"
        raise Problem(f"it {did}; see in the container: journalctl -u jupyter-{user}")

    def forget(self, user: str, until: float) -> bool:
        """Delete somebody from the hub's data base; False for who is not there. Raises Problem."""
        for pause in pauses(until):
            answer = self.ask("DELETE", f"users/{quote(user)}", until)
            if answer.status == 204:
                self.changes.append(f"DELETE {self.path}users/{quote(user)}")
                return True
            if answer.status == 404:
                return False
            if answer.status != 400 or "stopping" not in answer.message:
                break
            time.sleep(pause)
        raise Problem(answer.message)

    def why(self, user: str) -> str:
        """Why a start failed, as the hub tells whoever looks at the page of that start. Raises Problem."""
        answer = self.ask("GET", f"users/{quote(user)}/server/progress", time.monotonic())
        told = [line.removeprefix("data:") for line in answer.text.splitlines() if line.startswith("data:")]
        return Answer(0, told[-1]).message if told else f"it ended; see in the container: journalctl -u jupyter-{user}"


def pauses(until: float) -> t.Iterator[float]:
    """Seconds to wait after each try, a 20th of those that have passed, while there is time; at least one try."""
    begun = now = time.monotonic()
    while now < until or now == begun:
        yield max(POLL, (now - begun) / 20)
        now = time.monotonic()


def server_of(user: Model) -> Model | None:
    """A user's server; hubs of this collection have no others than the one without a name."""
    return t.cast("Model | None", user["servers"].get(""))


def listed(users: list[Model]) -> list[Model]:
    """Their servers, for the result."""
    found = []
    for user in users:
        if server := server_of(user):
            kept = {key: server[key] for key in ("ready", "pending", "started", "last_activity")}
            url = server.get("full_url") or server["url"]
            found.append({"user": user["name"], **kept, "url": url, "admin": user["admin"]})
    return found


def idle(server: Model) -> float:
    """Seconds without activity; 0 for a server that is just starting or stopping."""
    last = server["last_activity"] or server["started"]
    if not server["ready"] or server["pending"] or not last:
        return 0
    return time.time() - datetime.datetime.fromisoformat(last).timestamp()


def unseen(user: Model) -> float | None:
    """Seconds since the hub has seen somebody; None for who was never there. Raises Failure."""
    if "last_activity" not in user:
        raise Failure(
            "this hub does not tell who was there when: bring it to a new image (playbooks images, then hubs)"
        )
    last = user["last_activity"]
    return time.time() - datetime.datetime.fromisoformat(last).timestamp() if last else None


def people(hub: Hub, until: float) -> list[Model]:
    """Everybody whom the hub knows. Raises Failure."""
    return [
        {"user": one["name"], "admin": one["admin"], "runs": server_of(one) is not None, "unseen": unseen(one)}
        for one in hub.users(until)[0]
    ]


def forget(hub: Hub, names: list[str], until: float) -> Model:
    """Delete people from the hub's data base; who comes back is a new user. Raises Failure."""
    try:
        forgotten = [name for name in names if hub.forget(name, until)]
    except Problem as error:
        raise Failure(
            f"the hub does not forget {', '.join(names)}: {error}: run again when that is mended",
            {"commands": hub.changes},
        ) from error
    return {"changed": bool(forgotten), "forgotten": forgotten, "commands": hub.changes}


def connect(root: str, address: str) -> Hub:
    """The hub of this container. Raises Failure."""
    try:
        with open(root + DESCRIPTION, encoding="utf-8") as file:
            base_url = json.load(file)["base_url"]
        with open(root + TOKEN, encoding="ascii") as file:
            return Hub(address, base_url, file.read().strip())
    except (OSError, ValueError, KeyError, TypeError) as error:
        todo = "name a hub's container with the option container"
        if TOKEN in str(error):
            todo = "older images make no token, so bring the hub to a new one (playbooks images, then hubs)"
        raise Failure(f"the hub cannot be asked: {error}: {todo}") from error


def choose(hub: Hub, names: list[str] | None, until: float) -> tuple[list[Model], int]:
    """The users that are meant, and how many there are. Raises Failure."""
    if names is None:
        return hub.users(until, state="active")[0], hub.users(until, limit=1)[1]
    users, known = hub.users(until)
    all_names = [user["name"] for user in users]
    if unknown := [name for name in names if name not in all_names]:
        near = difflib.get_close_matches(unknown[0], all_names, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise Failure(f"users: {', '.join(unknown)}{hint}: nobody so called has logged in or is in the settings")
    return [user for user in users if user["name"] in names], known


def plan(user: Model, state: str, idle_for: int | None) -> Outcome | None:
    """What to do about a user's server, None for nothing; an outcome that neither stops nor starts is one to wait for."""
    server = server_of(user)
    up = server is not None and server["pending"] != "stop"
    if state == "listed" or (idle_for and (server is None or idle(server) < idle_for)):
        return None
    if state == "started":
        return None if server and server["ready"] and up else Outcome(user["name"], started=not up)
    wanted = Outcome(user["name"], stopped=server is not None, started=state == "restarted")
    return wanted if wanted.stopped or wanted.started else None


def bring(hub: Hub, wanted: Outcome, timeout: float, wait: bool) -> Outcome:
    """Do what is planned for one server; the result says what was done."""
    user, until, done = wanted.user, time.monotonic() + timeout, Outcome(wanted.user)
    try:
        if wanted.stopped:
            hub.change("DELETE", user, until)
            if wait or wanted.started:
                hub.wait(user, until, up=False)
            done.stopped = True
        if wanted.started or not wanted.stopped:
            new = wanted.started and hub.change("POST", user, until)
            if wait:
                hub.wait(user, until, up=True)
            done.started = new
    except Problem as error:
        done.reason = str(error)
    return done


def close(root: str, grace: float, timeout: float) -> None:
    """Have the hub start no server any more, and tell people that theirs is stopped after ``grace`` seconds."""
    at = time.time() + grace
    os.makedirs(os.path.dirname(root + CLOSING), mode=0o755, exist_ok=True)
    with open(root + CLOSING + ".new", "w", encoding="ascii") as file:
        json.dump({"at": at, "until": at + timeout + REOPENS}, file)
    os.replace(root + CLOSING + ".new", root + CLOSING)


def reopen(root: str, check: bool) -> Model:
    """Undo :func:`close`."""
    closed = os.path.exists(root + CLOSING)
    if closed and not check:
        os.unlink(root + CLOSING)
    return {"changed": closed, "diff": {"before": "closed\n" if closed else "", "after": ""}}


def drain(hub: Hub, parameters: Model) -> tuple[list[Outcome], list[Model], int]:
    """Close the hub, wait until all servers have gone or the grace is over, and stop those that are left.

    Returns what was done, who still has a server, and how many users there are. Raises Failure.
    """
    root, timeout, end = parameters.get("root", ""), parameters["timeout"], time.monotonic() + parameters["grace"]
    users, known = choose(hub, None, time.monotonic() + timeout)
    if parameters["check"]:
        return [Outcome(user["name"], stopped=True) for user in users], users, known
    close(root, parameters["grace"] if users else 0, timeout)
    for pause in pauses(end):
        users, known = choose(hub, None, time.monotonic() + timeout)
        if not users:
            return [], [], known
        time.sleep(max(0, min(pause, end - time.monotonic())))
    outcomes = each(hub, [Outcome(user["name"], stopped=True) for user in users], parameters)
    return outcomes, *choose(hub, None, time.monotonic() + timeout)


def each(hub: Hub, outcomes: list[Outcome], parameters: Model) -> list[Outcome]:
    """Do what is planned, some servers at a time."""
    wait = parameters["wait"] or parameters["state"] == "drained"
    with concurrent.futures.ThreadPoolExecutor(parameters["parallel"]) as pool:
        return list(pool.map(lambda one: bring(hub, one, parameters["timeout"], wait), outcomes))


def main(parameters: Model) -> Model:
    """List servers, or bring them to a state.

    :param parameters: ``state``; ``users``: names, None for all whose server runs; ``idle_for``: seconds or None; ``grace``: seconds; ``wait``;
        ``timeout``: seconds for each server; ``parallel``; ``check``; in tests ``root``, a folder in place of / (default: ""), and ``hub``, its
        address. Two further states are for who leaves: ``known`` lists everybody, ``forgotten`` deletes ``users`` from the hub's data base
    :raises Failure: the hub cannot be asked, or some server is not in the wanted state
    """
    state, names, timeout = parameters["state"], parameters["users"], parameters["timeout"]
    if state == "started" and names is None:
        raise Failure("users: say whose servers to start")
    if parameters["idle_for"] is not None and state not in ("stopped", "restarted"):
        raise Failure(f"idle_for: not with state {state}; it narrows down which servers are stopped or restarted")
    if parameters["grace"] < 0 or (parameters["grace"] and state not in ("closed", "drained")):
        raise Failure("grace: seconds, 0 or more, and only with states closed and drained")
    if state in ("closed", "drained", "reopened") and names is not None:
        raise Failure(f"users: not with state {state}, which is for all of the hub")
    if state == "reopened":
        return reopen(parameters.get("root", ""), parameters["check"])
    for key in ("idle_for", "timeout", "parallel"):
        if parameters[key] is not None and parameters[key] < 1:
            raise Failure(f"{key}: {parameters[key]} is too little, 1 is the least")
    hub = connect(parameters.get("root", ""), parameters.get("hub", ADDRESS))
    if state == "known":
        return {"changed": False, "people": people(hub, time.monotonic() + timeout)}
    if state == "forgotten":
        return forget(hub, names or [], time.monotonic() + timeout)
    closes = state == "closed" and not os.path.exists(parameters.get("root", "") + CLOSING)
    outcomes: list[Outcome] = []
    if state == "closed":
        users, known = choose(hub, None, time.monotonic() + timeout)
        if not parameters["check"]:
            close(parameters.get("root", ""), parameters["grace"] if users else 0, timeout)
    elif state == "drained":
        outcomes, users, known = drain(hub, parameters)
    else:
        users, known = choose(hub, names, time.monotonic() + timeout)
        outcomes = [one for user in users if (one := plan(user, state, parameters["idle_for"]))]
        if outcomes and not parameters["check"]:
            outcomes = each(hub, outcomes, parameters)
            users, known = choose(hub, names, time.monotonic() + timeout)
    done = [one for one in outcomes if one.stopped or one.started]
    words = {(True, False): "stopped", (False, True): "running", (True, True): "restarted"}
    failures = [{"user": one.user, "reason": one.reason} for one in outcomes if one.reason]
    result = {
        "changed": bool(done or hub.changes or closes),
        "servers": listed(users),
        "users_known": known,
        "users_started": [one.user for one in done if one.started],
        "users_stopped": [one.user for one in done if one.stopped],
        "failures": failures,
        "diff": {
            "before": "".join(f"{one.user}: {'running' if one.stopped else 'stopped'}\n" for one in done),
            "after": "".join(f"{one.user}: {words[one.stopped, one.started]}\n" for one in done),
        },
        "commands": hub.changes,
    }
    if failures:
        shown = "; ".join(f"{one['user']}: {one['reason']}" for one in failures[:5])
        raise Failure(f"{len(failures)} of {len(outcomes)} servers could not be {state}: {shown}", result)
    return result
