"""``make demo``: three real hubs and a test LMS on a test machine, built by the collection over SSH.

``python -m demo up`` applies ``playbooks/site.yml`` to ``inventories/demo`` and writes ``build/demo.json``;
``python -m demo down`` removes all of it. ``prepare`` and ``facts`` are its first and last part alone. With ``--name`` tests
have demos of their own beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from testbed import machine as machines
from testbed import vm as vms

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
HTTPS_PORT = 8443
CHANNEL_PORT = 8490
ACTS = "prepare writes the facts as well; release removes what demos share, once there is none"


@dataclasses.dataclass(frozen=True)
class Demo:
    """One demo, with what belongs to it alone."""

    name: str
    port: int
    suite: str
    hardened: bool = False

    @property
    def folder(self) -> Path:
        """Its certificate authority is here."""
        return BUILD / self.name

    @property
    def facts(self) -> Path:
        """What tests and people need to know about it."""
        return BUILD / f"{self.name}.json"


def say(text: str) -> None:
    """One line of progress."""
    print(f"\n=== {text}", flush=True)


def command(*argv: str, **environment: str) -> None:
    """Run a command with its output shown; end with its status where it fails."""
    status = subprocess.run(argv, cwd=ROOT, env={**os.environ, **environment}, check=False).returncode
    if status:
        sys.exit(f"{' '.join(argv)} failed with status {status}; the same command again goes on where it stopped")


def channel() -> None:
    """The local conda channel, built unless it is there, and its server."""
    say("Local conda channel")
    served = ("--directory", str(BUILD / "channel"))
    command(sys.executable, "-m", "channel", "build", "--suite", "trixie", "--output", str(BUILD / "channel"))
    command(sys.executable, "-m", "channel", "serve", *served, "--port", str(CHANNEL_PORT), "--background")


def certify(folder: Path, name: str, hosts: Sequence[str]) -> None:
    """Write a certificate of the authority in a folder, which is made if it is not there.

    Args:
        folder: The authority's.
        name: What the certificate is called: NAME.pem and NAME.key.
        hosts: The host names that it is for.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted = {"directory": str(folder), "name": name, "hosts": list(hosts)}
    command(
        *("ansible", "localhost", "--connection", "local", "--module-name", "ananke.jupyterhub.demo_ca"),
        *("--extra-vars", f"ansible_python_interpreter={sys.executable}"),
        *("--args", json.dumps(wanted)),
    )


def prepare(demo: Demo) -> machines.Machine:
    """The test machine, the conda channel and the certificate authority."""
    say("Test machine")
    hardened = [f":{machines.HARDENED}"] if demo.hardened else []
    machine = machines.up(demo.name, suite=demo.suite, publish=[f"{demo.port}:{demo.port}", *hardened])
    channel()
    say("Certificate authority")
    certify(demo.folder / "ca", "demo", ["hubs.localhost", "lms.localhost"])
    return machine


def describe(demo: Demo, machine: machines.Machine) -> dict[str, Any]:
    """What tests and people need to know about the demo."""
    output = subprocess.run(
        ["ansible-inventory", "--inventory", str(ROOT / "inventories/demo"), "--list"],
        cwd=ROOT,
        env={**os.environ, "ANANKE_DEMO": demo.name},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    inventory = json.loads(output)
    hubs = []
    for name in inventory["hubs"]["hosts"]:
        variables = inventory["_meta"]["hostvars"][name]
        hubs.append(
            {
                "name": name,
                "url": f"https://hubs.localhost:{demo.port}{variables.get('hub_path', f'/{name}/')}",
                "container": f"ananke-{name}",
                "container_admin": variables.get("hub_container_admin", name),
            }
        )
    return {
        "machine": {
            "ssh_host": machine.ssh_host,
            "ssh_port": machine.published.get(machines.HARDENED, machine.ssh_port),
            "ssh_user": machine.ssh_user,
            "ssh_key": str(machine.ssh_key),
        },
        "lms": {"url": f"https://lms.localhost:{demo.port}/"},
        "ca": str(demo.folder / "ca/ca.pem"),
        "hubs": hubs,
    }


def facts(demo: Demo) -> dict[str, Any]:
    """Write the demo's facts, and return them."""
    known = describe(demo, machines.load(demo.name))
    demo.facts.write_text(json.dumps(known, indent=2) + "\n")
    return known


def table(demo: Demo, known: dict[str, Any], machine: machines.Machine) -> str:
    """The demo at a glance."""
    rows = [("LMS", known["lms"]["url"])]
    rows += [
        (f"hub {hub['name']}", f"{hub['url']}  (container admin {hub['container_admin']})") for hub in known["hubs"]
    ]
    rows += [
        ("open", "a browser on this machine, at the LMS: choose a person and a course, open the hub"),
        ("trust", f"let the browser trust {known['ca']}, or accept its warning for both addresses"),
        ("SSH", f"ssh -F {machine.ssh_config} {demo.name}"),
        ("root shell", f"ssh -tF {machine.ssh_config} {demo.name} sudo -iu math101 hubs/math101/shell"),
        ("facts", str(demo.facts.relative_to(ROOT))),
        ("stop", "make demo-down"),
    ]
    width = max(len(name) for name, _value in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def up(demo: Demo) -> None:
    """Set everything up."""
    started = time.monotonic()
    demo.facts.unlink(missing_ok=True)
    machine = prepare(demo)
    say("The collection: playbooks/site.yml on inventories/demo")
    command(
        *("ansible-playbook", "--inventory", "inventories/demo", "playbooks/site.yml"),
        ANANKE_DEMO=demo.name,
        ANSIBLE_DISPLAY_SKIPPED_HOSTS="false",
        ANSIBLE_FORCE_COLOR="1" if sys.stdout.isatty() else "0",
    )
    known = facts(demo)
    say(f"The demo is up, after {(time.monotonic() - started) / 60:.1f} minutes\n")
    print(table(demo, known, machine))


def down(demo: Demo) -> None:
    """Remove everything; twice does no harm. What demos share goes with the last one."""
    demo.facts.unlink(missing_ok=True)
    machines.down(demo.name)
    shutil.rmtree(demo.folder, ignore_errors=True)
    release()


def release() -> None:
    """Remove what demos and virtual machines share, unless there is one left, or ANANKE_KEEP says that another one follows."""
    if not (os.environ.get("ANANKE_KEEP") or machines.names() or vms.names()):
        served = ("--directory", str(BUILD / "channel"))
        subprocess.run([sys.executable, "-m", "channel", "stop", *served], cwd=ROOT, check=False)
        command(sys.executable, "-m", "testbed", "down-all", "--images")
        shutil.rmtree(BUILD / "channel", ignore_errors=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("act", choices=["up", "down", "prepare", "facts", "release"], help=ACTS)
    parser.add_argument("--name", default="demo", help="name of the test machine")
    parser.add_argument("--port", type=int, default=HTTPS_PORT, help="its HTTPS port, here and there")
    parser.add_argument("--suite", default="trixie", choices=["bookworm", "trixie"], help="its Debian release")
    parser.add_argument("--hardened", action="store_true", help="harden it like a real machine")
    options = parser.parse_args()
    chosen = Demo(options.name, options.port, options.suite, options.hardened)
    acts: dict[str, Callable[[Demo], Any]] = {"up": up, "down": down, "facts": facts}
    if options.act == "prepare":
        prepare(chosen)
        facts(chosen)
    elif options.act == "release":
        release()
    else:
        acts[options.act](chosen)


if __name__ == "__main__":
    main()
