# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Departures of hub users: a home becomes an archive, and the hub forgets its user.

All of this is done by the hub's container admin: files by processes in the user namespace of the account's containers, the rest by asking the
hub. What tells how far one came, see :mod:`archives`::

    ~/hubs/HUB/data/departures/USER    the hub starts no server for them, so nothing in the home changes
    ~/archives/HUB/.USER.json          the archive is whole, verified and on disk; from now on only the deletion goes on

A departure that was begun is finished by the next run if that note is there, and else undone unless the run is about the same user.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import os
import re
import time
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import archives, files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.accounts import AccountError, must

DAY = 24 * 3600
QUIET_POLL = 0.5
"""Seconds between two looks at units that are just ending."""
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_GONE = re.compile(r"(.+)-\d{8}T\d{6}Z(?:\.tar\.zst)?\.json")
_NOTED = re.compile(r"\.([^.].*)\.json")
_UNIT = re.compile(r"^((?:jupyter|ananke)-\S+\.service)\s", re.MULTILINE)

Run = t.Callable[[t.Sequence[str]], tuple[int, str]]
"""``run(argv)`` runs a command of the account and returns its exit status and output."""
Ask = t.Callable[[str, list[str]], dict[str, t.Any]]
"""``ask(state, users)`` has :mod:`hub_api` bring users to a state, inside the hub. Raises DepartureError."""


class DepartureError(Exception):
    """Why somebody's departure is not possible or did not come to its end, and what to do."""


@dataclasses.dataclass(frozen=True)
class Person:
    """What is known of somebody who has been in the hub."""

    name: str
    known: bool = False
    """Whether the hub's data base has them."""
    home: bool = False
    declared: bool = False
    """Whether the hub's description names them: the hub makes them anew whenever it starts."""
    admin: bool = False
    room: bool = False
    """Whether this is the account of a room."""
    runs: bool = False
    """Whether their server runs."""
    unseen: float | None = None
    """Seconds since the hub has seen them."""
    begun: bool = False
    """Whether the archive is whole and something may be deleted already."""

    @property
    def left(self) -> bool:
        """Whether nothing is left that could go."""
        return not (self.begun or self.home or (self.known and not self.declared))


@dataclasses.dataclass(frozen=True)
class Departure:
    """Somebody who left, or would."""

    user: str
    archive: str = ""
    """Path; empty where there was no home."""
    bytes: int = 0
    forgotten: bool = False
    """Whether the hub's data base has lost them."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Who leaves, and who does not although they could be meant."""

    leaving: list[Person]
    staying: dict[str, str]
    """Name: why."""


@dataclasses.dataclass(frozen=True)
class Hub:
    """One hub's folders."""

    name: str
    folder: str
    """The container definition folder."""
    archives: str

    @property
    def container(self) -> str:
        """Name of its container."""
        return f"ananke-{self.name}"

    def home(self, user: str) -> str:
        """A hub user's home."""
        return os.path.join(self.folder, "private", user)

    def mark(self, user: str) -> str:
        """What keeps the hub from starting a server."""
        return os.path.join(self.folder, "data/departures", user)

    def description(self) -> dict[str, t.Any]:
        """What the hub runs with. Raises DepartureError."""
        path = os.path.join(self.folder, "description/hub.json")
        try:
            return dict(json.loads(files.read(path) or ""))
        except (OSError, ValueError) as error:
            raise DepartureError(
                f"{path} cannot be read ({error}): run this as the hub's container admin, after playbooks/hubs.yml"
            ) from error

    def homes(self) -> list[str]:
        """Whose homes there are."""
        with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(self.folder, "private")) as entries:
            return sorted(one.name for one in entries if _NAME.fullmatch(one.name))
        return []

    def marked(self) -> list[str]:
        """For whom the hub starts no server."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(os.path.dirname(self.mark(""))))
        return []

    def noted(self) -> list[str]:
        """Whose deletion was begun."""
        return _matches(self.archives, _NOTED)

    def gone(self) -> set[str]:
        """Who has left before."""
        return set(_matches(self.archives, _GONE))


def _matches(folder: str, pattern: re.Pattern[str]) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted({found[1] for name in os.listdir(folder) if (found := pattern.fullmatch(name))})
    return []


def people(hub: Hub, known: t.Sequence[t.Mapping[str, t.Any]]) -> dict[str, Person]:
    """Everybody who has been in a hub, by name.

    :param known: whom its data base has, from :mod:`hub_api`
    :raises DepartureError: the hub's description cannot be read
    """
    described = hub.description()
    rooms = described.get("rooms", [])
    declared = {*described["users"], *described["admins"], *(name for room in rooms for name in room["users"])}
    homes, noted = set(hub.homes()), set(hub.noted())
    models = {str(one["user"]): one for one in known if _NAME.fullmatch(str(one["user"]))}
    return {
        name: Person(
            name,
            known=name in models,
            home=name in homes,
            declared=name in declared,
            admin=name in described["admins"] or bool(models.get(name, {}).get("admin")),
            room=name.startswith("room-"),
            runs=bool(models.get(name, {}).get("runs")),
            unseen=models.get(name, {}).get("unseen"),
            begun=name in noted,
        )
        for name in sorted({*models, *homes, *noted})
    }


def plan(
    everybody: t.Mapping[str, Person],
    gone: t.Collection[str],
    users: t.Sequence[str] | None,
    idle_days: int | None,
    running: bool,
) -> Plan:
    """Who leaves. Whose deletion was begun leaves in any case.

    :param gone: who has left before
    :param users: who is named; None for all who were away so long
    :param running: whether named people leave although their servers run
    :raises DepartureError: somebody who is named must not leave, or is not there
    """
    begun = [one for one in everybody.values() if one.begun]
    chosen = _idle(everybody, idle_days) if users is None else _named(everybody, gone, users, running)
    leaving = {one.name: one for one in [*begun, *chosen.leaving]}
    return Plan([leaving[name] for name in sorted(leaving)], chosen.staying)


def _named(everybody: t.Mapping[str, Person], gone: t.Collection[str], users: t.Sequence[str], running: bool) -> Plan:
    wanted = sorted(set(users))
    unknown = [name for name in wanted if name not in everybody and name not in gone]
    if unknown:
        near = difflib.get_close_matches(unknown[0], list(everybody), 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise DepartureError(
            f"users: {', '.join(unknown)}{hint}: nobody so called has been in this hub, and there is no such home; nothing was done"
        )
    chosen = [everybody[name] for name in wanted if name in everybody]
    for one in chosen:
        why = _must_stay(one)
        if why:
            raise DepartureError(f"users: {one.name} {why}; nothing was done")
    working = [one.name for one in chosen if one.runs and not one.begun]
    if working and not running:
        raise DepartureError(
            f"users: the servers of {', '.join(working)} run, what is not saved would be lost; nothing was done. Wait until they have stopped, leave"
            " them out, or say running: true (ananke_offboard_running=true)"
        )
    return Plan([one for one in chosen if not one.left], {})


def _idle(everybody: t.Mapping[str, Person], days: int | None) -> Plan:
    leaving, staying = [], {}
    for one in everybody.values():
        if one.left or one.begun or (one.unseen is not None and one.unseen < (days or 0) * DAY):
            continue
        why = _must_stay(one)
        if not why and not one.known:
            why = "is not known to the hub, only the home is there: name it to archive it"
        elif not why and one.unseen is None:
            why = "has never been seen by the hub: name it to remove it"
        elif not why and one.runs:
            why = "has a server that runs"
        if why:
            staying[one.name] = why
        else:
            leaving.append(one)
    return Plan(leaving, staying)


def _must_stay(one: Person) -> str:
    if one.admin:
        return "is a hub admin: take the name out of hub_admins and run playbooks/hubs.yml first"
    return "is a room, not a person: its files stay, also when it is no longer declared" if one.room else ""


def foretold(person: Person) -> Departure:
    """What :meth:`Departures.depart` would do for somebody."""
    return Departure(person.name, forgotten=person.known and not person.declared)


class Departures:
    """Lets people leave one hub, one after the other."""

    def __init__(self, hub: Hub, ask: Ask, run: Run, timeout: int) -> None:
        """:param timeout: seconds that a server may take to stop"""
        self.hub = hub
        self.ask = ask
        self.run = run
        self.timeout = timeout

    def undo(self, but: t.Collection[str], dry: bool = False) -> list[str]:
        """Let everybody but these work again whose departure was begun; returns their names."""
        found = [name for name in self.hub.marked() if name not in but]
        for name in [] if dry else found:
            os.unlink(self.hub.mark(name))
        return found

    def depart(self, person: Person) -> Departure:
        """Let somebody leave; returns what became of them.

        Raises:
            AccountError: a file could not be archived or deleted; says what to do.
            DepartureError: something still runs in the home, or the hub refuses.
        """
        files.folder(os.path.dirname(self.hub.mark("")), 0o700)
        files.write(self.hub.mark(person.name), "", 0o600)
        try:
            self._quiet(person)
            record = self._noted(person.name) or self._keep(person)
        except (AccountError, DepartureError, OSError):
            if archives.noted(person.name, self.hub.archives) is None:
                os.unlink(self.hub.mark(person.name))
            raise
        self._delete(person.name)
        forgotten = person.known and not person.declared
        if forgotten:
            self.ask("forgotten", [person.name])
        archives.close(person.name, self.hub.archives, record["archive"] or f"{person.name}-{record['stamp']}")
        os.unlink(self.hub.mark(person.name))
        path = os.path.join(self.hub.archives, record["archive"]) if record["archive"] else ""
        return Departure(person.name, path, record["bytes"], forgotten)

    def _noted(self, name: str) -> dict[str, t.Any] | None:
        """What is known of a deletion that was begun; None where it is to be begun, since the home is another one than that in the archive."""
        record = archives.noted(name, self.hub.archives)
        if record is None or _identity(self.hub.home(name)) in (None, record["home"]):
            return record
        archives.close(name, self.hub.archives, record["archive"])
        return None

    def _quiet(self, person: Person) -> None:
        """See that nothing runs in the home. Raises DepartureError."""
        if person.known:
            self.ask("stopped", [person.name])
        user, end = person.name, time.monotonic() + self.timeout
        units = [f"jupyter-{user}.service", f"ananke-command-{user}-????????.service", f"ananke-forget@{user}.service"]
        listing = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,deactivating"]
        while True:
            said = must(self.run, ["podman", "exec", self.hub.container, *listing, *units], "run again when it answers")
            found = _UNIT.findall(said)
            if not found:
                return
            if time.monotonic() > end:
                raise DepartureError(
                    f"{found[0]} still runs in {self.hub.container}: stop it there (systemctl stop), and run again; nothing was archived"
                )
            time.sleep(QUIET_POLL)

    def _keep(self, person: Person) -> dict[str, t.Any]:
        """Archive a home, and note that it may be deleted."""
        home, packed, size = self.hub.home(person.name), archives.Archive(), 0
        if os.path.islink(home) or (os.path.lexists(home) and not os.path.isdir(home)):
            raise DepartureError(
                f"{home} is no folder but something else, which is not followed: move it away and run again"
            )
        if os.path.isdir(home):
            packed = archives.pack(person.name, self.hub.archives, home, self._inside)
            size = os.path.getsize(os.path.join(self.hub.archives, packed.archive))
        record = {
            "hub": self.hub.name,
            "user": person.name,
            "stamp": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "home": _identity(home),
            "bytes": size,
            **dataclasses.asdict(packed),
        }
        archives.note(person.name, self.hub.archives, record)
        return record

    def _delete(self, name: str) -> None:
        """Delete a home, and what told whose it was."""
        home = self.hub.home(name)
        if os.path.lexists(home):
            must(
                self._inside,
                ["rm", "--recursive", "--force", "--one-file-system", "--", home],
                f"the archive is whole, and {name} cannot work until this is mended; then run again",
            )
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(os.path.dirname(home), f".ananke-owner-{name}"))

    def _inside(self, argv: t.Sequence[str]) -> tuple[int, str]:
        """Run a command with the owners that the hub sees."""
        return self.run(["podman", "unshare", *argv])


def _identity(path: str) -> list[int] | None:
    """What tells a folder from another one of the same name."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return [status.st_dev, status.st_ino]
