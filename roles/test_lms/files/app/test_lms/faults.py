"""Launches that a tool must refuse, produced on request for tests of tools.

Only reachable where the settings say `allow_faults: true`; nothing else imports this to do good.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jwt

from .keys import generate

MINUTE = 60
HOUR = 3600


@dataclass(frozen=True)
class Launch:
    """A launch about to be sent: claims of the token, the key that signs it, the state that goes with it."""

    claims: dict[str, Any]
    private_key: str
    key_id: str
    state: str
    algorithm: str = "RS256"

    def token(self) -> str:
        key = None if self.algorithm == "none" else self.private_key
        return jwt.encode(self.claims, key, self.algorithm, {"kid": self.key_id})  # type: ignore[arg-type]

    def with_claims(self, **claims: Any) -> Launch:
        return replace(self, claims={**self.claims, **claims})


def _expired(launch: Launch) -> Launch:
    # made lately, so that only its end speaks against it; minutes, as hubs allow for clocks that differ
    now = int(time.time())
    return launch.with_claims(iat=now - 5 * MINUTE, exp=now - 2 * MINUTE)


def _stale(launch: Launch) -> Launch:
    now = int(time.time())
    return launch.with_claims(iat=now - 24 * HOUR, exp=now + HOUR)


def _forged(launch: Launch) -> Launch:
    return replace(launch, private_key=generate().private)


def _unsigned(launch: Launch) -> Launch:
    return replace(launch, algorithm="none")


def _token_issuer(launch: Launch) -> Launch:
    return launch.with_claims(iss=f"{launch.claims['iss']}/another-lms")


def _token_client(launch: Launch) -> Launch:
    return launch.with_claims(aud="a-client-id-nobody-registered", azp="a-client-id-nobody-registered")


def _wrong_nonce(launch: Launch) -> Launch:
    return launch.with_claims(nonce="not-the-nonce-of-this-login")


def _wrong_state(launch: Launch) -> Launch:
    return replace(launch, state=launch.state[::-1])


# Faults of one token. Beside them, faults of the whole registration (see platform.py) and `replay`.
TOKEN_FAULTS: dict[str, Callable[[Launch], Launch]] = {
    "expired": _expired,
    "stale": _stale,
    "forged": _forged,
    "unsigned": _unsigned,
    "token_issuer": _token_issuer,
    "token_client": _token_client,
    "wrong_nonce": _wrong_nonce,
    "wrong_state": _wrong_state,
}
REGISTRATION_FAULTS = ("unknown_client", "wrong_issuer")
REPLAY = "replay"
FAULTS = (*TOKEN_FAULTS, *REGISTRATION_FAULTS, REPLAY)
