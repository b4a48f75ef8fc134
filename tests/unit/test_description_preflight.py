# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight playbook, run by a real ansible-playbook over good and bad inventories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from description_cases import (
    ROOT,
    bad_hubs,
    controller_play,
    good,
    hubs_together,
    inventory_variables,
    says,
    write_inventory,
)


class Controller:
    """Runs Ansible in an empty folder, with a program in ssh's place that leaves a trace of every connection."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.trace = folder, folder / "connections"
        self.ssh = folder / "ssh"
        self.ssh.write_text(f"#!/bin/sh\necho \"$@\" >> '{self.trace}'\nexit 255\n")
        self.ssh.chmod(0o755)

    def inventory(self, hubs: dict[str, dict[str, Any]], rendered: tuple[str, ...] = ()) -> Path:
        return write_inventory(self.folder, hubs, self.ssh, rendered)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        config = {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build/collections"),
        }
        environment = {**os.environ, **config}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300)

    def playbook(self, name: str, inventory: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run("ansible-playbook", "-i", str(inventory), *options, str(ROOT / f"playbooks/{name}.yml"))

    def preflight(self, inventory: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return self.playbook("preflight", inventory, *options)

    def messages(self, done: subprocess.CompletedProcess[str]) -> list[str]:
        """The messages, from the error that Ansible prints."""
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        start = next(number for number, line in enumerate(lines) if "Nothing has been changed" in line)
        end = next(number for number in range(start, len(lines)) if lines[number].startswith("Origin:"))
        return lines[start + 1 : end]

    def connected(self) -> bool:
        return self.trace.exists()


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


@pytest.mark.parametrize("content", ["", "not: [an inventory", "all:\n  hosts:\n    elsewhere:\n", "hubs:\n"])
def test_an_inventory_without_machines_and_hubs_is_no_success(controller: Controller, content: str) -> None:
    inventory = controller.folder / "inventory.yml"
    inventory.write_text(content)
    done = controller.preflight(inventory)
    assert done.returncode != 0
    assert "no machine and no hub" in done.stdout + done.stderr
    assert "machines and hubs" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "content", "missing"),
    [
        ("machines", "", "no machine, so nothing"),
        ("images", "hubs: {hosts: {a: {hub_machine: m1}}}", "no machine, so nothing"),
        ("hubs", "machines: {hosts: {m1: {}}}", "no hub, so nothing"),
        ("backup", "machines: {hosts: {m1: {}}}", "no hub, so nothing"),
    ],
)
def test_a_playbook_without_what_it_is_for_is_no_success(
    controller: Controller, name: str, content: str, missing: str
) -> None:
    (controller.folder / "inventory.yml").write_text(content)
    done = controller.playbook(name, controller.folder / "inventory.yml")
    assert done.returncode != 0
    assert missing in done.stdout + done.stderr
    assert not controller.connected()


def test_a_run_that_is_limited_to_hubs_passes_the_machines_by(controller: Controller) -> None:
    done = controller.playbook("machines", controller.inventory({"a": good("a")}), "--limit", "a")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not controller.connected()


def test_machines_may_come_before_the_first_hub(controller: Controller) -> None:
    (controller.folder / "inventory.yml").write_text("machines: {hosts: {m1: {}}}")
    done = controller.playbook("site", controller.folder / "inventory.yml", "--list-hosts")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "m1" in done.stdout
    assert "localhost" not in done.stdout


def test_ways_to_hosts_may_be_templates_of_an_inventory(controller: Controller) -> None:
    """Ansible's own localhost has the variables of group all, and no inventory_dir."""
    inventory = controller.inventory({"good": good("good", 9999)})
    everywhere = controller.folder / "group_vars" / "all.yml"
    everywhere.parent.mkdir()
    everywhere.write_text("ansible_port: \"{{ lookup('file', inventory_dir ~ '/port') }}\"\n")
    (controller.folder / "port").write_text("2222")
    done = controller.preflight(inventory, "--extra-vars=ananke_hubs_group=nobody")
    assert "inventory_dir" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stdout


def test_a_fleet_with_a_mistake_is_no_success(controller: Controller) -> None:
    inventory = controller.folder / "university.fleet.yml"
    inventory.write_text("plugin: ananke.jupyterhub.fleet\nmachines: {north: {}}\nhubs: {math101: {machine: nroth}}\n")
    done = controller.preflight(inventory)
    assert done.returncode != 0
    assert "did you mean north?" in done.stdout + done.stderr
    assert "no machine and no hub" in done.stdout + done.stderr


def test_all_bad_hubs_at_once(controller: Controller) -> None:
    alone, together = bad_hubs(), hubs_together()
    hubs = {host: inventory_variables(host, case, 10000 + number) for number, (host, case) in enumerate(alone.items())}
    for case in together.values():
        hubs.update(case["hubs"])
    hubs["good"] = good("good", 9999)
    rendered = tuple(host for host, case in alone.items() if case.get("rendered"))
    done = controller.preflight(controller.inventory(hubs, rendered))

    assert done.returncode != 0
    messages = controller.messages(done)
    unseen = [
        host
        for host, case in alone.items()
        if not any(
            says(line, host, case["key"], case["value"], case["remedy"], case.get("says", "")) for line in messages
        )
    ]
    assert unseen == []
    for case in together.values():
        for problem in case["problems"]:
            found = [problem[word] for word in ("host", "key", "value", "remedy", "says")]
            assert any(says(line, *found) for line in messages), problem
    # nothing but what was expected, and nothing about the good hub
    expected = [*alone, *(problem["host"] for case in together.values() for problem in case["problems"])]
    assert sorted(line.split(":")[0] for line in messages) == sorted(expected)
    assert "s3cret" not in done.stdout + done.stderr
    assert not controller.connected()
    assert not (controller.folder / "pwned").exists()


def test_a_connection_would_be_seen(controller: Controller) -> None:
    inventory = controller.inventory({"good": good("good")})
    assert controller.run("ansible", "-i", str(inventory), "-m", "ansible.builtin.ping", "good").returncode != 0
    assert controller.connected()


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_good_hubs_pass(controller: Controller, options: tuple[str, ...]) -> None:
    inventory = controller.inventory({f"hub{number}": good(f"hub{number}", 8101 + number) for number in range(5)})
    done = controller.run(
        "ansible-playbook", "-i", str(inventory), *options, "--tags", "describe", str(_described(controller))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=0" in done.stdout
    assert not controller.connected()


def _described(controller: Controller) -> Path:
    """A playbook with preflight's first task and then each hub by itself; preflight's next task looks at machines."""
    first = controller_play()
    hub = {
        "hosts": "hubs",
        "gather_facts": False,
        "tags": ["always"],
        "tasks": [{"ananke.jupyterhub.hub_description": {}}],
    }
    path = controller.folder / "play.yml"
    path.write_text(yaml.safe_dump([first, hub]))
    return path


def test_limited_run_looks_at_the_other_hubs(controller: Controller) -> None:
    hubs = {"a": good("a", 9101), "b": good("b", 9101), "c": {**good("c", 1)}, "d": good("d", 9104)}
    inventory = controller.inventory(hubs)
    done = controller.preflight(inventory, "--limit", "a")
    assert done.returncode != 0
    (message,) = controller.messages(done)  # b's and c's own problems do not concern this run
    assert says(message, "a", "hub_port", "9101", "8001", "b")
    done = controller.run("ansible-playbook", "-i", str(inventory), "--limit", "d", str(_described(controller)))
    assert done.returncode == 0, done.stdout + done.stderr


def test_groups_of_other_names(controller: Controller) -> None:
    inventory = controller.inventory({"a": good("a", 1)})
    text = inventory.read_text().replace("hubs:\n", "courses:\n").replace("machines:\n", "servers:\n")
    inventory.write_text(text)
    done = controller.preflight(inventory, "-e", "ananke_hubs_group=courses", "-e", "ananke_machines_group=servers")
    assert done.returncode != 0
    (message,) = controller.messages(done)
    assert says(message, "a", "hub_port", "1", "from 1024")


def test_values_come_from_everywhere_in_the_inventory(controller: Controller) -> None:
    hubs = {"a": {**good("a"), "hub_environment": {"NAME": "{{ hub_name }}", "SITE": "{{ site }}"}}}
    inventory = controller.inventory(hubs, rendered=("a",))
    (controller.folder / "group_vars").mkdir()
    (controller.folder / "group_vars/all.yml").write_text("site: north\n")
    play = [
        {
            "hosts": "hubs",
            "gather_facts": False,
            "tasks": [
                {"ananke.jupyterhub.hub_description": {}, "register": "d"},
                {
                    "ansible.builtin.assert": {
                        "that": "d.description.servers.environment == {'NAME': 'a', 'SITE': 'north'}"
                    }
                },
            ],
        }
    ]
    (controller.folder / "play.yml").write_text(yaml.safe_dump(play))
    done = controller.run("ansible-playbook", "-vv", "-i", str(inventory), str(controller.folder / "play.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "north" not in done.stdout.split("TASK [ansible.builtin.assert]")[0]  # -v does not print environments


def test_settings_of_machines_on_a_hub(controller: Controller) -> None:
    """Refused where no machine has them; those of all hosts, and those of the command line, are everybody's."""
    given = {
        "hub_image_pip_index": "https://pip.example.org",
        "hub_image_proxy": "http://me:s3cret@proxy.example.org",
        "container_admin_name": "teacher",
        "reverse_proxy_server_name": "a.example.org",
        "hub_image_definitions": "{{ of_all }}",
        "podman_packages": [],
    }
    hubs = {"bad": {**good("bad", 9101), **given}, "fine": good("fine", 9102)}
    inventory = controller.inventory(hubs, rendered=("bad",))
    (controller.folder / "group_vars").mkdir()
    (controller.folder / "group_vars/all.yml").write_text(
        "of_all: [{name: standard}, {name: gpu}]\nhub_image_npm_registry: https://npm.example.org\n"
    )
    options = ("--extra-vars", "podman_packages=[]")
    done = controller.preflight(inventory, *options)
    assert done.returncode != 0
    messages = controller.messages(done)
    expected = [
        ("container_admin_name", '"teacher"', "Set hub_container_admin"),
        ("hub_image_definitions", '"{{ of_all }}"', "Set it for machine m1, and choose"),
        ("hub_image_pip_index", '"https://pip.example.org"', "Set it for machine m1, or remove it"),
        ("hub_image_proxy", "(not shown)", "Set it for machine m1"),
        ("reverse_proxy_server_name", '"a.example.org"', "Set it for machine m1"),
    ]
    assert len(messages) == len(expected)
    for message, (key, value, remedy) in zip(messages, expected, strict=True):
        assert says(message, "bad", key, value, remedy, "no machine has this value")
    assert "s3cret" not in done.stdout + done.stderr
    done = controller.run(
        "ansible-playbook", "-i", str(inventory), "--limit", "fine", *options, str(_described(controller))
    )
    assert done.returncode == 0, done.stdout + done.stderr
