"""What survives: kernels a restart of the hub; logins, homes and their owners everything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import Kernel, Lab, Person, Visitor
from conftest import Visit
from facts import Demo, Hub, Machine
from replace_image import apply_hub

from testbed.waiting import until

HOME = """
import hashlib, os, pathlib
home = pathlib.Path.home()
work = home / "kept"
(work / "deep" / "er").mkdir(parents=True, exist_ok=True)
for number in range(20):
    (work / "deep" / f"{number}.txt").write_text(str(number) * 1000)
(work / "run.sh").write_text("#!/bin/sh\\n")
(work / "run.sh").chmod(0o750)
if not (work / "link").is_symlink():
    (work / "link").symlink_to("deep/er")
"""
INVENTORY = """
import hashlib, json, os, pathlib
work = pathlib.Path.home() / "kept"
listing = {}
for path in sorted([work, *work.rglob("*")]):
    seen = path.lstat()
    what = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    listing[str(path.relative_to(work))] = [oct(seen.st_mode), what, seen.st_uid == os.getuid(), seen.st_gid == os.getgid()]
print(json.dumps(listing))
"""


class Student:
    """A student whose work and login must survive."""

    def __init__(self, visitor: Visitor, hub: Hub) -> None:
        self.visitor = visitor
        self.hub = hub
        self.lab: Lab = visitor.enter(hub)
        self.lab.kernel().run(HOME)
        self.before = self.inventory()
        assert len(self.before) == 25
        self.uids_of_homes = self.foreign_files()

    def inventory(self) -> dict[str, Any]:
        """Every file of the student's work with mode, content and whether it is the student's own."""
        kernel = self.lab.kernel()
        found = dict(json.loads(kernel.run(INVENTORY)))
        self.lab.close_kernels()
        return found

    def foreign_files(self) -> list[str]:
        """Files below the student's home whose owner is another than the home's, as root of the container sees it."""
        home = f"/var/lib/private/{self.lab.user}"
        return self.hub.exec(f"find {home} ! -uid $(stat -c %u {home}) | head").stdout.splitlines()

    def check(self) -> None:
        """Back in JupyterLab without the LMS; the work is complete and the student's."""
        self.lab = self.visitor.return_to(self.hub)
        after = self.inventory()
        assert after == self.before
        assert all(own and group for _mode, _what, own, group in after.values())
        assert self.foreign_files() == []


@pytest.fixture
def student(students: list[Person], hub: Hub, visit: Visit) -> Student:
    return Student(visit(students[0]), hub)


def started(hub: Hub) -> str:
    """When the hub's process began; another value is another process."""
    return hub.exec(
        "systemctl show --property=ExecMainStartTimestampMonotonic --value jupyterhub.service"
    ).stdout.strip()


def test_restart_of_the_hub_ends_no_kernel(students: list[Person], hub: Hub, visit: Visit) -> None:
    visitor = visit(students[0])
    lab = visitor.enter(hub)
    kernel = lab.kernel()
    kernel.run("answer = 6 * 7")
    before = started(hub)
    hub.exec("systemctl restart jupyterhub")
    hub.wait_healthy()
    assert started(hub) != before
    assert kernel.connected(), "the restart closed the WebSocket between browser and kernel"
    assert kernel.run("answer") == "42"
    # and by a new page with the same login
    again = visitor.return_to(hub)
    assert Kernel(again.page, lab.base, kernel.id).run("answer + 1") == "43"
    again.close_kernels()


def restart_container(hub: Hub) -> None:
    before = hub.admin(f"podman container inspect --format '{{{{.State.StartedAt}}}}' {hub.container}").stdout
    hub.admin(f"systemctl --user restart {hub.unit}", timeout=300)
    hub.wait_healthy()
    assert hub.admin(f"podman container inspect --format '{{{{.State.StartedAt}}}}' {hub.container}").stdout != before


def crash_container(hub: Hub) -> None:
    """The container dies; its unit brings it back after 10 s."""
    before = hub.container_id()
    hub.admin(f"podman kill --signal KILL {hub.container}")
    until(
        lambda: hub.admin(f"podman container inspect --format '{{{{.Id}}}}' {hub.container}", check=False).stdout,
        90,
        "another container has taken the place of the one that crashed",
        lambda found: found.strip() not in ("", before),
    )
    hub.wait_healthy()


@pytest.mark.parametrize("act", [restart_container, crash_container])
def test_container_comes_back_with_logins_and_homes(act: Callable[[Hub], None], student: Student, hub: Hub) -> None:
    act(hub)
    student.check()


def test_a_home_that_another_uid_owns_is_given_to_its_student(student: Student, hub: Hub) -> None:
    """As after a restored backup: UIDs of students are not for ever."""
    home = f"{hub.folder}/private/{student.lab.user}"
    hub.admin(f"systemctl --user stop {hub.unit}", timeout=300)
    hub.admin(f"podman unshare chown --recursive --no-dereference 61234:61234 {home}")
    hub.admin(f"systemctl --user start {hub.unit}", timeout=300)
    hub.wait_healthy()
    student.check()


def test_machine_rebooted_brings_all_hubs_back(
    student: Student, students: list[Person], demo: Demo, machine: Machine, hub: Hub, other_hub: Hub, visit: Visit
) -> None:
    neighbour = Student(visit(students[1]), other_hub)
    before = machine.ssh("cat /proc/sys/kernel/random/boot_id").stdout
    machine.reboot()
    assert machine.ssh("cat /proc/sys/kernel/random/boot_id").stdout != before
    for each in demo.hubs.values():
        each.wait_healthy()
    student.check()
    neighbour.check()


@pytest.fixture
def unknown_hub(demo: Demo, machine: Machine) -> Iterator[Hub]:
    """A hub whose address nginx does not know, as that of every hub before its first run."""
    hub = demo.hubs["sandbox"]
    machine.as_root(f"rm /etc/nginx/ananke/locations.d/{hub.name}.conf && nginx -t -q && systemctl reload nginx")
    yield hub
    apply_hub(hub)


def test_adding_a_hub_drops_no_connection_of_another(
    students: list[Person], hub: Hub, visit: Visit, unknown_hub: Hub
) -> None:
    visitor = visit(students[0])
    lab = visitor.enter(hub)
    kernel = lab.kernel()
    kernel.run("import itertools\ncount = itertools.count(1)")
    page = visitor.context.new_page()

    def status() -> int:
        answer = page.goto(f"{unknown_hub.url}hub/health")
        return answer.status if answer else 0

    assert status() == 404
    assert apply_hub(unknown_hub).recap[unknown_hub.name].changed == 1
    until(status, 30, "nginx serves the added hub", lambda found: found == 200)
    assert kernel.connected(), "the reload of nginx closed a WebSocket"
    assert kernel.run("next(count)") == "1"
    lab.close_kernels()
