# SPDX-License-Identifier: GPL-3.0-or-later
"""A hub that closes: what people are told, and that it opens again by itself."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ananke_hub import closing
from ananke_hub.paths import ROOT_VARIABLE, Paths


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    found = Paths.current()
    found.closing.parent.mkdir(parents=True)
    return found


def close(paths: Paths, at: float, until: float) -> None:
    now = time.time()
    paths.closing.write_text(json.dumps({"at": now + at, "until": now + until}))


def test_an_open_hub_says_nothing(paths: Paths) -> None:
    assert closing.announcement(None) == ""
    assert closing.refusal(paths) == ""


def test_before_the_end_people_are_told_when_it_is(paths: Paths) -> None:
    close(paths, at=3600, until=7200)
    said = closing.announcement(None)
    assert time.strftime("updated at %H:%M", time.localtime(time.time() + 3600)) in said
    assert "Save your work" in said
    assert closing.refusal(paths) == said


def test_after_it_they_are_told_to_come_back(paths: Paths) -> None:
    close(paths, at=-1, until=60)
    assert "is being updated" in closing.refusal(paths)


def test_jupyterlab_shows_all_of_it(paths: Paths) -> None:
    """It cuts off a notification after 140 characters."""
    for at in (60, -1):
        close(paths, at=at, until=600)
        assert 0 < len(closing.announcement(None)) <= 140


def test_a_hub_of_which_nobody_speaks_any_more_opens(paths: Paths) -> None:
    close(paths, at=-900, until=-1)
    assert closing.refusal(paths) == ""


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"at": "soon", "until": 1}', '{"at": 1}', '{"at": null, "until": null}']
)
def test_a_damaged_note_closes_nothing(paths: Paths, text: str) -> None:
    paths.closing.write_text(text)
    assert closing.refusal(paths) == ""
