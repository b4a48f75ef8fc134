# SPDX-License-Identifier: GPL-3.0-or-later
"""The home and a folder on a WebDAV server that wants a password are listed, and a file is changed there. A wrong password is told, not logged."""

import base64
import http.server
import threading
from pathlib import Path

import checks

PASSWORD = "it's a/secret"  # noqa: S105 - of the server below
ITEM = "<d:response><d:href>{}</d:href><d:propstat><d:prop>{}</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>"
FOLDER = ITEM.format("/dav/", "<d:resourcetype><d:collection/></d:resourcetype>")
FILE = ITEM.format("/dav/far.txt", "<d:resourcetype/><d:getcontentlength>8</d:getcontentlength>")
kept = {"/dav/far.txt": b"far away"}


class Dav(http.server.BaseHTTPRequestHandler):
    """As much of WebDAV as is needed to list a folder, and to read and write its file."""

    def answer(self, status: int, body: bytes = b"") -> None:
        """Send an answer, or ask for the password."""
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers["Authorization"] != "Basic " + base64.b64encode(f"anna:{PASSWORD}".encode()).decode():
            status, body = 401, b""
        elif self.command == "PUT":
            kept[self.path] = sent
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def do_PROPFIND(self) -> None:
        """List."""
        items = {"/dav": FOLDER, "/dav/far.txt": FILE}
        found = items.get(self.path.rstrip("/"), "")
        found += FILE if found == FOLDER and self.headers["Depth"] == "1" else ""
        text = f'<?xml version="1.0"?><d:multistatus xmlns:d="DAV:">{found}</d:multistatus>'
        self.answer(207 if found else 404, text.encode())

    def do_GET(self) -> None:
        """Read."""
        self.answer(200, kept["/dav/far.txt"])

    do_HEAD = do_GET

    def do_MKCOL(self) -> None:
        """Make no folder: it is there."""
        self.answer(405)

    def do_PUT(self) -> None:
        """Write."""
        self.answer(204)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


(Path.home() / "near.txt").write_text("near\n")
dav = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dav)
threading.Thread(target=dav.serve_forever, daemon=True).start()
remote = {
    "name": "Far",
    "url": f"webdav://{{{{user}}}}:{{{{password}}}}@127.0.0.1:{dav.server_port}/dav",
    "type": "fsspec",
    "auth": "ask",
    "tokenDict": {"user": "anna", "password": PASSWORD},
}
with checks.server() as server:
    server.labextensions("jupyter-fs")
    wish = {"resources": [remote], "options": {"_addServerside": True, "cache": True}}
    drives = {one["name"]: one["drive"] for one in server.ask("jupyterfs/resources", wish) if one["init"]}
    assert set(drives) >= {"Home", "Far"}, f"only these could be opened: {sorted(drives)}"
    for name, file in (("Home", "near.txt"), ("Far", "far.txt")):
        listed = [one["name"] for one in server.ask(f"api/contents/{drives[name]}:")["content"]]
        assert file in listed, f"{name} lists {listed}"
    far = f"api/contents/{drives['Far']}:/far.txt"
    text = server.ask(far)["content"]
    assert text == "far away", f"the file far away says {text!r}"
    server.ask(far, {"type": "file", "format": "text", "content": "far gone"}, method="PUT")
    assert kept["/dav/far.txt"] == b"far gone", f"the file far away became {kept}"
    wrong = {**remote, "name": "Closed", "url": f"{remote['url']}/"}
    wrong["tokenDict"] = {"user": "anna", "password": "mistyped"}
    (closed,) = server.ask("jupyterfs/resources", {"resources": [wrong], "options": {"cache": True}})
    try:
        told = str(server.ask(f"api/contents/{closed['drive']}:"))
    except RuntimeError as error:
        told = str(error)
    assert "wrong user name or password" in told, f"a wrong password gets: {told}"
    assert "mistyped" not in server.log.read_text(), "a password is in the server's log"
