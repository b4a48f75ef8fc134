# SPDX-License-Identifier: GPL-3.0-or-later
"""A home of files that really have owners, and a model of what systemd does with it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import user_ownership

NAME = "uanna"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files change hands: run as root, as `make test` does")


def owners(home: Path) -> set[tuple[int, int]]:
    """The owners of all that is in a home, and its own."""
    return {(found.st_uid, found.st_gid) for found in (path.lstat() for path in [home, *everything(home)])}


def everything(home: Path) -> Iterator[Path]:
    """All paths below a home; links are not followed."""
    for folder, folders, files in os.walk(home):
        yield from (Path(folder) / name for name in (*folders, *files))


def give(home: Path, uid: int) -> None:
    """What systemd does when it gives a home to a unit: all files change hands unless the top folder is the unit's already."""
    if home.stat().st_uid != uid:
        for path in [home, *everything(home)]:
            os.chown(path, uid, uid, follow_symlinks=False)


def act(folder: Path, state: str = "consistent", **parameters: Any) -> dict[str, Any]:
    """Run the program on the homes of a folder."""
    wanted = {
        "folder": str(folder),
        "users": [],
        "state": state,
        "unit": "jupyter-{user}.service",
        "processes": 1,
        "check": False,
    }
    return user_ownership.main({**wanted, **parameters})


class Killed(Exception):
    """The program was ended where it was."""


class Life:
    """One home through starts, stops, commands, accidents and our modules."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "private"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.home = self.folder / NAME
        self.home.mkdir(parents=True)
        self.running: int | None = None
        self.thief: int | None = None
        self.user: int | None = None
        """Who had the home last, before our module did anything."""
        self.files = 0
        self.luck = random.Random(7)  # noqa: S311 - a game
        give(self.home, self.other(None))
        self.write()

    def other(self, not_this: int | None) -> int:
        """A UID that systemd might choose."""
        while (uid := self.luck.choice(user_ownership.DYNAMIC)) == not_this:
            pass
        return uid

    @property
    def handed_over(self) -> bool:
        return self.home.stat().st_uid == self.folder.stat().st_uid

    # what happens to a home

    def start(self) -> None:
        """The user's server starts: with the home's UID, if that is free."""
        if self.running is None:
            top = self.home.stat().st_uid
            free = top in user_ownership.DYNAMIC and top != self.thief
            self.running = top if free else self.other(self.thief)
            give(self.home, self.running)
            self.write()

    def stop(self) -> None:
        self.running = None

    def replace(self) -> None:
        """The container is replaced: everything in it ends."""
        self.running = self.thief = None

    def write(self) -> None:
        """A process of the user writes a file, a folder and a link."""
        uid = self.running if self.running is not None else self.home.stat().st_uid
        self.files += 1
        folder = self.home / f"d{self.files % 3}" / f"e{self.files % 2}"
        made = [path for path in (folder.parent, folder) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{self.files}").write_text("x")
        link = folder / f"l{self.files}"
        link.symlink_to("/etc/passwd")
        for path in [*made, folder / f"f{self.files}", link]:
            os.chown(path, uid, uid, follow_symlinks=False)

    def command(self) -> None:
        """dynamic_user_command: a unit with the user's name gets the user's UID; a home that is handed over is refused."""
        if not self.handed_over:
            alone = self.running is None
            self.start()
            self.write()
            if alone:
                self.stop()

    def theft(self) -> None:
        """The existing system: a unit without the user's name gets another UID and takes the home away, for as long as it runs."""
        self.thief = self.other(self.running)
        give(self.home, self.thief)

    def thief_ends(self) -> None:
        self.thief = None

    # our module

    def _act(self, state: str, cut: int | None = None) -> bool:
        """Let the module work; it is killed before it changes file number ``cut``. Returns whether it came to its end."""
        found = {NAME: (self.running, self.running)} if self.running is not None else {}
        left = cut
        if not self.handed_over:
            self.user = self.home.stat().st_uid

        def chown(*args: Any, **options: Any) -> None:
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
                    raise Killed
            real(*args, **options)

        with pytest.MonkeyPatch.context() as patch:
            real = os.chown
            patch.setattr(user_ownership, "running", lambda units: found)
            patch.setattr(user_ownership.os, "chown", chown)
            try:
                act(self.folder, state)
            except (user_ownership.Failure, Killed):
                return False
            return True

    def consistent(self) -> None:
        assert self._act("consistent")
        self.check()

    def admin(self) -> None:
        done = self._act("admin")
        assert done == (self.running is None)
        if done:
            assert owners(self.home) == {(self.folder.stat().st_uid, self.folder.stat().st_gid)}
            assert self.mark() == f"admin:{self.user}:{self.user}:done"

    def restored(self) -> None:
        if self._act("restored"):
            self.check()
            assert self.home.stat().st_uid == (self.user if self.running is None else self.running)
            assert self.home.stat().st_uid in user_ownership.DYNAMIC
            assert self.mark() is None

    def cut(self) -> None:
        """A change of all owners is killed in the middle: the home is marked, and no other home is."""
        wrong = len(list(everything(self.home))) + 1
        state = "admin" if not self.handed_over else "restored"
        if (
            self.running is None
            and self.thief is None
            and not self._act(state, cut=wrong // 2)
            and len(owners(self.home)) > 1
        ):
            assert self.mark() is not None
            assert self.mark().endswith(":half")  # type: ignore[union-attr]

    def mark(self) -> str | None:
        path = self.folder / (user_ownership.MARK + NAME)
        return os.readlink(path) if path.is_symlink() else None

    def check(self) -> None:
        """Every file belongs to whoever runs the server, else to the owner of the top folder."""
        uid = self.running if self.running is not None else self.home.stat().st_uid
        assert {found[0] for found in owners(self.home)} == {uid}
