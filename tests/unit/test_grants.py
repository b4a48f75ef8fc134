# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether root has something to grant to a hub: nothing only if account, paths and turns are all as wanted."""

from __future__ import annotations

import pwd
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, grants

WANTED: dict[str, Any] = {
    "name": "math101",
    "uid": 1234,
    "password_hash": "$y$hash",
    "password_change": True,
    "authorized_keys": ["ssh-ed25519 AAAA"],
    "store": "/srv/store",
    "home_size": None,
    "home_offline": False,
    "quotas": [],
    "backups": [],
    "locations": [{"name": "math101", "path": "/math101/", "port": 8101, "upload_limit": "1g"}],
}


class System:
    """A machine of which only the answers matter."""

    def __init__(self) -> None:
        self.account: list[str] = []
        self.path: list[str] = []
        self.turns = True
        self.login: list[str] = []
        self.allowed: bool | None = None
        self.asked: list[Any] = []

    def create(self, _account: accounts.Account, run: accounts.Run, check: bool) -> list[str]:
        assert check, "a look must not change anything"
        with pytest.raises(AssertionError):
            run(["useradd"])
        return []

    def furnish(self, account: accounts.Account, run: accounts.Run, check: bool, home_there: bool) -> list[str]:
        self.home_there = home_there
        assert check, "a look must not change anything"
        with pytest.raises(AssertionError):
            run(["useradd"])
        self.asked.append(account)
        return self.account

    def foretell(self, path: str, content: str) -> list[str]:
        self.asked.append((path, content))
        return self.path

    def allow(self, name: str, allowed: bool) -> list[str]:
        assert name == "math101"
        self.allowed = allowed
        return self.login


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    found = System()
    monkeypatch.setattr(accounts, "create", found.create)
    monkeypatch.setattr(accounts, "furnish", found.furnish)
    monkeypatch.setattr(grants.nginx, "foretell", found.foretell)
    monkeypatch.setattr(grants.logins, "foretell", found.allow)
    monkeypatch.setattr(grants.turns, "provided", lambda: found.turns)
    return found


def test_nothing_to_grant(system: System) -> None:
    assert grants.settled(WANTED)
    account, (path, content) = system.asked
    assert account == accounts.Account("math101", 1234, "$y$hash", True, ("ssh-ed25519 AAAA",), "/srv/store")
    assert path == "/etc/nginx/ananke/locations.d/math101.conf"
    assert "location /math101/ {" in content
    assert system.allowed is True


def test_an_account_without_hubs_needs_no_path(system: System) -> None:
    assert grants.settled({**WANTED, "locations": [], "authorized_keys": None})
    assert system.allowed is False
    (account,) = system.asked
    assert account.authorized_keys is None


def test_an_account_that_differs(system: System) -> None:
    system.account = ["lingering enabled"]
    assert not grants.settled(WANTED)
    assert grants.foretell(WANTED) == ["lingering enabled"]


def test_a_path_that_differs(system: System) -> None:
    system.path = ["nginx reloaded"]
    assert not grants.settled(WANTED)


def test_turns_that_a_reboot_took(system: System) -> None:
    system.turns = False
    assert not grants.settled(WANTED)


def test_what_cannot_be_granted_is_for_its_own_task_to_refuse(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> list[str]:
        raise accounts.AccountError("account math101 has another UID")

    monkeypatch.setattr(accounts, "create", refuse)
    assert not grants.settled(WANTED)


def test_a_home_that_differs(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    there = {**WANTED, "home_size": 2**30}
    monkeypatch.setattr(accounts, "lookup", lambda _name: pwd.getpwnam("daemon"))
    monkeypatch.setattr(
        grants.homes, "ensure", lambda home, _run, check: looked.append((home.size, check)) or ["home mounted"]
    )
    monkeypatch.setattr(grants.homes, "hidden", lambda _home: True)
    assert not grants.settled(there)
    assert looked == [(2**30, True)]
    assert not system.home_there


def test_without_a_size_nothing_of_the_home_is_looked_at(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants.homes, "ensure", lambda *_arguments, **_options: pytest.fail("the home was looked at"))
    assert grants.settled(WANTED)
    assert system.home_there


@pytest.mark.parametrize(
    ("change", "frame", "shadow", "warned"),
    [
        ({}, "publickey,keyboard-interactive:pam", "!", True),
        ({}, "publickey", "!", False),
        ({}, "publickey,keyboard-interactive:pam", "$y$set-by-hand", False),
        ({"authorized_keys": None}, "publickey,keyboard-interactive:pam", "!", False),
        ({"password_hash": "$y$hash"}, "publickey,keyboard-interactive:pam", "!", False),
    ],
)
def test_who_has_a_key_and_no_password_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], frame: str, shadow: str, warned: bool
) -> None:
    texts = {
        "/etc/shadow": f"math101:{shadow}:1::::::\n",
        grants.logins.FRAME: f"Port 986\nAuthenticationMethods {frame}\n",
    }
    monkeypatch.setattr(grants.files, "read", texts.get)
    found = grants.warnings({**WANTED, "password_hash": None, **change})
    assert bool(found) is warned
    assert all("set container_admin_password_hash" in text for text in found)
