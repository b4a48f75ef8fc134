# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the signed token with which an LMS sends a person here.

The claims that LTI 1.3 requires are checked by ltiauthenticator's own validator. Signature, issuer, audience and
times are checked here, since the validator asks the LMS for its keys anew at every login, blocks the hub while
doing so, and reports every failure alike.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import jwt
from ltiauthenticator.lti13.error import InvalidAudienceError, ValidationError
from ltiauthenticator.lti13.validator import LTI13LaunchValidator

from .refusals import ASK, REOPEN, TELL_ADMIN, Refused, shown

BROKEN = "The learning platform sent a login that this hub cannot accept."


def _peek(token: str, claim: str) -> Any:
    """A claim as the token states it, unchecked; for messages only."""
    try:
        return jwt.decode(token, options={"verify_signature": False}).get(claim)
    except (jwt.PyJWTError, ValueError):
        return None


def _wrong_issuer(found: object, issuer: str) -> Refused:
    return Refused(
        400,
        "This login comes from another learning platform than the one that this hub belongs to.",
        TELL_ADMIN,
        f"The token's issuer is {shown(found)}, but this hub expects {shown(issuer)} (every character counts, a "
        "final / too).",
    )


def unknown_client(found: object, client_ids: Collection[str]) -> Refused:
    """The LMS names a registration that this hub does not know."""
    return Refused(
        401,
        "This hub does not know the course link that you used.",
        TELL_ADMIN,
        f"The LMS uses client id {shown(found)}, but this hub knows only "
        f"{', '.join(shown(c) for c in sorted(client_ids))}.",
    )


def signing_key(token: str, keys: jwt.PyJWKClient, issuer: str) -> Any:
    """The LMS's public key that the token names. Asks the LMS, so it may take as long as the client's timeout."""
    try:
        return keys.get_signing_key_from_jwt(token).key
    except jwt.PyJWKClientConnectionError as error:
        raise Refused(
            503,
            "This hub cannot reach the learning platform to check your login.",
            "Wait a few minutes, then open the hub from your course again. " + ASK,
            f"The LMS's keys could not be read from {keys.uri}: {error}",
        ) from error
    except jwt.DecodeError as error:
        raise Refused(400, BROKEN, f"{REOPEN} {ASK}", f"The token cannot be read: {error}.") from error
    except (jwt.PyJWTError, ValueError) as error:
        found = _peek(token, "iss")
        if found != issuer:
            raise _wrong_issuer(found, issuer) from error
        raise Refused(
            400,
            "This login is not signed by your learning platform.",
            f"{REOPEN} {ASK}",
            f"No key at {keys.uri} fits the token's signature: {error}.",
        ) from error


def verify(
    token: str,
    key: Any,
    *,
    issuer: str,
    client_ids: Collection[str],
    algorithms: Sequence[str],
    validator: LTI13LaunchValidator,
) -> dict[str, Any]:
    """The claims of a token that is genuine, meant for this hub, recent and complete. Raises Refused."""
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=list(algorithms),
            issuer=issuer,
            audience=list(client_ids),
            leeway=validator.time_leeway,
            options={"require": ["exp", "iat", "iss", "aud", "nonce"]},
        )
    except jwt.ExpiredSignatureError as error:
        raise Refused(400, "This login has expired.", f"{REOPEN} {ASK}", "The token is past its time.") from error
    except jwt.ImmatureSignatureError as error:
        raise Refused(
            400,
            "This login is dated in the future.",
            TELL_ADMIN,
            f"The clocks of the LMS and of this hub's machine differ by more than {validator.time_leeway} s: {error}.",
        ) from error
    except jwt.InvalidIssuerError as error:
        raise _wrong_issuer(_peek(token, "iss"), issuer) from error
    except jwt.InvalidAudienceError as error:
        raise unknown_client(_peek(token, "aud"), client_ids) from error
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError) as error:
        raise Refused(
            400,
            "This login is not signed by your learning platform.",
            f"{REOPEN} {ASK}",
            f"The token's signature is wrong: {error}.",
        ) from error
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise Refused(400, BROKEN, f"{REOPEN} {ASK}", f"The token is not valid: {error}.") from error
    try:
        validator.validate_id_token(claims)
        validator.validate_azp_claim(claims, client_ids)
    except InvalidAudienceError as error:
        raise unknown_client(claims.get("azp"), client_ids) from error
    except ValidationError as error:
        if "too long ago" in str(error):
            raise Refused(
                400, "This login has expired.", f"{REOPEN} {ASK}", f"The token is older than {validator.max_age} s."
            ) from error
        raise Refused(400, BROKEN, TELL_ADMIN, f"{error}.") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise Refused(
            400, BROKEN, TELL_ADMIN, "A claim of the token is not of the kind that LTI 1.3 asks for."
        ) from error
    if not isinstance(claims["nonce"], str) or not claims["nonce"]:
        raise Refused(400, BROKEN, TELL_ADMIN, "The token's nonce is not a text.")
    return dict(claims)
