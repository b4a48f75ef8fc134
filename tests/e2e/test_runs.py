"""Promises of a run: nothing changes twice, check mode tells the truth, and an unchanged hub is cheap."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from facts import Demo, Hub, Machine
from passlib.hash import sha512_crypt
from replace_image import PODMAN, RECORDS, share_store

import killed
import playbook
from testbed.waiting import until

pytestmark = pytest.mark.usefixtures("demo")
INVENTORY = playbook.ROOT / "inventories/demo"
HUBS = ("math101", "physics", "sandbox")


def test_a_second_run_changes_nothing_and_costs_little() -> None:
    outcome = playbook.succeed("site", INVENTORY, count=True)
    assert set(outcome.recap) >= {"demo", *HUBS}
    assert {name: host.changed for name, host in outcome.recap.items() if host.changed} == {}
    for hub in HUBS:
        assert outcome.executions_of(hub) == ["ananke.jupyterhub.hub"]


@pytest.mark.parametrize(
    ("taken", "there"),
    [
        ("chmod 0755 /home/sandbox", "stat -c %a /home/sandbox | grep -x 750"),
        (
            "rm /home/sandbox/.config/containers/storage.conf",
            "grep store /home/sandbox/.config/containers/storage.conf",
        ),
        ("rm /etc/nginx/ananke/locations.d/sandbox.conf", "grep 'location /sandbox/' /etc/nginx/ananke/locations.d/*"),
    ],
    ids=["mode", "file", "path"],
)
def test_what_somebody_took_from_a_hub_is_granted_again(machine: Machine, taken: str, there: str) -> None:
    sandbox = ("hubs", INVENTORY, "--limit", "sandbox")
    machine.as_root(taken)
    foretold = playbook.succeed(*sandbox, "--check")
    assert foretold.recap["sandbox"].changed == 1
    assert machine.as_root(there, check=False).returncode != 0, "check mode changed something"
    done = playbook.succeed(*sandbox, count=True)
    assert done.recap["sandbox"].changed == 1
    assert done.executions_of("sandbox") == ["ananke.jupyterhub.container_admin", "ananke.jupyterhub.hub"]
    machine.as_root(there)
    again = playbook.succeed(*sandbox, count=True)
    assert (again.changed, again.executions_of("sandbox")) == (0, ["ananke.jupyterhub.hub"])


def test_a_container_admin_gets_a_password(machine: Machine) -> None:
    password = f"s3cret-{random.getrandbits(32):x}"
    variables = {
        "container_admin_password_hash": sha512_crypt.using(rounds=5000).hash(password),
        "container_admin_password_change": False,
    }
    change = ("--limit", "sandbox", "-vvv", "--extra-vars", json.dumps(variables))
    login = f"printf '%s\\n' {password} | su sandbox -c id"
    try:
        foretold = playbook.succeed("hubs", INVENTORY, "--check", *change)
        assert machine.ssh(login, check=False).returncode != 0
        done = playbook.succeed("hubs", INVENTORY, *change)
        assert foretold.recap["sandbox"].changed == done.recap["sandbox"].changed == 1
        assert "(sandbox)" in machine.ssh(login).stdout
        again = playbook.succeed("hubs", INVENTORY, *change)
        assert again.changed == 0
        for outcome in (foretold, done, again):
            assert variables["container_admin_password_hash"] not in outcome.output
    finally:
        machine.as_root("usermod --password '!' sandbox")


def test_turns_that_a_reboot_took_are_provided_again(machine: Machine) -> None:
    machine.as_root("rm -r /run/ananke/turns")
    playbook.succeed("hubs", INVENTORY, "--limit", "sandbox")
    machine.as_root("test -e /run/ananke/turns/0")


def test_check_mode_on_a_converged_machine_changes_nothing() -> None:
    outcome = playbook.succeed("site", INVENTORY, "--check", "--diff")
    assert outcome.changed == 0, outcome.output


def written(hub: Hub) -> str:
    """Every file of a hub that a run may write, with the time of its last change."""
    home = hub.folder.rpartition("/hubs/")[0]
    places = f"{hub.folder}/description {hub.folder}/jupyterhub_config.d {home}/.config /etc/nginx/ananke"
    return hub.machine.as_root(f"find {places} -printf '%p %i %C@\\n' | sort").stdout


def test_check_mode_foretells_what_a_run_then_does(demo: Demo) -> None:
    """A change of what the hub runs with, and one of what root grants to it."""
    before = written(demo.hubs["sandbox"])
    variables = {"hub_cull_timeout": 1200, "hub_upload_limit": "600M"}
    change = ("--limit", "sandbox", "--extra-vars", json.dumps(variables))
    foretold = playbook.succeed("hubs", INVENTORY, "--check", "--diff", *change)
    assert foretold.recap["sandbox"].changed == 2
    assert "1200" in foretold.output
    again = playbook.succeed("hubs", INVENTORY, "--check", *change)
    assert again.recap["sandbox"].changed == 2, "check mode changed something"
    assert written(demo.hubs["sandbox"]) == before, "check mode changed something"
    done = playbook.succeed("hubs", INVENTORY, *change)
    assert done.recap["sandbox"].changed == 2
    assert playbook.succeed("hubs", INVENTORY, *change).changed == 0
    back = playbook.succeed("hubs", INVENTORY, "--limit", "sandbox")
    assert back.recap["sandbox"].changed == 2


def state_of_images(demo: Demo) -> list[str]:
    """The machine's images and records, and every hub's unit and container."""
    files = f"cat {RECORDS}/*.json /var/lib/ananke/store/overlay-images/images.json"
    units = [hub.admin(f"systemctl --user cat {hub.unit}").stdout for hub in demo.hubs.values()]
    return [demo.machine.as_root(files).stdout, *units, *(hub.container_id() for hub in demo.hubs.values())]


def test_check_mode_foretells_which_hubs_a_changed_image_moves(demo: Demo, machine: Machine, tmp_path: Path) -> None:
    """Sandbox has an image of its own, which is the other hubs' under another name and so costs no build."""
    other = tmp_path / "hosts.yml"
    other.write_text("hubs: {hosts: {sandbox: {hub_image: other}}}\n")
    images = ("--tags", "hub_image,hub")

    def definitions(*wanted: dict[str, object]) -> tuple[str, ...]:
        return ("--inventory", str(other), *images, "--extra-vars", json.dumps({"hub_image_definitions": wanted}))

    try:
        playbook.succeed("site", INVENTORY, *definitions({"name": "standard"}, {"name": "other"}))
        before = state_of_images(demo)
        changed = definitions({"name": "standard", "apt": ["cowsay"]}, {"name": "other"})
        foretold = playbook.succeed("site", INVENTORY, "--check", "--diff", *changed)
        assert {name for name, host in foretold.recap.items() if host.changed} == {"demo", "math101", "physics"}
        assert state_of_images(demo) == before
        # a run without the images' play would make no image and move no hub
        alone = playbook.succeed("hubs", INVENTORY, "--check", "--tags", "hub", *changed)
        assert alone.changed == 0, alone.output
    finally:
        playbook.succeed("site", INVENTORY, *images)
        reference = json.loads(machine.as_root(f"cat {RECORDS}/other.json").stdout)["reference"]
        machine.as_root(f"{PODMAN} untag {reference} {reference} && rm {RECORDS}/other.json")
        share_store(machine)


def test_users_environment_stays_out_of_what_a_run_prints(demo: Demo) -> None:
    sandbox = demo.hubs["sandbox"]
    secret = f"s3cret-{random.getrandbits(32):x}"
    variables = {"hub_environment": {"TOKEN": secret, "ONE": "1"}}
    change = ("--limit", "sandbox", "--extra-vars", json.dumps(variables))
    sandbox.admin("rm -rf ~/.ansible")
    try:
        for mode in (("--check", "--diff"), ("--diff",)):
            outcome = playbook.succeed("hubs", INVENTORY, "-vvv", *mode, *change)
            assert secret not in outcome.output
            # and nothing else is hidden: neither the other settings, nor what is like one of the values
            assert "default_url: /lab" in outcome.output
            assert "127.0.0.1" in outcome.output
            # a new account's folder for temporary files is not made, and so not warned of
            assert "remote_tmp" not in outcome.output
        assert sandbox.description()["servers"]["environment"] == variables["hub_environment"]
    finally:
        playbook.succeed("hubs", INVENTORY, "--limit", "sandbox")


def runs_as_described(hub: Hub) -> bool:
    """Whether JupyterHub began after its description was written."""
    began = hub.exec("systemctl show --property=ExecMainStartTimestamp --value --timestamp=unix jupyterhub").stdout
    return int(began.strip().removeprefix("@")) >= int(hub.exec("stat --format=%Y /etc/ananke/hub.json").stdout)


@pytest.mark.parametrize("changed", ["hub_cull_timeout", "hub_health_timeout", "hub_user_tasks"])
def test_a_killed_change_is_finished_by_the_next_run(changed: str, demo: Demo) -> None:
    value = random.randint(400, 900)  # noqa: S311
    change = ("--limit", "sandbox", "--extra-vars", f"{changed}={value}")
    killed.kill_one(random.uniform(1, 8), "hubs", *change)  # noqa: S311
    playbook.succeed("hubs", INVENTORY, *change)
    assert runs_as_described(demo.hubs["sandbox"])
    assert playbook.succeed("hubs", INVENTORY, *change).changed == 0
    playbook.succeed("hubs", INVENTORY, "--limit", "sandbox")


def test_a_port_that_somebody_else_holds_is_refused_before_any_change(machine: Machine, tmp_path: Path) -> None:
    other_port = tmp_path / "hosts.yml"
    other_port.write_text("hubs: {hosts: {sandbox: {hub_port: 8199}}}\n")
    machine.as_root("systemd-run --quiet --unit=squatter python3 -m http.server --bind 127.0.0.1 8199")
    try:
        until(lambda: machine.as_root("ss -Hltn 'sport = :8199'").stdout, 15, "the squatter listens")
        outcome = playbook.run("hubs", INVENTORY, "--inventory", str(other_port), "--limit", "sandbox")
    finally:
        machine.as_root("systemctl stop squatter.service")
    assert outcome.status != 0
    assert "sandbox: hub_port: 8199 is in use by a process of root; choose another port" in " ".join(
        outcome.output.split()
    )
    assert outcome.changed == 0


def test_a_machine_that_is_down_keeps_no_other_hub_from_its_run() -> None:
    """`adrift` comes first in the alphabet, so it is the hub that looks at the machines for all."""
    down = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    hub = {"hub_machine": "down", "hub_port": 8109, "hub_lti_client_ids": ["adrift"], **down}
    more = {"machines": {"hosts": {"down": down}}, "hubs": {"hosts": {"adrift": hub}}}
    with playbook.further_inventory(more) as inventory:
        outcome = playbook.run("hubs", inventory, "--inventory", str(INVENTORY))
    assert outcome.status
    assert outcome.recap["adrift"].unreachable == 1
    for name in HUBS:
        done = outcome.recap[name]
        assert (done.changed, done.unreachable, done.failed) == (0, 0, 0), outcome.output
        assert done.ok >= 3, outcome.output
