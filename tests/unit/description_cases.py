# SPDX-License-Identifier: GPL-3.0-or-later
"""Good and bad hubs for the tests of the description, as plain variables and as an inventory."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BAD_INPUTS = Path(__file__).parent / "bad_inputs"

MACHINE = {
    "reverse_proxy_server_name": "hubs.example.org",
    "reverse_proxy_https_port": 8443,
    "hub_image_definitions": [{"name": "standard"}, {"name": "gpu"}],
}
MACHINES = ("m1", "m2")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@functools.cache
def specs(role: str) -> dict[str, Any]:
    """The options of a role, by name."""
    options: dict[str, Any] = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"][
        "options"
    ]
    return options


@functools.cache
def defaults(role: str) -> dict[str, Any]:
    """The defaults of a role, as they are written."""
    return load(ROOT / "roles" / role / "defaults" / "main.yml") or {}


@functools.cache
def known_names() -> set[str]:
    """The names of variables that the action plugin knows."""
    files = sorted(ROOT.glob("roles/*/meta/argument_specs.yml"))
    return {
        name for file in files for name in specs(file.parents[1].name) if name.startswith(("hub_", "container_admin_"))
    }


def good(host: str, port: int = 8101, machine: str = "m1") -> dict[str, Any]:
    """What the inventory says of a good hub."""
    return {
        "hub_machine": machine,
        "hub_port": port,
        "hub_lti_issuer": "https://lms.example.org",
        "hub_lti_client_ids": "abc",
    }


def with_defaults(host: str, variables: dict[str, Any]) -> dict[str, Any]:
    """The variables and the roles' defaults, rendered; the three templates among them by hand, since there is no Ansible."""
    name = variables.get("hub_name", host)
    rendered = {"hub_name": host, "hub_path": f"/{name}/", "hub_container_admin": name}
    rendered["container_admin_password_change"] = defaults("container_admin")["container_admin_password_change"]
    return {**defaults("hub"), **defaults("hub_lti"), **rendered, **variables}


def bad_hubs() -> dict[str, dict[str, Any]]:
    """bad_inputs/hubs.yml."""
    cases: dict[str, dict[str, Any]] = load(BAD_INPUTS / "hubs.yml")
    return cases


def inventory_variables(host: str, case: dict[str, Any], port: int = 8101) -> dict[str, Any]:
    """What the inventory says of a bad hub."""
    variables = {**good(host, port), **case.get("with", {})}
    return {key: value for key, value in variables.items() if key not in case.get("without", [])}


def hubs_together() -> dict[str, dict[str, Any]]:
    """bad_inputs/together.yml, with the variables of each hub completed."""
    cases: dict[str, dict[str, Any]] = load(BAD_INPUTS / "together.yml")
    port = 9200
    for case in cases.values():
        for host in case["hubs"]:
            port += 1
            case["hubs"][host] = {**good(host, port, "m2"), **case["hubs"][host]}
    return cases


class _Unsafe(str):
    """A string that Ansible must not render."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))


def _protected(value: Any) -> Any:
    if isinstance(value, str):
        return _Unsafe(value) if "{" in value else value
    if isinstance(value, dict):
        return {key: _protected(item) for key, item in value.items()}
    return [_protected(item) for item in value] if isinstance(value, list) else value


def write_inventory(folder: Path, hubs: dict[str, dict[str, Any]], ssh: Path, rendered: tuple[str, ...] = ()) -> Path:
    """Write an inventory of these hubs, whose connections would all go through the program ``ssh``."""
    address = {"ansible_host": "192.0.2.1", "ansible_ssh_executable": str(ssh)}
    inventory = {
        "machines": {"hosts": {name: {**address, **MACHINE} for name in MACHINES}},
        "others": {"hosts": {"lonely": address}},
        "hubs": {
            "vars": {"ansible_host": "{{ hostvars[hub_machine].ansible_host }}", "ansible_ssh_executable": str(ssh)},
            "hosts": {
                host: variables if host in rendered else _protected(variables) for host, variables in hubs.items()
            },
        },
    }
    shutil.copytree(BAD_INPUTS / "files", folder, dirs_exist_ok=True)
    path = folder / "hosts.yml"
    path.write_text(yaml.dump(inventory, Dumper=_Dumper, allow_unicode=False, sort_keys=False), encoding="utf-8")
    return path


def controller_play() -> dict[str, Any]:
    """Preflight's play of hubs without the tasks that look at machines."""
    plays = load(ROOT / "playbooks" / "preflight.yml")
    play: dict[str, Any] = next(play for play in plays if play["name"].startswith("Refuse bad hubs"))
    tasks = [task for task in play["tasks"] if "ananke.jupyterhub.hub_description" in task]
    assert play["tasks"][: len(tasks)] == tasks, "hubs are validated before anything else"
    return {**play, "tasks": tasks}


def says(line: str, host: str, key: str, value: str, remedy: str, what: str = "") -> bool:
    """Whether a message names host, key, value and remedy."""
    head = f"{host}: {key} = {value}: "
    return line.startswith(head) and remedy in line[len(head) :] and what in line[len(head) :]
