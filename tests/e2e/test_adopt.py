"""A hub of the former system: looked at, taken over, given back where the new one does not run; its users find their homes by the LMS."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Person
from conftest import Visit
from facts import ROOT, Demo, Hub

import killed
import playbook
from testbed.waiting import until

INVENTORY = ROOT / "inventories/demo"
ACCOUNT, FORMER = "formerly", "/home/formerly/ananke/containers/sandbox"
PREFIX = "learner-"
"""Another one than the former system's, so that everybody's home must get another name."""
CONFIG = """
config['image_name'] = 'ananke-base:latest'
config['port'] = 8042
config['gpus'] = 'interactive'
config['volumes'] = []
config['requires'] = ['database.service']
"""
HUB = """
c = get_config()
c.JupyterHub.base_url = 'sandbox/'
c.SystemdSpawner.unit_extra_properties.update({'MemoryMax': '768M'})
lms = 'LMS'
c.LTI13Authenticator.client_id = ['math101-sandbox', 'physics-sandbox']
c.LTI13Authenticator.issuer = lms
c.LTI13Authenticator.authorize_url = f'{lms}/auth'
c.LTI13Authenticator.jwks_endpoint = f'{lms}/jwks'
"""
FRAGMENT = "/etc/nginx/ananke/locations.d/sandbox.conf"
LOCATION = "location /sandbox/ { return 204; }"
UNIT = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/podman start ananke-sandbox
ExecStop=/usr/bin/podman stop --time=5 ananke-sandbox
[Install]
WantedBy=default.target
"""
DATA = """
import json, pathlib, datetime
from jupyterhub import orm
folder = pathlib.Path("/opt/conda/envs/jhub/etc/jupyterhub")
session = orm.new_session_factory(f"sqlite:///{folder}/jupyterhub.sqlite")()
for name in ("ustudent1", "uada"):
    session.add(orm.User(name=name, created=datetime.datetime(2020, 2, 2)))
session.commit()
(folder / "jupyterhub_cookie_secret").write_text("5e" * 32 + "\\n")
data = pathlib.Path("/opt/user_data.json")
data.unlink(missing_ok=True)
data.write_text(json.dumps({"ustudent1": {"first": "Emmy", "lms_uid": "student1"}, "uada": {"first": "Ada", "lms_uid": "Ada"}}))
"""
HOMES = """
mkdir -p dyn_home home; chmod 0700 dyn_home; cd dyn_home
for name in ustudent1 uada; do install -d -m 0700 -o 61999 -g 61999 $name; echo "all of it" >$name/essay.txt; done
cd ustudent1; ln essay.txt again; ln -s /etc/shadow link; truncate --size=50M holes; chmod 0640 essay.txt
python3 -c 'import os; os.setxattr("essay.txt", "user.colour", b"green")'
chown -hR 61999:61999 . ../uada; touch -hd '2020-02-02 02:02:02' link essay.txt
"""
LISTING = """
find . -printf '%p %y %m %U %G %n %s %l %T@\\n' | sort; du -k holes
python3 -c 'import os; print(os.getxattr("essay.txt", "user.colour"))'
"""


class Course:
    """The former hub, and the hub `sandbox` that is to take over."""

    def __init__(self, demo: Demo, inventory: Path) -> None:
        self.demo, self.machine, self.hub = demo, demo.machine, demo.hubs["sandbox"]
        self.former = Hub("sandbox", self.hub.url, "ananke-sandbox", ACCOUNT, demo.machine)
        self.inventory, self.described = inventory, inventory.parent / "host_vars/sandbox.yml"
        self.described.parent.mkdir()

    def arguments(self, limit: str, *more: str, **said: object) -> tuple[str, ...]:
        chosen = json.dumps({"ananke_adopt_from": FORMER, **said})
        return ("--inventory", str(self.inventory), "--limit", limit, "--extra-vars", chosen, *more)

    def look(self, *more: str) -> playbook.Outcome:
        arguments = self.arguments("demo", *more, ananke_adopt_to=str(self.described))
        return playbook.run("adopt", INVENTORY, *arguments, timeout=600)

    def take(self, *more: str, **said: object) -> playbook.Outcome:
        return playbook.run(
            "adopt", INVENTORY, *self.arguments("sandbox", *more, **{"ananke_adopt": "sandbox", **said}), timeout=900
        )

    def lay_out(self) -> None:
        """A former hub: an account's folder, with a container that holds what is in no folder."""
        made = playbook.task(
            INVENTORY,
            "demo",
            {"ananke.jupyterhub.container_admin": {"name": ACCOUNT, "store": "/var/lib/ananke/store"}},
        )
        assert not made.get("failed"), made
        record = json.loads(self.machine.as_root("cat /var/lib/ananke/images/standard.json").stdout)
        files = {f"{FORMER}/config.py": CONFIG, f"{FORMER}/jupyterhub_config.d/00_all.py": HUB}
        files["$HOME/.config/systemd/user/ananke-sandbox.service"] = UNIT
        for path, text in files.items():
            wanted = shlex.quote(text.replace("LMS", self.demo.lms_url))
            self.former.admin(f'mkdir -p "$(dirname {path})" && printf %s {wanted} >{path}')
        self.former.admin(f"cd {FORMER} && podman unshare sh -euc {shlex.quote(HOMES)}")
        self.former.admin(
            "podman run --detach --name ananke-sandbox --device=/dev/fuse --publish=8042:8000 --stop-signal=KILL"
            f" --entrypoint sleep {record['reference']} infinity"
        )
        self.machine.as_root(f"echo '{LOCATION}' >{FRAGMENT}")
        self.former.exec(f"/opt/conda/envs/jhub/bin/python -c {shlex.quote(DATA)}")
        self.former.admin("systemctl --user daemon-reload; systemctl --user enable --now ananke-sandbox")

    def former_runs(self) -> bool:
        said = self.former.admin("podman container inspect --format '{{.State.Running}}' ananke-sandbox", check=False)
        return said.stdout.strip() == "true"


@pytest.fixture(scope="module")
def course(demo: Demo) -> Iterator[Course]:
    hubs = {"hosts": {"sandbox": {"hub_lti_username_prefix": PREFIX}}}
    with playbook.further_inventory({"hubs": hubs}) as inventory:
        course = Course(demo, inventory)
        remove = (
            "--limit=sandbox",
            "--extra-vars",
            json.dumps({"ananke_remove": "sandbox", "ananke_remove_keep": "nothing"}),
        )
        playbook.succeed("remove", INVENTORY, *remove)
        try:
            course.lay_out()
            yield course
        finally:
            demo.machine.as_root("rm -rf /home/sandbox/removed /var/lib/ananke/adoptions/sandbox.json")
            playbook.run("remove", INVENTORY, *remove)
            demo.machine.as_root(
                f"uid=$(id -u {ACCOUNT}) || exit 0; loginctl disable-linger {ACCOUNT}; systemctl stop user@$uid;"
                f"rm -rf /home/{ACCOUNT}; userdel {ACCOUNT}",
                check=False,
            )
            playbook.succeed("hubs", INVENTORY, "--limit", "sandbox", timeout=900)
            course.hub.wait_healthy()


def test_a_look_writes_a_description_and_says_what_is_missing(course: Course) -> None:
    foretold = course.look("--check")
    assert (foretold.status, foretold.recap["demo"].changed) == (0, 1), foretold.output[-4000:]
    assert not course.described.exists()
    done = course.look()
    assert (done.status, done.recap["demo"].changed) == (0, 1), done.output[-4000:]
    assert "config.requires: no variable of a hub does that" in " ".join(done.output.split())
    text = course.described.read_text()
    assert 'hub_user_memory: "768M"' in text
    assert 'hub_devices: ["/dev/fuse"]' in text, "what was asked for when the container was made is unknown"
    assert course.look().changed == 0
    course.described.write_text(text + "hub_log_level: DEBUG\n")
    refused = course.look()
    assert refused.status != 0
    assert "is there already and says something else" in " ".join(refused.output.split()), refused.output[-4000:]
    course.described.write_text(text)
    assert course.former_runs()


def test_a_hub_that_is_not_named_twice_stays(course: Course) -> None:
    outcome = course.take(ananke_adopt="math101")
    assert outcome.status != 0
    assert "nothing was taken over" in " ".join(outcome.output.split()), outcome.output[-4000:]
    assert course.former_runs()


def test_check_mode_foretells_and_changes_nothing(course: Course) -> None:
    outcome = course.take("--check")
    assert outcome.status == 0, outcome.output[-4000:]
    assert outcome.recap["sandbox"].changed > 0
    assert course.former_runs()
    assert course.machine.as_root("ls -d /home/sandbox", check=False).stdout == ""


def test_what_does_not_work_is_given_back(course: Course) -> None:
    outcome = course.take(hub_devices=["/dev/ananke-has-none"])
    assert outcome.status != 0
    assert "ananke-sandbox of formerly as it was before" in " ".join(outcome.output.split()), outcome.output[-4000:]
    until(course.former_runs, 60, "the former container runs again")
    assert course.former.admin("systemctl --user is-enabled ananke-sandbox").stdout.strip() == "enabled"
    assert course.machine.as_root(f"cat {FRAGMENT}").stdout.strip() == LOCATION
    left = "ls -A /home/sandbox/hubs; ls /var/lib/ananke/adoptions | grep sandbox"
    assert course.machine.as_root(left, check=False).stdout == ""
    assert "all of it" in course.machine.as_root("cat /home/sandbox/removed/*/private/*student1/essay.txt").stdout
    course.machine.as_root("rm -rf /home/sandbox/removed")


def test_former_users_find_their_homes_by_the_lms(course: Course, students: list[Person], visit: Visit) -> None:
    before = course.former.admin(
        f"cd {FORMER}/dyn_home && podman unshare sh -euc {shlex.quote('cd ustudent1' + LISTING)}"
    ).stdout
    killed.kill_one(12, "adopt", *course.arguments("sandbox", ananke_adopt="sandbox"))
    outcome = course.take()
    assert outcome.status == 0, outcome.output[-6000:]
    hub = course.hub
    hub.wait_healthy()
    assert not course.former_runs()
    home = f"{hub.folder}/private/{PREFIX}student1"
    assert hub.admin(f"podman unshare sh -euc {shlex.quote(f'cd {home}' + LISTING)}").stdout == before
    assert hub.exec("cat /var/lib/jupyterhub/cookie_secret").stdout.strip() == "5e" * 32
    ask = "import sqlite3; print(sqlite3.connect('/var/lib/jupyterhub/jupyterhub.sqlite').execute('select name, created from users').fetchall())"
    known = hub.exec(f'/opt/conda/bin/python -c "{ask}"').stdout
    assert f"'{PREFIX}student1', '2020-02-02" in known
    assert f"'{PREFIX}ada-" in known, "an id with capitals has no name of its own"

    student = next(person for person in students if person.id == "student1")
    lab = visit(student).enter(hub)
    assert lab.user == f"{PREFIX}student1"
    kernel = lab.kernel()
    assert kernel.run("print(open('essay.txt').read())").strip() == "all of it"
    kernel.run("open('essay.txt', 'a').write('and more')")


def test_a_second_time_changes_nothing(course: Course) -> None:
    outcome = course.take()
    assert (outcome.status, outcome.changed) == (0, 0), outcome.output[-4000:]
    refused = course.take(hub_devices=["/dev/ananke-has-none"])
    assert refused.status != 0
    assert not course.former_runs(), "what had taken over was given back"
    assert course.take().status == 0
    course.hub.wait_healthy()
