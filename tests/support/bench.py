"""``make bench``: what hubs cost, as ratios against a bare lower bound measured in the same run.

For each number of hubs, on one test machine: wall and CPU seconds of the hubs play, first run and unchanged second run; then
the same containers by bare ``podman run``, four at a time, until they are healthy. After that, what one more hub costs.
Written to ``build/bench.json``.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import shlex
import time
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.ananke.jupyterhub.plugins.module_utils import container

import demo
import playbook

ROOT = playbook.ROOT
RESULT = ROOT / "build/bench.json"
FIRST_PORT = 8201
SIDE_BY_SIDE = 4
HEALTH_TIMEOUT = 300


class Bench:
    """One test machine with an image, on which hubs come and go."""

    def __init__(self, name: str, port: int) -> None:
        self.demo = demo.Demo(name, port, "trixie")
        self.machine = demo.prepare(self.demo)
        self.folder = ROOT / "build" / name
        self.started: set[str] = set()

    def site(self) -> None:
        """The machine and its image; not measured here."""
        demo.command(
            *("ansible-playbook", "--inventory", "inventories/demo", "playbooks/machines.yml", "playbooks/images.yml"),
            ANANKE_DEMO=self.demo.name,
        )

    def root(self, script: str) -> str:
        """Run a script as root on the machine."""
        return str(self.machine.exec("bash", "-euc", script).stdout)

    def inventory(self, names: list[str]) -> Path:
        """An inventory with these hubs and nothing else."""
        hubs = {name: {"hub_port": FIRST_PORT + number} for number, name in enumerate(names)}
        connection = {
            "ansible_host": self.machine.ssh_host,
            "ansible_port": self.machine.ssh_port,
            "ansible_user": self.machine.ssh_user,
            "ansible_ssh_private_key_file": self.machine.ssh_key,
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.machine.known_hosts}",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_pipelining": True,
        }
        lms = {
            "hub_machine": "bench",
            "hub_lti_platform": "moodle",
            "hub_lti_issuer": "https://lms.example.org",
            "hub_lti_client_ids": ["bench"],
        }
        content = {
            "all": {"vars": connection},
            "machines": {"hosts": {"bench": {"reverse_proxy_server_name": "hubs.localhost"}}},
            "hubs": {"hosts": hubs, "vars": lms},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "hosts.yml"
        path.write_text(yaml.safe_dump(content))
        return path

    def play(self, names: list[str], *more: str, count: bool = False) -> tuple[playbook.Outcome, float]:
        """The hubs play; returns its outcome and the CPU seconds that controller and machine used together."""
        used = busy()
        outcome = playbook.succeed("hubs", self.inventory(names), *more, count=count)
        return outcome, busy() - used

    def bare(self, names: list[str]) -> tuple[float, float]:
        """The same containers by ``podman run``, four at a time; wall and CPU seconds until all are healthy."""
        record = json.loads(self.root("cat /var/lib/ananke/images/standard.json"))
        self.stop(names)
        used, started = busy(), time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            for future in [pool.submit(self.run_bare, number, name, record) for number, name in enumerate(names)]:
                future.result()
        return time.monotonic() - started, busy() - used

    def run_bare(self, number: int, name: str, record: dict[str, Any]) -> None:
        """One bare container, until it is healthy."""
        port = FIRST_PORT + number
        described = container.Container(f"bare-{name}", record["reference"], f"/home/{name}/hubs/{name}", port)
        run = shlex.join(["podman", "run", "--detach", "--rm", *container.arguments(described)])
        script = (
            f"trap '' PIPE; cd /home/{name}; setpriv --reuid {name} --regid {name} --init-groups env HOME=/home/{name}"
            f" XDG_RUNTIME_DIR=/run/user/$(id -u {name}) {run} >/dev/null\n"
            f"for _ in $(seq {HEALTH_TIMEOUT * 4}); do\n"
            f"  exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET /{name}/hub/health HTTP/1.0\\r\\n\\r\\n' >&3"
            f" && IFS= read -r line <&3 && [[ $line == *200* ]] && exit 0\n"
            f"  sleep 0.25\ndone 2>/dev/null\nexit 1"
        )
        self.root(script)

    def stop(self, names: list[str]) -> None:
        """Stop the hubs' units, and bare containers."""
        for name in names:
            self.root(
                f"runuser -u {name} -- env XDG_RUNTIME_DIR=/run/user/$(id -u {name}) sh -c"
                f" 'cd; systemctl --user stop ananke-{name}; podman rm --force --time 0 bare-{name} >/dev/null 2>&1 || true'"
            )

    def remove(self, names: list[str]) -> None:
        """Remove hubs and their accounts."""
        self.stop(names)
        for name in names:
            self.root(
                f"rm -f /etc/nginx/ananke/locations.d/{name}.conf; uid=$(id -u {name}); loginctl disable-linger {name};"
                f" systemctl stop user@$uid; userdel --remove {name} 2>/dev/null || rm -rf /home/{name}"
            )

    def measure(self, count: int) -> dict[str, Any]:
        """All figures for one number of hubs."""
        names = [f"b{count}x{number:02d}" for number in range(1, count + 1)]
        first, first_cpu = self.play(names)
        second, second_cpu = self.play(names, count=True)
        if second.changed:
            raise AssertionError(f"the second run changed something:\n{second.output[-4000:]}")
        executions = max(len(second.executions_of(name)) for name in names)
        bare_wall, bare_cpu = self.bare(names)
        self.remove(names)
        return {
            "hubs": count,
            "bare_s": round(bare_wall, 1),
            "bare_cpu_s": round(bare_cpu, 1),
            "first_run_s": round(first.wall, 1),
            "first_run_cpu_s": round(first_cpu, 1),
            "first_run_ratio": round(first.wall / bare_wall, 2),
            "second_run_s": round(second.wall, 2),
            "second_run_cpu_s": round(second_cpu, 2),
            "second_run_s_per_hub": round(second.wall / count, 2),
            "module_executions_per_hub": executions,
        }

    def further(self) -> dict[str, Any]:
        """What one more hub costs on a machine that has one."""
        self.play(["first"])
        disk, memory = self.disk(), self.memory()
        both = ["first", "further"]
        outcome, _cpu = self.play(both, "--limit", "further")
        time.sleep(5)
        result = {
            "healthy_after_s": round(outcome.wall, 1),
            "disk_mb": round((self.disk() - disk) / 1e6, 1),
            "memory_mb": round((self.memory() - memory) / 1e6, 1),
        }
        self.remove(both)
        return result

    def disk(self) -> int:
        """Bytes in all accounts' homes and the shared store."""
        return int(self.root("du --summarize --bytes --total /home /var/lib/ananke | tail -n 1 | cut -f 1"))

    def memory(self) -> int:
        """Bytes that all processes of the machine hold, shared pages divided among those that share them (PSS)."""
        return int(
            self.root(
                "cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '/^Pss:/ {s += $2} END {print s * 1024}' || true"
            )
        )


def busy() -> float:
    """CPU seconds that this computer, the test machine on it included, has spent working since it booted."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / 100


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--hubs", type=int, nargs="+", default=[1, 5, 20, 50])
    parser.add_argument("--keep", action="store_true", help="leave the test machine for another time")
    options = parser.parse_args()
    bench = Bench("hubs", 8743)
    bench.site()
    rows = []
    for count in options.hubs:
        rows.append(bench.measure(count))
        print(json.dumps(rows[-1]), flush=True)
    result = {"hubs": rows, "further_hub": bench.further()}
    print(json.dumps(result["further_hub"]), flush=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    if not options.keep:
        demo.down(bench.demo)


if __name__ == "__main__":
    main()
