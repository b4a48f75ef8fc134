"""Students leave: their homes become archives, nobody else notices, and who comes back begins anew."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest
from acting import INVENTORY
from browsing import Person
from conftest import Visit
from facts import Demo, Hub

import playbook

HOMES = "/var/lib/private"
FILES = r"""
set -e; mkdir -p odd/deep; cd odd
echo work >'a name with spaces'; ln 'a name with spaces' second; ln -s /etc/passwd link; mkfifo pipe
truncate --size=50M holes; : >"$(printf 'line\nbreak \377')"; chmod 0640 second; chmod 0500 deep
chown -hR --reference=.. .; touch -hd '2020-02-02 02:02:02' link second
"""
# names here are no text, so that only digests are looked at
LISTING = r"(find . -printf '%P %y %m %U %G %l %T@\0' | LC_ALL=C sort -z; find . -type f -exec sha256sum {} + | LC_ALL=C sort) | sha256sum"
OLD = """
import sqlite3
database = sqlite3.connect("/var/lib/jupyterhub/jupyterhub.sqlite", timeout=30)
columns, then = "name, admin, created, last_activity, cookie_id", "2020-01-01 00:00:00.000000"
database.execute(f"INSERT OR IGNORE INTO users ({columns}) VALUES ('uold', 0, ?, ?, 'uold')", [then, then])
database.commit()
"""


@pytest.fixture
def hub(demo: Demo) -> Iterator[Hub]:
    sandbox = demo.hubs["sandbox"]
    sandbox.wait_healthy()
    yield sandbox
    sandbox.admin("podman unshare rm -rf archives unpacked hubs/sandbox/private/uold")


def offboard(hub: Hub, *more: str, **said: object) -> playbook.Outcome:
    chosen = json.dumps(
        {f"ananke_offboard_{key}": value for key, value in said.items()} | {"ananke_offboard": hub.name}
    )
    return playbook.run("offboard", INVENTORY, "--limit", hub.name, "--extra-vars", chosen, *more)


def succeed(hub: Hub, *more: str, **said: object) -> tuple[int, str]:
    """Changed tasks, and the output in one line."""
    outcome = offboard(hub, *more, **said)
    assert outcome.status == 0, outcome.output[-4000:]
    return outcome.recap[hub.name].changed, " ".join(outcome.output.split())


def archive(hub: Hub, user: str) -> str:
    """Path of somebody's only archive."""
    (path,) = hub.admin(f"ls archives/{hub.name}/{user}-*.tar.zst").stdout.split()
    return path


def test_a_student_leaves_and_another_one_works_on(students: list[Person], visit: Visit, hub: Hub) -> None:
    lab, other = visit(students[0]).enter(hub), visit(students[1]).enter(hub).kernel()
    other.run("value = 41")
    home = f"{HOMES}/{lab.user}"
    hub.exec(f"cd {home}; {FILES}")
    before = hub.exec(f"cd {home}/odd; {LISTING}").stdout

    refused = offboard(hub, users=lab.user)
    assert refused.status != 0
    assert f"the servers of {lab.user} run" in " ".join(refused.output.split())
    hub.exec(f"test -d {home}/odd")
    _changed, said = succeed(hub, users=lab.user, running=True)
    assert f"{lab.user}: /home/{hub.container_admin}/archives/{hub.name}/{lab.user}-" in said

    path = archive(hub, lab.user)
    assert hub.admin(f"stat -c '%a %U' {path}").stdout.split() == ["600", hub.container_admin]
    record = json.loads(hub.admin(f"cat {path}.json").stdout)
    assert hub.admin(f"sha256sum {path}").stdout.split()[0] == record["sha256"]
    unpack = "--numeric-owner --acls --xattrs --xattrs-include='*' --directory unpacked"
    inside = f"mkdir unpacked; tar --extract --zstd --file {path} {unpack}; cd unpacked/odd; {LISTING}"
    assert hub.admin(f"podman unshare sh -ec {shlex.quote(inside)}").stdout == before
    assert hub.exec(f"ls -d {home} /var/lib/jupyterhub/departures/*", check=False).stdout == ""
    assert other.run("print(value + 1)").strip() == "42"

    assert succeed(hub, users=[lab.user])[0] == 0
    back = visit(students[0]).enter(hub)
    assert back.user == lab.user
    assert back.kernel().run("import os; print(os.path.exists(os.path.expanduser('~/odd')), 6 * 7)").split() == [
        "False",
        "42",
    ]
    assert other.run("print(value + 2)").strip() == "43"


def test_who_was_away_for_long_is_named_and_then_leaves(hub: Hub) -> None:
    hub.exec(f"install -d -m 0700 -o 61999 -g 61999 {HOMES}/uold; echo work >{HOMES}/uold/file")
    hub.exec(f"/opt/conda/bin/python -c {shlex.quote(OLD)}")
    unknown = offboard(hub, users="uolt")
    assert unknown.status != 0
    assert "uolt (did you mean uold?)" in " ".join(unknown.output.split())

    changed, said = succeed(hub, "--check", idle_days=700)
    assert (changed, said.count(": would leave")) == (1, 1)
    assert "uold: would leave" in said
    assert hub.exec(f"cat {HOMES}/uold/file").stdout == "work\n"
    assert hub.admin("ls archives", check=False).stdout == ""

    changed, said = succeed(hub, idle_days=700)
    assert (changed, "uold: /home/" in said) == (1, True)
    assert hub.admin(
        f"podman unshare tar --extract --to-stdout --zstd --file {archive(hub, 'uold')} ./file"
    ).stdout == ("work\n")
    assert hub.exec(f"ls -d {HOMES}/uold", check=False).stdout == ""
    assert succeed(hub, idle_days=700)[0] == 0
