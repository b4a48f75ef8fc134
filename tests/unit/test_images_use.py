# SPDX-License-Identifier: GPL-3.0-or-later
"""A former image goes only when it is known that nobody needs it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import image_store, image_use
from ansible_collections.ananke.jupyterhub.plugins.modules import hub_image_store

NEW, LAST, OLD = (f"localhost/ananke/standard:{letter * 12}" for letter in "cba")
ID = "a1" * 32
TOP, MIDDLE, BASE = "f" * 64, "1" * 64, "0" * 64
STORAGE = ".local/share/containers/storage"


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one account."""
    entry = SimpleNamespace(pw_name="a", pw_uid=1000, pw_dir=str(tmp_path / "home/a"))
    (tmp_path / "home/a").mkdir(parents=True)
    write(tmp_path / "linger/a", "")
    write(tmp_path / "subuid", "a:100000:65536\ngone:200000:65536\n")
    monkeypatch.setattr(pwd, "getpwall", list)

    def by_name(name: str) -> Any:
        return {"a": entry}[name]

    monkeypatch.setattr(pwd, "getpwnam", by_name)
    monkeypatch.setattr(image_use, "LINGER_DIR", str(tmp_path / "linger"))
    monkeypatch.setattr(image_use, "SUBUID", str(tmp_path / "subuid"))
    monkeypatch.setattr(image_use, "SYSTEM_UNITS", (str(tmp_path / "units"),))
    monkeypatch.setattr(image_use, "SYSTEM_STORAGE_CONF", (str(tmp_path / "storage.conf"),))
    return tmp_path / "home/a"


def removed(tmp_path: Path, keep: int = 1) -> tuple[list[str], str]:
    """What the module would remove of a store with three images of one definition, and why it leaves some."""
    store = tmp_path / "store"
    images = [
        {"id": name[-1:] * 64, "names": [name], "layer": name[-1:] * 64}
        if name != OLD
        else {"id": ID, "names": [OLD], "layer": TOP}
        for name in (NEW, LAST, OLD)
    ]
    write(store / "overlay-images/images.json", images)
    layers = [
        {"id": BASE},
        {"id": MIDDLE, "parent": BASE},
        {"id": TOP, "parent": MIDDLE},
        {"id": "c" * 64, "parent": BASE},
        {"id": "b" * 64},
    ]
    write(store / "overlay-layers/layers.json", layers)
    write(tmp_path / "records/standard.json", {"name": "standard", "reference": NEW, "previous": [LAST, OLD]})
    params = {
        **{"images": [{"name": "standard", "reference": NEW}], "store": str(store), "keep": keep},
        "made": False,
        "records": str(tmp_path / "records"),
    }
    module: Any = SimpleNamespace(check_mode=True, params=params)
    one = hub_image_store.Store(module)
    found = one._remove_former(image_store.read_images(str(store)))
    assert one.commands == [["podman", "image", "rm", name] for name in found]
    return found, one.left


@pytest.mark.parametrize(("keep", "expected"), [(0, [OLD, LAST]), (1, [OLD]), (2, []), (9, [])])
def test_the_latest_stay(keep: int, expected: list[str], home: Path, tmp_path: Path) -> None:
    assert removed(tmp_path, keep) == (expected, "")


def test_what_hubs_added_goes_when_the_run_has_made_an_image(home: Path, tmp_path: Path) -> None:
    """Not in any run: hubs move after their images were made, and a second run is to find nothing to do."""
    added, wanted, strange = (
        "localhost/ananke/standard.0123abcd:",
        "localhost/ananke/standard.aaaabbbb:",
        "example.org/a.b:",
    )
    names = [f"{name}{'d' * 12}" for name in (added, wanted, strange)]
    store = tmp_path / "store"
    write(store / "overlay-images/images.json", [{"id": name, "names": [name], "layer": BASE} for name in names])
    write(store / "overlay-layers/layers.json", [{"id": BASE}])
    params = {
        **{"images": [{"name": "standard.aaaabbbb", "reference": names[1]}], "store": str(store), "keep": 1},
        "records": str(tmp_path / "records"),
    }
    for made, expected in ((False, []), (True, names[:1])):
        module: Any = SimpleNamespace(check_mode=True, params={**params, "made": made})
        assert hub_image_store.Store(module)._remove_former(image_store.read_images(str(store))) == expected
    write(tmp_path / "records/standard.0123abcd.json", {"reference": names[0]})
    image_store.forget(f"{added}{'e' * 12}", str(tmp_path / "records"))
    assert image_store.read_record("standard.0123abcd", str(tmp_path / "records"))
    image_store.forget(names[0], str(tmp_path / "records"))
    assert image_store.read_record("standard.0123abcd", str(tmp_path / "records")) is None


NEEDED: dict[str, Callable[[Path], None]] = {
    "unit": lambda home: write(home / ".config/containers/systemd/ananke-a.container", f"[Container]\nImage={OLD}\n"),
    "plain unit": lambda home: write(home / ".config/systemd/user/ananke-a.service", f"ExecStart=podman run {OLD}\n"),
    "drop-in": lambda home: write(home / ".config/containers/systemd/a.container.d/x.conf", f"Image={OLD}\n"),
    "unit of the machine": lambda home: write(home.parents[1] / "units/users/1000/x.container", f"Image={ID[:12]}\n"),
    "container": lambda home: write(home / STORAGE / "overlay-containers/containers.json", [{"image": ID}]),
    "short-lived container": lambda home: write(
        home / STORAGE / "overlay-containers/volatile-containers.json", [{"image": ID}]
    ),
    "layer on top": lambda home: write(home / STORAGE / "vfs-layers/layers.json", [{"id": "x", "parent": TOP}]),
    "layer on a lower one": lambda home: write(
        home / STORAGE / "overlay-layers/volatile-layers.json", [{"id": "x", "parent": MIDDLE}]
    ),
    "image without a layer of its own": lambda home: write(
        home / STORAGE / "overlay-images/images.json", [{"id": "x", "layer": TOP}]
    ),
}


@pytest.mark.parametrize("what", list(NEEDED))
def test_what_anybody_needs_stays(what: str, home: Path, tmp_path: Path) -> None:
    NEEDED[what](home)
    assert removed(tmp_path) == ([], "")


def fifo(path: Path) -> None:
    path.parent.mkdir(parents=True)
    os.mkfifo(path)


def test_a_pipe_in_a_home_holds_nobody_up(home: Path, tmp_path: Path) -> None:
    fifo(home / ".config/containers/systemd/x.container")
    assert removed(tmp_path) == ([OLD], "")


UNKNOWN: dict[str, Callable[[Path], None]] = {
    "damaged list": lambda home: write(home / STORAGE / "overlay-containers/containers.json", "["),
    "strange list": lambda home: write(home / STORAGE / "overlay-containers/containers.json", [{"id": "x"}]),
    "storage elsewhere": lambda home: write(
        home / ".config/containers/storage.conf", '[storage]\ngraphroot = "/srv"\n'
    ),
    "everybody's storage elsewhere": lambda home: write(
        home.parents[1] / "storage.conf", '[storage]\n  rootless_storage_path = "/srv/$USER"\n'
    ),
    "home not mounted": lambda home: shutil.rmtree(home),
    "loop of links": lambda home: (home / ".config").symlink_to(home / ".config"),
}


@pytest.mark.parametrize("what", list(UNKNOWN))
def test_nothing_goes_while_use_is_unknown(what: str, home: Path, tmp_path: Path) -> None:
    UNKNOWN[what](home)
    found, left = removed(tmp_path)
    assert found == []
    assert OLD in left
    assert str(home.parents[1]) in left or "image" in left


def test_a_layer_that_another_image_has_too_keeps_no_image(home: Path, tmp_path: Path) -> None:
    write(home / STORAGE / "overlay-layers/layers.json", [{"id": "x", "parent": BASE}, {"id": "y", "parent": "c" * 64}])
    assert removed(tmp_path) == ([OLD], "")


def test_of_two_images_with_a_needed_layer_one_stays(tmp_path: Path) -> None:
    write(tmp_path / "overlay-layers/layers.json", [{"id": TOP}])
    images = {name: image_store.Image("", name, f"{name}" * 64, "", "", TOP) for name in ("a", "b", "c")}
    use = image_use.Use("", frozenset(), frozenset([TOP]))
    assert image_use.unused([*"abc"], images, str(tmp_path), use) == ["b", "c"]


def test_nothing_goes_from_a_store_that_cannot_be_understood(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_use, "_chain", lambda _top, parents: {parents["missing"]})
    found, left = removed(tmp_path)
    assert found == []
    assert "layers.json" in left
