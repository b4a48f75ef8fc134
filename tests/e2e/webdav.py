"""A real WebDAV server on this computer, with TLS and a password, as a course's file share may be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter
from wsgidav.wsgidav_app import WsgiDAVApp

import demo

# This computer, as test machines and what runs on them see it.
COMPUTER = "10.41.0.2"
HOST = "files.localhost"


@dataclass(frozen=True)
class Share:
    """The server's folder, and how it is reached."""

    folder: Path
    port: int
    user: str = "anna"
    password: str = "it's a secret: ü/@?"  # noqa: S105 - of this server

    @property
    def url(self) -> str:
        """What a hub user writes into their settings."""
        return f"webdavs://{{{{user}}}}:{{{{password}}}}@{HOST}:{self.port}"


@contextmanager
def served(folder: Path, authority: Path) -> Iterator[Share]:
    """Serve a folder, with a certificate of the authority in another."""
    demo.certify(authority, "files", [HOST])
    server = wsgi.Server(("127.0.0.1", 0), None)
    server.ssl_adapter = BuiltinSSLAdapter(str(authority / "files.pem"), str(authority / "files.key"))
    server.prepare()
    share = Share(folder, server.bind_addr[1])
    server.wsgi_app = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(folder)},
            "simple_dc": {"user_mapping": {"*": {share.user: {"password": share.password}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "logging": {"enable": False},
            "verbose": 1,
        }
    )
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield share
    finally:
        server.stop()
        thread.join()
