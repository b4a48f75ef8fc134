"""Command line of the local conda channel: python -m channel --help."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from channel import server
from channel.common import SUITES, ChannelError
from channel.lock import lock


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    whole = argparse.ArgumentParser(prog="python -m channel", description="A local conda channel with an installer.")
    commands = whole.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build", help="build the channel, unless it is built already; print channel.json")
    builder.add_argument("--suite", choices=sorted(SUITES), default="trixie", help="Debian release (default: trixie)")
    builder.add_argument("--output", type=Path, default=Path("build/channel"), help="folder (default: build/channel)")
    builder.add_argument("--force", action="store_true", help="build again, with Debian's updates")
    serving = commands.add_parser("serve", help="offer a folder by HTTP until stopped")
    serving.add_argument("--directory", type=Path, default=Path("build/channel"))
    serving.add_argument("--bind", default="127.0.0.1", help="address (default: 127.0.0.1)")
    serving.add_argument("--port", type=int, default=0, help="port (default: a free one)")
    serving.add_argument("--state", type=Path, help="file for {pid, bind, port, url} (default: DIRECTORY.server.json)")
    serving.add_argument("--background", action="store_true", help="return when it listens; print its URL")
    stopping = commands.add_parser("stop", help="stop a server and wait until it is gone")
    stopping.add_argument("--directory", type=Path, default=Path("build/channel"))
    stopping.add_argument("--state", type=Path, help="as given to serve")
    commands.add_parser("lock", help="pin the newest wheels for every suite")
    return whole


def main() -> int:
    """Run one command; 0, or 1 with the reason on standard error."""
    arguments = parser().parse_args()
    try:
        if arguments.command == "build":
            from channel.build import build  # serving needs none of what building imports

            print(json.dumps(build(SUITES[arguments.suite], arguments.output, force=arguments.force), indent=1))
        elif arguments.command == "lock":
            lock()
        else:
            state = arguments.state or server.default_state(arguments.directory)
            if arguments.command == "stop":
                server.stop(state)
            elif arguments.background:
                print(server.start(arguments.directory, arguments.bind, arguments.port, state))
            else:
                server.serve(arguments.directory, arguments.bind, arguments.port, state)
    except ChannelError as error:
        print(f"channel: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
