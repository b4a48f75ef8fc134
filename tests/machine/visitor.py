"""Somebody on the network who opens the machine's public address."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from testbed.client import MACHINE4, Client
from testbed.waiting import until

HOST = "hubs.example.org"

# The address and the authority come as arguments; what is said goes in by standard input, line by line.
WEBSOCKET = """
import socket, ssl, sys
address, host, authority = sys.argv[1:]
trusted = ssl.create_default_context(cafile=authority)
with socket.create_connection((address, 443), timeout=20) as plain, trusted.wrap_socket(plain, server_hostname=host) as line:
    request = f"GET /probe/ HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n"
    line.sendall(request.encode())
    stream = line.makefile("rb")
    print(stream.readline().decode().strip(), flush=True)
    while stream.readline().strip():
        pass
    for said in sys.stdin:
        line.sendall(said.encode())
        print(stream.readline().decode().strip(), flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Visitor:
    """Somebody who trusts one authority."""

    client: Client
    authority: Path

    def curl(self, url: str, *arguments: str, host: str = HOST) -> subprocess.CompletedProcess[str]:
        """Ask curl, whatever comes of it."""
        places = [word for port in (80, 443) for word in ("--resolve", f"{host}:{port}:{MACHINE4}")]
        line = ["curl", "-sS", "--include", "--max-time", "20", "--cacert", str(self.authority), *places]
        return self.client.run(*line, *arguments, url, check=False)

    def get(self, path: str, *arguments: str, scheme: str = "https") -> Answer:
        """Open a page of the machine."""
        done = self.curl(f"{scheme}://{HOST}{path}", *arguments)
        assert done.returncode == 0, done.stderr
        head, _empty, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
        first, *lines = head.splitlines()
        pairs = (line.partition(": ") for line in lines)
        return Answer(int(first.split()[1]), {name.lower(): value for name, _colon, value in pairs}, body)

    def other_serial(self, *former: str, timeout: float = 120) -> str:
        """That of another certificate, once it is served: former processes of nginx answer for a moment after a reload."""
        return until(self.serial, timeout, "another certificate is served", lambda found: found not in former)

    def serial(self, trust: bool = True) -> str:
        """The serial number of the certificate that is served; its chain leads to the authority, unless that does not matter."""
        line = ["openssl", "s_client", "-connect", f"{MACHINE4}:443", "-servername", HOST, "-verify_hostname", HOST]
        trusted = [
            "-CAfile",
            str(self.authority),
            "-no-CApath",
            "-no-CAstore",
            *(["-verify_return_error"] if trust else []),
        ]
        shown = self.client.run(*line, *trusted, check=False, input="")
        assert shown.returncode == 0, shown.stderr + shown.stdout
        found = subprocess.run(
            ["openssl", "x509", "-noout", "-serial"], input=shown.stdout, capture_output=True, text=True
        )
        match = re.match(r"serial=(\w+)", found.stdout)
        assert match, found.stderr
        return match[1]


class WebSocket:
    """A connection that stays open."""

    def __init__(self, visitor: Visitor) -> None:
        line = [*visitor.client.enter, sys.executable, "-c", WEBSOCKET, MACHINE4, HOST, str(visitor.authority)]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.heard() == "HTTP/1.1 101 Switching Protocols"

    def heard(self) -> str:
        """The next line from the other side; empty when the connection is gone."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def echoes(self, word: str) -> bool:
        """Whether a word comes back."""
        assert self.process.stdin
        try:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return self.heard() == word

    def close(self) -> None:
        """Hang up."""
        self.process.kill()
        self.process.communicate()
