# SPDX-License-Identifier: GPL-3.0-or-later
"""The description: what is accepted, and the one readable line for everything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ananke_hub_support import description
from hypothesis import given
from hypothesis import strategies as st

from ananke_hub import description as d

ROOM: dict[str, Any] = {"name": "a", "title": "A", "public": False, "users": ["u1"], "groups": []}
BAD_ROOM: list[tuple[str, Any]] = [
    ("name", "A"),
    ("name", "a-"),
    ("name", "-a"),
    ("name", "a" * 27),
    ("name", "a/b"),
    ("title", ""),
    ("title", "a\nb"),
    ("public", 1),
    ("users", "u1"),
    ("users", ["room-b"]),
    ("groups", ["b"]),
    ("groups", ["B"]),
    ("members", []),
]


def test_a_good_description() -> None:
    hub = d.parse(description())
    assert (hub.name, hub.base_url, hub.https) == ("math101", "/math101/", True)
    assert hub.servers.cpus == 2.0
    assert hub.lti is not None
    assert hub.lti.client_ids == ("client-1",)


def test_rooms() -> None:
    hub = d.parse(description(groups={"team": ["u2"]}, rooms=[{**ROOM, "name": "a" * 26, "groups": ["team"]}]))
    assert hub.groups == {"team": ("u2",)}
    assert hub.rooms == (d.Room("a" * 26, "A", False, ("u1",), ("team",)),)


def test_no_limits_and_no_lms() -> None:
    data = description(lti=None)
    data["servers"].update(memory=None, swap=None, tasks=None, cpus=None)
    hub = d.parse(data)
    assert hub.lti is None
    assert hub.servers.memory is None


def changed(path: str, value: Any) -> dict[str, Any]:
    data = description()
    section, _, key = path.rpartition(".")
    (data[section] if section else data)[key] = value
    return data


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("version", "1"),
        ("version", True),
        ("name", "Math"),
        ("name", "../etc"),
        ("name", "a\n"),
        ("name", ""),
        ("base_url", "math101/"),
        ("base_url", "/math101"),
        ("base_url", "/a//b/"),
        ("base_url", "/{{ 7*7 }}/"),
        ("public_url", "https://hubs.example.org/other/"),
        ("public_url", "ftp://hubs.example.org/math101/"),
        ("public_url", "hubs.example.org/math101/"),
        ("log_level", "info"),
        ("admins", "uteacher1"),
        ("admins", ["Teacher"]),
        ("admins", ["a b"]),
        ("admins", ["root\n"]),
        ("admins", ["a", "a"]),
        ("users", [1]),
        ("users", None),
        ("admins", ["room-a"]),
        ("groups", []),
        ("groups", {"a": "u1"}),
        ("groups", {"a": ["u1", "u1"]}),
        ("groups", {"a": ["room-b"]}),
        ("groups", {"A": []}),
        ("rooms", {}),
        ("rooms", ["a"]),
        ("rooms", [{"name": "a"}]),
        *(("rooms", [{**ROOM, key: value}]) for key, value in BAD_ROOM),
        ("rooms", [ROOM, {**ROOM, "title": "B"}]),
        ("servers", []),
        ("servers.memory", "1G"),
        ("servers.memory", 0),
        ("servers.memory", 1.5),
        ("servers.memory", True),
        ("servers.swap", -1),
        ("servers.tasks", 0),
        ("servers.cpus", 0),
        ("servers.cpus", float("nan")),
        ("servers.cpus", float("inf")),
        ("servers.default_url", "lab"),
        ("servers.default_url", "//evil.example.org"),
        ("servers.start_timeout", None),
        ("servers.concurrent_spawns", 0),
        ("servers.environment", {"A B": "x"}),
        ("servers.environment", {"A": 1}),
        ("servers.environment", {"A": "x\ny"}),
        ("servers.environment", {"A": "x\0"}),
        ("culling.timeout", -1),
        ("culling.every", 0),
        ("lti.issuer", "lms.example.org"),
        ("lti.issuer", "https://"),
        ("lti.issuer", "https://lms.example.org/\n"),
        ("lti.issuer", "https://[::1"),
        ("lti.client_ids", []),
        ("lti.client_ids", "abc"),
        ("lti.client_ids", ["a", "a"]),
        ("lti.client_ids", [""]),
        ("lti.client_ids", [7]),
        ("lti.authorize_url", ""),
        ("lti.jwks_endpoint", "file:///etc/passwd"),
        ("lti.username_key", "a b"),
        ("lti.username_prefix", "U"),
        ("lti.username_prefix", ""),
        ("lti.username_prefix", "1"),
        ("lti.username_prefix", "averylongprefix"),
        ("lti.username_prefix", "roo"),
        ("lti.username_prefix", "room-"),
    ],
)
def test_bad_values_are_named(key: str, value: Any) -> None:
    with pytest.raises(d.DescriptionError) as caught:
        d.parse(changed(key, value))
    text = str(caught.value)
    assert text.startswith(key), text
    assert "\n" not in text
    assert len(text) < 400


@pytest.mark.parametrize("key", [*description(), "servers.memory", "culling.every", "lti.issuer"])
def test_a_missing_key_is_named(key: str) -> None:
    data = description()
    section, _, name = key.rpartition(".")
    del (data[section] if section else data)[name]
    with pytest.raises(d.DescriptionError, match=rf"^{key}: missing"):
        d.parse(data)


@pytest.mark.parametrize("key", ["extra", "servers.ram", "culling.extra", "lti.access_token_url"])
def test_an_unknown_key_is_named(key: str) -> None:
    with pytest.raises(d.DescriptionError, match=rf"^{key}: unknown key"):
        d.parse(changed(key, 1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    [
        *description(),
        *(f"{section}.{key}" for section in ("servers", "culling", "lti") for key in description()[section]),
    ]
)


@given(keys, json_values)
def test_whatever_a_key_holds_it_is_taken_or_refused_in_one_line(key: str, value: Any) -> None:
    try:
        line = d.parse(changed(key, value)).name
    except d.DescriptionError as error:
        line = str(error)
    assert line.isprintable()


@given(json_values)
def test_anything_at_all_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(d.DescriptionError):
        d.parse(value)


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "hub.json"
    with pytest.raises(d.DescriptionError, match=r"hub\.json: cannot be read: No such file"):
        d.load(file)
    for text in (b"", b"{", b"\xff", b"[" * 100000, b'{"version": 1, "version": 1}'):
        file.write_bytes(text)
        with pytest.raises(d.DescriptionError) as caught:
            d.load(file)
        assert str(caught.value).startswith(f"{file}: ")
    file.write_text(json.dumps(description()))
    assert d.load(file).name == "math101"
