"""Settings of the inventory that the demo leaves at their defaults, seen where they take effect."""

from __future__ import annotations

import json
import shlex
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browsing import Person
from conftest import Visit
from facts import ROOT, Demo, Hub, Machine

import playbook
from demo import certify

sys.path.append(str(ROOT / "roles/hub_image/files"))
from ananke_hub.usernames import username

INVENTORY = ROOT / "inventories/demo"
ONLY = "student1@example.org"
"""The only student who may enter."""


PASSWORD = "korrektes pferd"  # noqa: S105  (of an account that lives for a test)


@dataclass(frozen=True)
class Dressed:
    """The hub `sandbox` with every setting, and what belongs to it on this computer."""

    hub: Hub
    sheets: Path
    key: Path
    options: tuple[str, ...]


@pytest.fixture(scope="module")
def dressed(demo: Demo, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dressed]:
    folder = tmp_path_factory.mktemp("settings")
    hub, key = demo.hubs["sandbox"], folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    settings = {
        "hub_volumes": [
            {"source": "/srv/course", "target": "/srv/course", "read_only": True},
            {"source": "/srv/drop", "target": "/srv/drop"},
        ],
        "hub_devices": ["/dev/fuse"],
        "hub_users": [username("m", ONLY)],
        "hub_log_level": "DEBUG",
        "hub_default_url": "/lab/workspaces/course",
        "hub_concurrent_spawns": 3,
        "hub_cull_every": 120,
        "hub_cull_max_age": 90000,
        "hub_lti_username_key": "email",
        "hub_lti_username_prefix": "m",
        "hub_lti_sheet_dir": str(folder),
        "container_admin_authorized_keys": [key.with_suffix(".pub").read_text().strip()],
        "container_admin_password_hash": hashed(PASSWORD),
        "container_admin_password_change": False,
    }
    machine.as_root(
        "mkdir -p /srv/course /srv/drop && echo 1,2,3 >/srv/course/data.csv && chown -R sandbox /srv/course /srv/drop && chmod 700 /srv/drop"
    )
    options = ("--limit", hub.name, "--extra-vars", json.dumps(settings))
    try:
        playbook.succeed("hubs", INVENTORY, *options)
        yield Dressed(hub, folder, key, options)
    finally:
        playbook.succeed("hubs", INVENTORY, "--limit", hub.name)
        machine.as_root("rm -r /srv/course /srv/drop /home/sandbox/.ssh")


def test_a_second_run_changes_none_of_them(dressed: Dressed) -> None:
    assert playbook.succeed("hubs", INVENTORY, *dressed.options).changed == 0


def test_folders_of_the_machine(dressed: Dressed, machine: Machine, students: list[Person], visit: Visit) -> None:
    (student,) = (person for person in students if person.id == "student1")
    kernel = visit(student).enter(dressed.hub).kernel()
    assert kernel.run("print(open('/srv/course/data.csv').read())").strip() == "1,2,3"
    refused = dressed.hub.exec("echo 4 >>/srv/course/data.csv", check=False)
    assert "Read-only file system" in refused.stderr
    dressed.hub.exec("echo handed in >/srv/drop/work.txt")
    assert machine.as_root("stat -c %U /srv/drop/work.txt").stdout.strip() == "sandbox"


def test_a_device(dressed: Dressed, demo: Demo) -> None:
    assert dressed.hub.exec("stat -c %F /dev/fuse").stdout.strip() == "character special file"
    assert demo.hubs["math101"].exec("stat /dev/fuse", check=False).returncode != 0


def test_who_may_enter_under_which_name_and_where_they_land(
    dressed: Dressed, students: list[Person], visit: Visit
) -> None:
    let_in, other = sorted(students[:2], key=lambda person: person.id)
    visitor = visit(let_in)
    assert visitor.enter(dressed.hub).user == username("m", ONLY)
    assert any(url.endswith("/lab/workspaces/course") for url in visitor.requests)
    stranger = visit(other)
    stranger.sign_in()
    refusal = stranger.refused(lambda: stranger.click_hub(dressed.hub), dressed.hub)
    assert refusal.status == 403


def test_what_the_hub_s_processes_are_told(dressed: Dressed) -> None:
    assert "[D " in dressed.hub.exec("journalctl --unit jupyterhub --no-pager --lines 500 --output cat").stdout
    culler = dressed.hub.exec("pgrep --full --list-full idle_culler").stdout
    assert "--cull-every=120" in culler
    assert "--max-age=90000" in culler


def hashed(password: str) -> str:
    """As mkpasswd makes it; the password comes by standard input."""
    made = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=password, capture_output=True, text=True, check=True
    )
    return made.stdout.strip()


def test_the_container_admin_logs_in(dressed: Dressed, machine: Machine) -> None:
    done = machine.login("sandbox", dressed.key, PASSWORD, "id -un")
    assert (done.returncode, done.stdout.strip()) == (0, "sandbox"), done.stderr
    # a hardened machine wants key and password, and lets in who has a key in the inventory alone
    hardened = "keyboard-interactive" in machine.as_root("/usr/sbin/sshd -T | grep -i ^authenticationmethods").stdout
    if hardened:
        assert machine.login("sandbox", dressed.key, "wrong", "true").returncode != 0
        assert machine.as_root("cat /etc/ssh/ananke.d/sandbox.conf").stdout.endswith("AllowUsers sandbox\n")
        assert machine.as_root("ls /etc/ssh/ananke.d").stdout.split() == ["@host-admins.conf", "sandbox.conf"]


def test_the_sheet_for_the_lms_as_a_file(dressed: Dressed) -> None:
    sheet = (dressed.sheets / "sandbox.txt").read_text()
    assert f"{dressed.hub.url}hub/lti13/oauth_login" in sheet
    assert sheet == dressed.hub.admin(f"cat {shlex.quote(dressed.hub.folder)}/lms.txt").stdout


@pytest.fixture
def further_hub(demo: Demo, machine: Machine) -> Iterator[playbook.Outcome]:
    """A hub whose inventory host, name and account's UID are chosen."""
    hub = {"hub_name": "extra", "hub_port": 8109, "hub_lti_client_ids": ["extra"], "container_admin_uid": 4242}
    with playbook.further_inventory({"hubs": {"hosts": {"algebra": hub}}}) as inventory:
        try:
            yield playbook.succeed("hubs", inventory, "--inventory", str(INVENTORY), "--limit", "algebra")
        finally:
            machine.as_root(
                "rm -f /etc/nginx/ananke/locations.d/extra.conf; loginctl disable-linger extra;"
                "systemctl stop user@4242; rm -rf /home/extra; userdel extra"
            )


def test_name_and_uid_of_a_further_hub(
    demo: Demo, machine: Machine, further_hub: playbook.Outcome, visit: Visit
) -> None:
    assert further_hub.recap["algebra"].changed == 2
    assert machine.ssh("id -u extra").stdout.strip() == "4242"
    base = demo.hubs["sandbox"].url.removesuffix("sandbox/")
    page = visit().page
    answer = page.goto(f"{base}extra/hub/health")
    assert answer is not None
    assert answer.status == 200


def served(demo: Demo) -> str:
    """The certificate that the machine shows, in PEM; it is valid, or this fails."""
    trusted = ssl.create_default_context(cafile=str(demo.ca))
    port = urlsplit(demo.lms_url).port or 443
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
        trusted.wrap_socket(connection, server_hostname="hubs.localhost") as session,
    ):
        return ssl.DER_cert_to_PEM_cert(session.getpeercert(binary_form=True) or b"")


def test_a_certificate_of_the_site_s_own(demo: Demo) -> None:
    before = served(demo)
    certify(demo.ca.parent, "own", ["hubs.localhost", "lms.localhost"])
    own = demo.ca.with_name("own.pem")
    files = {"certificate": str(own), "certificate_key": str(own.with_suffix(".key")), "demo_ca": ""}
    variables = json.dumps({f"reverse_proxy_{name}": value for name, value in files.items()})
    options = ("--tags", "reverse_proxy", "--extra-vars", variables)
    try:
        playbook.succeed("machines", INVENTORY, *options)
        assert served(demo) != before
        assert served(demo) in own.read_text()
        assert playbook.succeed("machines", INVENTORY, *options).changed == 0
    finally:
        playbook.succeed("machines", INVENTORY, "--tags", "reverse_proxy")
    assert served(demo) == before
