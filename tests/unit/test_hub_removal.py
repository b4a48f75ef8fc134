# SPDX-License-Identifier: GPL-3.0-or-later
"""Removal of a hub: what is foretold, what is refused, and in which order things go; the rest needs a machine."""

from __future__ import annotations

import json
import pwd
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import accounts, archives, hub_removal, nginx, quotas


class Machine:
    """An account `math101` with the hub `course`, and what was run there."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.archives = folder / "archives"
        self.hub = self.home / "hubs/course"
        self.hub.mkdir(parents=True)
        self.unit = self.home / ".config/containers/systemd/ananke-course.container"
        self.unit.parent.mkdir(parents=True)
        self.unit.touch()
        self.ran: list[str] = []
        self.fails = ""

    def run(self, argv: Sequence[str]) -> tuple[int, str]:
        """Stands for the programs: does to files what they would do, and notes them."""
        line = " ".join(argv)
        known: dict[str, Callable[[], object]] = {
            "tar --create": lambda: Path(argv[argv.index("--file") + 1]).write_text("packed"),
            "tar --compare": lambda: None,
            "unshare chown": lambda: None,
            "unshare rm": lambda: self.hub.rmdir(),
            "removed": lambda: self.hub.rename(self.home / argv[-1]),
            "podman rm --force": lambda: self.unit.unlink(missing_ok=True),
        }
        name, act = next((name, act) for name, act in known.items() if name in line)
        self.ran.append(name)
        if name == self.fails:
            return 1, "no space left"
        act()
        return 0, ""

    def remove(self, keep: str = "archive") -> tuple[list[str], hub_removal.Record | None]:
        return hub_removal.remove("course", "math101", keep, str(self.archives), self.run)

    def foretell(self, keep: str = "archive") -> list[str]:
        return hub_removal.foretell("course", "math101", keep, str(self.archives))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    entry = pwd.struct_passwd(("math101", "x", 1234, 1234, "container admin", str(found.home), "/bin/bash"))
    monkeypatch.setattr(accounts, "lookup", lambda name: entry if name == "math101" else None)
    monkeypatch.setattr(nginx, "LOCATIONS_DIR", str(tmp_path / "locations.d"))
    monkeypatch.setattr(quotas, "SETTINGS", str(tmp_path / "quotas"))
    return found


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ("archive", "hub course archived in {archives}"),
        ("home", "files of course handed over to math101, in ~/removed"),
        ("nothing", "files of course deleted"),
    ],
)
def test_what_would_be_done(machine: Machine, keep: str, words: str) -> None:
    assert machine.foretell(keep) == ["ananke-course ended", words.format(archives=machine.archives)]


@pytest.mark.parametrize(
    ("keep", "order"),
    [
        ("archive", ["podman rm --force", "tar --create", "tar --compare", "unshare rm"]),
        ("home", ["podman rm --force", "unshare chown", "removed"]),
        ("nothing", ["podman rm --force", "unshare rm"]),
    ],
)
def test_in_which_order(machine: Machine, keep: str, order: list[str]) -> None:
    done, record = machine.remove(keep)
    assert machine.ran == order
    assert record is not None
    assert len(done) == 2
    kept = hub_removal.kept(record, str(machine.archives))
    assert bool(kept) is (keep != "nothing")
    if keep == "archive":
        assert json.loads(Path(f"{kept}.json").read_text())["keep"] == "archive"
        assert Path(kept).read_text() == "packed"
    left = [path.name for path in machine.archives.iterdir() if path.name.startswith(".")]
    assert (left, machine.foretell(), machine.remove()) == ([], [], ([], None))


@pytest.mark.parametrize("keep", ["archive", "home", "nothing"])
def test_nothing_is_deleted_before_it_is_kept_and_a_second_run_goes_on(machine: Machine, keep: str) -> None:
    order = {"archive": ["tar --create", "tar --compare", "unshare rm"], "home": ["unshare chown", "removed"]}
    for step in ["podman rm --force", *order.get(keep, ["unshare rm"])]:
        machine.fails = step
        with pytest.raises(accounts.AccountError, match=r"no space left; .*run again"):
            machine.remove(keep)
        assert machine.hub.is_dir()
        begun = archives.noted("course", str(machine.archives)) is not None
        assert begun is (step in {"unshare rm", "removed"})
    assert machine.foretell("nothing") == ["the removal that was interrupted finished"]
    machine.fails = ""
    _done, record = machine.remove("nothing")  # what was begun counts, not what is said now
    assert record is not None
    assert record.keep == keep
    assert not machine.hub.exists()


def test_nothing_is_there(machine: Machine) -> None:
    assert hub_removal.remove("other", "math101", "archive", str(machine.archives), machine.run) == ([], None)
    assert hub_removal.remove("other", "nobody", "archive", str(machine.archives), machine.run) == ([], None)
    assert machine.ran == []


@pytest.mark.parametrize("link", ["hubs", "hubs/course"])
def test_links_are_not_followed(machine: Machine, tmp_path: Path, link: str) -> None:
    path = machine.home / link
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(accounts.AccountError, match="no folder but something else"):
        machine.remove("nothing")
    assert machine.ran == []


def test_what_an_account_still_has(machine: Machine) -> None:
    assert hub_removal.hubs_left("math101") == ["course"]
    (machine.home / "removed").mkdir()
    assert hub_removal.hubs_left("math101") == ["course"]
    (machine.home / "removed/course-1").mkdir()
    machine.hub.rmdir()
    assert hub_removal.hubs_left("math101") == ["removed"]
    assert hub_removal.hubs_left("nobody") == []
