"""What a hub can be besides limited: in another time zone, forgetful, linked to repositories; and environments that users make."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from acting import INVENTORY, succeed
from browsing import Kernel, Lab, Person
from conftest import Visit
from facts import Demo, Hub, Machine

import playbook
from demo import certify
from testbed.waiting import until

ZONE, OFFSET = "Asia/Kolkata", "5:30:00"
NOTEBOOK = {
    "cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "The sheet of this week"}],
    **{"metadata": {}, "nbformat": 4, "nbformat_minor": 5},
}
HOME = "/var/lib/private"
REPOSITORIES = "/srv/git"
GIT, SITE = "git.example.test", "/etc/nginx/ananke/sites.d/git.conf"


@dataclass(frozen=True)
class Dressed:
    """The hub `sandbox` with every option, and where its links lead."""

    hub: Hub
    sheet: Path
    options: tuple[str, ...]


def publish(machine: Machine, text: str) -> None:
    """Put a notebook into the repository on the machine."""
    work = f"{REPOSITORIES}/work"
    machine.as_root(
        f"set -e; rm -rf {work}; git clone -q {REPOSITORIES}/course.git {work} 2>/dev/null; cd {work}; mkdir -p sheets;"
        f"printf %s {shlex.quote(text)} > 'sheets/first sheet.ipynb'; git add .;"
        "git -c user.name=a -c user.email=a@example.org commit -q -m x; git push -q origin HEAD:main"
    )


def serve(demo: Demo, machine: Machine, port: int) -> str:
    """Have the machine's web server offer a repository, with a certificate of the demo's authority; returns its address.

    Its name is none of localhost's: git takes those for the computer that it runs on, whatever the hub is told.
    """
    machine.as_root(
        "set -e; [ -e /usr/sbin/fcgiwrap ] || { apt-get -qq update; apt-get -q -y install git fcgiwrap; };"
        f"rm -rf {REPOSITORIES}; git init -q --bare -b main {REPOSITORIES}/course.git;"
        # older git asks for '.' here
        "git config --system safe.directory '*'; systemctl start fcgiwrap.socket",
        timeout=300,
    )
    certify(demo.ca.parent, "git", [GIT])
    for name in ("git.pem", "git.key"):
        text = demo.ca.with_name(name).read_text()
        machine.as_root(f"umask 077; printf %s {shlex.quote(text)} >{REPOSITORIES}/{name}")
    words = {
        "SCRIPT_FILENAME": "/usr/lib/git-core/git-http-backend",
        "GIT_PROJECT_ROOT": REPOSITORIES,
        "PATH_INFO": "$uri",
        "GIT_HTTP_EXPORT_ALL": "1",
    }
    lines = [f"listen {port} ssl", f"server_name {GIT}", "include fastcgi_params"]
    lines += [f"ssl_certificate {REPOSITORIES}/git.pem", f"ssl_certificate_key {REPOSITORIES}/git.key"]
    lines += [f"fastcgi_param {name} {word}" for name, word in words.items()]
    site = "server { " + "; ".join(lines) + "; location / { fastcgi_pass unix:/run/fcgiwrap.socket; } }"
    machine.as_root(f"echo {shlex.quote(site)} >{SITE} && nginx -t -q && nginx -s reload")
    return f"https://{GIT}:{port}/course.git"


@pytest.fixture(scope="module")
def dressed(demo: Demo, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dressed]:
    hub, sheets = demo.hubs["sandbox"], tmp_path_factory.mktemp("sheets")
    repository = serve(demo, machine, urlsplit(hub.url).port or 443)
    publish(machine, json.dumps(NOTEBOOK))
    settings = {
        "hub_time_zone": ZONE,
        "hub_forget": True,
        "hub_forget_homes": "sandbox",
        "hub_links": [
            {"title": "Übung 1", "repository": repository, "branch": "main", "path": "sheets/first sheet.ipynb"}
        ],
        "hub_lti_sheet_dir": str(sheets),
        "hub_lti_client_ids": ["math101-sandbox", "physics-sandbox", "sandbox-sheet"],
        "hub_extra_hosts": {name: "host-gateway" for name in ("lms.localhost", GIT)},
    }
    options = ("--limit", hub.name, "--extra-vars", json.dumps(settings))
    try:
        playbook.succeed("hubs", INVENTORY, *options)
        yield Dressed(hub, sheets / "sandbox.txt", options)
    finally:
        machine.as_root(f"rm -rf {SITE} {REPOSITORIES} /etc/gitconfig; nginx -s reload")
        playbook.succeed("hubs", INVENTORY, "--limit", hub.name)


def test_a_second_run_changes_none_of_them(dressed: Dressed) -> None:
    assert playbook.succeed("hubs", INVENTORY, *dressed.options).changed == 0


def test_a_hub_with_homes_does_not_begin_to_forget_by_chance(hub: Hub, students: list[Person], visit: Visit) -> None:
    visit(students[0]).enter(hub)
    options = ("--limit", hub.name, "--check", "--extra-vars", json.dumps({"hub_forget": True}))
    refused = playbook.run("hubs", INVENTORY, *options)
    assert refused.status
    assert f"hub_forget_homes={hub.name}" in refused.output


# ---------------------------------------------------------------------------------------------------------------
# the time zone


def test_everything_in_the_hub_has_its_time_zone(dressed: Dressed, students: list[Person], visit: Visit) -> None:
    hub, lab = dressed.hub, visit(students[0]).enter(dressed.hub)
    look = "import datetime, subprocess; print(datetime.datetime.now().astimezone().utcoffset(), subprocess.getoutput('date +%Z'))"
    assert lab.kernel().run(look).split() == [OFFSET, "IST"]
    assert succeed(hub, "dynamic_user_command", user=lab.user, argv=["date", "+%Z"])["stdout"] == "IST"
    journal = hub.exec("journalctl --unit jupyterhub --no-pager --lines 1 --output short-iso").stdout
    assert "+05:30 " in journal
    logged = hub.exec(
        "journalctl --unit jupyterhub --no-pager --output cat | grep -o '^.I [^ ]*' | tail -1"
    ).stdout.split()[1]
    now = hub.exec("date +%FT%T").stdout.strip()
    assert logged[:11] == now[:11]
    assert abs(int(now[11:13]) - int(logged[11:13])) <= 1, (now, logged)


# ---------------------------------------------------------------------------------------------------------------
# links


@pytest.fixture
def linked(dressed: Dressed) -> Iterator[str]:
    """The link from the sheet, which the LMS has as an activity of a course."""
    lines = dressed.sheet.read_text().splitlines()
    address = lines[lines.index("  Übung 1") + 1].strip()
    tool = {"title": "Sheet 1", "client_id": "sandbox-sheet", "url": address}
    tool |= {
        name: f"{dressed.hub.url}hub/lti13/oauth_{end}"
        for name, end in (("login_url", "login"), ("redirect_uri", "callback"))
    }
    courses = yaml.safe_load((INVENTORY / "group_vars/machines.yml").read_text())["test_lms_courses"]
    more = json.dumps({"test_lms_courses": [*courses, {"id": "notes", "title": "Notes", "tools": [tool]}]})
    try:
        playbook.succeed("machines", INVENTORY, "--tags", "test_lms", "--extra-vars", more)
        yield address
    finally:
        playbook.succeed("machines", INVENTORY, "--tags", "test_lms")


def test_a_link_in_the_course_opens_its_notebook(
    dressed: Dressed, linked: str, machine: Machine, students: list[Person], visit: Visit
) -> None:
    visitor = visit(students[1])
    visitor.sign_in()
    visitor.page.locator("main a", has_text="Sheet 1").click(no_wait_after=True)
    lab = visitor.lab(dressed.hub)
    assert urlsplit(visitor.page.url).path.endswith("/lab/tree/course/sheets/first%20sheet.ipynb")
    visitor.page.locator(".jp-RenderedMarkdown", has_text="The sheet of this week").wait_for()
    publish(machine, json.dumps(NOTEBOOK).replace("of this week", "of next week"))
    # who is logged in needs no launch
    visitor.page.goto(linked, wait_until="commit")
    pulled = f"grep -q 'of next week' '{HOME}/{lab.user}/course/sheets/first sheet.ipynb'"
    until(lambda: dressed.hub.exec(pulled, check=False).returncode == 0, 60, "the notebook is the new one")


# ---------------------------------------------------------------------------------------------------------------
# hubs that forget


def files(hub: Hub, user: str) -> str:
    """What a home holds, also while it is being emptied."""
    return hub.exec(f"cd {HOME}/{user} && {{ find . -mindepth 1 2>/dev/null || true; }}").stdout


def leave(lab: Lab) -> None:
    """A student's files, some of them as odd as files get, and links that lead elsewhere."""
    lab.kernel().run(
        "import os, pathlib\n"
        "home = pathlib.Path.home()\n"
        "(home / '.hidden').write_text('x'); (home / '-rf *\\n').write_text('x'); (home / 'to-data').symlink_to('/opt/conda')\n"
        "(home / 'up').symlink_to('..'); (home / 'closed').mkdir(0); os.mkfifo(home / 'pipe')\n"
        "here = os.open(home, os.O_RDONLY)\n"
        "for depth in range(1500):\n"
        "    os.mkdir('deep', dir_fd=here); here, old = os.open('deep', os.O_RDONLY, dir_fd=here), here; os.close(old)\n"
    )
    assert "./to-data" in files(lab.hub, lab.user)


def stop(lab: Lab) -> None:
    succeed(lab.hub, "hub_servers", state="stopped", users=[lab.user])


def test_a_home_is_empty_when_its_server_has_stopped(dressed: Dressed, students: list[Person], visit: Visit) -> None:
    hub, visitor = dressed.hub, visit(students[0])
    lab, other = visitor.enter(hub), visit(students[1]).enter(hub)
    other.kernel().run("open('kept', 'w').write('x')")
    leave(lab)
    hub.exec("systemctl restart jupyterhub")
    hub.wait_healthy()
    assert "./.hidden" in files(hub, lab.user), "a restart of the hub stops no server"
    stop(lab)
    until(lambda: files(hub, lab.user) == "", 30, "the home is empty")
    assert "./kept" in files(hub, other.user)
    hub.exec("test -x /opt/conda/bin/conda")
    visitor.page.goto(f"{hub.url}hub/home")
    assert "This hub forgets" in visitor.page.locator("body").inner_text()


def test_a_server_that_starts_again_at_once_keeps_its_new_files(
    dressed: Dressed, students: list[Person], visit: Visit
) -> None:
    hub, visitor = dressed.hub, visit(students[0])
    for word in ("first", "second", "third"):
        lab = visitor.enter(hub)
        lab.kernel().run(f"import pathlib; [pathlib.Path(f'{word}{{n}}').write_text('x') for n in range(3000)]")
        succeed(hub, "hub_servers", state="restarted", users=[lab.user])
        assert word not in files(hub, lab.user)
    time.sleep(2)
    assert hub.exec(f"systemctl is-active jupyter-{lab.user}").stdout.strip() == "active"


def test_a_crash_is_no_way_around(dressed: Dressed, students: list[Person], visit: Visit) -> None:
    hub = dressed.hub
    lab = visit(students[0]).enter(hub)
    leave(lab)
    hub.exec(f"systemctl kill --signal KILL jupyter-{lab.user}")
    until(lambda: files(hub, lab.user) == "", 30, "the home is empty after a crash of the server")
    until(lambda: succeed(hub, "hub_servers", users=[lab.user])["servers"] == [], 90, "the hub knows of the crash")
    lab = visit(students[0]).enter(hub)
    leave(lab)
    before = hub.container_id()
    hub.admin(f"podman kill {hub.container}")
    until(
        lambda: (
            hub.admin(f"podman container inspect {hub.container}", check=False).returncode == 0
            and hub.container_id() != before
        ),
        90,
        "the container is back",
    )
    hub.wait_healthy()
    assert files(hub, lab.user) == ""


# ---------------------------------------------------------------------------------------------------------------
# environments that users make


def kernels(lab: Lab) -> dict[str, str]:
    """What a JupyterLab offers: names and titles."""
    return {name: one["spec"]["display_name"] for name, one in lab.api("GET", "api/kernelspecs")["kernelspecs"].items()}


def test_a_user_s_own_environment_is_a_kernel_of_theirs(hub: Hub, students: list[Person], visit: Visit) -> None:
    lab, other = visit(students[0]).enter(hub), visit(students[1]).enter(hub)
    terminal = lab.kernel()

    def conda(arguments: str) -> None:
        terminal.run(f"import subprocess; subprocess.run('conda {arguments}', shell=True, check=True)", 300)

    before = kernels(lab)
    conda("create -n mine -y -q python=3.13 ipykernel")
    try:
        prefix = f"/var/lib/{lab.user}/.conda/envs/mine"
        assert set(kernels(lab).items()) - set(before.items()) == {("own-mine-python3", "mine (own)")}
        assert kernels(other) == before
        made = lab.api("POST", "api/kernels", {"name": "own-mine-python3"})
        kernel = Kernel(lab.page, lab.base, made["id"])
        look = "import os, shutil, sys; print(sys.prefix, os.environ['CONDA_PREFIX'], shutil.which('python'))"
        assert kernel.run(look, 120).split() == [prefix, prefix, f"{prefix}/bin/python"]
        lab.api("DELETE", f"api/kernels/{kernel.id}")
        # offered by hand as well, it is listed once, under the user's title
        terminal.run(
            f"subprocess.run(['{prefix}/bin/python', '-m', 'ipykernel', 'install', '--user', '--name', 'hand', '--display-name', 'Hand'])",
            60,
        )
        assert set(kernels(lab).values()) - set(before.values()) == {"Hand"}
        terminal.run("subprocess.run('rm -r ~/.local/share/jupyter/kernels/hand', shell=True, check=True)")
        conda("create -n bare -y -q python=3.13")
        assert "bare" not in " ".join(kernels(lab))
    finally:
        conda("env remove -y -q -n mine")
        conda("env remove -y -q -n bare")
    assert kernels(lab) == before
