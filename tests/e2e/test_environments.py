"""Conda environments of a running hub and their kernels, with real conda, as the container admin's playbooks make them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from acting import INVENTORY, act, settled, succeed
from browsing import Lab, Person, Visitor
from facts import Demo, DemoError, Hub
from playwright.sync_api import Browser

import playbook
from testbed.waiting import until

NAMES = [f"course{number}" for number in range(10)]
ENVS = "/opt/conda/envs"
INTERRUPT = """([base, id, code]) => {
  setTimeout(() => window.anankeKernel.api(base, "POST", `api/kernels/${id}/interrupt`, null), 2000);
  return window.anankeKernel.run(base, id, code, 30000);
}"""
LOOK = "import os, sys; print(sys.prefix, os.environ['CONDA_PREFIX'], os.environ.get('OWN_WORD'))"


@dataclass
class Seat:
    """A student at work on a hub."""

    hub: Hub
    lab: Lab

    def kernels(self) -> dict[str, str]:
        """What the student's JupyterLab offers: names and titles."""
        return self.lab.offered()


@pytest.fixture(scope="module")
def seat(students: list[Person], hub: Hub, browser: Browser, demo: Demo) -> Iterator[Seat]:
    visitor = Visitor(browser.new_context(), demo, students[1])
    yield Seat(hub, visitor.enter(hub))
    visitor.close()


@pytest.fixture(scope="module", autouse=True)
def tidy(hub: Hub) -> Iterator[None]:
    yield
    hub.exec(f"cd {ENVS} && rm -rf -- course* .course* jhub/share/jupyter/kernels/course*")


def each(hub: Hub, module: str, **options: Any) -> list[dict[str, Any]]:
    """Run a module for each of the ten environments."""
    task = {
        f"ananke.jupyterhub.{module}": {"container": hub.container, **options},
        "become_user": hub.container_admin,
        "loop": NAMES,
    }
    result = playbook.task(INVENTORY, hub.name, task)
    assert not result.get("failed"), result
    return list(result["results"])


def test_ten_environments_and_their_kernels(seat: Seat) -> None:
    """Made, offered, used, renamed, removed, in front of a student who restarts nothing."""
    hub = seat.hub
    made = each(hub, "conda_environment", name="{{ item }}", packages=["python=3.13", "ipykernel"])
    for one in made:
        assert one["changed"]
        assert len([command for command in one["commands"] if command.startswith("/opt/conda/bin/conda ")]) == 1
    assert not any(
        one["changed"]
        for one in each(hub, "conda_environment", name="{{ item }}", packages=["python=3.13", "ipykernel"])
    )
    scripts = "; ".join(
        f"mkdir -p {ENVS}/{name}/etc/conda/activate.d; echo export OWN_WORD={name} > {ENVS}/{name}/etc/conda/activate.d/own.sh"
        for name in NAMES
    )
    hub.exec(scripts)

    each(hub, "conda_kernel", environment="{{ item }}", display_name='Title "of" {{ item }} ü')
    until(seat.kernels, 120, "JupyterLab offers all kernels", lambda found: set(NAMES) < set(found))
    assert all(seat.kernels()[name] == f'Title "of" {name} ü' for name in NAMES)
    for name in NAMES:
        assert seat.lab.kernel(name).run(LOOK, 120).split() == [f"{ENVS}/{name}", f"{ENVS}/{name}", name]
        seat.lab.close_kernels()

    renamed = each(hub, "conda_kernel", environment="{{ item }}", display_name="Now {{ item }}")
    assert all(one["changed"] for one in renamed)
    titles = {f"Now {name}" for name in NAMES}
    until(seat.kernels, 120, "the new titles are seen", lambda found: set(found.values()) >= titles)
    assert len(seat.kernels()) == len(set(seat.kernels().values()))

    hub.exec(f"rm -r {ENVS}/{NAMES[0]}")  # what somebody removes by hand loses its kernel at the next run
    assert NAMES[0] in succeed(hub, "conda_kernel", environment=NAMES[1], state="absent")["removed"]
    assert all(one["changed"] for one in each(hub, "conda_environment", name="{{ item }}", state="absent")[2:])
    until(seat.kernels, 120, "no removed kernel is offered", lambda found: not set(NAMES) & set(found))
    assert "python3" in seat.kernels()


def test_a_kernel_is_interrupted_and_restarted(seat: Seat) -> None:
    settled(seat.hub, "conda_environment", name="course0", packages=["ipykernel"])
    settled(seat.hub, "conda_kernel", environment="course0")
    until(seat.kernels, 120, "JupyterLab offers the kernel", lambda found: "course0" in found)
    kernel = seat.lab.kernel("course0")
    kernel.run("kept = 1")
    interrupted = seat.lab.page.evaluate(INTERRUPT, [kernel.base, kernel.id, "while True: pass"])
    assert "KeyboardInterrupt" in interrupted["error"]
    assert kernel.run("print(kept)").strip() == "1"
    seat.lab.api("POST", f"api/kernels/{kernel.id}/restart")
    with pytest.raises(DemoError, match="NameError"):
        kernel.run("print(kept)")
    seat.lab.close_kernels()


def test_the_image_s_own_environment_gets_a_package_while_a_kernel_runs(seat: Seat) -> None:
    """It lies in the image, where folders cannot change places."""
    kernel = seat.lab.kernel("python3")
    with pytest.raises(DemoError, match="ModuleNotFoundError"):
        kernel.run("import yaml")
    try:
        done = settled(seat.hub, "conda_environment", name="python3", packages=["pyyaml"], pip=["iniconfig"])
        assert {line.split()[0] for line in done["added"]} >= {"pyyaml", "iniconfig"}
        look = "import importlib; importlib.invalidate_caches(); import yaml, iniconfig; print(yaml.safe_load('a: 1'))"
        assert kernel.run(look).strip() == "{'a': 1}"
    finally:
        seat.hub.exec(
            f"{ENVS}/python3/bin/python -m pip uninstall -q -y --root-user-action=ignore --break-system-packages iniconfig",
            check=False,
        )
        seat.hub.exec(f"/opt/conda/bin/conda remove -y -q -p {ENVS}/python3 pyyaml", check=False)
    again = act(seat.hub, "conda_environment", name="jhub", packages=["pyyaml"])
    assert "the hub itself runs with this environment" in again["msg"]
    seat.lab.close_kernels()


def test_exactly_what_is_declared(hub: Hub) -> None:
    definition = {"name": "course1", "dependencies": ["python=3.13", "pip", {"pip": ["iniconfig"]}]}
    settled(hub, "conda_environment", name="course1", state="exact", definition=definition)
    hub.exec(f"{ENVS}/course1/bin/python -m pip install -q pluggy")
    back = settled(hub, "conda_environment", name="course1", state="exact", definition=definition)
    assert [line.split()[0] for line in back["removed"]] == ["pluggy"]
    hub.exec(f"{ENVS}/course1/bin/python -c 'import iniconfig'")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"packages": ["no-such-package-at-all"]}, "there is no such package"),
        ({"packages": ["python=3.13", "python=2.7"]}, "no-such"),
        ({"pip": ["no-such-package-at-all-1x"]}, "there is no such package"),
        ({"channels": ["http://127.0.0.1:9/nothing"], "packages": ["numpy"]}, "cannot be reached"),
    ],
    ids=["unknown", "impossible", "unknown to pip", "no network"],
)
def test_what_fails_leaves_the_environment(hub: Hub, options: dict[str, Any], said: str) -> None:
    succeed(hub, "conda_environment", name="course2", packages=["python=3.13", "pip"])
    digest = f"cd {ENVS}/course2 && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum"
    before = hub.exec(digest).stdout
    result = act(hub, "conda_environment", name="course2", **options)
    assert result["failed"]
    assert "as it was before" in result["msg"]
    if said != "no-such":
        assert said in result["msg"], result["msg"]
    assert hub.exec(digest).stdout == before
    assert hub.exec(f"ls -A {ENVS} | grep -c fresh", check=False).stdout.strip() == "0"


def test_environments_of_a_hub_user_s_own(seat: Seat) -> None:
    """`conda create` and `pip --user` by the user, and the environment as a kernel."""
    user = seat.lab.user
    create = "conda create -y -q -p ~/envs/own python=3.13 ipykernel && ~/envs/own/bin/python -m ipykernel install --user --name own --display-name Mine"
    succeed(seat.hub, "dynamic_user_command", user=user, cmd=create, timeout=300)
    succeed(
        seat.hub,
        "dynamic_user_command",
        user=user,
        cmd=f"{ENVS}/python3/bin/python -m pip install -q --user --break-system-packages iniconfig",
    )
    until(seat.kernels, 120, "JupyterLab offers the user's own kernel", lambda found: found.get("own") == "Mine")
    assert seat.lab.kernel("own").run("import sys; print(sys.prefix)", 120).strip() == f"/var/lib/{user}/envs/own"
    seat.lab.close_kernels()
    owners = seat.hub.exec(f"find /var/lib/private/{shlex.quote(user)} -printf '%U\\n' | sort -u").stdout.split()
    assert len(owners) == 1
    seat.hub.exec(f"cd /var/lib/private/{user} && rm -rf envs .local/share/jupyter/kernels/own .local/lib .conda")


def test_packages_of_a_hub_user_s_own_are_none_of_jupyterlab(seat: Seat) -> None:
    """A module in the user's home that no server would survive."""
    user, python = seat.lab.user, f"{ENVS}/jhub/bin/python"
    broken = f"folder=$({python} -m site --user-site) && mkdir -p $folder && echo 'raise SystemExit(7)' >$folder/jupyter_server.py"
    succeed(seat.hub, "dynamic_user_command", user=user, cmd=f"{broken} && ! {python} -c 'import jupyter_server'")
    assert succeed(seat.hub, "hub_servers", state="restarted", users=[user])["users_started"] == [user]
    seat.hub.exec(f"rm -r /var/lib/private/{user}/.local/lib")


@pytest.mark.parametrize(
    ("module", "options", "said"),
    [
        ("conda_environment", {"name": "a b"}, "is none of an environment"),
        ("conda_environment", {"name": "course3", "packages": ["--yes"]}, "options have no place"),
        ("conda_environment", {"name": "course3", "definition": {"strange": 1}}, "'strange' has no place"),
        ("conda_environment", {"name": "course3", "channels": ["https://me:secret@example.org/c"]}, "the password in"),
        ("conda_environment", {"name": "course33", "state": "updated"}, "no such environment to update"),
        ("conda_kernel", {"environment": "nothing"}, "make it with conda_environment"),
        ("conda_kernel", {"environment": "jhub"}, "is none for kernels"),
        ("conda_kernel", {"environment": "python3", "display_name": "a\nb"}, "cannot be shown"),
    ],
)
def test_bad_input(hub: Hub, module: str, options: dict[str, Any], said: str) -> None:
    result = act(hub, module, **options)
    assert result["failed"]
    assert said in result["msg"]
    assert "secret" not in json.dumps(result["msg"])
