# SPDX-License-Identifier: GPL-3.0-or-later
"""Why somebody is not let in, in words for three readers: the student, the teacher and the person who runs the hub."""

from __future__ import annotations

from tornado.web import HTTPError

REOPEN = "Go back to your course and open the link to this hub again."
ASK = "If this happens again, tell your teacher and send them the text of this page."
TELL_ADMIN = (
    "You cannot mend this yourself: tell your teacher, who should pass the text of this page on to whoever runs this "
    "hub."
)


class Refused(HTTPError):
    """A login is refused with a page that says what is wrong, what to do, and a detail for the hub's admin.

    ``title`` and ``advice`` are for students; ``detail`` goes to the page's last paragraph and into the log.
    """

    def __init__(self, status: int, title: str, advice: str, detail: str) -> None:
        super().__init__(status, "%s", f"{title} {detail}")
        self.title = title
        self.advice = advice
        self.detail = detail


def not_from_course() -> Refused:
    return Refused(
        403,
        "Please open this hub from your course.",
        "This hub has no login form of its own: your learning platform tells it who you are. Log in there, open "
        "your course and "
        "follow the link to this hub.",
        "A login was requested without a launch from the LMS.",
    )


def shown(value: object) -> str:
    """A value of a request in a detail: quoted, of bounded length, without control characters."""
    text = ascii(value)
    return text if len(text) <= 200 else text[:197] + "..."
