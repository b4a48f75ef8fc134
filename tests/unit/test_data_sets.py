"""Data sets of other machines: what is refused, the units, what is put in force again, what is said about failures."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import data_sets

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA5dVxq4BYYDAuYdGvYoF6S0tmFXZVzPLNNGNv8rrG1y"
SET = data_sets.DataSet("course-1", "hubs@files.example.org:/export/a folder".replace(" ", "-"), (KEY,))


class Machine:
    """Notes what would be run, and makes keys."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ran: list[str] = []
        self.waiting: set[str] = set()

    def run(self, argv: Sequence[str]) -> tuple[int, str]:
        line = " ".join(argv)
        self.ran.append(line)
        if argv[0] == "ssh-keygen" and "-y" not in argv:
            Path(argv[-1]).write_text("private\n")
            Path(argv[-1] + ".pub").write_text("ssh-ed25519 AAAA made\n")
        if argv[0] == "ssh-keygen" and "-y" in argv:
            return 0, "ssh-ed25519 BBBB given\n"
        if "enable" in argv or "disable" in argv:
            (self.waiting.add if "enable" in argv else self.waiting.discard)(argv[-1])
            where = {data_sets.DataSet(name, "", ()).automount: name for name in ("course-1", "b")}
            lines = [
                f"1 1 0:1 / {data_sets.FOLDER}/{where[unit]}/files rw - autofs systemd-1 rw\n" for unit in self.waiting
            ]
            (self.root / "mountinfo").write_text("".join(lines))
        return 0, ""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name, path in {
        "FOLDER": "srv",
        "KEYS": "keys",
        "UNITS": "units",
        "NOTES": "notes",
        "MOUNTS": "mountinfo",
    }.items():
        monkeypatch.setattr(data_sets, name, str(tmp_path / path))
    (tmp_path / "units").mkdir()
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "Course"}, "a name is of"),
        ({"name": "../a"}, "a name is of"),
        ({"source": "files.example.org:/a"}, "USER@HOST"),
        ({"source": "u@h:/a,allow_root"}, "USER@HOST"),
        ({"source": "-oProxyCommand=x@h:/a"}, "USER@HOST"),
        ({"source": "u@-oProxyCommand:/a"}, "USER@HOST"),
        ({"source": "u@h:/a\nOptions=dev"}, "USER@HOST"),
        ({"source": "u@h:/a%n"}, "USER@HOST"),
        ({"host_keys": ()}, "trusted at first sight"),
        ({"host_keys": ("AAAA",)}, "is not a host key"),
        ({"host_keys": (KEY + "\n* ssh-ed25519 AAAA",)}, "is not a host key"),
        ({"umask": "22"}, "is not octal"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(data_sets.DataSetError, match=says):
        data_sets.check([dataclasses.replace(SET, **wrong)])  # type: ignore[arg-type]  # wrong on purpose


def test_a_name_is_there_once() -> None:
    with pytest.raises(data_sets.DataSetError, match="twice"):
        data_sets.check([SET, SET])


def test_units_bear_the_names_that_systemd_gives_paths() -> None:
    assert SET.mount == "srv-ananke-data-course\\x2d1-files.mount"


def test_nobody_is_trusted_and_nothing_is_asked() -> None:
    options = dict(
        option.partition("=")[::2]
        for line in data_sets.mount_unit(SET).splitlines()
        if line.startswith("Options=")
        for option in line.removeprefix("Options=").split(",")
    )
    assert options["StrictHostKeyChecking"] == options["BatchMode"] == options["IdentitiesOnly"] == "yes"
    assert {"ro", "nosuid", "nodev", "noexec", "default_permissions"} <= options.keys()
    assert "Options=rw," in data_sets.mount_unit(dataclasses.replace(SET, read_only=False))


def test_nothing_is_done_twice_and_killed_runs_are_finished(machine: Machine) -> None:
    foretold = data_sets.ensure([SET], machine.run, dry=True)
    assert not machine.ran
    done = data_sets.ensure([SET], machine.run, dry=False)
    assert done.done == foretold.done
    assert done.made == ["course-1"]
    assert done.public_keys == {"course-1": "ssh-ed25519 AAAA made"}
    assert os.stat(f"{data_sets.KEYS}/course-1").st_mode & 0o777 == 0o700
    assert not data_sets.ensure([SET], machine.run, dry=False).done
    (machine.root / "notes/course-1").write_text("of a run that was killed before systemd had read the units\n")
    assert data_sets.ensure([SET], machine.run, dry=False).done == ["data set course-1 put in force"]
    (machine.root / "mountinfo").write_text("")
    assert data_sets.ensure([SET], machine.run, dry=False).done == ["data set course-1 put in force"]


def test_only_what_has_changed_is_mounted_anew(machine: Machine) -> None:
    other = dataclasses.replace(SET, name="b")
    data_sets.ensure([SET, other], machine.run, dry=False)
    machine.ran.clear()
    data_sets.ensure([SET, dataclasses.replace(other, idle=5)], machine.run, dry=False)
    assert [line for line in machine.ran if "stop" in line] == [
        f"systemctl stop {other.automount}",
        f"systemctl stop {other.mount}",
    ]


def test_what_is_not_wanted_any_more_goes(machine: Machine) -> None:
    other = dataclasses.replace(SET, name="b")
    data_sets.ensure([SET, other], machine.run, dry=False)
    assert data_sets.ensure([other], machine.run, dry=True).done == ["data set course-1 removed"]
    assert data_sets.ensure([other], machine.run, dry=False).done == ["data set course-1 removed"]
    assert sorted(os.listdir(data_sets.UNITS)) == sorted([other.automount, other.mount])
    assert os.listdir(data_sets.KEYS) == os.listdir(data_sets.FOLDER) == ["b"]
    assert not data_sets.ensure([other], machine.run, dry=False).done


def test_a_given_key_is_nobody_elses(machine: Machine) -> None:
    given = dataclasses.replace(SET, private_key="given\n\n")
    done = data_sets.ensure([given], machine.run, dry=False)
    assert (done.made, done.public_keys) == ([], {"course-1": "ssh-ed25519 BBBB given"})
    assert Path(given.key).read_text() == "given\n"
    assert os.stat(given.key).st_mode & 0o777 == 0o600
    assert not data_sets.ensure([given], machine.run, dry=False).done
    assert "given" not in repr(given)


@pytest.mark.parametrize(
    ("journal", "says"),
    [
        ("Host key verification failed.\nread: Connection reset by peer\n", "another host key"),
        ("u@h: Permission denied (publickey).\n", 'command="internal-sftp" ssh-ed25519 AAAA'),
        ("u@h:/x: No such file or directory\n", "correct source"),
        ("ssh: connect to host h port 22: No route to host\n", "No route to host"),
        ("", "is it down"),
    ],
)
def test_each_failure_says_what_to_do(journal: str, says: str) -> None:
    assert says in data_sets.advice(journal, "a", "ssh-ed25519 AAAA")
