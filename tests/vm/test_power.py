"""Power that is cut takes along what the kernel had not yet written. What was saved is there, and the next run completes what was begun."""

from __future__ import annotations

import json
import secrets
import threading

from conftest import INVENTORY, NAME
from guest import PYTHON, Guest

import playbook
from testbed import vm as vms
from testbed.waiting import until

FOLDER = "/var/lib/private/ualice/power"
SAVE = """
import os, sys
os.makedirs(sys.argv[1], exist_ok=True)
for number in range(30):
    with open(f"{sys.argv[1]}/{number}", "wb") as stream:
        stream.write(os.urandom(10_000))
        os.fsync(stream.fileno())  # as JupyterLab saves
"""
LOOK = """
import hashlib, json, sqlite3, sys
files = b"".join(open(f"{sys.argv[1]}/{number}", "rb").read() for number in range(30))
database = sqlite3.connect("file:/var/lib/jupyterhub/jupyterhub.sqlite?mode=ro", uri=True, timeout=600)
ask = lambda words: sorted(row[0] for row in database.execute(words))
print(json.dumps([hashlib.sha256(files).hexdigest(), ask("pragma integrity_check"), ask("select name from users")]))
"""


def look(guest: Guest) -> list[object]:
    """Checksum of the files, what SQLite finds wrong with the database, and the users in it."""
    return list(json.loads(guest.inside([PYTHON, "-c", LOOK, FOLDER])))


def cut_power(guest: Guest, reached: str, change: str) -> None:
    """Cut the power while a run changes the hub, as soon as a shell's command says so."""
    outcomes: list[playbook.Outcome] = []
    run = threading.Thread(target=lambda: outcomes.append(playbook.run("hubs", INVENTORY, change, ANANKE_VM=NAME)))
    run.start()
    until(lambda: guest.root(f"{reached} && echo yes || true"), 900, "the run changes the hub")
    vms.crash(NAME)
    run.join(900)
    assert outcomes[0].status, "the run has ended before the power was cut"


def test_power_is_cut_twice_while_a_run_replaces_the_hub(students: Guest) -> None:
    """The last of all tests. It is cut again while the next run completes what the first one began."""
    host = f"power-{secrets.token_hex(4)}.example"
    change = f"--extra-vars={json.dumps({'hub_extra_hosts': {host: '192.0.2.1'}})}"
    students.inside([PYTHON, "-c", SAVE, FOLDER])
    before = look(students)
    assert before[1] == ["ok"]
    for reached in (f"grep -rqs {host} /home/small/.config", "test -e /home/small/hubs/small/before/complete"):
        cut_power(students, reached, change)
        students.wait_healthy()
        assert look(students) == before
    playbook.succeed("hubs", INVENTORY, change, ANANKE_VM=NAME)
    assert host in students.inside(["cat", "/etc/hosts"])
    assert look(students) == before
    assert playbook.succeed("hubs", INVENTORY, change, ANANKE_VM=NAME).changed == 0
    students.start("ualice")
