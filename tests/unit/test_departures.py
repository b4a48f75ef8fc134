# SPDX-License-Identifier: GPL-3.0-or-later
"""Departures of hub users: who leaves and who must stay, in which order things go, and what a killed run leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, archives, hub_departures
from ansible_collections.ananke.jupyterhub.plugins.module_utils.hub_departures import DepartureError, Person

DAY = hub_departures.DAY


class Killed(BaseException):
    """The run ends here, without any chance to tidy up."""


class Course:
    """The hub math101 with two students and a teacher, and what was run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "hubs/math101"
        self.archives = folder / "archives/math101"
        (self.folder / "description").mkdir(parents=True)
        self.describe()
        (self.folder / "data").mkdir()
        for user in ("u1", "u2", "uteacher1"):
            (self.folder / "private" / user).mkdir(parents=True)
            (self.folder / "private" / user / "notebook").write_text(user)
        self.known = {
            name: {"user": name, "admin": name == "uteacher1", "runs": False, "unseen": 200.0 * DAY}
            for name in ("u1", "u2", "uteacher1")
        }
        self.ran: list[str] = []
        self.units = ""
        self.fails = ""
        self.kills = ""
        self.hub = hub_departures.Hub("math101", str(self.folder), str(self.archives))

    def describe(self, **changes: Any) -> None:
        described = {"users": [], "admins": ["uteacher1"], "rooms": [], **changes}
        (self.folder / "description/hub.json").write_text(json.dumps(described))

    def home(self, user: str) -> Path:
        return self.folder / "private" / user

    def mark(self, user: str) -> Path:
        return self.folder / "data/departures" / user

    def step(self, name: str) -> bool:
        """Note a step; whether it is to fail."""
        self.ran.append(name)
        if name == self.kills:
            raise Killed
        return name == self.fails

    def run(self, argv: Sequence[str]) -> tuple[int, str]:
        """Stands for the programs: does to files what they would do."""
        line = " ".join(argv)
        known: dict[str, Callable[[], object]] = {
            "unshare tar --create": lambda: Path(argv[argv.index("--file") + 1]).write_text("packed"),
            "unshare tar --compare": lambda: None,
            "unshare rm": lambda: shutil.rmtree(argv[-1]),
            "systemctl list-units": lambda: None,
        }
        name, act = next((name, act) for name, act in known.items() if name in line)
        if self.step(name.removeprefix("unshare ")):
            return 1, "no space left"
        act()
        return 0, self.units if "list-units" in name else ""

    def ask(self, state: str, users: list[str]) -> dict[str, Any]:
        """Stands for the hub."""
        if self.step(state):
            raise DepartureError("the hub does not answer")
        for user in users:
            assert self.mark(user).exists(), "the hub must start no server meanwhile"
            if state == "forgotten":
                del self.known[user]
        return {"changed": True}

    def people(self) -> dict[str, Person]:
        return hub_departures.people(self.hub, list(self.known.values()))

    def plan(self, *users: str, days: int | None = None, running: bool = False) -> hub_departures.Plan:
        wanted = None if days else users
        return hub_departures.plan(self.people(), self.hub.gone(), wanted, days, running)

    def names(self, *users: str, days: int | None = None, running: bool = False) -> list[str]:
        return [one.name for one in self.plan(*users, days=days, running=running).leaving]

    def offboard(self, *users: str, days: int | None = None) -> list[hub_departures.Departure]:
        """What one execution of the module does."""
        leaving = self.plan(*users, days=days).leaving
        departures = hub_departures.Departures(self.hub, self.ask, self.run, timeout=0)
        departures.undo([one.name for one in leaving])
        return [departures.depart(one) for one in leaving]

    def kept(self) -> list[str]:
        """What is in the folder of archives, without dates."""
        return sorted(f"{name[:3]}DATE{name[19:]}" for name in (path.name for path in self.archives.iterdir()))


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return Course(tmp_path)


ORDER = ["stopped", "systemctl list-units", "tar --create", "tar --compare", "rm", "forgotten"]


# ---------------------------------------------------------------------------------------------------------------
# who leaves


def test_who_is_named_leaves(course: Course) -> None:
    assert course.names("u2", "u1", "u1") == ["u1", "u2"]
    assert course.names() == []


def test_an_unknown_name_is_refused_with_the_nearest(course: Course) -> None:
    with pytest.raises(DepartureError, match=r"users: uu2 \(did you mean u2\?\): nobody so called"):
        course.plan("u1", "uu2")


@pytest.mark.parametrize("name", ["", "..", "../data", "a/b", ".ananke-owner-u1", "U1"])
def test_what_is_no_name_is_nobody(course: Course, name: str) -> None:
    course.known["../data"] = {"user": "../data", "admin": False, "runs": False, "unseen": 900.0 * DAY}
    with pytest.raises(DepartureError, match="nobody so called"):
        course.plan(name)
    assert "../data" not in course.people()


def test_hub_admins_stay(course: Course) -> None:
    with pytest.raises(DepartureError, match=r"uteacher1 is a hub admin: take the name out of hub_admins"):
        course.plan("uteacher1", "u1")
    assert course.plan(days=100).staying["uteacher1"].startswith("is a hub admin")


def test_whom_only_the_hub_calls_an_admin_stays(course: Course) -> None:
    course.describe(admins=[])
    with pytest.raises(DepartureError, match="is a hub admin"):
        course.plan("uteacher1")


def test_rooms_stay(course: Course) -> None:
    course.home("room-a").mkdir()
    with pytest.raises(DepartureError, match="room-a is a room, not a person"):
        course.plan("room-a")
    assert "is a room" in course.plan(days=100).staying["room-a"]


def test_who_works_stays_unless_it_is_said(course: Course) -> None:
    course.known["u1"]["runs"] = True
    with pytest.raises(DepartureError, match=r"the servers of u1 run, .*ananke_offboard_running=true"):
        course.plan("u1", "u2")
    assert course.names("u1", "u2", running=True) == ["u1", "u2"]
    plan = course.plan(days=100, running=True)
    assert ([one.name for one in plan.leaving], plan.staying["u1"]) == (["u2"], "has a server that runs")


@pytest.mark.parametrize(("days", "leaving"), [(199, ["u1", "u2"]), (200, ["u1", "u2"]), (201, [])])
def test_idle(course: Course, days: int, leaving: list[str]) -> None:
    assert course.names(days=days) == leaving


def test_who_was_there_lately_is_not_even_mentioned(course: Course) -> None:
    course.known["u1"]["unseen"] = 5.0
    plan = course.plan(days=100)
    assert ([one.name for one in plan.leaving], list(plan.staying)) == (["u2"], ["uteacher1"])


def test_a_home_without_a_user_goes_only_by_name(course: Course) -> None:
    del course.known["u1"]
    assert "name it to archive it" in course.plan(days=1).staying["u1"]
    assert course.names("u1") == ["u1"]


def test_who_was_never_seen_goes_only_by_name(course: Course) -> None:
    course.known["u1"]["unseen"] = None
    assert "never been seen" in course.plan(days=1).staying["u1"]
    assert course.names("u1") == ["u1"]


@pytest.mark.parametrize(
    "declared", [{"users": ["u1"]}, {"rooms": [{"name": "a", "users": ["u1"]}]}], ids=["users", "rooms"]
)
def test_declared_users_stay_in_the_hub_without_their_homes(course: Course, declared: dict[str, Any]) -> None:
    course.describe(**declared)
    (left,) = course.offboard("u1")
    assert (left.forgotten, "u1" in course.known, course.home("u1").exists()) == (False, True, False)
    assert course.offboard("u1") == []


def test_a_hub_without_a_description(course: Course) -> None:
    (course.folder / "description/hub.json").unlink()
    with pytest.raises(DepartureError, match="run this as the hub's container admin"):
        course.people()


def test_what_is_foretold(course: Course) -> None:
    course.describe(users=["u2"])
    assert [hub_departures.foretold(one) for one in course.plan("u1", "u2").leaving] == [
        hub_departures.Departure("u1", forgotten=True),
        hub_departures.Departure("u2"),
    ]
    assert (course.ran, course.archives.exists()) == ([], False)


# ---------------------------------------------------------------------------------------------------------------
# how they leave


def test_in_which_order(course: Course) -> None:
    (left,) = course.offboard("u1")
    assert course.ran == ORDER
    assert (left.user, left.bytes, left.forgotten) == ("u1", len("packed"), True)
    assert Path(left.archive).read_text() == "packed"
    record = json.loads(Path(f"{left.archive}.json").read_text())
    assert (record["hub"], record["user"]) == ("math101", "u1")
    assert course.kept() == ["u1-DATE.tar.zst", "u1-DATE.tar.zst.json"]
    assert not course.home("u1").exists()
    assert not course.mark("u1").exists()
    assert course.home("u2").joinpath("notebook").read_text() == "u2"


def test_a_second_run_changes_nothing(course: Course) -> None:
    course.offboard("u1")
    course.ran.clear()
    assert course.offboard("u1") == []
    assert course.offboard(days=201) == []
    assert course.ran == []


def test_who_comes_back_can_leave_again(course: Course) -> None:
    (first,) = course.offboard("u1")
    Path(first.archive).rename(course.archives / "u1-20200101T000000Z.tar.zst")
    course.home("u1").mkdir()
    course.known["u1"] = {"user": "u1", "admin": False, "runs": False, "unseen": 0.0}
    assert course.names(days=1) == ["u2"]
    assert len(course.offboard("u1")) == 1
    assert course.kept().count("u1-DATE.tar.zst") == 2


def test_a_user_without_a_home(course: Course) -> None:
    shutil.rmtree(course.home("u1"))
    (left,) = course.offboard("u1")
    assert (left.archive, left.bytes, left.forgotten) == ("", 0, True)
    assert course.ran == ["stopped", "systemctl list-units", "forgotten"]
    assert course.kept() == ["u1-DATE.json"]
    assert course.offboard("u1") == []


def test_a_home_without_a_user(course: Course) -> None:
    del course.known["u1"]
    (left,) = course.offboard("u1")
    assert (bool(left.archive), left.forgotten) == (True, False)
    assert course.ran == [step for step in ORDER if step not in ("stopped", "forgotten")]


def test_what_told_whose_a_home_was_goes(course: Course) -> None:
    mark = course.home(".ananke-owner-u1")
    mark.symlink_to("admin:61234:61234:done")
    course.offboard("u1")
    assert not mark.is_symlink()


def test_a_link_in_place_of_a_home_is_not_followed(course: Course, tmp_path: Path) -> None:
    course.home("u1").rename(tmp_path / "elsewhere")
    course.home("u1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DepartureError, match="no folder but something else"):
        course.offboard("u1")
    assert (tmp_path / "elsewhere/notebook").exists()
    assert not course.mark("u1").exists()


def test_what_runs_in_a_home_is_waited_for_and_named(course: Course) -> None:
    course.units = 'time=1 level=warning msg="x"\nananke-command-u1-0a1b2c3d.service loaded active running Command\n'
    with pytest.raises(DepartureError, match=r"ananke-command-u1-0a1b2c3d\.service still runs in ananke-math101"):
        course.offboard("u1")
    assert course.ran == ["stopped", "systemctl list-units"]
    assert not course.mark("u1").exists()
    course.units = 'time=1 level=warning msg="x"\n'
    assert len(course.offboard("u1")) == 1


# ---------------------------------------------------------------------------------------------------------------
# what fails, and what is killed


@pytest.mark.parametrize("step", ORDER)
def test_what_fails_deletes_nothing_before_the_archive_is_whole(course: Course, step: str) -> None:
    course.fails = step
    with pytest.raises((accounts.AccountError, DepartureError)):
        course.offboard("u1")
    deleting = step in ("rm", "forgotten")
    assert course.home("u1").exists() is (step != "forgotten")
    assert (archives.noted("u1", str(course.archives)) is not None) is deleting
    assert course.mark("u1").exists() is deleting, "who can work on does so"
    course.fails = ""
    assert [one.user for one in course.offboard("u1")] == ["u1"]
    assert course.kept() == ["u1-DATE.tar.zst", "u1-DATE.tar.zst.json"]


@pytest.mark.parametrize("step", ORDER)
def test_a_killed_run_is_finished_by_the_next(course: Course, step: str) -> None:
    course.kills = step
    with pytest.raises(Killed):
        course.offboard("u1")
    assert course.mark("u1").exists()
    course.kills = ""
    assert [one.user for one in course.offboard("u1")] == ["u1"]
    assert course.kept() == ["u1-DATE.tar.zst", "u1-DATE.tar.zst.json"]
    assert (course.home("u1").exists(), course.mark("u1").exists(), "u1" in course.known) == (False, False, False)
    assert course.offboard("u1") == []


@pytest.mark.parametrize("step", ORDER)
def test_a_run_about_somebody_else_finishes_or_undoes(course: Course, step: str) -> None:
    course.kills = step
    with pytest.raises(Killed):
        course.offboard("u1")
    course.kills = ""
    deleting = step in ("rm", "forgotten")
    assert [one.user for one in course.offboard("u2")] == (["u1", "u2"] if deleting else ["u2"])
    assert course.home("u1").exists() is not deleting
    assert list(course.mark("").iterdir()) == []


def test_a_dry_run_undoes_nothing(course: Course) -> None:
    course.mark("").mkdir()
    course.mark("u1").touch()
    departures = hub_departures.Departures(course.hub, course.ask, course.run, timeout=0)
    assert (departures.undo([], dry=True), course.mark("u1").exists()) == (["u1"], True)
    assert (departures.undo(["u1"]), departures.undo([]), departures.undo([])) == ([], ["u1"], [])


def test_another_home_than_the_archived_one_is_not_deleted_unarchived(course: Course) -> None:
    """Somebody brings the home back from a backup, between a run that was killed and the next one."""
    course.kills = "rm"
    with pytest.raises(Killed):
        course.offboard("u1")
    first = next(course.archives.glob("*.zst"))
    first.rename(course.archives / "u1-20200101T000000Z.tar.zst")
    course.home("u1").rename(course.home("gone"))
    course.home("u1").mkdir()
    course.kills = ""
    course.ran.clear()
    course.offboard("u1")
    assert "tar --create" in course.ran
    assert course.kept().count("u1-DATE.tar.zst") == 2
