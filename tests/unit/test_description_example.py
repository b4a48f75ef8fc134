# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventory: it passes preflight, and hubs are reached over their machines' connections."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from description_cases import ROOT, controller_play

EXAMPLE = ROOT / "inventories" / "example"
HUBS = {
    "math101": "https://hubs-north.example.org/math101/",
    "physics": "https://hubs-north.example.org/science/physics/",
    "statistics": "https://hubs-south.example.org/statistics/",
    "languages": "https://hubs-south.example.org/languages/",
    "playground": "https://hubs-south.example.org/playground/",
}


def ansible(folder: Path, program: str, *arguments: str, key: str = "example") -> subprocess.CompletedProcess[str]:
    """Run Ansible with the example's own ansible.cfg, as an admin does."""
    (folder / "password").write_text(key)
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(EXAMPLE / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build/collections"),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [program, "--vault-password-file", str(folder / "password"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def first_play(folder: Path) -> str:
    """Preflight as far as it needs no machine."""
    (folder / "preflight.yml").write_text(yaml.safe_dump([controller_play()]))
    return str(folder / "preflight.yml")


def test_example_passes_preflight_without_a_warning(tmp_path: Path) -> None:
    done = ansible(tmp_path, "ansible-playbook", first_play(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed=0" in done.stdout
    assert "WARNING" not in done.stdout + done.stderr


def test_example_describes_five_hubs(tmp_path: Path) -> None:
    checks = [
        "d.description.public_url == urls[inventory_hostname]",
        "(d.description.lti is none) == (inventory_hostname == 'playground')",
        "d.description.servers.environment.get('SURVEY_API_TOKEN') == vault_survey_api_token or inventory_hostname != 'statistics'",
        "(container_admin_password_hash is none) == (inventory_hostname != 'physics')",
    ]
    tasks = [
        {"ananke.jupyterhub.hub_description": {}, "register": "d"},
        {"ansible.builtin.assert": {"that": checks}},
        {
            "ansible.builtin.include_role": {"name": "ananke.jupyterhub.hub_lti"},
            "vars": {"hub_lti_sheet_dir": str(tmp_path / "sheets")},
        },
    ]
    play = {"hosts": "hubs", "gather_facts": False, "vars": {"urls": HUBS}, "tasks": tasks}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    done = ansible(tmp_path, "ansible-playbook", str(tmp_path / "play.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("failed=0") == len(HUBS)
    assert "example-token-4711" not in done.stdout
    sheets = {file.stem: file.read_text() for file in (tmp_path / "sheets").iterdir()}
    assert sheets.keys() == HUBS.keys()
    for hub, url in HUBS.items():
        assert url + "hub/lti13/oauth_callback" in sheets[hub]
        assert sheets[hub].splitlines()[0] in done.stdout
    again = ansible(tmp_path, "ansible-playbook", str(tmp_path / "play.yml"))
    assert again.stdout.count("changed=0") == len(HUBS), again.stdout


def test_hubs_use_their_machines_connection_over_a_few_sockets(tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" | head -1 >> {tmp_path}/trace-$$\nexit 255\n')
    ssh.chmod(0o755)
    ansible(tmp_path, "ansible", "hubs", "-m", "ansible.builtin.ping", "-e", f"ansible_ssh_executable={ssh}")
    calls = [path.read_text() for path in tmp_path.glob("trace-*")]
    sockets = {word for call in calls for word in call.split() if word.startswith("ControlPath=")}
    assert len(calls) >= len(HUBS)
    assert all('User="hostadmin"' in call or "User=hostadmin" in call for call in calls)
    assert all("192.0.2.11" in call or "192.0.2.12" in call for call in calls)
    names = {socket.strip('"').rpartition("/")[2] for socket in sockets}
    assert names == {"north-1-%r", "north-2-%r", "south-1-%r", "south-2-%r", "south-3-%r"}


def test_wrong_password_stops_at_once(tmp_path: Path) -> None:
    done = ansible(tmp_path, "ansible-playbook", first_play(tmp_path), key="wrong")
    assert done.returncode != 0
    assert "vault" in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("file", sorted(EXAMPLE.rglob("*.yml")), ids=lambda file: file.name)
def test_no_secret_in_the_clear(file: Path) -> None:
    text = file.read_text()
    assert "$y$" not in text
    assert "$6$" not in text
    assert "BEGIN" not in text


def test_vault_is_encrypted() -> None:
    assert (EXAMPLE / "group_vars/all/vault").read_text().startswith("$ANSIBLE_VAULT;1.1;AES256\n")
