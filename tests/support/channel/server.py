"""A small threaded HTTP server for the channel."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from channel.common import ChannelError, write
from testbed.common import locked

WAIT = 10.0
"""Seconds that starting and stopping may take."""


class Handler(SimpleHTTPRequestHandler):
    """Serves files; prints only errors."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Leave out requests that were answered."""


def default_state(directory: Path) -> Path:
    """Return where a server of this folder notes its process, port and URL."""
    return directory.resolve().with_name(f"{directory.resolve().name}.server.json")


def read_state(state: Path) -> dict[str, Any]:
    """Return what a running server noted; empty if there is none, or it has died."""
    try:
        found: dict[str, Any] = json.loads(state.read_text())
        command = Path(f"/proc/{found['pid']}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, KeyError):
        return {}
    return found if b"channel" in command and b"serve" in command else {}


def serve(directory: Path, bind: str, port: int, state: Path) -> None:
    """Serve a folder until SIGTERM or SIGINT; ChannelError if the port is taken or the folder is missing."""
    if not directory.is_dir():
        raise ChannelError(f"{directory} does not exist; build the channel first: python -m channel build")
    if running := read_state(state):
        raise ChannelError(f"{directory} is served already at {running['url']}; stop it: python -m channel stop")
    try:
        server = ThreadingHTTPServer((bind, port), partial(Handler, directory=str(directory.resolve())))
    except OSError as error:
        raise ChannelError(f"cannot listen on {bind}:{port}: {error}; choose another --port") from error
    try:
        with server:
            port = server.server_address[1]
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
            note = {"pid": os.getpid(), "bind": bind, "port": port, "url": f"http://{bind}:{port}"}
            fresh = state.with_name(f".{state.name}.{os.getpid()}")
            write(fresh, json.dumps(note) + "\n")
            fresh.rename(state)
            server.serve_forever(poll_interval=0.1)
    finally:
        state.unlink(missing_ok=True)  # the port is free by now: whoever stops a server waits for this


def start(directory: Path, bind: str, port: int, state: Path) -> str:
    """Start a server in the background and return its URL; one that runs already, or was started at the same time, is kept if it fits."""
    with locked(state.with_name(f".{state.name}.lock")):
        return _start(directory, bind, port, state)


def _start(directory: Path, bind: str, port: int, state: Path) -> str:
    running = read_state(state)
    if running and running["bind"] == bind and port in (0, running["port"]):
        return str(running["url"])
    command = [sys.executable, "-m", "channel", "serve", "--directory", directory, "--bind", bind]
    log = state.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [*map(str, command), "--port", str(port), "--state", str(state)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )
    end = time.monotonic() + WAIT
    while time.monotonic() < end and process.poll() is None:
        noted = read_state(state)
        if noted.get("pid") == process.pid:
            return str(noted["url"])
        time.sleep(0.05)
    process.terminate()
    raise ChannelError(log.read_text().strip().removeprefix("channel: ") or f"the server did not start in {WAIT} s")


def stop(state: Path) -> None:
    """Stop a server and wait until its port is free; nothing to do if none runs."""
    running = read_state(state)
    if running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running["pid"], signal.SIGTERM)
        end = time.monotonic() + WAIT
        while read_state(state):
            if time.monotonic() > end:
                raise ChannelError(f"the server (process {running['pid']}) did not stop in {WAIT} s; end it by hand")
            time.sleep(0.05)
    state.unlink(missing_ok=True)
