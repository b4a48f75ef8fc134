"""Waiting until something is so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from testbed.common import TestbedError

T = TypeVar("T")
TOLD = 2000
"""Characters of the last answer that an error tells."""


def until(
    probe: Callable[[], T],
    seconds: float,
    what: str,
    enough: Callable[[T], object] = bool,
    *,
    passing: type[Exception] | tuple[type[Exception], ...] = (),
    told: Callable[[], str] = str,
) -> T:
    """Look again and again, and return what `probe` returns as soon as that is `enough`, which by default is: true.

    Args:
        what: what is waited for, such as "the hub is healthy"
        passing: errors of the probe that pass by themselves; others end the waiting
        told: says what else helps to see why it is not so

    Raises:
        TestbedError: the time is over; the message holds the probe's last answer or error.
    """
    end = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        try:
            found = probe()
            if enough(found):
                return found
            last = str(found)
        except passing as error:
            last = repr(error)
        if time.monotonic() > end:
            raise TestbedError(f"not within {seconds:g} s: {what}. At last: {last[-TOLD:]}\n{told()}".rstrip())
        # as long as the look took: what is looked at has the computer for itself for half of the time
        time.sleep(min(2.0, max(0.02, time.monotonic() - began)))
