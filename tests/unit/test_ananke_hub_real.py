# SPDX-License-Identifier: GPL-3.0-or-later
"""A real JupyterHub process with the image's configuration: launches that are let in, and all that are refused."""

from __future__ import annotations

import json
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ananke_hub_support import Browser, Hub, Lms, description, running
from cryptography.hazmat.primitives.asymmetric import rsa

from ananke_hub import probe
from ananke_hub.description import load


@pytest.fixture(scope="module")
def lms() -> Iterator[Lms]:
    platform = Lms()
    yield platform
    platform.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, lms: Lms) -> Iterator[Hub]:
    with running(tmp_path_factory.mktemp("hub"), lms, description()) as hub:
        yield hub


def logged_in_as(hub: Hub, browser: Any) -> str | None:
    answer = browser.get(f"{hub.base}hub/home")
    found = re.search(r'user: "([^"]*)"', answer.text)
    return found.group(1) if answer.status_code == 200 and found else None


def refused(answer: Any, status: int, *words: str) -> None:
    """A refusal has its status, its words, and says what to do next."""
    assert answer.status_code == status, answer.text
    assert 'id="ananke-refusal"' in answer.text
    assert "<h1>" in answer.text
    for word in words:
        assert word in answer.text, (word, answer.text[answer.text.index("<h1>") :][:800])
    assert "Traceback" not in answer.text


def test_a_launch_logs_in_and_is_noted(hub: Hub) -> None:
    browser = hub.browser()
    answer = hub.launch(browser)
    assert answer.status_code == 302, answer.text
    assert answer.headers["Location"] == "/math101/hub/spawn"
    assert logged_in_as(hub, browser) == "u1234"
    noted = json.loads(hub.paths.user_data.read_text())["u1234"]
    assert (noted["given_name"], noted["email"], noted["lms_user_id"]) == ("Ada", "ada@example.org", "1234")
    assert noted["roles"] == ["http://purl.imsglobal.org/vocab/lis/v2/membership#Learner"]
    assert stat.S_IMODE(hub.paths.user_data.stat().st_mode) == 0o600


def test_cookies(hub: Hub) -> None:
    browser = hub.browser()
    hub.begin(browser)
    (launch,) = (morsel for name, morsel in browser.cookies.items() if name.startswith("ananke-launch-"))
    assert (launch["samesite"], launch["secure"], launch["httponly"]) == ("None", True, True)
    assert (launch["path"], launch["max-age"]) == ("/math101/hub/", "600")
    hub.launch(browser)
    login = browser.cookies["jupyterhub-hub-login"]
    assert (login["samesite"], login["secure"], login["httponly"]) == ("Lax", True, True)
    assert login["path"] == "/math101/hub/"


def test_what_the_lms_is_asked_for(hub: Hub) -> None:
    asked = hub.begin(hub.browser(), lti_message_hint="hint+&1")
    assert asked["redirect_uri"] == "https://hubs.example.org/math101/hub/lti13/oauth_callback"
    assert (asked["response_mode"], asked["prompt"], asked["client_id"]) == ("form_post", "none", "client-1")
    assert asked["lti_message_hint"] == "hint+&1"


def test_one_client_id_may_be_left_unsaid(hub: Hub) -> None:
    assert hub.begin(hub.browser(), client_id=None)["client_id"] == "client-1"


@pytest.mark.parametrize(
    ("target", "location"),
    [
        (
            "https://hubs.example.org/math101/hub/user-redirect/git-pull?repo=https%3A%2F%2Fgit.example.org%2Fx",
            "/math101/hub/user-redirect/git-pull?repo=https%3A%2F%2Fgit.example.org%2Fx",
        ),
        ("https://hubs.example.org/math101/?next=/math101/hub/token", "/math101/hub/token"),
        ("https://evil.example.org/math101/hub/token", "/math101/hub/spawn"),
        ("https://hubs.example.org/physics/", "/math101/hub/spawn"),
    ],
)
def test_target(hub: Hub, target: str, location: str) -> None:
    browser = hub.browser()
    asked = hub.begin(browser, target_link_uri=target)
    answer = hub.end(browser, asked["state"], hub.lms.sign(hub.lms.claims(asked["nonce"])))
    assert answer.headers["Location"] == location


def test_two_tabs_at_once(hub: Hub) -> None:
    browser = hub.browser()
    first, second = hub.begin(browser), hub.begin(browser)
    for asked in (first, second):
        answer = hub.end(browser, asked["state"], hub.lms.sign(hub.lms.claims(asked["nonce"])))
        assert answer.status_code == 302, answer.text


def test_a_student_is_no_admin_and_the_declared_teacher_is(hub: Hub) -> None:
    student, teacher = hub.browser(), hub.browser()
    hub.launch(student, "77")
    assert student.get("/math101/hub/admin").status_code == 403
    instructor = ["http://purl.imsglobal.org/vocab/lis/v2/membership#Instructor"]
    hub.launch(student, "78", **{"https://purl.imsglobal.org/spec/lti/claim/roles": instructor})
    assert student.get("/math101/hub/admin").status_code == 403
    hub.launch(teacher, "teacher1")
    assert teacher.get("/math101/hub/admin").status_code == 200


def test_odd_ids_become_safe_names(hub: Hub) -> None:
    browser = hub.browser()
    hub.launch(browser, "Jané/../../etc $(id)\n")
    name = logged_in_as(hub, browser)
    assert name is not None
    assert re.fullmatch(r"u[a-z0-9-]+-[a-z2-7]{16}", name)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"iss": "https://other.example.org"}, 400, ["another learning platform", "every character counts"]),
        ({"iss": "https://lms.example.org/"}, 400, ["another learning platform"]),
        ({"aud": "other-client"}, 401, ["does not know the course link", "other-client"]),
        ({"aud": ["client-1", "other"], "azp": "other"}, 401, ["does not know the course link"]),
        ({"iat": 1000, "exp": 2000}, 400, ["has expired", "open the link to this hub again"]),
        ({"iat": 1000}, 400, ["has expired", "older than 600 s"]),
        ({"iat": 4000000000, "exp": 4000000300}, 400, ["dated in the future"]),
        ({"exp": None}, 400, ["exp"]),
        ({"nonce": None}, 400, ["nonce"]),
        ({"nonce": "another"}, 400, ["belongs to another launch"]),
        ({"nonce": 7}, 400, ["nonce"]),
        ({"https://purl.imsglobal.org/spec/lti/claim/version": "1.1"}, 400, ["version"]),
        ({"https://purl.imsglobal.org/spec/lti/claim/context": "text"}, 400, ["not of the kind"]),
        ({"sub": None}, 400, ["did not say who you are"]),
        ({"sub": ""}, 400, ["did not say who you are"]),
    ],
)
def test_tokens_that_are_refused(hub: Hub, changes: dict[str, Any], status: int, words: list[str]) -> None:
    browser = hub.browser()
    refused(hub.launch(browser, **changes), status, *words)
    assert logged_in_as(hub, browser) is None


def test_a_token_past_its_end_is_refused_however_young_it_is(hub: Hub) -> None:
    browser, now = hub.browser(), int(time.time())
    refused(hub.launch(browser, iat=now - 300, exp=now - 120), 400, "has expired", "past its time")
    assert logged_in_as(hub, browser) is None


def test_forged_tokens_are_refused(hub: Hub) -> None:
    forger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for key, kid, words in ((forger, "key-1", "not signed"), (forger, "key-9", "not signed")):
        browser = hub.browser()
        asked = hub.begin(browser)
        token = hub.lms.sign(hub.lms.claims(asked["nonce"]), key=key, kid=kid)
        refused(hub.end(browser, asked["state"], token), 400, words)
        assert logged_in_as(hub, browser) is None
    browser = hub.browser()
    asked = hub.begin(browser)
    unsigned = hub.lms.sign(hub.lms.claims(asked["nonce"]), key="x" * 32, algorithm="HS256")
    refused(hub.end(browser, asked["state"], unsigned), 400, "not signed")
    asked = hub.begin(browser)
    token = hub.lms.sign(hub.lms.claims(asked["nonce"]))
    head, body, signature = token.split(".")
    for broken in ("", "x", f"{head}.{body}.", f"{head}.{body}x.{signature}", "é.é.é", token[:-8] + "AAAAAAAA"):
        browser = hub.browser()
        asked = hub.begin(browser)
        refused(hub.end(browser, asked["state"], broken), 400)
        assert logged_in_as(hub, browser) is None


def test_a_replayed_launch_is_refused_even_after_a_restart_with_all_cookies(hub: Hub) -> None:
    browser = hub.browser()
    asked = hub.begin(browser)
    stolen = dict(browser.jar)
    token = hub.lms.sign(hub.lms.claims(asked["nonce"]))
    assert hub.end(browser, asked["state"], token).status_code == 302
    refused(hub.end(browser, asked["state"], token), 400, "not started in this browser")
    thief = hub.browser()
    thief.jar = dict(stolen)
    refused(hub.end(thief, asked["state"], token), 400, "was used before")
    hub.restart_hub()
    thief = hub.browser()
    thief.jar = dict(stolen)
    refused(hub.end(thief, asked["state"], token), 400, "was used before")
    assert logged_in_as(hub, thief) is None
    assert logged_in_as(hub, browser) == "u1234"  # the honest one is still logged in


def test_answers_without_or_with_a_foreign_state_are_refused(hub: Hub) -> None:
    browser, other = hub.browser(), hub.browser()
    asked = hub.begin(browser)
    token = hub.lms.sign(hub.lms.claims(asked["nonce"]))
    refused(hub.end(other, asked["state"], token), 400, "not started in this browser", "allow cookies")
    refused(hub.end(browser, "", token), 400, "incomplete")
    refused(hub.end(browser, "../x;é", token), 400, "not started in this browser")
    callback = "/math101/hub/lti13/oauth_callback"
    refused(browser.get(callback), 405, "cannot be opened directly")
    asked = hub.begin(browser)
    failed = browser.post(callback, {"state": asked["state"], "error": "login_required", "error_description": "<b>x"})
    refused(failed, 400, "did not confirm your login", "login_required", "&lt;b&gt;")


def test_announcements_that_are_refused(hub: Hub) -> None:
    start = "/math101/hub/lti13/oauth_login"
    good = {"iss": "https://lms.example.org", "login_hint": "1", "target_link_uri": "x", "client_id": "client-1"}
    browser = hub.browser()
    refused(browser.get(start), 403, "open this hub from your course")
    refused(browser.get(start, params={**good, "iss": "https://evil.example.org"}), 400, "another learning platform")
    refused(browser.get(start, params={**good, "client_id": "<script>"}), 401, "does not know", "&lt;script&gt;")
    refused(browser.get(start, params={**good, "login_hint": ""}), 400, "login_hint")


def test_login_without_the_lms(hub: Hub) -> None:
    browser = hub.browser()
    first = browser.follow("/math101/")
    assert first.status_code == 403
    assert "Please open this hub from your course." in first.text
    assert 'href="https://lms.example.org/"' in first.text
    assert "<form" not in first.text
    answer = browser.post("/math101/hub/login", {"username": "uteacher1", "password": "x"})
    assert answer.status_code == 403


def test_keys_are_not_fetched_for_every_login(hub: Hub) -> None:
    hub.launch(hub.browser())
    before = hub.lms.requests_for_keys
    for _ in range(3):
        assert hub.launch(hub.browser()).status_code == 302
    assert hub.lms.requests_for_keys == before


def test_an_unwritable_record_of_launches_refuses(hub: Hub) -> None:
    away = hub.paths.launches.rename(hub.paths.launches.with_suffix(".away"))
    hub.paths.launches.mkdir()
    try:
        refused(hub.launch(hub.browser()), 503, "cannot log anybody in")
    finally:
        hub.paths.launches.rmdir()
        away.rename(hub.paths.launches)


def test_data_is_private(hub: Hub) -> None:
    for file in hub.paths.data.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(hub.paths.data.stat().st_mode) == 0o700


def test_secrets_are_not_in_the_log(hub: Hub) -> None:
    log = hub.log.read_text()
    assert "u1234" in log
    for secret in (hub.paths.cookie_secret, hub.paths.crypt_key, hub.paths.proxy_env, hub.paths.api_token):
        assert secret.read_text().strip().rpartition("=")[2] not in log


def test_when_the_hub_is_away_the_proxy_says_so(hub: Hub) -> None:
    hub.stop_hub()
    try:
        answer = hub.browser().get("/math101/hub/home")
        assert answer.status_code == 503
        assert "is being restarted" in answer.text
        assert 'http-equiv="refresh"' in answer.text
        assert stat.S_IMODE(hub.paths.proxy_pages.stat().st_mode) == 0o755  # the proxy is another user
    finally:
        hub.start_hub()


def rewrite(hub: Hub, **changes: Any) -> None:
    hub.paths.description.write_text(json.dumps({**json.loads(hub.paths.description.read_text()), **changes}))


@pytest.fixture
def closed(hub: Hub) -> Iterator[None]:
    """The hub is about to be updated."""
    hub.paths.closing.parent.mkdir(parents=True, exist_ok=True)
    hub.paths.closing.write_text(json.dumps({"at": time.time() + 60, "until": time.time() + 600}))
    yield
    hub.paths.closing.unlink()


def notice(hub: Hub, browser: Browser) -> str:
    answer = browser.get(f"{hub.base}hub/ananke/notice")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert "Set-Cookie" not in answer.headers
    return str(answer.json()["notice"])


def test_an_open_hub_says_nothing_of_updates(hub: Hub) -> None:
    assert notice(hub, hub.browser()) == ""


@pytest.mark.usefixtures("closed")
def test_everybody_hears_of_an_update_and_the_log_is_silent(hub: Hub) -> None:
    stranger, student = hub.browser(), hub.browser()
    hub.launch(student)
    said = notice(hub, stranger)
    assert "Save your work now" in said
    assert notice(hub, student) == said
    assert said in student.get(f"{hub.base}hub/home").text
    assert "ananke/notice" not in hub.log.read_text()


def test_lists_of_users_and_admins_hold_from_the_next_start(tmp_path: Path, lms: Lms) -> None:
    running = Hub(tmp_path, lms, description(users=["u1"]))
    try:
        running.start_proxy()
        running.start_hub()
        student, teacher, stranger = running.browser(), running.browser(), running.browser()
        assert running.launch(student, "1").status_code == 302
        assert running.launch(teacher, "teacher1").status_code == 302
        refused(running.launch(stranger, "2"), 403, "not on the list", "u2")
        assert teacher.get("/math101/hub/admin").status_code == 200
        rewrite(running, users=["u3", "uteacher1"], admins=[])
        running.restart_hub()
        # sessions from before do not outlive the rights that they were given for
        assert logged_in_as(running, student) is None
        assert logged_in_as(running, teacher) == "uteacher1"
        assert teacher.get("/math101/hub/admin").status_code == 403
        refused(running.launch(student, "1"), 403, "not on the list")
    finally:
        running.close()


def test_a_hub_that_waits_for_its_lms(tmp_path: Path, lms: Lms) -> None:
    running = Hub(tmp_path, lms, description(lti=None))
    try:
        running.start_proxy()
        running.start_hub()
        answer = running.browser().get("/math101/hub/login")
        assert answer.status_code == 403
        assert "not connected to a learning platform" in answer.text
        assert running.browser().post("/math101/hub/login", {"username": "uteacher1"}).status_code == 403
        assert running.browser().get("/math101/hub/lti13/oauth_login").status_code == 404
        assert notice(running, running.browser()) == ""
    finally:
        running.close()


def test_the_proof_of_a_hub_goes_up_to_the_signature_of_its_lms(hub: Hub) -> None:
    assert probe.launch(hub.origin, load(hub.paths.description)) == "up to the LMS's signature"


def test_the_proof_of_a_hub_does_not_need_its_lms(tmp_path: Path) -> None:
    platform = Lms()
    with running(tmp_path, platform, description()) as hub:
        platform.close()
        assert "cannot be had" in probe.launch(hub.origin, load(hub.paths.description))


def test_a_hub_that_sends_nobody_to_its_lms_is_not_proven(tmp_path: Path, lms: Lms) -> None:
    described = description()
    with running(tmp_path, lms, described) as hub:
        other = replace(load(hub.paths.description), base_url="/elsewhere/")
        with pytest.raises(probe.ProbeError, match="not sent on to the LMS"):
            probe.launch(hub.origin, other)


def test_nobody_logs_in_as_who_proves_the_hub(tmp_path: Path, lms: Lms) -> None:
    described = description()
    described["lti"]["username_prefix"] = "ananke-"
    with running(tmp_path, lms, described) as hub:
        refused(hub.launch(hub.browser(), "probe"), 403, "not on the list")
