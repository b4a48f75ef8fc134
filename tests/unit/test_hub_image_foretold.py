# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode: a hub takes its image from what the images' play foretells, if that took part in the run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_container as hub
from description_cases import ROOT
from plays import succeed

RECORDED = "localhost/ananke/standard:000000000000"
FORETOLD = "localhost/ananke/standard:111111111111"
OMITTED = "Hello world!"
"""What ansible.builtin.debug says without a message."""


def image(folder: Path, check_mode: bool, foretold: str | None) -> str:
    """The image that the module gives a hub."""
    (folder / "standard.json").write_text(json.dumps({"reference": RECORDED}))
    params = {
        **{"name": "a", "description": {"servers": {}}, "environment": ""},
        **{"image": "standard", "image_records": str(folder), "image_foretold": foretold},
    }
    module: Any = SimpleNamespace(check_mode=check_mode, params=params)
    return hub.Hub(module).image


def test_only_check_mode_believes_what_is_foretold(tmp_path: Path) -> None:
    assert image(tmp_path, check_mode=True, foretold=FORETOLD) == FORETOLD
    assert image(tmp_path, check_mode=True, foretold=None) == RECORDED
    assert image(tmp_path, check_mode=False, foretold=FORETOLD) == RECORDED


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"images": [{"name": "other", "reference": "x"}, {"name": "standard", "reference": FORETOLD}]}, FORETOLD),
        ({"images": [{"name": "other", "reference": "x"}]}, OMITTED),
        ({"skipped": True}, OMITTED),
        (None, OMITTED),
    ],
)
def test_the_role_asks_the_hub_s_machine(result: dict[str, Any] | None, expected: str, tmp_path: Path) -> None:
    machine = {} if result is None else {"hub_image_result": result}
    inventory = {"all": {"hosts": {"m1": machine, "a": {"ansible_connection": "local"}}}}
    play = {
        "hosts": "a",
        "gather_facts": False,
        "vars_files": [str(ROOT / "roles/hub/vars/main.yml")],
        "vars": {"hub_described": {"hub": {"machine": "m1", "image": "standard"}}},
        "tasks": [{"ansible.builtin.debug": {"msg": "{{ __hub_image_foretold }}"}}],
    }
    said = succeed(tmp_path, inventory, play)
    assert expected in said, said
