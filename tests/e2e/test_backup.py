"""Backups of a hub while people work in it, and what comes back from them: the hub, one home, the hub under another name."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from browsing import Person
from conftest import Visit
from facts import Demo, Hub
from narrow import narrow_hub
from webdav import COMPUTER

import playbook
from testbed.waiting import until

INVENTORY = playbook.ROOT / "inventories/demo"
REPOSITORY = "/srv/backup/hubs"
SETTINGS = {
    "hub_backup_repository": REPOSITORY,
    "hub_backup_password": "correct horse battery staple",
    "hub_backup_keep": {"last": 20},
    "hub_backup_exclude": ["private/*/scratch/*"],
}
TWIN = {"hub_port": 8113, "hub_lti_client_ids": ["twin"], **SETTINGS}
FILES = """
cd /var/lib/private; rm -rf ualice; install -d -m 0700 -o 61999 -g 61999 ualice; cd ualice
echo work >'a name with spaces'; ln 'a name with spaces' second; ln -s /etc/shadow link; mkfifo pipe; mkdir scratch; echo x >scratch/x
truncate --size=50M holes; chmod 0640 second; printf '#!/bin/sh\\n' >run; chmod 2750 run
/opt/conda/bin/python -c 'import os; os.setxattr("second", "user.colour", b"green")'
chown -hR 61999:61999 .; touch -hd '2020-02-02 02:02:02' link second
"""
LISTING = """
cd /var/lib/private/ualice; find . -path './scratch/*' -prune -o -printf '%p %y %m %U %G %n %s %l %T@\\n' | sort
find . -path './scratch/*' -prune -o -type f -exec sha256sum {} + | sort; du -k holes
/opt/conda/bin/python -c 'import os; print(os.getxattr("second", "user.colour"))'
"""


class Course:
    """The hub `sandbox` with backups, and a further one that begins with them."""

    def __init__(self, demo: Demo, inventory: Path) -> None:
        self.inventory, self.hub = inventory, demo.hubs["sandbox"]
        base = self.hub.url.removesuffix("sandbox/")
        self.twin = Hub("twin", f"{base}twin/", "ananke-twin", "twin", demo.machine)

    def run(self, name: str, *more: str, hub: str = "sandbox", **said: Any) -> playbook.Outcome:
        options = ("--inventory", str(INVENTORY), "--limit", hub, "--extra-vars", json.dumps(said))
        return playbook.run(name, self.inventory, *options, *more, timeout=600)

    def succeed(self, name: str, *more: str, hub: str = "sandbox", **said: Any) -> playbook.Outcome:
        outcome = self.run(name, *more, hub=hub, **said)
        assert outcome.status == 0, outcome.output[-5000:]
        return outcome

    def restore(self, *more: str, hub: str = "sandbox", **said: Any) -> playbook.Outcome:
        return self.succeed("restore", *more, hub=hub, ananke_restore=hub, **said)

    def snapshots(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.hub.machine.as_root("ananke-backup list sandbox").stdout)
        return found

    def status(self) -> dict[str, Any]:
        """How the last backup went, as everybody may read it."""
        return dict(json.loads(self.hub.admin("cat /var/lib/ananke/backup/sandbox.json").stdout))


@pytest.fixture(scope="module")
def course(demo: Demo) -> Iterator[Course]:
    with playbook.further_inventory({"hubs": {"hosts": {"sandbox": SETTINGS, "twin": TWIN}}}) as inventory:
        course = Course(demo, inventory)
        machine = demo.machine
        machine.as_root("install -d -m 0700 /srv/backup")
        try:
            foretold = course.succeed("hubs", "--check")
            assert foretold.recap["sandbox"].changed == 1
            assert machine.as_root("ls -A /srv/backup").stdout == ""
            assert course.succeed("hubs").recap["sandbox"].changed == 1
            assert course.succeed("hubs").changed == 0
            yield course
        finally:
            machine.as_root("rm -rf /home/twin/removed")
            course.run("remove", hub="twin", ananke_remove="twin", ananke_remove_keep="nothing")
            playbook.succeed("hubs", INVENTORY, "--limit", "sandbox")
            assert (
                machine.as_root("ls /etc/ananke/backup /etc/systemd/system/*.wants | grep sandbox", check=False).stdout
                == ""
            )
            course.hub.exec("rm -rf /var/lib/private/ualice")
            machine.as_root("rm -rf /srv/backup /home/sandbox/removed")


def test_a_timer_waits_and_secrets_are_root_s(course: Course) -> None:
    machine = course.hub.machine
    assert "ananke-backup@sandbox.timer" in machine.as_root("systemctl list-timers").stdout
    assert machine.as_root("stat -c %a /etc/ananke/backup /etc/ananke/backup/sandbox.json").stdout.split() == [
        "700",
        "600",
    ]
    assert course.hub.admin("cat /etc/ananke/backup/sandbox.json", check=False).returncode != 0


def test_a_hub_comes_back_as_it_was_and_people_are_still_logged_in(
    course: Course, students: list[Person], visit: Visit
) -> None:
    hub, machine = course.hub, course.hub.machine
    hub.exec(FILES)
    visitor = visit(students[0])
    lab = visitor.enter(hub)
    kernel = lab.kernel()
    kernel.run("import pathlib; count = 1; pathlib.Path('essay.txt').write_text('all of it')")
    before = hub.exec(LISTING).stdout

    assert course.succeed("backup", "--check").recap["sandbox"].changed == 1
    assert course.snapshots() == []
    done = course.succeed("backup")
    assert "new" in done.output, done.output[-3000:]
    assert kernel.run("count + 1") == "2", "the backup disturbed a kernel"
    status = course.status()
    assert (status["complete"], status["error"]) == (True, ""), status
    first = status["bytes"]
    course.succeed("backup")
    assert course.status()["added"] < first / 4, "the second backup brought everything once more"
    assert len(course.snapshots()) == 2

    hub.admin(f"systemctl --user stop {hub.unit}", timeout=300)
    machine.as_root(f"rm -rf {hub.folder}/private {hub.folder}/data {hub.folder}/jupyterhub_config.d")
    said = course.run("restore", ananke_restore="math101")
    assert said.status != 0
    assert "nothing was restored" in " ".join(said.output.split())
    course.restore()
    hub.wait_healthy()
    assert hub.exec(LISTING).stdout == before
    assert hub.exec("ls -A /var/lib/private/ualice/scratch", check=False).stdout == "", "what is excluded was backed up"
    assert (
        visitor.return_to(hub).kernel().run("pathlib = __import__('pathlib'); pathlib.Path('essay.txt').read_text()")
        == "'all of it'"
    )
    assert hub.admin("ls removed").stdout.startswith("sandbox-")
    assert course.succeed("hubs").changed == 0


def test_one_home_comes_back_while_others_work(course: Course, students: list[Person], visit: Visit) -> None:
    hub = course.hub
    kernel = visit(students[1]).enter(hub).kernel()
    kernel.run("count = 1")
    before = hub.exec(LISTING).stdout
    hub.exec("cd /var/lib/private/ualice && rm second && echo other >run && echo more >more")
    assert course.restore("--check", ananke_restore_user="ualice").recap["sandbox"].changed == 1
    assert hub.exec(LISTING, check=False).stdout != before
    course.restore(ananke_restore_user="ualice")
    assert hub.exec(LISTING).stdout == before
    assert kernel.run("count + 1") == "2", "somebody else's kernel has ended"
    kept = hub.admin("podman unshare sh -c 'cat removed/sandbox-ualice-*/more'").stdout
    assert kept == "more\n"


def test_a_hub_begins_with_what_another_had(course: Course) -> None:
    before = course.hub.exec(LISTING).stdout
    course.restore(hub="twin", ananke_restore_of="sandbox")
    course.twin.wait_healthy()
    assert course.twin.exec(LISTING).stdout == before
    assert course.hub.healthy()


def test_a_repository_that_is_gone_harms_nothing_and_is_never_begun_anew(course: Course) -> None:
    machine, snapshots = course.hub.machine, course.snapshots()
    machine.as_root(f"mv {REPOSITORY} {REPOSITORY}.gone")
    try:
        outcome = course.run("backup")
    finally:
        machine.as_root(f"mv {REPOSITORY}.gone {REPOSITORY}")
    assert outcome.status != 0
    assert "in which there were backups, is gone: bring it back" in " ".join(outcome.output.split()), outcome.output[
        -3000:
    ]
    assert "is gone" in course.status()["error"]
    course.succeed("backup")
    assert course.status()["error"] == ""
    assert len(course.snapshots()) == len(snapshots) + 1


def test_a_hub_whose_disk_is_full_is_backed_up(course: Course) -> None:
    """Nothing is written there for it."""
    before, snapshots = course.hub.exec(LISTING).stdout, len(course.snapshots())
    with narrow_hub(course.hub) as narrow:
        narrow.fill()
        try:
            course.succeed("backup")
        finally:
            narrow.clear()
        status = course.status()
        assert (status["complete"], status["error"]) == (True, ""), status
        assert len(course.snapshots()) == snapshots + 1
    assert course.hub.exec(LISTING).stdout == before
    assert course.succeed("hubs").changed == 0


def test_killed_at_any_moment_the_next_one_completes(course: Course) -> None:
    hub, machine = course.hub, course.hub.machine
    before = hub.exec(LISTING).stdout
    for moment in (0.5, 1.5):
        machine.as_root(
            f"systemctl start --no-block ananke-backup@sandbox; sleep {moment}; systemctl kill --signal=KILL ananke-backup@sandbox"
        )
        machine.as_root(f"timeout --signal=KILL {moment} ananke-backup restore sandbox", check=False)
        hub.admin(f"systemctl --user start {hub.unit}", timeout=300)
    course.succeed("backup")
    course.restore()
    hub.wait_healthy()
    assert hub.exec(LISTING).stdout == before
    assert hub.admin("ls -A hubs").stdout.split() == ["sandbox"], "a killed restore has left something"


def test_a_locked_database_is_waited_for(course: Course) -> None:
    hub = course.hub
    path = f"{hub.folder}/data/jupyterhub.sqlite"
    hold = f"import sqlite3, time; c = sqlite3.connect('{path}'); c.execute('begin exclusive'); time.sleep(15); c.rollback()"
    hub.admin(f'systemd-run --user --quiet python3 -c "{hold}"')
    course.succeed("backup")
    assert course.status()["seconds"] > 5, "the backup did not wait for the database"


@pytest.fixture
def far(course: Course) -> Iterator[str]:
    """Another sshd on the machine, for SFTP to a host that root does not know yet."""
    machine = course.hub.machine
    daemon = (
        "/usr/sbin/sshd -f /dev/null -p 2022 -h /root/.ssh/far_host -o ListenAddress=127.0.0.1 -o PidFile=/run/far.pid -o UsePAM=no"
        " -o PermitRootLogin=prohibit-password -o AuthorizedKeysFile=/root/.ssh/far_key.pub -o StrictModes=no -o Subsystem='sftp internal-sftp'"
    )
    machine.as_root(
        "install -d -m 0700 /root/.ssh; cd /root/.ssh; for key in far_host far_key; do ssh-keygen -q -t ed25519 -N '' -f $key; done;"
        f"printf 'Host far\\nHostName 127.0.0.1\\nPort 2022\\nIdentityFile ~/.ssh/far_key\\n' >config; mkdir -p /run/sshd; {daemon}"
    )
    yield "sftp:far:/srv/backup/far"
    machine.as_root("kill $(cat /run/far.pid); cd /root/.ssh && rm -f far_host* far_key* config known_hosts")


def test_by_sftp_to_a_host_that_root_knows(course: Course, far: str) -> None:
    machine = course.hub.machine
    refused = course.run("hubs", hub_backup_repository=far)
    assert refused.status != 0
    assert "root on this machine does not know its host key" in " ".join(refused.output.split()), refused.output[-3000:]
    before = len(course.snapshots())
    machine.as_root("ssh-keyscan -p 2022 127.0.0.1 2>/dev/null >/root/.ssh/known_hosts")
    try:
        assert course.succeed("hubs", hub_backup_repository=far).recap["sandbox"].changed == 1
        course.succeed("backup", hub_backup_repository=far)
        assert len(course.snapshots()) == 1
        assert "keys" in machine.as_root("ls /srv/backup/far").stdout
    finally:
        course.succeed("hubs")
    assert len(course.snapshots()) == before


@pytest.fixture
def bucket() -> Iterator[str]:
    """A place on a server on this computer that speaks S3; a process of its own, since connections that are kept open would keep it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"s3:http://{COMPUTER}:{port}/backups/hubs"
    finally:
        server.kill()
        server.wait()


def test_in_a_bucket(course: Course, bucket: str) -> None:
    hub = course.hub
    hub.exec(FILES)
    before, snapshots = hub.exec(LISTING).stdout, len(course.snapshots())
    keys = {"AWS_ACCESS_KEY_ID": "hubs", "AWS_SECRET_ACCESS_KEY": "s3cret"}
    there: dict[str, Any] = {"hub_backup_repository": bucket, "hub_backup_environment": keys}
    address = f"http://127.0.0.1:{bucket.split(':')[3].split('/')[0]}/backups"
    until(lambda: requests.put(address, timeout=5).ok, 60, "there is a bucket", passing=requests.ConnectionError)
    try:
        assert course.succeed("hubs", **there).recap["sandbox"].changed == 1
        course.succeed("backup", **there)
        assert len(course.snapshots()) == 1
        hub.exec("rm -r /var/lib/private/ualice/second")
        course.restore(ananke_restore_user="ualice", **there)
        assert hub.exec(LISTING).stdout == before
    finally:
        course.succeed("hubs")
    assert len(course.snapshots()) == snapshots
