"""The limits of a hub and of its users hold on a real kernel, and after a reboot."""

from __future__ import annotations

import json

from conftest import Applied
from guest import PYTHON, Guest

MIB = 1 << 20
HOG = "held = []\nwhile True: held.append(bytearray(16 << 20))"
BOMB = """
import errno, json, os, signal, time
children = []
try:
    while len(children) < 5000:
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        children.append(child)
    stopped = ""
except OSError as error:
    stopped = errno.errorcode[error.errno]
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(json.dumps([len(children), stopped]))
"""
BURN = """
import json, os, signal, time
group = "/sys/fs/cgroup" + open("/proc/self/cgroup").read().strip().rpartition(":")[2]
def look():
    numbers = dict(line.split() for line in open(group + "/cpu.stat"))
    return time.monotonic(), int(numbers["usage_usec"]) / 1e6, int(numbers["nr_throttled"])
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        while True:
            pass
    children.append(child)
before = look()
time.sleep(8)
after = look()
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(json.dumps([(after[1] - before[1]) / (after[0] - before[0]), after[2] - before[2]]))
"""
HUB_UNITS = ("jupyterhub.service", "jupyterhub-proxy.service")


def check_container_limits(guest: Guest) -> None:
    found = guest.group(guest.payload, "memory.max", "memory.swap.max", "pids.max", "cpu.max")
    assert found == {
        "memory.max": str(1024 * MIB),
        "memory.swap.max": str(1024 * MIB),
        "pids.max": "512",
        "cpu.max": "150000 100000",
    }
    # no limit of systemd's own lies below that of the hub
    assert guest.group(guest.unit, "pids.max", "memory.max") == {"pids.max": "max", "memory.max": "max"}


def test_the_podman_role_is_right_about_control_groups(applied: Applied) -> None:
    guest = applied.guest
    assert "The machine uses control groups version 2" in applied.machines.output
    assert guest.root("stat -fc %T /sys/fs/cgroup") == "cgroup2fs"
    delegated = guest.root("cat /sys/fs/cgroup/user.slice/user-*.slice/user@$(id -u small).service/cgroup.controllers")
    assert {"cpu", "memory", "pids"} <= set(delegated.split())
    assert "without these limits" not in applied.hubs.output


def test_the_role_sets_inotify_on_a_real_machine(applied: Applied) -> None:
    assert applied.guest.root("cat /proc/sys/fs/inotify/max_user_instances") == "4096"


def test_the_container_has_its_limits(applied: Applied) -> None:
    check_container_limits(applied.guest)


def test_after_a_reboot_the_hub_is_back_with_its_limits(rebooted: Guest) -> None:
    check_container_limits(rebooted)
    assert rebooted.root("cat /proc/sys/fs/inotify/max_user_instances") == "4096"


def test_too_much_memory_in_the_container_ends_who_takes_it(rebooted: Guest) -> None:
    before = rebooted.processes(*HUB_UNITS)
    kills = rebooted.counted(rebooted.payload, "memory.events", "oom_kill")
    script = f'systemd-run --quiet --wait --collect --unit=hog {PYTHON} -c "$1" || echo status $?'
    ended = rebooted.inside(["sh", "-c", script, "hog", HOG])
    assert "status" in ended, "a process took more memory than the container may have"
    assert rebooted.counted(rebooted.payload, "memory.events", "oom_kill") > kills
    assert rebooted.processes(*HUB_UNITS) == before
    assert rebooted.healthy()


def test_a_fork_bomb_in_the_container_is_bounded(rebooted: Guest) -> None:
    before = rebooted.processes(*HUB_UNITS)
    # a unit's own limit is lower than the container's, so this one has none
    bomb = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--property=TasksMax=infinity"]
    children, stopped = json.loads(rebooted.inside([*bomb, PYTHON, "-c", BOMB]))
    assert stopped == "EAGAIN"
    assert 300 < children < 512
    assert rebooted.counted(rebooted.payload, "pids.events", "max") > 0
    assert rebooted.processes(*HUB_UNITS) == before
    assert rebooted.healthy()


def test_the_container_s_cpu_is_throttled(rebooted: Guest) -> None:
    # the container's own group is the root of what it sees
    burn = BURN.replace('group = "/sys/fs/cgroup" + ', 'group = "/sys/fs/cgroup"  # ')
    used, throttled = json.loads(rebooted.inside(["systemd-run", "--quiet", "--wait", "--pipe", PYTHON, "-c", burn]))
    assert throttled > 0
    assert 0.5 < used < 1.5 * 1.15


def test_each_user_s_server_has_its_limits(students: Guest) -> None:
    for user in ("ualice", "ubob"):
        files = ("memory.max", "memory.swap.max", "pids.max", "cpu.max")
        assert students.group(students.server(user), *files) == {
            "memory.max": str(384 * MIB),
            "memory.swap.max": "0",
            "pids.max": "96",
            "cpu.max": "90000 100000",
        }


def test_a_kernel_that_takes_too_much_memory_dies_alone(students: Guest) -> None:
    units = (*HUB_UNITS, "jupyter-ualice.service", "jupyter-ubob.service")
    before = students.processes(*units)
    kills = students.counted(students.server("ubob"), "memory.events", "oom_kill")
    whole = students.counted(students.payload, "memory.events.local", "oom")
    found = students.run("ualice", HOG)
    assert found["died"], found["text"]
    alice = students.group(students.server("ualice"), "memory.events", "memory.swap.peak", "memory.peak")
    assert int(alice["memory.events.oom_kill"]) > 0
    assert alice["memory.swap.peak"] == "0"
    assert int(alice["memory.peak"]) <= 384 * MIB
    # it was her server's limit, not the container's, and nobody else was hit
    assert students.counted(students.payload, "memory.events.local", "oom") == whole
    assert students.counted(students.server("ubob"), "memory.events", "oom_kill") == kills
    assert students.processes(*units) == before
    assert students.run("ualice", "print(6 * 7)")["text"].strip() == "42"
    assert students.run("ubob", "print(6 * 7)")["text"].strip() == "42"


def test_a_user_s_fork_bomb_is_bounded(students: Guest) -> None:
    before = students.processes(*HUB_UNITS, "jupyter-ualice.service")
    found = students.run("ualice", BOMB)
    children, stopped = json.loads(found["text"])
    assert stopped == "EAGAIN"
    assert 20 < children < 96
    assert students.processes(*HUB_UNITS, "jupyter-ualice.service") == before


def test_a_user_s_cpu_is_throttled(students: Guest) -> None:
    used, throttled = json.loads(students.run("ualice", BURN)["text"])
    assert throttled > 0
    assert 0.3 < used < 0.9 * 1.15
