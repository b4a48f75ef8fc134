"""Who is not let in: every refusal has its status and a page that a student can read and act on."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from browsing import Person, Refusal, Visitor, chromium
from conftest import Visit
from facts import Hub
from playwright.sync_api import Error, Playwright

# Fault of the launch -> status, and what the page must say to whoever runs the hub.
FAULTS = {
    "unknown_client": (401, "client"),
    "token_client": (401, "client"),
    "wrong_issuer": (400, "issuer"),
    "token_issuer": (400, "issuer"),
    "expired": (400, "expired|too old|longer ago|exp"),
    "stale": (400, "expired|too old|long ago|longer ago|issued"),
    "forged": (400, "signature|sign"),
    "unsigned": (400, "sign|alg"),
    "wrong_nonce": (400, "nonce"),
    "wrong_state": (400, "state|launch"),
    "replay": (400, "nonce|used|again"),
}


def check_page(refusal: Refusal, status: int, word: str) -> None:
    """A refusal is a page for people: status, heading, advice, no traces of the program's insides."""
    assert refusal.status == status, refusal.text
    assert re.search(word, refusal.text, re.I), refusal.text
    assert "<h1" in refusal.html
    assert re.search(r"course|learning platform|teacher", refusal.text, re.I), refusal.text
    assert not re.search(r"Traceback|Error\(|\.py\b|id_token=|eyJ[A-Za-z0-9_-]{20}", refusal.text), refusal.text


@pytest.mark.usefixtures("faulty_lms")
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_launch_is_refused(
    fault: str, students: list[Person], hub: Hub, visit: Visit, screenshots: Path
) -> None:
    visitor = visit(students[0])
    if fault == "replay":
        # there must be an earlier launch whose token can be sent again, by a browser that it did not log in
        visit(students[0]).enter(hub)
    refusal = visitor.launch_faulty(hub, fault)
    visitor.page.screenshot(path=screenshots / f"refused-{fault}.png")
    status, word = FAULTS[fault]
    check_page(refusal, status, word)
    assert visitor.user_at(hub) is None


class Wiretap:
    """Keeps the form that the LMS posts to a hub, as somebody who copied it would."""

    def __init__(self, visitor: Visitor, hub: Hub) -> None:
        self.address = f"{hub.url}hub/lti13/oauth_callback"
        self.form: dict[str, str] = {}
        visitor.context.on("request", self._look)

    def _look(self, request: object) -> None:
        if request.url == self.address and request.method == "POST":  # type: ignore[attr-defined]
            body = parse_qs(request.post_data or "")  # type: ignore[attr-defined]
            self.form = {key: values[0] for key, values in body.items()}

    def post_again(self, visitor: Visitor) -> None:
        """Post the same form from the LMS's site, in the browser of `visitor`."""
        assert set(self.form) == {"id_token", "state"}
        # its own policy would keep the LMS's page from posting; a copied form comes from a page without one
        visitor.page.goto("about:blank")
        visitor.page.evaluate(
            """([address, fields]) => {
                const form = document.createElement("form");
                form.method = "post";
                form.action = address;
                for (const [name, value] of Object.entries(fields)) {
                    form.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
                }
                document.body.append(form);
                form.submit();
            }""",
            [self.address, self.form],
        )


def test_replayed_launch_is_refused_in_the_same_browser(students: list[Person], hub: Hub, visit: Visit) -> None:
    visitor = visit(students[0])
    tap = Wiretap(visitor, hub)
    visitor.enter(hub)
    check_page(visitor.refused(lambda: tap.post_again(visitor), hub), 400, "launch|used|state|again")


def test_replayed_launch_is_refused_in_another_browser(students: list[Person], hub: Hub, visit: Visit) -> None:
    victim, thief = visit(students[0]), visit(students[1])
    tap = Wiretap(victim, hub)
    victim.enter(hub)
    check_page(thief.refused(lambda: tap.post_again(thief), hub), 400, "launch|state|cookie|browser")
    assert thief.user_at(hub) is None


def test_replayed_launch_is_refused_even_with_the_cookies_of_its_login(
    students: list[Person], hub: Hub, visit: Visit
) -> None:
    """Cookies that the browser has thrown away may have been copied: the hub itself must remember used launches."""
    victim, thief = visit(students[0]), visit()
    copied: list[tuple[str, str]] = []
    tap = Wiretap(victim, hub)

    def copy(request: object) -> None:
        if request.url == tap.address:  # type: ignore[attr-defined]
            header = request.all_headers().get("cookie", "")  # type: ignore[attr-defined]
            copied.extend((part.partition("=")[0], part.partition("=")[2]) for part in header.split("; ") if part)

    victim.context.on("requestfinished", copy)
    victim.enter(hub)
    assert copied, "the login sent no cookies, so nothing ties it to its browser"
    thief.context.add_cookies(
        [
            {"name": name, "value": value, "url": hub.url + "hub/", "secure": True, "sameSite": "None"}
            for name, value in copied
            if not name.startswith(("_xsrf", "jupyterhub-"))
        ]
    )
    check_page(thief.refused(lambda: tap.post_again(thief), hub), 400, "launch|used|again")
    assert thief.user_at(hub) is None


@pytest.mark.parametrize("path", ["", "hub/user-redirect/lab", "hub/login", "hub/home", "hub/lti13/oauth_login"])
def test_direct_visit_without_the_lms_says_where_to_go(path: str, hub: Hub, visit: Visit) -> None:
    visitor = visit()
    refusal = visitor.refused(lambda: visitor.page.goto(hub.url + path), hub)
    check_page(refusal, 403, "open this hub from your course|learning platform")
    assert not visitor.page.locator("input[type=password]").count()
    assert visitor.user_at(hub) is None


def test_a_person_s_server_is_closed_to_others(students: list[Person], hub: Hub, visit: Visit) -> None:
    owner, other, nobody = visit(students[0]), visit(students[1]), visit()
    lab = owner.enter(hub)
    other.enter(hub)
    answer = other.page.goto(lab.base + "lab")
    assert answer is not None
    assert answer.status == 403
    refusal = nobody.refused(lambda: nobody.page.goto(lab.base + "lab"), hub)
    assert refusal.status == 403


def test_browser_without_the_demo_ca_refuses_the_hub(hub: Hub, tmp_path: Path, playwright: Playwright) -> None:
    """TLS is really verified here: the same browser without the CA does not open the hub."""
    with (
        chromium(playwright, tmp_path, None) as stranger,
        pytest.raises(Error, match="ERR_CERT_AUTHORITY_INVALID"),
    ):
        stranger.new_page().goto(hub.url)
