"""Command line of the test bed: python -m testbed --help."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from testbed import base, machine, podman, prove, vm
from testbed.client import Client
from testbed.common import TestbedError, extra_cas


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    whole = argparse.ArgumentParser(prog="python -m testbed", description="Podman and test machines for developers.")
    commands = whole.add_subparsers(dest="command", required=True)
    plain = commands.add_parser("podman", help="run podman as it works on this machine", add_help=False)
    plain.add_argument("arguments", nargs=argparse.REMAINDER)
    images = commands.add_parser("base", help="print the base image of a suite, built if absent")
    images.add_argument("suite", choices=base.SUITES)
    commands.add_parser("cas", help="print the paths of this machine's extra certificate authorities")
    everything = commands.add_parser("down-all", help="remove all machines of this checkout, their volumes, the holder")
    everything.add_argument("--images", action="store_true", help="remove the test bed's images too")
    proof = commands.add_parser("prove", help="prove every promise on a machine of its own (2 minutes)")
    proof.add_argument("suite", choices=base.SUITES)
    _machine_parser(commands.add_parser("machine", help="test machines"))
    _vm_parser(commands.add_parser("vm", help="virtual machines"))
    return whole


def _machine_parser(whole: argparse.ArgumentParser) -> None:
    verbs = whole.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="make or start a machine, wait until it can be logged in to")
    up.add_argument("name")
    up.add_argument("--suite", choices=base.SUITES, help="trixie unless the machine exists")
    up.add_argument("--ssh-port", type=int, metavar="P", help="port of 127.0.0.1 (default: a free one, kept)")
    up.add_argument("--publish", action="append", default=[], metavar="[HOSTPORT]:PORT", help="on 127.0.0.1")
    up.add_argument("--volume", action="append", default=[], metavar="NAME:PATH", help="a further volume")
    up.add_argument("--client", action="store_true", help="and somebody else on its network: see testbed/client.py")
    for verb, text in (
        ("down", "remove a machine and its volumes"),
        ("reboot", "reboot it from inside, wait until it is back"),
        ("crash", "take its power away and give it back"),
    ):
        verbs.add_parser(verb, help=text).add_argument("name")
    _command_parser(verbs, "ssh", "log in as the host admin, or run a command as that one")
    _command_parser(verbs, "exec", "run a program as root, past ssh")
    verbs.add_parser("list", help="this checkout's machines")


def _vm_parser(whole: argparse.ArgumentParser) -> None:
    verbs = whole.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="make or start a virtual machine, wait until it can be logged in to")
    up.add_argument("name")
    up.add_argument("--ssh-port", type=int, metavar="P", help="port of 127.0.0.1 (default: a free one, kept)")
    up.add_argument("--publish", action="append", default=[], metavar="[HOSTPORT]:PORT", help="on 127.0.0.1")
    up.add_argument("--memory", type=int, metavar="MIB", help=f"default: {vm.MEMORY}")
    up.add_argument("--disk", action="append", default=[], metavar="IMAGE:PATH", help="a further disk, and where")
    verbs.add_parser("down", help="remove a virtual machine").add_argument("name")
    verbs.add_parser("reboot", help="reboot it from inside, wait until it is back").add_argument("name")
    verbs.add_parser("crash", help="take its power away and give it back").add_argument("name")
    _command_parser(verbs, "ssh", "log in as the host admin, or run a command as that one")
    _command_parser(verbs, "exec", "the same as root")
    verbs.add_parser("list", help="this checkout's virtual machines")


def _command_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser], verb: str, text: str) -> None:
    command = verbs.add_parser(verb, help=text)
    command.add_argument("name")
    command.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND ...")


def _become(line: Sequence[str]) -> None:
    sys.stdout.flush()
    os.execvp(line[0], list(line))  # noqa: S606 - a list, no shell; the terminal belongs to that program


def _machine(arguments: argparse.Namespace) -> None:
    if arguments.verb == "up":
        found = machine.up(arguments.name, arguments.suite, arguments.ssh_port, arguments.publish, arguments.volume)
        if arguments.client:
            Client(found).attach()
        print(f"{found.name}: ssh -F {found.ssh_config} {found.name}")
    elif arguments.verb == "down":
        machine.down(arguments.name)
    elif arguments.verb == "reboot":
        print(f"{arguments.name}: boot {machine.reboot(arguments.name).boot_id()}")
    elif arguments.verb == "crash":
        print(f"{arguments.name}: boot {machine.crash(arguments.name).boot_id()}")
    elif arguments.verb == "ssh":
        known = machine.load(arguments.name)
        _become(["ssh", "-F", str(known.ssh_config), known.name, *arguments.arguments])
    elif arguments.verb == "exec":
        terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
        container = machine.load(arguments.name).container
        _become(podman.command(["exec", "--interactive", *terminal, container, *(arguments.arguments or ["bash"])]))
    else:
        for name in machine.names():
            known = machine.load(name)
            print(
                f"{name}\t{machine.state(known.container) or 'gone'}\t{known.suite}\t{known.ssh_host}:{known.ssh_port}"
            )


def _vm(arguments: argparse.Namespace) -> None:
    if arguments.verb == "up":
        disks = {path: image for image, _colon, path in (text.rpartition(":") for text in arguments.disk)}
        found = vm.up(arguments.name, arguments.ssh_port, arguments.publish, arguments.memory, disks)
        print(f"{found.name}: ssh -F {found.ssh_config} {found.name}")
    elif arguments.verb == "down":
        vm.down(arguments.name)
    elif arguments.verb == "reboot":
        print(f"{arguments.name}: boot {vm.reboot(arguments.name).boot_id()}")
    elif arguments.verb == "crash":
        print(f"{arguments.name}: boot {vm.crash(arguments.name).boot_id()}")
    elif arguments.verb == "list":
        for known in map(vm.load, vm.names()):
            print(f"{known.name}\t{'running' if known.pid() else 'off'}\t{known.ssh_host}:{known.ssh_port}")
    else:
        known = vm.load(arguments.name)
        root = ["sudo", "-n", *([] if arguments.arguments else ["-i"])] if arguments.verb == "exec" else []
        line = [*root, *arguments.arguments]
        done = known.ssh(*line, check=False, terminal=not arguments.arguments, capture_output=False, stdin=None)
        raise SystemExit(done.returncode)


def main(argv: Sequence[str]) -> int:
    """Run one command and return the exit status."""
    if argv[:1] == ["podman"]:
        _become(podman.command(argv[1:]))
    arguments = parser().parse_args(argv)
    if arguments.command == "base":
        print(base.ensure(arguments.suite))
    elif arguments.command == "cas":
        for path in extra_cas():
            print(path)
    elif arguments.command == "prove":
        prove.Proof(arguments.suite).run()
    elif arguments.command == "machine":
        _machine(arguments)
    elif arguments.command == "vm":
        _vm(arguments)
    elif arguments.command == "down-all":
        for name in [*vm.down_all(images=arguments.images), *machine.down_all(images=arguments.images)]:
            print(f"{name}: removed")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TestbedError as error:
        sys.exit(f"testbed: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
