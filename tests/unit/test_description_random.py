# SPDX-License-Identifier: GPL-3.0-or-later
"""Random values in every variable: never a crash, never a description that could harm."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from ansible_collections.ananke.jupyterhub.plugins.module_utils.description import (
    VARIABLES,
    cross_check,
    describe,
    outline,
)
from description_cases import MACHINE, MACHINES, good, known_names, with_defaults
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ananke_hub.description import parse

KNOWN = known_names()
#: Characters that mean something to a shell, nginx, systemd, YAML, Jinja or Python, among ordinary ones.
TRICKY = st.text(st.sampled_from("aZ09._-/~ :;,|&$`'\"\\{}()[]<>#%?*!=@+\n\r\t\0\x1b\u202e\ud800é٣"), max_size=24)
PLAIN = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True)
TEXTS = st.one_of(TRICKY, st.text(max_size=40), PLAIN)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.dates())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(TEXTS, st.integers()), inner, max_size=3)
    ),
)
SAFE = re.compile(r"[A-Za-z0-9._@+/-]+\Z")


def check(host: str, variables: dict[str, Any]) -> None:
    """Describe the hub; if that is possible, the result must be harmless wherever it is written."""
    variables = with_defaults(host, {**good(host), **variables})
    machine = MACHINE if variables["hub_machine"] in MACHINES else None
    result, problems = describe(host, variables, machine, MACHINES, KNOWN)
    cross_check([outline(host, variables), outline("other", with_defaults("other", good("other")))])
    assert (result is None) == bool(problems)
    for problem in problems:
        assert str(problem).isprintable()
        assert problem.host == host
        assert problem.key
        assert problem.value
        assert problem.what
        assert problem.remedy
        assert len(problem.value) <= 80
    if result is None:
        return
    json.dumps(result, allow_nan=False).encode("ascii")
    assert json.loads(json.dumps(result)) == result  # plain data only
    hub, location = result["hub"], result["location"]
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,30}", hub["name"])
    assert re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", hub["container_admin"])
    assert re.fullmatch(r"(/[A-Za-z0-9][A-Za-z0-9._-]*)+/", location["path"])
    for word in (hub["name"], hub["container_admin"], hub["image"], location["path"]):
        assert shlex.quote(word) == word
    for volume in hub["volumes"]:
        assert SAFE.match(volume["source"])
        assert SAFE.match(volume["target"])
        assert ".." not in (volume["source"] + "/" + volume["target"]).split("/")
    assert all(re.fullmatch(r"[A-Za-z0-9._:/=@+-]+", device) for device in hub["devices"])
    assert 1024 <= hub["port"] <= 65535
    assert all(line.isprintable() for line in result["lms_sheet"].splitlines())
    described = {
        **result["description"],
        "time_zone": result["description"]["time_zone"] or "UTC",
    }  # else its machine's
    parse(json.loads(json.dumps(described)))  # what the hub itself demands


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from(sorted(VARIABLES)), value=VALUES)
def test_any_value_in_any_variable(key: str, value: Any) -> None:
    check("math101", {key: value})


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from(sorted(VARIABLES)), value=TEXTS)
@example(key="hub_environment", value="{")
def test_any_text_anywhere_in_a_variable(key: str, value: str) -> None:
    check("math101", {key: value})
    check("math101", {key: [value]})
    check("math101", {key: {value: value}})
    check("math101", {key: {"A": value}})


@settings(max_examples=200, deadline=None)
@given(source=st.one_of(TEXTS, TEXTS.map(lambda text: "/" + text)), target=TEXTS.map(lambda text: "/srv/" + text))
def test_any_volume(source: str, target: str) -> None:
    check("math101", {"hub_volumes": [{"source": source, "target": target}]})


@settings(max_examples=200, deadline=None)
@given(
    variables=st.dictionaries(
        st.one_of(st.sampled_from(sorted(VARIABLES)), TEXTS.map(lambda text: "hub_" + text)), VALUES, max_size=6
    )
)
def test_any_mixture(variables: dict[str, Any]) -> None:
    check("math101", variables)


@settings(max_examples=100, deadline=None)
@given(host=TEXTS.filter(bool), url=st.one_of(TEXTS, TEXTS.map(lambda text: "https://" + text)))
def test_any_host_and_any_url(host: str, url: str) -> None:
    variables = with_defaults(host, {**good(host), "hub_lti_issuer": url, "hub_lti_authorize_url": url})
    result, problems = describe(host, variables, MACHINE, MACHINES, KNOWN)
    assert (result is None) == bool(problems)
    if result is not None:
        assert re.fullmatch(r"https://[\x21-\x7e]+", result["description"]["lti"]["issuer"])
