"""``python -m year_bench``: what a year of courses costs: classes that begin, what idle hubs and servers hold, backups.

On a demo of its own, with what it is compared to in the same run on the same machine:

* classes of 1, 10 and 30 people come through the LMS at once; beside them as many bare JupyterLabs in the hub's container, until each shows its page
* memory (PSS: shared pages divided among those that share them) of an idle hub, beside JupyterHub and its proxy alone, and of an idle user's server,
  beside a bare JupyterLab
* an update that replaces the hub's container: seconds without an answer from the hub, beside a bare restart of the same container
* a backup of ANANKE_BENCH_GB (10) GB of homes, a second one, and their restore, by the playbooks; beside the commands of restic on the same files

Writes ``build/year_bench.json`` and prints tables. The machine's disk must hold three times the size, and 2 GB.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import classroom

import demo
import playbook
from testbed import machine as machines

RESULT = playbook.ROOT / "build/year_bench.json"
INVENTORY = playbook.ROOT / "inventories/demo"
DEMO = demo.Demo("year", 8743, "trixie")
HUB = "math101"
LMS = f"https://lms.localhost:{DEMO.port}"
PORT = 9300
END = "/run/bench-end"
PYTHON = "/opt/conda/envs/jhub/bin/python"
CLASSES = (1, 10, 30)
SETTLED = 15
"""Seconds after which a server that was just started does nothing any more."""
BARE_LABS = """
import json, subprocess, sys, time, urllib.request
from pathlib import Path
count, port, linger = map(int, sys.argv[1:])
began, ready, labs = time.monotonic(), {}, []
for number in range(count):
    home = Path(f"/var/tmp/bare/{number}")
    home.mkdir(parents=True, exist_ok=True)
    command = ["/opt/conda/envs/jhub/bin/jupyter-lab", "--no-browser", "--allow-root", "--IdentityProvider.token=", f"--ServerApp.port={port + number}"]
    labs.append(subprocess.Popen(command, cwd=home, env={"HOME": str(home), "PATH": "/opt/conda/envs/jhub/bin:/usr/bin:/bin"}, stderr=subprocess.DEVNULL))
while len(ready) < count and time.monotonic() < began + 900:
    for number in set(range(count)) - set(ready):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port + number}/lab", timeout=60).read()
            ready[number] = time.monotonic() - began
        except OSError:
            time.sleep(0.1)
print(json.dumps(list(ready.values())), flush=True)
time.sleep(linger)
for lab in labs:
    lab.terminate()
for lab in labs:
    lab.wait()
"""
PSS = """
import json, os, re, sys
space, found = os.readlink(f"/proc/{sys.argv[1]}/ns/pid"), {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if os.readlink(f"/proc/{pid}/ns/pid") == space:
            unit = re.findall(r"[^/]+\\.(?:service|scope)", open(f"/proc/{pid}/cgroup").read())[-1:]
            command = open(f"/proc/{pid}/cmdline").read()
            name = "bare" if "jupyter-lab\\0" in command else "".join(unit)
            held = re.search(r"^Pss:\\s+(\\d+)", open(f"/proc/{pid}/smaps_rollup").read(), re.MULTILINE)
            found[name] = found.get(name, 0) + (int(held[1]) * 1024 if held else 0)
    except OSError:
        pass
print(json.dumps(found))
"""
ANSWERS = """
import json, sys, time, urllib.request
from pathlib import Path
url, end, last, longest = sys.argv[1], Path(sys.argv[2]), time.monotonic(), 0.0
while not end.exists():
    try:
        urllib.request.urlopen(url, timeout=1).read()
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    except OSError:
        pass
    time.sleep(0.05)
end.unlink()
print(longest)
"""
"""The longest time between two answers, until a file appears."""
FILES = """
import os, sys
size, folder = int(sys.argv[1]), sys.argv[2]
for number in range(size // 10**6):
    home = f"{folder}/ubench{number % 100:02}"
    os.makedirs(f"{home}/{number % 1000 // 100}", exist_ok=True)
    with open(f"{home}/{number % 1000 // 100}/{number}", "wb") as file:
        file.write(os.urandom(10**6))
"""


class Year:
    """The demo, and its first hub."""

    def __init__(self) -> None:
        os.environ["ANANKE_DEMO"] = DEMO.name
        demo.up(DEMO)
        self.machine = machines.load(DEMO.name)
        self.folder = playbook.ROOT / "build/year-bench"
        self.folder.mkdir(parents=True, exist_ok=True)  # as deep as inventories/demo, for its paths
        hub = next(one for one in json.loads(DEMO.facts.read_text())["hubs"] if one["name"] == HUB)
        self.url: str = hub["url"]

    def root(self, script: str) -> str:
        """Run a script as root on the machine."""
        return str(self.machine.exec("bash", "-euc", script).stdout)

    def admin(self, command: str) -> str:
        """Run a command as the hub's container admin."""
        return self.root(
            f"cd /; runuser -u {HUB} -- env HOME=/home/{HUB} XDG_RUNTIME_DIR=/run/user/$(id -u {HUB}) {command}"
        )

    def inside(self, *argv: str) -> str:
        """Run a program as root in the hub's container."""
        return self.admin(shlex.join(["podman", "exec", f"ananke-{HUB}", *argv]))

    def run(self, name: str, **said: Any) -> float:
        """Wall seconds of a playbook for the hub, with backups."""
        settings = {"hub_backup_repository": "/srv/bench/hubs", "hub_backup_password": "only-for-the-bench"}
        inventory = self.folder / "hosts.json"
        inventory.write_text(json.dumps({"hubs": {"hosts": {HUB: settings}}}))
        options = ("--inventory", str(INVENTORY), "--limit", HUB, "--extra-vars", json.dumps(said))
        return playbook.succeed(name, inventory, *options).wall

    # classes

    def enrol(self, count: int) -> list[str]:
        """Have the LMS know that many people."""
        names = [f"bench{number:02}" for number in range(count)]
        person = {"given_name": "A", "family_name": "Student", "email": "student@example.org", "role": "student"}
        more = json.dumps({"test_lms_people": [{"id": name, **person} for name in names]})
        options = ("--tags", "test_lms", "--extra-vars", more)
        playbook.succeed("machines", INVENTORY, *options)
        return names

    def dismiss(self) -> None:
        """Stop all servers."""
        task = {
            "ananke.jupyterhub.hub_servers": {"container": f"ananke-{HUB}", "state": "stopped", "parallel": 10},
            "become_user": HUB,
        }
        result = playbook.task(INVENTORY, HUB, task)
        if result.get("failed"):
            raise AssertionError(f"servers do not stop: {result.get('msg')}")

    def class_(self, people: list[str]) -> dict[str, Any]:
        """A class that begins, and bare JupyterLabs."""
        starts = classroom.begin(people, LMS, self.url, DEMO.folder / "ca/ca.pem")
        wrong = [(start.person, start.problem) for start in starts if start.problem]
        if wrong:
            raise AssertionError(f"not everybody has a server: {wrong}")
        self.dismiss()
        bare = self.bare_labs(len(people))
        return {"people": len(people), **compared([start.seconds for start in starts], bare)}

    def bare_labs(self, count: int, linger: int = 0) -> list[float]:
        """Seconds until each of some JupyterLabs shows its page; they stay for another `linger`."""
        said = self.inside(PYTHON, "-c", BARE_LABS, str(count), str(PORT), str(linger))
        seconds: list[float] = json.loads(said)
        if len(seconds) < count:
            raise AssertionError(f"only {len(seconds)} of {count} bare JupyterLabs came up")
        return seconds

    # memory

    def held(self) -> dict[str, int]:
        """Bytes of the hub's container, by unit."""
        pid = self.admin("podman inspect --format '{{.State.Pid}}' ananke-" + HUB).strip()
        return dict(json.loads(self.root(shlex.join(["python3", "-c", PSS, pid]))))

    def memory(self, people: list[str]) -> dict[str, Any]:
        """Of the idle hub, and for each of some idle servers."""
        self.inside("systemctl", "restart", "jupyterhub")
        time.sleep(SETTLED)
        idle = self.held()
        alone = sum(idle.get(f"{unit}.service", 0) for unit in ("jupyterhub", "jupyterhub-proxy"))
        classroom.begin(people, LMS, self.url, DEMO.folder / "ca/ca.pem")
        time.sleep(SETTLED)
        servers = [held for unit, held in self.held().items() if unit.startswith("jupyter-u")]
        self.dismiss()
        with ThreadPoolExecutor(1) as beside:
            running = beside.submit(self.bare_labs, len(people), 4 * SETTLED)
            self.wait_for_labs(len(people))
            time.sleep(SETTLED)
            labs = self.held().get("bare", 0)
            running.result()
        return {
            "hub": megabytes(sum(idle.values()), alone),
            "user_server": megabytes(sum(servers) // len(people), labs // len(people)),
        }

    def wait_for_labs(self, count: int) -> None:
        """Until the bare JupyterLabs show their pages."""
        probe = f"import urllib.request as r; [r.urlopen(f'http://127.0.0.1:{{n}}/lab') for n in range({PORT}, {PORT + count})]"
        tried = shlex.join([PYTHON, "-c", probe])
        self.inside("bash", "-c", f"for _ in $(seq 300); do {tried} 2>/dev/null && exit; sleep 1; done; exit 1")

    # updates

    def without_answer(self, act: Callable[[], object]) -> float:
        """The longest time, in seconds, for which the hub does not answer while something is done."""
        path = json.loads(self.root(f"cat /home/{HUB}/hubs/{HUB}/description/hub.json"))["base_url"]
        port = self.admin(f"podman port ananke-{HUB}").strip().rpartition(":")[2]
        watch = shlex.join(["python3", "-c", ANSWERS, f"http://127.0.0.1:{port}{path}hub/health", END])
        with ThreadPoolExecutor(1) as beside:
            watched = beside.submit(self.root, watch)
            try:
                act()
            finally:
                self.root(f"sleep 1; touch {END}")
            return float(watched.result())

    def update(self) -> dict[str, float]:
        """The container is replaced, and proven; beside a restart of its unit."""
        hosts = {"lms.localhost": "host-gateway", "bench.example": "192.0.2.1"}
        options: dict[str, Any] = {"ananke_update_grace": 1, "ananke_update_backup": False}
        ours = self.without_answer(lambda: self.run("update", hub_extra_hosts=hosts, **options))
        unit = f"ananke-{HUB}.service"
        bare = self.without_answer(lambda: self.admin(f"systemctl --user restart {unit}; sleep {SETTLED}"))
        return {"s": round(ours, 1), "bare_s": round(bare, 1), "ratio": round(ours / bare, 2)}

    # backups

    def backups(self, gigabytes: float) -> dict[str, Any]:
        """A backup, another, and the restore: ours, then restic's own on the same files."""
        folder = f"/home/{HUB}/hubs/{HUB}/private"
        self.root("rm -rf /srv/bench; mkdir -p /srv/bench")
        self.inside(PYTHON, "-c", FILES, str(int(gigabytes * 10**9)), "/var/lib/private")
        self.run("hubs")
        ours = {
            "first": self.run("backup"),
            "second": self.run("backup"),
            "restore": self.run("restore", ananke_restore=HUB),
        }
        self.root(f"rm -rf /home/{HUB}/removed /srv/bench/hubs")
        environment = "RESTIC_PASSWORD=bench RESTIC_CACHE_DIR=/srv/bench/cache restic --quiet --repo /srv/bench/bare"
        self.root(f"{environment} init")
        acts = {
            "first": f"backup {folder}",
            "second": f"backup {folder}",
            "restore": "restore latest --target /srv/bench/restored",
        }
        bare = {}
        for name, act in acts.items():
            began = time.monotonic()
            self.root(f"{environment} {act}")
            bare[name] = time.monotonic() - began
        self.root(f"rm -rf /srv/bench {folder}/ubench??")
        rows = {name: {"ours_s": round(ours[name], 1), "bare_s": round(bare[name], 1)} for name in acts}
        for row in rows.values():
            row["ratio"] = round(row["ours_s"] / row["bare_s"], 2)
        return {"gigabytes": gigabytes, **rows}


def percentile(values: Iterable[float], share: int) -> float:
    """The value that this share, in hundredths, of the values does not exceed."""
    known = sorted(values)
    return known[0] if len(known) == 1 else statistics.quantiles(known, n=100, method="inclusive")[share - 1]


def compared(ours: list[float], bare: list[float]) -> dict[str, float]:
    """Both in seconds, and how many times bare ours is."""
    result: dict[str, float] = {}
    for share in (50, 95):
        mine, other = percentile(ours, share), percentile(bare, share)
        result |= {
            f"p{share}_s": round(mine, 1),
            f"bare_p{share}_s": round(other, 1),
            f"p{share}_ratio": round(mine / other, 2),
        }
    return result


def megabytes(ours: int, bare: int) -> dict[str, float]:
    """Both in MB, and how many times bare ours is."""
    return {"mb": ours // 10**6, "bare_mb": bare // 10**6, "ratio": round(ours / bare, 2)}


def table(result: dict[str, Any]) -> str:
    """All figures, ours beside bare."""
    line = "{:34} {:>9} {:>9} {:>7}".format
    rows = [line("", "ours", "bare", "ratio")]
    for one in result["classes"]:
        rows += [
            line(
                f"{one['people']} at once, p{share}, s",
                one[f"p{share}_s"],
                one[f"bare_p{share}_s"],
                one[f"p{share}_ratio"],
            )
            for share in (50, 95)
        ]
    for what, one in result["memory"].items():
        rows.append(line(f"idle {what.replace('_', ' ')}, MB", one["mb"], one["bare_mb"], one["ratio"]))
    one = result["update"]
    rows.append(line("update, s without the hub", one["s"], one["bare_s"], one["ratio"]))
    for what in ("first", "second", "restore"):
        one = result["backup"][what]
        rows.append(
            line(f"{result['backup']['gigabytes']:g} GB, {what}, s", one["ours_s"], one["bare_s"], one["ratio"])
        )
    return "\n".join(rows)


def main() -> None:
    """Measure, write and print."""
    gigabytes = float(os.environ.get("ANANKE_BENCH_GB", "10"))
    year = Year()
    try:
        people = year.enrol(max(CLASSES))
        year.class_(people[:1])  # what the first start of all reads from the disk, later ones have in memory
        classes = [year.class_(people[:count]) for count in CLASSES]
        result: dict[str, Any] = {"classes": classes}
        measured = {
            "memory": lambda: year.memory(people[:10]),
            "update": year.update,
            "backup": lambda: year.backups(gigabytes),
        }
        for what, measure in measured.items():
            result[what] = measure()
            RESULT.write_text(json.dumps(result, indent=2) + "\n")
        print(table(result), flush=True)
    finally:
        demo.down(DEMO)


if __name__ == "__main__":
    main()
