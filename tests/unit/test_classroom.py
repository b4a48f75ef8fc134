# SPDX-License-Identifier: GPL-3.0-or-later
"""What people of a class see of the way from the LMS to JupyterLab, on pages like those of LMS and hub; tests/e2e/test_class.py has real ones."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import classroom
import pytest

PENDING = '<script>var evtSource = new EventSource("/hub/events?_xsrf=a%3D");</script>'
COURSES = '<ul><li><a class="card" href="/launch?a=1&amp;b=2"><span class="title">Hub</span><span class="detail">{}/</span></a></li></ul>'
LAUNCH = (
    '<form action="/leave"><input name="x"></form>'
    '<form id="a" method="post" action="/callback"><input type="hidden" name="state" value="&lt;s&gt;"></form>'
    '<script>document.getElementById("a").submit();</script>'
)
QUEUED = 'data: {"progress": 10, "message": "Many servers start at the moment, 3 before yours."}\n\n'


class Site(http.server.BaseHTTPRequestHandler):
    """LMS and hub in one; people called late wait, those called ill have a server that fails."""

    ready: set[str]

    def answer(self, status: int, text: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/person":
            self.answer(303, Location="/courses", Set_Cookie=f"person={sent.removeprefix('person=')}")
        else:
            self.answer(302 if sent == "state=%3Cs%3E" else 400, Location="/hub/pending")

    def do_GET(self) -> None:
        person = self.headers.get("Cookie", "").removeprefix("person=")
        path = self.path.partition("?")[0]
        if path == "/hub/events":
            self.ready.add(person)
            end = '"failed": true, "message": "Spawn failed: no room"' if person == "ill" else '"ready": true'
            self.answer(200, f"{QUEUED}data: {{{end}}}\n\n")
        elif path == "/hub/pending" and person in {"late", "ill"} - self.ready:
            self.answer(200, PENDING)
        elif path == "/hub/pending":
            self.answer(302, Location=f"/user/u{person}/lab")
        else:
            host = self.headers["Host"]
            pages = {"/courses": COURSES.format(f"http://{host}"), "/launch": LAUNCH}
            lab = '<script id="jupyter-config-data"></script>' if path.endswith("/lab") else ""
            lost = person == "lost" and lab
            self.answer(503 if lost else 200, "Service <b>unavailable</b>" if lost else pages.get(path, lab))

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    handler = type("Fresh", (Site,), {"ready": set()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://hubs.localhost:{server.server_port}"
        server.shutdown()


def test_a_class_arrives(site: str) -> None:
    early, late = classroom.begin(["early", "late"], site, f"{site}/", Path("none"), within=0.2)
    assert (early.user, early.problem, early.queued, early.errors) == ("uearly", "", False, [])
    assert (late.user, late.problem, late.queued, late.errors) == ("ulate", "", True, [])
    assert late.clicked - early.clicked >= 0.1, "they come one after the other"
    assert late.seconds > 0


@pytest.mark.parametrize(
    ("person", "words", "errors"), [("ill", "no room", []), ("lost", "503:\nService unavailable", [503])]
)
def test_what_is_an_error_to_people_is_told(site: str, person: str, words: str, errors: list[int]) -> None:
    (start,) = classroom.begin([person], site, f"{site}/", Path("none"))
    assert words in start.problem
    assert start.errors == errors


def test_an_lms_without_the_hub(site: str) -> None:
    with pytest.raises(classroom.Unmet, match="no link"):
        classroom.begin(["early"], site, f"{site}/other/", Path("none"))
