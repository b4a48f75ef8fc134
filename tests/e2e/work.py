"""Somebody's work in a hub, by which tests see whether anything of it was lost."""

from __future__ import annotations

from browsing import Kernel, Lab, Visitor
from facts import Hub

FILES = """
import hashlib, itertools, os, pathlib
home = pathlib.Path.home() / "faults"
def sums():
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(home.iterdir()))).hexdigest()
"""
WORK = """
home.mkdir(exist_ok=True)
for number in range(30):
    with open(home / f"{number}", "wb") as stream:
        stream.write(os.urandom(10_000))
        os.fsync(stream.fileno())  # as JupyterLab saves
before = sums()
count = itertools.count(1)
print(before)
"""
CHECK = """
import sqlite3
print(*sqlite3.connect("file:/var/lib/jupyterhub/jupyterhub.sqlite?mode=ro", uri=True, timeout=60).execute("pragma integrity_check").fetchone())
"""


class Work:
    """A kernel that counts, and files that must not change."""

    def __init__(self, visitor: Visitor, hub: Hub) -> None:
        self.visitor, self.hub, self.counted = visitor, hub, 0
        self.lab: Lab = visitor.enter(hub)
        self.kernel = self.lab.kernel()
        self.sums = self.kernel.run(FILES + WORK).strip()

    def goes_on(self) -> None:
        self.counted += 1
        assert self.kernel.run("print(next(count), sums() == before)").split() == [str(self.counted), "True"]

    def is_opened_again(self) -> None:
        """By a new page with the same login, as one reloads a page that says nothing any more."""
        self.lab = self.visitor.return_to(self.hub)
        self.kernel = Kernel(self.lab.page, self.lab.base, self.kernel.id)

    def is_taken_up_again(self) -> None:
        """With the same login, where the kernel could not survive: its files are what they were."""
        self.lab = self.visitor.return_to(self.hub)
        self.kernel = self.lab.kernel()
        assert self.kernel.run(f"{FILES}print(sums())").strip() == self.sums

    def ends(self) -> None:
        self.lab.api("DELETE", f"api/kernels/{self.kernel.id}")


def database_is_whole(hub: Hub) -> bool:
    """Whether SQLite finds nothing wrong with JupyterHub's database."""
    return hub.exec(f"/opt/conda/envs/jhub/bin/python -c '{CHECK}'").stdout.strip() == "ok"
