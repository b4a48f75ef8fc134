"""``make demo``: three real hubs and a test LMS on a test machine, built by the collection over SSH.

``python -m demo up`` applies ``playbooks/site.yml`` to ``inventories/demo`` and writes ``build/demo.json``;
``python -m demo down`` removes all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from testbed import machine as machines

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
DEMO = BUILD / "demo"
FACTS = BUILD / "demo.json"
NAME = "demo"
HTTPS_PORT = 8443
CHANNEL_PORT = 8490


def say(text: str) -> None:
    """One line of progress."""
    print(f"\n=== {text}", flush=True)


def command(*argv: str, **environment: str) -> None:
    """Run a command with its output shown; end with its status where it fails."""
    status = subprocess.run(argv, cwd=ROOT, env={**os.environ, **environment}, check=False).returncode
    if status:
        sys.exit(f"{' '.join(argv)} failed with status {status}; the same command again goes on where it stopped")


def prepare() -> machines.Machine:
    """The test machine, the conda channel and the demo's certificate authority."""
    say("Test machine")
    machine = machines.up(NAME, publish=[f"{HTTPS_PORT}:{HTTPS_PORT}"])
    say("Local conda channel")
    command(sys.executable, "-m", "channel", "build", "--suite", "trixie", "--output", str(BUILD / "channel"))
    command(
        *(sys.executable, "-m", "channel", "serve"),
        *("--directory", str(BUILD / "channel"), "--bind", "127.0.0.1", "--port", str(CHANNEL_PORT)),
    )
    DEMO.mkdir(parents=True, exist_ok=True)
    say("Certificate authority")
    command(
        *("ansible", "localhost", "--connection", "local", "--module-name", "ananke.jupyterhub.demo_ca"),
        *("--extra-vars", f"ansible_python_interpreter={sys.executable}"),
        *(
            "--args",
            json.dumps({"directory": str(DEMO / "ca"), "name": NAME, "hosts": ["hubs.localhost", "lms.localhost"]}),
        ),
    )
    return machine


def facts(machine: machines.Machine) -> dict[str, Any]:
    """What tests and people need to know about the demo."""
    output = subprocess.run(
        ["ansible-inventory", "--inventory", str(ROOT / "inventories/demo"), "--list"],
        cwd=ROOT,
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
                "url": f"https://hubs.localhost:{HTTPS_PORT}{variables.get('hub_path', f'/{name}/')}",
                "container": f"ananke-{name}",
                "container_admin": variables.get("hub_container_admin", name),
            }
        )
    return {
        "machine": {
            "ssh_host": machine.ssh_host,
            "ssh_port": machine.ssh_port,
            "ssh_user": machine.ssh_user,
            "ssh_key": str(machine.ssh_key),
        },
        "lms": {"url": f"https://lms.localhost:{HTTPS_PORT}/"},
        "ca": str(DEMO / "ca/ca.pem"),
        "hubs": hubs,
    }


def table(known: dict[str, Any], machine: machines.Machine) -> str:
    """The demo at a glance."""
    rows = [("LMS", known["lms"]["url"])]
    rows += [
        (f"hub {hub['name']}", f"{hub['url']}  (container admin {hub['container_admin']})") for hub in known["hubs"]
    ]
    rows += [
        ("open", "a browser on this machine, at the LMS: choose a person and a course, open the hub"),
        ("trust", f"let the browser trust {known['ca']}, or accept its warning for both addresses"),
        ("SSH", f"ssh -F {machine.ssh_config} {NAME}"),
        ("root shell", f"ssh -tF {machine.ssh_config} {NAME} sudo -iu math101 hubs/math101/shell"),
        ("facts", str(FACTS.relative_to(ROOT))),
        ("stop", "make demo-down"),
    ]
    width = max(len(name) for name, _value in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def up() -> None:
    """Set everything up."""
    started = time.monotonic()
    FACTS.unlink(missing_ok=True)
    machine = prepare()
    say("The collection: playbooks/site.yml on inventories/demo")
    command(
        *("ansible-playbook", "--inventory", "inventories/demo", "playbooks/site.yml"),
        ANSIBLE_DISPLAY_SKIPPED_HOSTS="false",
        ANSIBLE_FORCE_COLOR="1" if sys.stdout.isatty() else "0",
    )
    known = facts(machine)
    FACTS.write_text(json.dumps(known, indent=2) + "\n")
    say(f"The demo is up, after {(time.monotonic() - started) / 60:.1f} minutes\n")
    print(table(known, machine))


def down() -> None:
    """Remove everything; twice does no harm."""
    FACTS.unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, "-m", "channel", "stop", "--directory", str(BUILD / "channel")], cwd=ROOT, check=False
    )
    machines.down(NAME)
    if not machines.names():
        command(sys.executable, "-m", "testbed", "down-all", "--images")
    for path in ("demo", "channel"):
        subprocess.run(["rm", "-rf", str(BUILD / path)], check=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("act", choices=["up", "down"])
    {"up": up, "down": down}[parser.parse_args().act]()


if __name__ == "__main__":
    main()
