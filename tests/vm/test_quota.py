"""Hub users are kept to their quotas on a real kernel, after a reboot too, and who fills a hub harms nobody else."""

from __future__ import annotations

import json
import textwrap

import pytest
from conftest import INVENTORY, NAME, Applied
from guest import Guest

import playbook
from testbed.waiting import until

MIB = 1 << 20
PRIVATE = "/home/small/hubs/small/private"
FILL = """
import errno, json, os
written, stopped = 0, ""
with open("/var/lib/{user}/ballast", "wb", buffering=0) as stream:
    try:
        while written < 1 << 30:
            written += stream.write(bytes(1 << 20))
        os.fsync(stream.fileno())
    except OSError as error:
        stopped = errno.errorcode[error.errno] + ": " + error.strerror
print(json.dumps([written >> 20, stopped]))
"""
EMPTY = "import os; os.unlink('/var/lib/{user}/ballast')"
WRITE = """
import os
with open("/var/lib/{user}/work", "wb") as stream:
    stream.write(bytes({size}))
    os.fsync(stream.fileno())
print("saved")
"""
LEAVE = """
import fcntl, json, os, struct
folder = os.open("{folder}", os.O_RDONLY)
found = bytearray(28)
fcntl.ioctl(folder, 0x801C581F, found)
flags, extents, count, project, more = struct.unpack("=IIIII8x", found)
answers = [project]
for other in (0, project + 1):
    try:
        fcntl.ioctl(folder, 0x401C5820, struct.pack("=IIIII8x", flags, extents, count, other, more))
        answers.append("changed")
    except OSError as error:
        answers.append(error.strerror)
print(json.dumps(answers))
"""
SHOW_TMP = """
lines = [line.split() for line in open("/proc/self/mountinfo")]
print({line[4]: line[line.index("-") + 1] for line in lines}["/var/tmp"])
"""


def project(guest: Guest, user: str) -> int:
    """The project of a user's home, 0 where there is no such home."""
    return int(guest.root(f"test ! -d {PRIVATE}/{user} || lsattr -pd {PRIVATE}/{user} | awk '{{print $1}}'") or 0)


def wait_for_project(guest: Guest, user: str) -> int:
    """The home's own project, once it has one."""
    newcomers = project(guest, ".")
    wanted = f"the home of {user} has a project of its own"
    return until(lambda: project(guest, user), 60, wanted, lambda found: found not in (0, newcomers))


def quota(guest: Guest, user: str) -> tuple[float, float]:
    """What a user has and may have, in MiB, as the admin's command tells."""
    for line in guest.root("ananke-quotas").splitlines():
        fields = line.replace("(new homes)", "-").split()
        if fields[1] == user:
            scale = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}
            return float(fields[2]) * scale[fields[3]], float(fields[4]) * scale[fields[5]]
    raise AssertionError(f"ananke-quotas does not know {user}")


def page(guest: Guest) -> str:
    """One of JupyterHub's pages, as somebody sees it who has not logged in."""
    ask = "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8101, timeout=60); c.request('GET', '/small/hub/login')"
    return guest.root(f'exec python3 -c "{ask}; print(c.getresponse().read().decode())"')


def test_a_new_home_has_its_quota(applied: Applied) -> None:
    guest = applied.guest
    guest.inside(["sh", "-c", "install -d -m 700 -o 61999 -g 61999 /var/lib/private/uearly"])
    wait_for_project(guest, "uearly")
    assert quota(guest, "uearly")[1] == 64
    assert quota(guest, "-")[1] == 64


def test_a_second_run_changes_nothing(applied: Applied) -> None:
    again = playbook.succeed("hubs", INVENTORY, ANANKE_VM=NAME)
    assert again.changed == 0, again.output[-4000:]


def test_quotas_hold_after_a_reboot(rebooted: Guest) -> None:
    before = project(rebooted, "uearly")
    assert before > 0
    fill = "dd if=/dev/zero of=/var/lib/private/uearly/ballast bs=1M count=200 2>&1 || true"
    said = rebooted.inside(["sh", "-c", f"{fill}; ls -s --block-size=1M /var/lib/private/uearly/ballast"])
    assert "Disk quota exceeded" in said
    assert 60 <= int(said.splitlines()[-1].split()[0]) <= 64
    rebooted.inside(["rm", "/var/lib/private/uearly/ballast"])
    assert project(rebooted, "uearly") == before


def test_each_user_has_a_quota(students: Guest) -> None:
    assert len({wait_for_project(students, user) for user in ("ualice", "ubob", "uearly")}) == 3
    assert [quota(students, user)[1] for user in ("ualice", "ubob")] == [64, 500]
    shown = json.loads(
        students.run(
            "ualice", "import json, os; f = os.statvfs('/var/lib/ualice'); print(json.dumps(f.f_blocks * f.f_frsize))"
        )["text"]
    )
    assert shown == 64 * MIB, "what df shows to a user is the quota"


def test_nobody_in_a_hub_leaves_a_project(students: Guest) -> None:
    number, *answers = json.loads(students.run("ualice", LEAVE.format(folder="/var/lib/ualice"))["text"])
    assert answers == ["Invalid argument", "Invalid argument"]
    # nor does root in the container
    python = "/opt/conda/envs/jhub/bin/python"
    answers = json.loads(students.inside([python, "-c", LEAVE.format(folder="/var/lib/private/ualice")]))
    assert answers == [number, "Invalid argument", "Invalid argument"]


def test_no_other_place_on_disk_is_open_to_users(students: Guest) -> None:
    assert students.run("ualice", SHOW_TMP)["text"].strip() == "tmpfs"


def test_who_fills_the_quota_is_stopped_and_nobody_else(students: Guest) -> None:
    written, stopped = json.loads(students.run("ualice", FILL.format(user="ualice"))["text"])
    assert stopped == "EDQUOT: Disk quota exceeded"
    assert 40 < written <= 64
    assert students.run("ubob", WRITE.format(user="ubob", size=4 * MIB))["text"].strip() == "saved"
    assert students.healthy()
    assert "is full" not in page(students)


def test_who_has_filled_the_quota_is_told_and_can_delete(students: Guest) -> None:
    students.stop("ualice")
    told = students.start_and_listen("ualice")
    assert "Your home folder is full: it may hold 64 MiB" in told
    log = students.inside(["journalctl", "--unit=jupyterhub", "--output=cat", "--lines=200"])
    assert "ualice: Your home folder is full" in log
    assert students.run("ualice", EMPTY.format(user="ualice"))["text"] == ""
    assert students.run("ualice", WRITE.format(user="ualice", size=MIB))["text"].strip() == "saved"


def test_a_hub_whose_disk_is_full_says_so_goes_on_and_harms_nobody(students: Guest) -> None:
    before = students.processes("jupyterhub.service", "jupyterhub-proxy.service")
    _written, stopped = json.loads(students.run("ubob", FILL.format(user="ubob"))["text"])
    assert stopped == "ENOSPC: No space left on device"
    assert "The disk of this hub is full" in page(students)
    # the hub itself has room that its users cannot take: a new user is a write into its database
    students.welcome("ucarol")
    assert students.healthy()
    assert students.processes("jupyterhub.service", "jupyterhub-proxy.service") == before
    other = "useradd --create-home other; sudo -u other dd if=/dev/zero of=/home/other/work bs=1M count=32 conv=fsync status=none"
    students.root(f"{other}; userdel --remove other")
    students.run("ubob", EMPTY.format(user="ubob"))
    assert "is full" not in page(students)
    assert students.run("ualice", WRITE.format(user="ualice", size=2 * MIB))["text"].strip() == "saved"


@pytest.mark.parametrize("changed", [True, False])
def test_a_quota_that_a_run_raises_is_in_force(students: Guest, changed: bool) -> None:
    before = students.processes("jupyterhub.service", "jupyter-ualice.service")
    run = playbook.succeed("hubs", INVENTORY, "--extra-vars=hub_user_quota=128M", ANANKE_VM=NAME)
    assert (run.changed > 0) is changed, run.output[-4000:]
    assert quota(students, "ualice")[1] == 128
    if changed:
        saved = students.run(
            "ualice",
            WRITE.format(user="ualice", size=100 * MIB) + EMPTY.format(user="ualice").replace("ballast", "work"),
        )
        assert saved["text"].strip() == "saved"
    assert students.processes("jupyterhub.service", "jupyter-ualice.service") == before


def test_homes_that_were_full_before_get_their_quota(students: Guest) -> None:
    script = """
        cd /var/lib/private; mkdir -p ulate/deep/er; ln -s /etc ulate/link
        systemctl list-units >/dev/null
        echo text >ulate/deep/er/file
    """
    students.root("systemctl stop ananke-quotas")
    students.inside(["sh", "-c", textwrap.dedent(script)])
    assert project(students, "ulate") == project(students, "."), "a newcomer counts with the other newcomers"
    students.root("systemctl start ananke-quotas")
    number = wait_for_project(students, "ulate")
    inside = students.root(f"lsattr -p {PRIVATE}/ulate/deep/er/file | awk '{{print $1}}'")
    assert int(inside) == number
    students.inside(["rm", "-r", "/var/lib/private/ulate"])


@pytest.mark.parametrize("changed", [True, False])
def test_the_playbook_grow_enlarges_a_home_while_people_work_in_it(students: Guest, changed: bool) -> None:
    """The last test, as nothing is ever shrunk."""
    before = students.processes("jupyterhub.service", "jupyter-ualice.service")
    run = playbook.succeed("grow", INVENTORY, "--extra-vars=container_admin_home_size=640M", ANANKE_VM=NAME)
    assert (run.changed > 0) is changed, run.output[-4000:]
    size = int(students.root("findmnt --bytes --noheadings --output SIZE /home/small"))
    assert size > 560 * MIB, "it was smaller than 512 MiB"
    assert students.processes("jupyterhub.service", "jupyter-ualice.service") == before
