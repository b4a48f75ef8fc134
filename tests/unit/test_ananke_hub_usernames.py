# SPDX-License-Identifier: GPL-3.0-or-later
"""User names: valid for Debian and systemd, stable, and never shared by two people."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ananke_hub.description import USER_NAME
from ananke_hub.usernames import MAX_LENGTH, RESERVED, username

# what systemd (user-util.h, strict) and adduser accept
VALID = re.compile(r"[a-z][a-z0-9_-]{0,30}\Z")
prefixes = st.from_regex(r"[a-z][a-z0-9_-]{0,7}", fullmatch=True)
ids = st.text(min_size=1) | st.from_regex(r"[a-z0-9_-]{1,40}", fullmatch=True) | st.uuids().map(str) | st.emails()


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("1234", "u1234"),
        ("teacher1", "uteacher1"),
        ("0a_b-c", "u0a_b-c"),
        ("x" * 30, "u" + "x" * 30),
    ],
)
def test_plain_ids_stay_as_they_are(identifier: str, name: str) -> None:
    assert username("u", identifier) == name


def test_names_never_change() -> None:
    """These are names of real homes: whoever changes the rules takes their work from people."""
    assert username("u", "Ada.Lovelace@example.org") == "uada-lovelace-awnykiymj2jenpwk"
    assert username("u", "x" * 31) == "uxxxxxxxxxxxxx-b5dojmeaf7xg73kz"
    assert username("u", "cf") == "ucf-omhx2a2qtthc3wxn"
    assert username("u", "Élodie") == "uelodie-5arcmtptybuly3zw"


@given(prefixes, ids)
@example("u", "\ud800")
@example("u", "../../etc/passwd")
@example("u", "$(reboot)")
@example("u", "-rf")
@example("abcdefgh", "x" * 1000)
def test_every_id_gives_a_valid_name(prefix: str, identifier: str) -> None:
    name = username(prefix, identifier)
    assert VALID.match(name), name
    assert USER_NAME.match(name)
    assert len(name) <= MAX_LENGTH
    assert name not in RESERVED
    assert name.startswith(prefix)
    assert name == username(prefix, identifier)


@given(st.lists(ids, unique=True, min_size=2, max_size=20))
def test_two_people_never_share_a_name(identifiers: list[str]) -> None:
    assert len({username("u", identifier) for identifier in identifiers}) == len(identifiers)


@given(ids)
def test_nobody_can_choose_an_id_that_gives_another_persons_name(identifier: str) -> None:
    """An id that is made to look like somebody's name with a suffix gets a suffix of its own."""
    name = username("u", identifier)
    if name != "u" + identifier:
        assert username("u", name.removeprefix("u")) != name


def test_upper_and_lower_case_are_different_people() -> None:
    assert username("u", "ada") != username("u", "Ada")


@pytest.mark.parametrize("reserved", sorted(name for name in RESERVED if len(name) > 1 and name[0].isalpha()))
def test_system_accounts_are_never_given_away(reserved: str) -> None:
    assert username(reserved[0], reserved[1:]) != reserved
    assert username("s", "ystemd-anything") != "systemd-anything"


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        username("u", "")
