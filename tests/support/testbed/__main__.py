"""Command line of the test bed: python -m testbed --help."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from testbed import base, podman
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
    return whole


def main(argv: Sequence[str]) -> int:
    """Run one command and return the exit status."""
    if argv[:1] == ["podman"]:
        line = podman.command(argv[1:])
        os.execvp(line[0], line)  # noqa: S606 - a list, no shell; the terminal belongs to podman
    arguments = parser().parse_args(argv)
    if arguments.command == "base":
        print(base.ensure(arguments.suite))
    elif arguments.command == "cas":
        for path in extra_cas():
            print(path)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TestbedError as error:
        sys.exit(f"testbed: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
