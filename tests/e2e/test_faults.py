"""What goes wrong while people work: nothing of theirs is lost, and the next run completes what was begun."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from acting import INVENTORY
from browsing import Person
from conftest import Visit
from facts import Demo, Hub, Machine
from work import Work, database_is_whole

import playbook
from testbed.waiting import until

UNITS = ".config/containers/systemd .config/systemd/user"
MOMENTS = {
    "unit written": f"cd /home/sandbox && grep -rqs {{host}} {UNITS}",
    "database copied": "test -e /home/sandbox/hubs/sandbox/before/complete",
}
"""What is so, as a shell's command, when a change of a hub's container has come as far as that."""


@pytest.fixture
def work(demo: Demo, students: list[Person], visit: Visit) -> Iterator[Work]:
    work = Work(visit(students[0]), demo.hubs["sandbox"])
    work.goes_on()
    yield work
    work.ends()


def killed(unit: str) -> Callable[[Hub], None]:
    def kill(hub: Hub) -> None:
        hub.exec(f"systemctl kill --signal KILL {unit}")

    kill.__name__ = unit
    return kill


def locked(hub: Hub) -> None:
    """Somebody holds the database for longer than JupyterHub waits for it."""
    code = "import sqlite3, time; c = sqlite3.connect('/var/lib/jupyterhub/jupyterhub.sqlite'); c.execute('BEGIN EXCLUSIVE'); time.sleep(15)"
    hub.exec(f'/opt/conda/envs/jhub/bin/python -c "{code}"')


@pytest.mark.parametrize(
    "fault", [killed("jupyterhub"), killed("jupyterhub-proxy"), locked], ids=lambda one: one.__name__
)
def test_the_hub_may_fail_and_work_goes_on(
    fault: Callable[[Hub], None], work: Work, students: list[Person], visit: Visit
) -> None:
    fault(work.hub)
    work.hub.wait_healthy()
    assert visit(students[1]).enter(work.hub).kernel().run("print(6 * 7)").strip() == "42"
    work.is_opened_again()
    work.goes_on()


def test_two_runs_at_once_do_not_disturb_each_other(demo: Demo, work: Work) -> None:
    """Both want something else of the hub; the second one is waited with, and what one of them wants is what the hub then runs with."""
    wanted, outcomes = (700, 800), []

    def run(value: int) -> None:
        outcomes.append(
            playbook.run("hubs", INVENTORY, "--limit", "sandbox", "--extra-vars", f"hub_cull_timeout={value}")
        )

    runs = [threading.Thread(target=run, args=[value]) for value in wanted]
    for one in runs:
        one.start()
    for one in runs:
        one.join(300)
    assert [outcome.status for outcome in outcomes] == [0, 0], [outcome.output[-3000:] for outcome in outcomes]
    hub = demo.hubs["sandbox"]
    assert hub.description()["culling"]["timeout"] in wanted
    work.goes_on()
    playbook.succeed("hubs", INVENTORY, "--limit", "sandbox")
    assert playbook.succeed("hubs", INVENTORY, "--limit", "sandbox").changed == 0
    work.goes_on()


@pytest.mark.parametrize("moment", [0, 1.5])
def test_a_connection_that_is_cut(moment: float, demo: Demo, machine: Machine, work: Work) -> None:
    """All connections of the run end while the machine changes the hub; the next run completes what it began."""
    outcomes: list[playbook.Outcome] = []
    value = 900 + int(10 * moment)
    change = ("--limit", "sandbox", "--extra-vars", json.dumps({"hub_cull_timeout": value}))
    run = threading.Thread(target=lambda: outcomes.append(playbook.run("hubs", INVENTORY, *change)))
    run.start()
    hub = demo.hubs["sandbox"]
    until(lambda: hub.description()["culling"]["timeout"] == value, 60, "the run has begun to change the hub")
    time.sleep(moment)
    # the server stays; each connection is a process of its own
    machine.as_root("systemd-run --quiet --collect pkill -KILL -f '^sshd(-session)?: .*@notty'", check=False)
    run.join(300)
    assert outcomes[0].status, "its connections were not cut"
    playbook.succeed("hubs", INVENTORY, *change)
    assert hub.description()["culling"]["timeout"] == value
    assert playbook.succeed("hubs", INVENTORY, *change).changed == 0
    work.goes_on()
    playbook.succeed("hubs", INVENTORY, "--limit", "sandbox")


@pytest.mark.parametrize(("moment", "wanted"), [*((moment, True) for moment in MOMENTS), ("database copied", False)])
def test_power_is_cut_while_a_run_replaces_a_hub(
    moment: str, wanted: bool, demo: Demo, machine: Machine, students: list[Person], visit: Visit
) -> None:
    """All hubs come back by themselves, with homes, databases and logins; the next run completes what was begun, or takes it back."""
    work = Work(visit(students[0]), demo.hubs["sandbox"])
    work.goes_on()
    outcomes: list[playbook.Outcome] = []
    host = f"{moment.partition(' ')[0]}.example"
    hosts = {"lms.localhost": "host-gateway", host: "192.0.2.1"}
    change = ("--limit", "sandbox", "--extra-vars", json.dumps({"hub_extra_hosts": hosts}))
    run = threading.Thread(target=lambda: outcomes.append(playbook.run("hubs", INVENTORY, *change)))
    run.start()
    try:
        reached = MOMENTS[moment].format(host=host)
        until(lambda: machine.as_root(reached, check=False).returncode == 0, 120, f"the run comes to: {moment}")
        machine.cut_power()
        run.join(300)
        assert outcomes[0].status, "the run has ended before the power was cut"
        for hub in demo.hubs.values():
            hub.wait_healthy(300)
            assert database_is_whole(hub), hub.name
        work.is_taken_up_again()
        change = change if wanted else ("--limit", "sandbox")
        playbook.succeed("hubs", INVENTORY, *change)
        assert (host in work.hub.exec("cat /etc/hosts").stdout) is wanted
        assert playbook.succeed("hubs", INVENTORY, *change).changed == 0
        assert work.hub.admin(f"ls -d {work.hub.folder}/before", check=False).returncode, "no copy is left"
        work.is_taken_up_again()
    finally:
        playbook.succeed("hubs", INVENTORY, "--limit", "sandbox")
