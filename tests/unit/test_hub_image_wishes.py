# SPDX-License-Identifier: GPL-3.0-or-later
"""The action hub_image finds out what a machine's hubs add to their images, by a real ansible-playbook."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible_collections.ananke.jupyterhub.plugins.module_utils.description import image
from description_cases import ROOT
from plays import succeed

HUBS: dict[str, dict[str, Any]] = {
    "plain": {"hub_machine": "m1"},
    "more": {"hub_machine": "m1", "hub_features": "{{ wanted }}", "wanted": ["lsp"]},
    "same": {"hub_machine": "{{ 'm' ~ 1 }}", "hub_features": ["lsp"]},
    "gpu": {"hub_machine": "m1", "hub_features": ["tensorflow"], "hub_devices": ["nvidia.com/gpu=all"]},
    "elsewhere": {"hub_machine": "m2", "hub_features": ["myst"]},
    "bad": {"hub_machine": "m1", "hub_features": ["lps"]},
}


def names_of(tmp_path: Path, machine: str) -> tuple[list[str], str]:
    """Names of a machine's images, and all that the run said."""
    inventory = {
        "all": {"vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}},
        "machines": {"hosts": {"m1": {}, "m2": {}}},
        "hubs": {"hosts": HUBS},
    }
    task = {
        "ananke.jupyterhub.hub_image": {
            "definitions": [{"name": "standard"}],
            "settings": {"conda": {"installer": "https://a.org/i", "checksum": "0" * 64, "channels": ["c"]}},
            "hubs": "{{ groups.hubs }}",
            "files": str(ROOT / "roles/hub_image/files"),
            "validate_only": True,
        },
        "register": "found",
    }
    copy = {"ansible.builtin.copy": {"content": "{{ found.names | to_json }}", "dest": str(tmp_path / "names")}}
    play = {"hosts": machine, "gather_facts": False, "tasks": [task, copy]}
    said = succeed(tmp_path, inventory, play)
    return json.loads((tmp_path / "names").read_text()), said


def test_what_hubs_of_a_machine_add(tmp_path: Path) -> None:
    names, said = names_of(tmp_path, "m1")
    lsp, gpu = (image.Wish("standard", {"features": [wish]}).name for wish in ("lsp", "tensorflow:gpu"))
    assert names == ["standard", *sorted([lsp, gpu])]
    assert "no image is made for bad" in said
    assert names_of(tmp_path, "m2")[0] == ["standard", image.Wish("standard", {"features": ["myst"]}).name]
