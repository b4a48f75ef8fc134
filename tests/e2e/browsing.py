"""People in a real browser: Chromium with a profile of its own that trusts the demo's CA and nothing else new."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from facts import Demo, DemoError, Hub
from playwright.sync_api import Browser, BrowserContext, Error, Page, Playwright, Response, expect, sync_playwright

from testbed.waiting import until

CHROMIUM = "/usr/bin/chromium-headless-shell"  # Chromium with windows takes half as long again
# No --ignore-certificate-errors: TLS is verified as in anybody's browser.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
SERVER_START_MS = 180_000
PAGE_MS = 30_000
STEP_MS = 60_000
PROGRAMS = re.compile(r"/user/[^/]+/(static/lab|lab/extensions)/")
"""What JupyterLab's page loads: it takes the browser some five seconds of CPU."""

# Runs code in a kernel over the same WebSocket that JupyterLab would use, inside the page: its cookies, its TLS.
KERNEL_JS = (Path(__file__).parent / "kernel.js").read_text(encoding="utf-8")


@contextmanager
def started() -> Iterator[Playwright]:
    """Playwright itself; one for all browsers of a run."""
    with sync_playwright() as playwright:
        yield playwright


@contextmanager
def chromium(playwright: Playwright, home: Path, ca: Path | None) -> Iterator[Browser]:
    """A headless Chromium whose HOME is `home` and whose certificate database trusts `ca`, or nobody new."""
    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    nss = f"sql:{database}"
    subprocess.run(["certutil", "-d", nss, "-N", "--empty-password"], check=True)
    if ca is not None:
        subprocess.run(["certutil", "-d", nss, "-A", "-t", "C,,", "-n", "demo CA", "-i", str(ca)], check=True)
    environment: dict[str, str | float | bool] = {"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, env=environment)
    try:
        yield browser
    finally:
        browser.close()


@dataclass(frozen=True)
class Person:
    """Somebody on the LMS's front page. `id` is the `sub` that hubs get."""

    id: str
    name: str
    role: str


@dataclass(frozen=True)
class Refusal:
    """What a browser shows when it is not let in."""

    status: int
    text: str
    html: str


@dataclass
class Kernel:
    """A running kernel of a person's server, with a WebSocket that stays open as long as the page."""

    page: Page
    base: str
    id: str

    def run(self, code: str, timeout: float = 60) -> str:
        """Run code and return its output (stdout, results); `timeout` in seconds.

        Raises DemoError with the traceback if the code fails.
        """
        self.page.evaluate(KERNEL_JS)
        answer = self.page.evaluate(
            "([base, id, code, ms]) => window.anankeKernel.run(base, id, code, ms)",
            [self.base, self.id, code, timeout * 1000],
        )
        if answer["error"]:
            raise DemoError(f"the kernel says:\n{re.sub(chr(27) + r'[^m]*m', '', answer['error'])}")
        return str(answer["output"])

    def connected(self) -> bool:
        """Whether the WebSocket of the first `run` on this page is still open."""
        return bool(self.page.evaluate("([id]) => Boolean(window.anankeKernel?.open(id))", [self.id]))


@dataclass
class Lab:
    """A person's JupyterLab on one hub."""

    page: Page
    hub: Hub
    user: str
    kernels: list[Kernel] = field(default_factory=list)

    @property
    def base(self) -> str:
        """Address of the person's server."""
        return f"{self.hub.url}user/{self.user}/"

    def run_cell(self, code: str) -> str:
        """What a person does: a new notebook with the kernel python3, type, run, look at the output."""
        page = self.page
        page.goto(f"{self.base}lab?reset")
        page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=STEP_MS)
        card = page.locator('.jp-LauncherCard[data-category="Notebook"]').filter(has_text=re.compile("python ?3", re.I))
        card.first.click(timeout=STEP_MS)
        cell = page.locator(".jp-Notebook .jp-CodeCell").first
        cell.wait_for(timeout=STEP_MS)
        # the kernel's indicator: a filled circle while it starts, an empty one when it waits for work
        page.locator('.jp-NotebookPanel-toolbar .jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(
            timeout=STEP_MS
        )
        editor, output = cell.locator(".cm-content"), cell.locator(".jp-OutputArea-output")

        def ran() -> bool:
            # A notebook that has just been made is read again once it is saved, which drops what was typed before.
            editor.click()
            page.keyboard.press("Control+a")
            page.keyboard.insert_text(code)
            page.keyboard.press("Shift+Enter")
            with contextlib.suppress(Error):
                output.first.wait_for(timeout=5_000)
            return output.count() > 0

        until(ran, STEP_MS / 1000, "the cell has an output")
        return "".join(output.all_inner_texts()).strip()

    def dismiss_news(self) -> None:
        """Answer JupyterLab's question about news, if it asks."""
        answer = self.page.get_by_role("button", name="No", exact=True)
        if answer.count():
            answer.first.click()
            answer.first.wait_for(state="detached")

    def sessions(self) -> list[dict[str, Any]]:
        """The notebooks that are open on the server, with their kernels."""
        return list(self.api("GET", "api/sessions"))

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the person's own server as their JupyterLab does; returns the JSON answer.

        Raises DemoError if the answer is an error.
        """
        self.page.evaluate(KERNEL_JS)
        answer = self.page.evaluate(
            "([base, method, path, body]) => window.anankeKernel.api(base, method, path, body)",
            [self.base, method, path, body],
        )
        if answer["status"] >= 400:
            raise DemoError(f"{method} {self.base}{path}: {answer['status']} {answer['text']}")
        return answer["json"]

    def kernel(self, name: str = "") -> Kernel:
        """A new kernel: of the environment python3, unless named."""
        made = self.api("POST", "api/kernels", {"name": name or self.kernel_name()})
        kernel = Kernel(self.page, self.base, made["id"])
        self.kernels.append(kernel)
        return kernel

    def offered(self) -> dict[str, str]:
        """The kernels that this server offers: names and titles."""
        specs = self.api("GET", "api/kernelspecs")["kernelspecs"]
        return {name: spec["spec"]["display_name"] for name, spec in specs.items()}

    def kernel_name(self) -> str:
        """What this server calls the kernel of the environment python3."""
        names = [name for name in self.offered() if re.search(r"python3", name)]
        if not names:
            raise DemoError(f"no kernel is called python3; there are {', '.join(self.offered()) or 'none'}")
        return names[0]

    def close_kernels(self) -> None:
        """Stop the kernels that `kernel` made."""
        for kernel in self.kernels:
            self.api("DELETE", f"api/kernels/{kernel.id}")
        self.kernels.clear()


class Visitor:
    """One person with a browser of their own (own cookies), signed in at the LMS or not."""

    def __init__(self, context: BrowserContext, demo: Demo, person: Person | None = None) -> None:
        self.context = context
        self.demo = demo
        self.person = person
        self.page = context.new_page()
        self.page.set_default_timeout(PAGE_MS)
        self.requests: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))

    def sign_in(self) -> None:
        """Choose the person on the LMS's front page."""
        if self.person is None:
            raise DemoError("nobody was chosen to sign in")
        self.page.goto(self.demo.lms_url + "/")
        self.page.get_by_role("button", name=re.compile(re.escape(self.person.name))).click()
        expect(self.page.get_by_role("heading", name="Your courses")).to_be_visible()

    def click_hub(self, hub: Hub) -> None:
        """Click the link to the hub on the page of courses."""
        self.page.locator("main a", has_text=hub.url).first.click(no_wait_after=True)

    def launch(self, hub: Hub) -> Lab:
        """Sign in at the LMS, open the hub from a course, wait for JupyterLab."""
        self.sign_in()
        self.click_hub(hub)
        return self.lab(hub)

    def enter(self, hub: Hub) -> Lab:
        """The same for who only needs the server: JupyterLab's page comes without its programs, which nobody looks at."""
        with self._without_programs():
            self.sign_in()
            self.click_hub(hub)
            return self.lab(hub, "#jupyter-config-data")

    def return_to(self, hub: Hub) -> Lab:
        """Open the hub's address without the LMS, as somebody who is still logged in. Fails if the LMS was needed.

        The page comes without JupyterLab's programs.
        """
        self.requests.clear()
        with self._without_programs():
            self.page.goto(hub.url, wait_until="commit")
            lab = self.lab(hub, "#jupyter-config-data")
        asked = [url for url in self.requests if url.startswith(self.demo.lms_url)]
        if asked:
            raise DemoError(f"the browser was sent to the LMS to log in again: {asked[0]}")
        return lab

    @contextmanager
    def _without_programs(self) -> Iterator[None]:
        self.context.route(PROGRAMS, lambda route: route.abort())
        yield
        self.page.wait_for_load_state()
        self.context.unroute(PROGRAMS)

    def lab(self, hub: Hub, shows: str = "#jp-main-dock-panel") -> Lab:
        """Wait until this browser's page is JupyterLab on the hub, and has what it `shows`."""
        address = re.compile(re.escape(hub.url) + r"user/([^/]+)/lab")
        try:
            self.page.wait_for_url(address, timeout=SERVER_START_MS, wait_until="commit")
            self.page.locator(shows).wait_for(timeout=SERVER_START_MS, state="attached")
        except Error as error:
            shown = self.page.locator("body").inner_text()[:2000]
            raise DemoError(
                f"JupyterLab did not come; the browser is at {self.page.url} and shows:\n{shown}"
            ) from error
        found = address.match(self.page.url)
        if not found:
            raise DemoError(f"the browser is at {self.page.url}")
        return Lab(self.page, hub, found[1])

    def launch_faulty(self, hub: Hub, fault: str) -> Refusal:
        """Sign in, and open the hub by a launch that the LMS spoils in the way that `fault` says."""
        self.sign_in()
        link = self.page.locator("main a", has_text=hub.url).first.get_attribute("href")
        return self.refused(lambda: self.page.goto(f"{self.demo.lms_url}{link}&{urlencode({'fault': fault})}"), hub)

    def refused(self, action: Any, hub: Hub) -> Refusal:
        """Do something that ends on an error page of the hub, and read that page."""
        answers: list[Response] = []

        def remember(response: Response) -> None:
            if response.request.is_navigation_request() and response.url.startswith(hub.url):
                answers.append(response)

        self.page.on("response", remember)
        try:
            action()
            self.page.wait_for_url(lambda url: url.startswith(hub.url), timeout=PAGE_MS)
            self.page.wait_for_load_state("load")
        finally:
            self.page.remove_listener("response", remember)
        if not answers:
            raise DemoError(f"the hub did not answer; the browser is at {self.page.url}")
        return Refusal(answers[-1].status, self.page.locator("body").inner_text(), self.page.content())

    def hub_api(self, hub: Hub, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET on the hub's API, asked by a page of the hub in this browser."""
        page = self.context.new_page()
        try:
            # an address that needs no login and, other than pages, redirects nobody
            page.goto(f"{hub.url}hub/health")
            page.evaluate(KERNEL_JS)
            answer = page.evaluate(
                "([base, path]) => window.anankeKernel.api(base, 'GET', path, null)", [f"{hub.url}hub/api/", path]
            )
        finally:
            page.close()
        return int(answer["status"]), answer["json"]

    def user_at(self, hub: Hub) -> dict[str, Any] | None:
        """What the hub's own API says about this browser's user; None if it knows nobody."""
        status, user = self.hub_api(hub, "user")
        if status not in (200, 403):
            raise DemoError(f"{hub.url}hub/api/user: {status} {user}")
        return dict(user) if status == 200 else None

    def close(self) -> None:
        self.context.close()


def people(browser: Browser, demo: Demo) -> list[Person]:
    """Everybody whom the LMS offers."""
    page = browser.new_page()
    try:
        page.goto(demo.lms_url + "/")
        buttons = page.locator("button[name=person]").all()
        return [
            Person(
                button.get_attribute("value") or "",
                button.locator(".title").inner_text(),
                button.locator(".detail").inner_text(),
            )
            for button in buttons
        ]
    finally:
        page.close()


def linked_hubs(browser: Browser, demo: Demo, person: Person) -> list[Hub]:
    """The hubs that the LMS's courses link, in the page's order."""
    visitor = Visitor(browser.new_context(), demo, person)
    try:
        visitor.sign_in()
        urls = visitor.page.locator("main a .detail").all_inner_texts()
    finally:
        visitor.close()
    by_url = {hub.url: hub for hub in demo.hubs.values()}
    return [by_url[url] for url in dict.fromkeys(urls) if url in by_url]


def site(url: str) -> str:
    """The part of a URL's host that browsers call its site; below .localhost that is the last two labels."""
    return ".".join((urlsplit(url).hostname or "").split(".")[-2:])
