"""What a real kernel does to homes on images: enlarges them while they are in use, and counts the space of projects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import INVENTORY, Applied

from homes import IMAGE, NAME, Account


@pytest.fixture(scope="module")
def account(applied: Applied) -> Iterator[Account]:
    """An account that does not exist yet. It goes with these tests: its service would write as fast as it can after the reboot, too."""
    found = Account(applied.guest.vm, "vm", INVENTORY)
    yield found
    found.remove()


def test_twenty_enlargements_in_use_lose_nothing(account: Account) -> None:
    assert account.one("256M")["changed"]
    account.start_writing()
    writer = account.own("systemctl --user show --property=MainPID writer.service")
    results = account.grant(*(f"{256 + 128 * step}M" for step in range(1, 21)))
    assert [one.get("msg") for one in results if not one["changed"]] == []
    assert len(results) == 20
    assert account.own("systemctl --user show --property=MainPID writer.service") == writer, "the writer was stopped"
    account.nothing_lost()
    assert not account.one(f"{256 + 128 * 20}M")["changed"]


def test_the_file_system_counts_projects(account: Account) -> None:
    assert "project" in account.run(f"dumpe2fs -h {IMAGE}")
    assert "prjquota" in account.run(f"findmnt --noheadings --output OPTIONS /home/{NAME}")
