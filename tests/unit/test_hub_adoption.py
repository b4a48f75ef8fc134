"""Taking over a former hub: what is foretold and refused, the order of things, kills, names in what was copied; the rest needs a machine."""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import (
    accounts,
    hub_adoption,
    hub_removal,
    image_store,
    nginx,
    sockets,
)
from ansible_collections.ananke.jupyterhub.plugins.module_utils.accounts import AccountError
from former_hubs import ROOMS
from jupyterhub import orm

from ananke_hub import usernames

HASHED = usernames.username("u", "Ada")
SCRIPTS = {
    name: getattr(hub_adoption, name)
    for name in ("SEE", "STOP", "START", "FETCH", "FORGET", "CLEAR", "PREPARE", "MOVE", "PLACE")
}


class Machine:
    """The account `teach` with a former hub, the account `algebra` of the new one, and what was run there."""

    def __init__(self, folder: Path) -> None:
        self.teach, self.algebra, self.images = folder / "teach", folder / "algebra", folder / "images"
        self.former = self.teach / "ananke/containers/algebra"
        for name, text in ROOMS.items():
            path = self.former / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.former / "dyn_home/u17").mkdir(parents=True)
        (self.former / "dyn_home/uada").mkdir()
        (self.former / "dyn_home/uada/essay").write_text("hers")
        (self.former / "home/rtc-Lobby").mkdir(parents=True)
        self.algebra.mkdir()
        self.images.mkdir()
        (self.images / "standard.json").write_text("{}")
        self.stage = self.algebra / ".adopt-algebra"
        self.hub = self.algebra / "hubs/algebra"
        self.ran: list[str] = []
        self.fails = ""
        self.kills = ""
        self.seen = "enabled\nrunning\n"

    def container(self) -> None:
        """What `podman cp` brings out of the former container."""
        data = self.teach / ".ananke-algebra.adopted/data"
        shutil.rmtree(data.parent, ignore_errors=True)
        data.mkdir(parents=True)
        database(data / "jupyterhub.sqlite", "u17", "uada")
        (data / "cookie_secret").write_text("0" * 64 + "\n")
        people = {"uada": {"first": "Ada", "last": "Lovelace", "lms_uid": "Ada"}, "u17": {"lms_uid": "17"}}
        (data / "former_users.json").write_text(json.dumps(people))

    def prepare(self) -> None:
        shutil.rmtree(self.stage, ignore_errors=True)
        for name in ("private", "data", "home", "exchange"):
            (self.stage / name).mkdir(parents=True)

    def move(self, arguments: Sequence[str]) -> None:
        for before, after in zip(arguments[::2], arguments[1::2], strict=True):
            (self.stage / before).rename(self.stage / after)

    def copy(self, line: str) -> None:
        source, target = (part.split()[-1] for part in line.split(" | "))
        shutil.copytree(source, target, dirs_exist_ok=True)

    def run(self, argv: Sequence[str]) -> tuple[int, str]:
        """Stands for the programs: does to files what they would do, and notes them."""
        name = next((name for name, script in SCRIPTS.items() if script in argv), "COPY" if argv[0] == "bash" else "")
        rest = list(argv[argv.index("sh", argv.index("-euc")) + 1 :]) if "-euc" in argv else []
        acts: dict[str, Callable[[], object]] = {
            "FETCH": self.container,
            "PREPARE": self.prepare,
            "CLEAR": lambda: shutil.rmtree(self.stage, ignore_errors=True),
            "FORGET": lambda: shutil.rmtree(self.teach / ".ananke-algebra.adopted", ignore_errors=True),
            "MOVE": lambda: self.move(rest[1:]),
            "PLACE": lambda: (self.hub.parent.mkdir(exist_ok=True), self.stage.rename(self.hub)),
            "COPY": lambda: self.copy(argv[-1]),
        }
        self.ran.append(" ".join([name, *rest[1:]]) if name == "START" else name)
        if name == self.fails:
            return 1, "no space left"
        acts.get(name, lambda: None)()
        if name == self.kills:
            self.kills = ""
            raise KeyboardInterrupt
        return 0, self.seen if name == "SEE" else ""

    def wish(self, **more: object) -> hub_adoption.Wish:
        return dataclasses.replace(hub_adoption.Wish("algebra", "algebra", rooms=("lobby",)), **more)

    def take(self, **more: object) -> list[str]:
        return hub_adoption.take(self.wish(**more), hub_adoption.former(str(self.former)), self.run)

    def give_back(self) -> list[str]:
        return hub_adoption.give_back("algebra", "algebra", self.run, False)


def database(path: Path, *names: str) -> None:
    """A database of JupyterHub's own making, with hub users one of whom has a server."""
    session = orm.new_session_factory(f"sqlite:///{path}")()
    for name in names:
        user = orm.User(name=name, state={"a": 1})
        session.add_all(
            [
                user,
                orm.Spawner(user=user, name="", state={"unit_name": "x"}, server=orm.Server()),
                orm.Spawner(user=user, name="second"),
            ]
        )
    session.commit()
    session.close()
    with sqlite3.connect(path) as known:
        known.execute("create table if not exists alembic_version (version_num varchar(32))")
        known.execute("delete from alembic_version")
        known.execute("insert into alembic_version values (?)", (hub_adoption.SCHEMA,))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    entries = {
        name: pwd.struct_passwd((name, "x", uid, uid, comment, str(tmp_path / name), "/bin/bash"))
        for name, uid, comment in (("teach", 2001, "Teacher"), ("algebra", 2002, "container admin"))
    }
    monkeypatch.setattr(accounts, "lookup", entries.get)
    monkeypatch.setattr(accounts, "as_user", lambda _entry, function: json.loads(json.dumps(function())))
    monkeypatch.setattr(hub_adoption.pwd, "getpwuid", lambda _uid: entries["teach"])
    monkeypatch.setattr(hub_adoption, "NOTES", str(tmp_path / "notes"))
    monkeypatch.setattr(image_store, "RECORDS", str(found.images))
    monkeypatch.setattr(hub_removal, "remove", lambda *given: (found.ran.append("removed"), (["removed"], None))[1])
    monkeypatch.setattr(nginx, "LOCATIONS_DIR", str(tmp_path))
    monkeypatch.setattr(nginx, "apply", lambda path, content, _run: Path(path).write_text(content))
    monkeypatch.setattr(sockets, "listeners", lambda: {8101: 0})
    return found


def state(machine: Machine) -> str:
    note = hub_adoption.noted("algebra")
    return note.state if note else ""


def test_a_hub_is_taken_over(machine: Machine) -> None:
    foretold = hub_adoption.foretell(machine.wish(), hub_adoption.former(str(machine.former)))
    done = machine.take()
    assert done[:2] == foretold
    assert machine.ran[:3] == ["SEE", "STOP", "PREPARE"]
    assert machine.ran[-3:] == ["FORGET", "MOVE", "PLACE"]
    assert (machine.hub / f"private/{HASHED}/essay").read_text() == "hers"
    assert sorted(path.name for path in (machine.hub / "private").iterdir()) == ["room-lobby", "u17", HASHED]
    assert (machine.hub / "data/cookie_secret").exists()
    users = json.loads((machine.hub / "data/user_data.json").read_text())
    assert users[HASHED] == {
        **{"given_name": "Ada", "family_name": "Lovelace", "name": "Ada Lovelace"},
        **{"email": "", "lms_user_id": "Ada", "roles": []},
    }
    assert not (machine.hub / "data/former_users.json").exists()
    assert (machine.former / "dyn_home/uada/essay").exists(), "the former hub has changed"
    assert state(machine) == "placed"
    assert hub_adoption.settle("algebra", True) == [f"algebra has taken over {machine.former}"]
    assert hub_adoption.settle("algebra", False)
    assert (hub_adoption.settle("algebra", False), machine.take(), machine.give_back()) == ([], [], [])
    assert state(machine) == "taken"


@pytest.mark.parametrize("moment", ["SEE", "STOP", "PREPARE", "COPY", "FETCH", "FORGET", "MOVE", "PLACE"])
def test_killed_at_any_moment_the_next_run_completes(machine: Machine, moment: str) -> None:
    machine.kills = moment
    with pytest.raises(KeyboardInterrupt):
        machine.take()
    machine.seen = "" if moment != "SEE" else machine.seen
    machine.take()
    assert (machine.hub / f"private/{HASHED}/essay").read_text() == "hers"
    note = hub_adoption.noted("algebra")
    assert note is not None
    assert (note.state, note.enabled, note.running) == ("placed", True, True)


@pytest.mark.parametrize("moment", ["STOP", "COPY", "FETCH", "PLACE"])
def test_what_does_not_work_is_given_back(machine: Machine, moment: str) -> None:
    machine.fails = moment
    with pytest.raises(AccountError, match="no space left"):
        machine.take()
    machine.fails = ""
    assert machine.give_back() == ["removed", "ananke-algebra of teach as it was before"]
    assert machine.ran[-3:] == ["CLEAR", "START enabled running", "FORGET"]
    assert (state(machine), machine.give_back()) == ("", [])
    machine.take()
    assert state(machine) == "placed"


def test_a_new_hub_that_is_ill_goes_and_the_former_runs_again(machine: Machine) -> None:
    machine.seen = "running\n"
    location = machine.teach.parent / "algebra.conf"
    location.write_text("to the former hub")
    machine.take()
    location.unlink()
    assert hub_adoption.give_back("algebra", "algebra", machine.run, True) == [
        "ananke-algebra of teach as it was before"
    ]
    machine.give_back()
    assert machine.ran[-4:] == ["removed", "CLEAR", "START  running", "FORGET"]
    assert location.read_text() == "to the former hub"


def test_a_hub_that_forgets_gets_no_homes(machine: Machine) -> None:
    machine.take(forget=True, rooms=())
    assert list((machine.hub / "private").iterdir()) == []
    assert (machine.hub / "home/rtc-Lobby").is_dir()


def test_what_must_not_be_is_refused_before_anything_stops(machine: Machine) -> None:
    (machine.images / "standard.json").unlink()
    with pytest.raises(AccountError, match="make it first"):
        machine.take()
    with pytest.raises(AccountError, match="set hub_container_admin to another account"):
        machine.take(account="teach")
    machine.hub.mkdir(parents=True)
    with pytest.raises(AccountError, match="it is there already"):
        machine.take()
    assert (machine.ran, machine.give_back()) == ([], [])


def test_one_hub_takes_over_one_former_hub_once(machine: Machine) -> None:
    machine.take()
    other = dataclasses.replace(hub_adoption.former(str(machine.former)), folder="/other")
    with pytest.raises(AccountError, match=r"has taken over .* already"):
        hub_adoption.foretell(machine.wish(), other)
    hub_adoption.settle("algebra", False)
    shutil.rmtree(machine.hub)
    with pytest.raises(AccountError, match="has been removed since"):
        machine.take()


@pytest.mark.parametrize(
    ("path", "words"),
    [("nowhere", "name the folder"), ("algebra/config.py", "is no folder"), ("link", "is no folder")],
)
def test_what_is_no_former_hub(machine: Machine, path: str, words: str) -> None:
    containers = machine.former.parent
    (containers / "link").symlink_to(machine.former)
    with pytest.raises(AccountError, match=words):
        hub_adoption.former(str(containers / path))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.unlink(), "has no config.py"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is no file"),
        (lambda path: path.write_text("#" * 300_000), "is longer than"),
    ],
)
def test_files_that_cannot_be_read(machine: Machine, harm: Callable[[Path], object], words: str) -> None:
    harm(machine.former / "config.py")
    with pytest.raises(AccountError, match=words):
        hub_adoption.sources(hub_adoption.former(str(machine.former)))


def test_root_has_no_former_hub(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        hub_adoption.pwd, "getpwuid", lambda _uid: pwd.struct_passwd(("root", "x", 0, 0, "", "/root", ""))
    )
    with pytest.raises(AccountError, match="belongs to root"):
        hub_adoption.former(str(machine.former))


def test_the_container_is_looked_at(machine: Machine) -> None:
    def run(argv: Sequence[str]) -> tuple[int, str]:
        if "inspect" in argv[argv.index("-euc") + 1]:
            return 0, 'a warning\n["podman", "create", "--memory=5g"]\n'
        return 0, "jhub/lib/python3.12/site-packages/jupyterlab_myst/\nmine/lib/python3.12/site-packages/x/\n"

    (machine.former / "config.py").write_text("config['memory'] = 'interactive'")
    reading = hub_adoption.look(hub_adoption.former(str(machine.former)), run)
    assert reading.variables["hub_memory"] == "5G"
    assert "myst" in reading.variables["hub_features"]
    gone = hub_adoption.look(hub_adoption.former(str(machine.former)), lambda _argv: (125, "no such container"))
    assert "hub_memory" not in gone.variables


def test_the_new_hub_gets_a_port_and_an_account_of_its_own(machine: Machine) -> None:
    hub = hub_adoption.former(str(machine.former))
    assert hub_adoption.place("algebra", hub, [8102], None) == {"hub_port": 8103}
    assert hub_adoption.place("teach", hub, [], 8107) == {"hub_port": 8107, "hub_container_admin": "teach-hub"}


def test_names_in_the_database(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    database(path, "u17", "uada")
    hub_adoption.settle_database(str(path), lambda name: HASHED if name == "uada" else name)
    session = orm.new_session_factory(f"sqlite:///{path}")()
    users = {user.name: user for user in session.query(orm.User)}
    assert sorted(users) == sorted(["u17", HASHED])
    for user in users.values():
        assert list(user.orm_spawners) == [""]
        assert (user.orm_spawners[""].server, user.orm_spawners[""].state) == (None, None)
    session.close()


def test_a_database_of_another_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    database(path, "u17")
    with sqlite3.connect(path) as known:
        known.execute("update alembic_version set version_num = '651f5419b74d'")
    with pytest.raises(AccountError, match="bring the former hub to one of these releases first"):
        hub_adoption.settle_database(str(path), str)


def test_two_people_never_share_a_name(machine: Machine) -> None:
    (machine.former / "dyn_home/x17").mkdir()
    with pytest.raises(AccountError, match="u17 and x17 would both be x17"):
        machine.take(username_prefix="x")


def test_a_secret_of_another_form_is_left_behind(tmp_path: Path) -> None:
    for name in ("data", "private", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "data/cookie_secret").write_text("short")
    (tmp_path / "data/former_users.json").write_text("[broken")
    assert hub_adoption.settle_data(str(tmp_path), hub_adoption.Wish("a", "a"), {}) == []
    assert os.listdir(tmp_path / "data") == []


@pytest.mark.parametrize("script", [*SCRIPTS.values(), hub_adoption.PACK, hub_adoption.UNPACK])
def test_scripts_are_shell(script: str) -> None:
    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0


def test_links_files_and_owners_travel_through_the_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pipe, with `podman unshare` and the change of accounts left out."""
    source, target = tmp_path / "a b", tmp_path / "to"
    source.mkdir()
    target.mkdir()
    (source / "one'").write_text("1")
    os.link(source / "one'", source / "two")
    (source / "link").symlink_to("/etc/shadow")
    os.utime(source / "two", (1, 1_000_000_000))
    monkeypatch.setattr(
        accounts,
        "in_session",
        lambda _entry, script, *rest: ["sh", "-euc", script.replace("podman unshare ", ""), "sh", *rest],
    )

    def run(argv: Sequence[str]) -> tuple[int, str]:
        done = subprocess.run(list(argv), capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    entry = pwd.getpwuid(os.getuid())
    hub = hub_adoption.Former(str(source), entry)
    hub_adoption._copy(hub, entry, str(source), str(target), run)
    assert (target / "two").stat().st_mtime == 1_000_000_000
    assert (target / "two").stat().st_ino == (target / "one'").stat().st_ino
    assert os.readlink(target / "link") == "/etc/shadow"
    with pytest.raises(AccountError, match="nothing of the former hub has changed"):
        hub_adoption._copy(hub, entry, str(source / "none"), str(target), run)
