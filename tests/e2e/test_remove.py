"""Hubs go when they are named twice: archived, handed over or deleted, wherever the run is killed, and no other hub is touched."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from facts import Demo, Hub, Machine

import killed
import playbook

INVENTORY = playbook.ROOT / "inventories/demo"
ARCHIVES = "/var/lib/ananke/archives/hubs"
FILES = """
cd /var/lib/private; install -d -m 0700 -o 61999 -g 61999 ualice; cd ualice
echo work >'a name with spaces'; ln 'a name with spaces' second; ln -s /etc/passwd link; mkfifo pipe
truncate --size=50M holes; setfattr -n user.colour -v green second; chmod 0640 second
chown -hR 61999:61999 .; touch -hd '2020-02-02 02:02:02' link second
"""
LISTING = "cd {folder} && find . -printf '%p %y %m %U %G %s %l %T@\\n' | sort; find . -type f -exec sha256sum {{}} + | sort; getfattr -hRd ."


class Course:
    """Two hubs of one further account: what runs of playbooks say of them."""

    def __init__(self, demo: Demo, inventory: Path) -> None:
        self.demo, self.inventory = demo, inventory
        base = demo.hubs["sandbox"].url.removesuffix("sandbox/")
        self.hubs = {
            name: Hub(name, f"{base}{name}/", f"ananke-{name}", "algebra", demo.machine)
            for name in ("algebra", "geometry")
        }

    def inventories(self, *names: str) -> tuple[str, ...]:
        return ("--inventory", str(INVENTORY), "--limit", ",".join(names))

    def make(self, *names: str) -> None:
        playbook.succeed("hubs", self.inventory, *self.inventories(*names))
        for name in names:
            self.hubs[name].exec(FILES)

    def remove(self, name: str, *more: str, **said: object) -> playbook.Outcome:
        chosen = json.dumps({"ananke_remove": name, **said})
        return playbook.run("remove", self.inventory, *self.inventories(name), "--extra-vars", chosen, *more)

    def listing(self, folder: str) -> str:
        return self.demo.machine.as_root(LISTING.format(folder=folder)).stdout


@pytest.fixture(scope="module")
def course(demo: Demo) -> Iterator[Course]:
    hubs = {
        "algebra": {"hub_port": 8111, "hub_lti_client_ids": ["algebra"]},
        "geometry": {"hub_port": 8112, "hub_lti_client_ids": ["geometry"], "hub_container_admin": "algebra"},
    }
    with playbook.further_inventory({"hubs": {"hosts": hubs}}) as inventory:
        course = Course(demo, inventory)
        demo.machine.as_root("apt-get install --yes --no-install-recommends attr zstd >/dev/null")
        try:
            course.make("algebra", "geometry")
            yield course
        finally:
            demo.machine.as_root(
                "rm -f /etc/nginx/ananke/locations.d/algebra.conf /etc/nginx/ananke/locations.d/geometry.conf;"
                "uid=$(id -u algebra) || exit 0; loginctl disable-linger algebra; systemctl stop user@$uid; rm -rf /home/algebra; userdel algebra"
            )
            demo.machine.as_root(f"rm -rf {ARCHIVES}")


def left_of(hub: Hub) -> str:
    """What of the hub still runs, answers or is described: nothing is an empty text."""
    left = f"""
        ls -d /home/algebra/hubs/{hub.name} /etc/nginx/ananke/locations.d/{hub.name}.conf /etc/ananke/quotas/{hub.name}.json
        find /home/algebra/.config -name 'ananke-{hub.name}.*'
        pgrep --full --list-full '[c]onmon .* {hub.container} '
        ls {ARCHIVES}/.??*
    """
    return hub.machine.as_root(f"({left}) 2>/dev/null || true").stdout


@pytest.mark.parametrize("said", [{}, {"ananke_remove": "algebra,geometry"}])
def test_a_hub_that_is_not_named_twice_stays(course: Course, said: dict[str, str]) -> None:
    outcome = playbook.run("remove", course.inventory, *course.inventories("algebra"), "--extra-vars", json.dumps(said))
    assert outcome.status != 0
    said_back = " ".join(outcome.output.split())
    assert "nothing was removed" in said_back, outcome.output[-4000:]
    assert "--limit math101,physics --extra-vars ananke_remove=math101,physics" in said_back
    assert course.hubs["algebra"].healthy()


def test_check_mode_foretells_and_changes_nothing(course: Course) -> None:
    outcome = course.remove("algebra", "--check")
    assert (outcome.status, outcome.recap["algebra"].changed) == (0, 1), outcome.output[-4000:]
    assert course.hubs["algebra"].healthy()


def test_an_archived_hub_is_whole_wherever_the_run_was_killed(course: Course) -> None:
    hub, other = course.hubs["algebra"], course.hubs["geometry"]
    container = other.container_id()
    private = "/home/algebra/hubs/algebra/private"
    before = course.listing(private)
    for _time in range(3):
        killed.kill_one(
            random.uniform(5, 15),  # noqa: S311  (moments, no secrets)
            "remove",
            "--inventory",
            str(course.inventory),
            "--limit=algebra",
            "--extra-vars=ananke_remove=algebra",
        )
    outcome = course.remove("algebra")
    assert outcome.status == 0, outcome.output[-4000:]
    assert "Take algebra out of the inventory" in " ".join(outcome.output.split())
    assert left_of(hub) == ""
    machine = hub.machine
    archives = machine.as_root(f"ls -t {ARCHIVES}/*.tar.zst").stdout.split()
    record = json.loads(machine.as_root(f"cat {archives[0]}.json").stdout)
    assert (record["name"], record["account"], record["keep"]) == ("algebra", "algebra", "archive")
    assert machine.as_root(f"sha256sum {archives[0]}").stdout.split()[0] == record["sha256"]
    assert machine.as_root(f"stat -c '%a %U' {archives[0]} {ARCHIVES}").stdout.split() == ["600", "root", "700", "root"]
    unpack = "--numeric-owner --acls --xattrs --xattrs-include='*'"
    machine.as_root(
        f"rm -rf /root/unpacked; mkdir /root/unpacked; tar --extract --zstd {unpack} -f {archives[0]} -C /root/unpacked"
    )
    assert course.listing("/root/unpacked/private") == before
    machine.as_root("rm -rf /root/unpacked")
    assert other.container_id() == container
    assert other.healthy()
    again = course.remove("algebra")
    assert (again.status, again.changed) == (0, 0), again.output[-4000:]


def test_files_are_handed_over(course: Course) -> None:
    outcome = course.remove("geometry", ananke_remove_keep="home")
    assert outcome.status == 0, outcome.output[-4000:]
    hub = course.hubs["geometry"]
    assert left_of(hub) == ""
    kept = hub.admin("cd removed/geometry-*; cat private/ualice/second; stat -c %U:%G private/ualice/link").stdout
    assert kept.split() == ["work", "algebra:algebra"]
    assert hub.admin("find removed ! -user algebra -o ! -group algebra").stdout == ""


def test_the_last_hub_takes_its_account_along(course: Course) -> None:
    hub = course.hubs["algebra"]
    hub.admin("rm -rf removed")
    course.make("algebra")
    machine: Machine = hub.machine
    archives = machine.as_root(f"ls {ARCHIVES}").stdout
    outcome = course.remove("algebra", ananke_remove_keep="nothing")
    assert outcome.status == 0, outcome.output[-4000:]
    assert machine.as_root("getent passwd algebra; ls -d /home/algebra", check=False).stdout == ""
    assert machine.as_root(f"ls {ARCHIVES}").stdout == archives, "nothing was to be kept"
    again = course.remove("algebra", ananke_remove_keep="nothing")
    assert (again.status, again.changed) == (0, 0), again.output[-4000:]
