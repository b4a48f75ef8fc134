# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role's defaults and argument specs say the same, and the code that checks hubs knows the same variables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.ananke.jupyterhub.plugins.module_utils.description import LOG_LEVELS, VARIABLES
from ansible_collections.ananke.jupyterhub.plugins.module_utils.description.lti import PLATFORMS
from description_cases import ROOT, defaults, load, specs
from hub_variables_page import PAGE, page

ROLES = sorted(path.parents[1].name for path in ROOT.glob("roles/*/tasks/main.yml"))


def test_roles_were_found() -> None:
    assert {"hub", "hub_lti"} <= set(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_argument_specs(role: str) -> None:
    assert (ROOT / "roles" / role / "meta" / "argument_specs.yml").exists()


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_specs_are_equal(role: str) -> None:
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    stated = defaults(role) if path.exists() else {}
    specified = {name: option.get("default") for name, option in specs(role).items() if not option.get("required")}
    # a default of null is not stated in a spec, where it would be an empty string to some types
    assert stated == {
        **{name: None for name in stated if name in specified},
        **{k: v for k, v in specified.items() if v is not None},
    }
    assert not stated.keys() & {name for name, option in specs(role).items() if option.get("required")}


@pytest.mark.parametrize("role", ROLES)
def test_variables_start_with_the_roles_name(role: str) -> None:
    assert [name for name in specs(role) if not name.startswith(f"{role}_")] == []


def _options(options: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, option in options.items():
        yield f"{place}.{name}", option
        yield from _options(option.get("options", {}), f"{place}.{name}")


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_described(role: str) -> None:
    entry = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]
    assert entry.get("short_description")
    assert [
        place for place, option in _options(specs(role), role) if not (option.get("description") and option.get("type"))
    ] == []


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_of_their_types(role: str) -> None:
    plain = {
        name: option
        for name, option in specs(role).items()
        if option.get("default") is not None and "{{" not in str(option["default"])
    }
    result = ArgumentSpecValidator(plain).validate({name: option["default"] for name, option in plain.items()})
    assert result.error_messages == []


def test_checks_cover_exactly_the_variables_of_a_hub() -> None:
    account = {
        f"container_admin_{name}"
        for name in ("uid", "password_hash", "password_change", "authorized_keys", "home_size")
    }
    assert account <= set(specs("container_admin"))
    assert set(VARIABLES) == {*specs("hub"), *specs("hub_lti"), *account}


def test_choices_are_the_codes() -> None:
    assert tuple(specs("hub")["hub_log_level"]["choices"]) == LOG_LEVELS
    assert tuple(specs("hub_lti")["hub_lti_platform"]["choices"]) == PLATFORMS


def test_the_page_of_hub_variables_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/unit/hub_variables_page.py"
