"""Waiting: what ends it, and what is said when it was in vain."""

from __future__ import annotations

import re

import pytest

from testbed.common import TestbedError
from testbed.waiting import until


def test_the_answer_that_is_enough_is_returned() -> None:
    answers = iter([0, 1, 2, 3])
    assert until(lambda: next(answers), 10, "there is one") == 1
    assert until(lambda: next(answers), 10, "there are three", lambda found: found > 2) == 3


def test_the_last_answer_is_told() -> None:
    expected = r"^not within 0.1 s: the hub answers. At last: 503\nits log: full disk$"
    with pytest.raises(TestbedError, match=expected):
        until(lambda: 503, 0.1, "the hub answers", lambda status: status == 200, told=lambda: "its log: full disk")


def test_errors_that_pass_are_waited_for_and_told() -> None:
    answers = iter([OSError("refused"), OSError("refused again"), "here"])

    def probe() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    with pytest.raises(TestbedError, match=re.escape("it answers. At last: OSError('refused')")):
        until(probe, 0, "it answers", passing=OSError)
    assert until(probe, 10, "it answers", passing=OSError) == "here"


def test_other_errors_end_it() -> None:
    with pytest.raises(ZeroDivisionError):
        until(lambda: 1 / 0, 10, "it answers", passing=OSError)
