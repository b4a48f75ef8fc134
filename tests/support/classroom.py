"""A class begins: many people open a hub from the LMS at once, as browsers would, with requests and one thread each.

What a browser does of its own accord is done here: cookies, redirects, the LMS's form that submits itself, and the page of a server that
starts, which waits for the hub's events and then loads again. Pictures and programs of pages are left out.
"""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

LINK = re.compile(r'<a class="card" href="([^"]+)">.*?<span class="detail">([^<]+)</span>', re.DOTALL)
EVENTS = re.compile(r'new EventSource\("([^"]+)"\)')
SUBMITS = re.compile(r'getElementById\("([^"]+)"\)\.submit\(\)')
LAB = re.compile(r"/user/([^/]+)/lab$")
PATIENCE = 900
"""Seconds until JupyterLab's page must be there."""
ANSWER = (30, 180)
"""Seconds for a connection, and for an answer to begin."""


class Unmet(Exception):
    """Somebody was shown something that is no server and no polite wait; the message says what."""


@dataclass
class Start:
    """How it went for one person."""

    person: str
    clicked: float = 0.0
    """When they followed the LMS's link, on the clock of time.monotonic."""
    seconds: float = 0.0
    """From then until JupyterLab's page."""
    user: str = ""
    """Their name in the hub; empty if they did not get that far."""
    statuses: list[int] = field(default_factory=list)
    """Of all answers, in their order."""
    told: list[str] = field(default_factory=list)
    """What the hub said while they waited."""
    problem: str = ""
    """What went wrong; empty if all went well."""

    @property
    def queued(self) -> bool:
        """Whether they were told that others' servers start before theirs."""
        return any("before yours" in text for text in self.told)

    @property
    def errors(self) -> list[int]:
        """Answers that a browser would have shown as errors."""
        return [status for status in self.statuses if status >= 400]


class Loopback(HTTPAdapter):
    """Finds every host on 127.0.0.1, as browsers find *.localhost; names and certificates stay those of the address."""

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        names = {"server_hostname": host["host"], "assert_hostname": host["host"]} if host["scheme"] == "https" else {}
        return {**host, "host": "127.0.0.1"}, {**pool, **names}

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        request.headers["Host"] = urlsplit(str(request.url)).netloc
        try:
            return super().send(request, *arguments, **options)
        finally:
            # left there, it would choose the cookies of a redirection to another host
            del request.headers["Host"]


class Form(HTMLParser):
    """A form of a page: where it goes, and what it holds."""

    def __init__(self, page: str, name: str) -> None:
        super().__init__()
        self.name = name
        self.action = ""
        self.fields: dict[str, str] = {}
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        if tag == "form" and known.get("id") == self.name:
            self.action, self._open = known.get("action", ""), True
        elif tag == "input" and self._open and "name" in known:
            self.fields[known["name"]] = known.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "form"


class Person:
    """Somebody with a browser of their own."""

    def __init__(self, person: str, lms: str, hub: str, ca: Path) -> None:
        """Prepare the browser.

        Args:
            person: Whom they choose on the LMS's front page.
            lms: Address of the LMS.
            hub: Address of the hub, as the LMS shows it.
            ca: The authority that they trust.
        """
        self.lms, self.hub = lms.rstrip("/") + "/", hub
        self.start = Start(person)
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(ca)
        self.session.headers.update({"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"})
        self.session.mount("https://", Loopback())
        self.session.mount("http://", Loopback())
        self.link = ""

    def sign_in(self) -> None:
        """Choose the person, and find the link to the hub. Raises Unmet."""
        page = self._load("POST", urljoin(self.lms, "person"), {"person": self.start.person})
        links = [html.unescape(link) for link, address in LINK.findall(page.text) if html.unescape(address) == self.hub]
        if not links:
            raise Unmet(f"the LMS has no link to {self.hub} for {self.start.person}")
        self.link = urljoin(page.url, links[0])

    def launch(self, patience: float = PATIENCE) -> None:
        """Follow the link, and wait until JupyterLab's page is there; what happens is in `start`."""
        self.start.clicked = time.monotonic()
        try:
            self._arrive(self.start.clicked + patience)
        except (Unmet, requests.RequestException) as error:
            self.start.problem = str(error) or repr(error)
        self.start.seconds = time.monotonic() - self.start.clicked

    def _arrive(self, end: float) -> None:
        page = self._load("GET", self.link)
        while time.monotonic() < end:
            found = LAB.search(urlsplit(page.url).path)
            events = EVENTS.search(page.text)
            submits = SUBMITS.search(page.text)
            if found and "jupyter-config-data" in page.text:
                self.start.user = found[1]
                return
            if events:
                self._wait(urljoin(page.url, html.unescape(events[1])), end)
                page = self._load("GET", page.url)
            elif submits:
                form = Form(page.text, submits[1])
                page = self._load("POST", urljoin(page.url, form.action), form.fields)
            else:
                raise Unmet(f"{page.url} is neither JupyterLab nor a wait:\n{visible(page.text)}")
        raise Unmet(
            f"JupyterLab's page is not there yet; the browser is at {page.url}, and was told {self.start.told[-3:]}"
        )

    def _load(self, method: str, url: str, fields: dict[str, str] | None = None) -> requests.Response:
        """A page, after its redirects. Raises Unmet if it is an error."""
        page = self.session.request(method, url, data=fields, timeout=ANSWER)
        self.start.statuses += [answer.status_code for answer in (*page.history, page)]
        if page.status_code >= 400:
            raise Unmet(f"{method} {page.url}: {page.status_code}:\n{visible(page.text)}")
        return page

    def _wait(self, url: str, end: float) -> None:
        """Listen to the hub's events until the server is ready, or they end. Raises Unmet if the server failed."""
        headers = {"Accept": "text/event-stream", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
        with self.session.get(url, headers=headers, stream=True, timeout=ANSWER) as stream:
            self.start.statuses.append(stream.status_code)
            if stream.status_code >= 400:
                raise Unmet(f"the events of {url}: {stream.status_code}: {visible(stream.text)}")
            # one byte at a time: more would be waited for, and an event is late
            for line in stream.iter_lines(chunk_size=1):
                if time.monotonic() > end or self._heard(line.decode()):
                    return

    def _heard(self, line: str) -> bool:
        """Take in a line of the events; whether the server is ready. Raises Unmet if the server failed."""
        if not line.startswith("data:"):
            return False
        event = json.loads(line.removeprefix("data:"))
        if event.get("failed"):
            raise Unmet(f"the server failed: {event.get('message')}")
        if event.get("message"):
            self.start.told.append(event["message"])
        return bool(event.get("ready"))


def visible(page: str) -> str:
    """About what a page shows, shortened."""
    text = re.sub(r"<(script|style|head).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())[:600]


def begin(people: Sequence[str], lms: str, hub: str, ca: Path, within: float = 0) -> list[Start]:
    """A class: all sign in at the LMS, then open the hub, the last of them `within` seconds after the first.

    Raises:
        Unmet: the LMS does not let somebody in, or has no link to the hub.
    """
    class_ = [Person(one, lms, hub, ca) for one in people]
    with ThreadPoolExecutor(len(class_)) as pool:
        for signed in [pool.submit(one.sign_in) for one in class_]:
            signed.result()
        first = time.monotonic()

        def act(number: int) -> None:
            time.sleep(max(0.0, first + within * number / max(1, len(class_) - 1) - time.monotonic()))
            class_[number].launch()

        for launched in [pool.submit(act, number) for number in range(len(class_))]:
            launched.result()
    return [one.start for one in class_]
