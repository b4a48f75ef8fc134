# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LTI 1.3: the LMS's endpoints from its issuer, and the sheet for the LMS's admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import urlsplit

from . import links

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: What hub_lti_platform may be. custom: both endpoints are given.
PLATFORMS = ("moodle", "canvas", "custom")

#: Canvas in the cloud: every school's issuer is the same, and its endpoints are on another host.
_CANVAS_CLOUD = {
    "canvas.instructure.com": "https://sso.canvaslms.com",
    "canvas.beta.instructure.com": "https://sso.beta.canvaslms.com",
    "canvas.test.instructure.com": "https://sso.test.canvaslms.com",
}


def endpoints(platform: str, issuer: str) -> Optional[tuple[str, str]]:
    """``(authorize_url, jwks_endpoint)`` of an LMS of this kind, None where the issuer does not tell them."""
    base = issuer.rstrip("/")
    if platform == "moodle":
        return base + "/mod/lti/auth.php", base + "/mod/lti/certs.php"
    if platform == "canvas":
        base = _CANVAS_CLOUD.get(urlsplit(issuer).hostname or "", base)
        return base + "/api/lti/authorize_redirect", base + "/api/lti/security/jwks"
    return None


def sheet(description: Mapping[str, Any], wanted: Sequence[Mapping[str, str]]) -> str:
    """What the LMS's admin must enter, and what the hub knows about the LMS, and the wanted links; plain text, ready to be sent by mail."""
    url, lti = description["public_url"], description["lti"]
    heading = f"JupyterHub {description['name']}: values for the LMS"
    lines = [
        heading,
        "=" * len(heading),
        "",
        "Please enter in the LMS, as an external tool of version LTI 1.3:",
        "",
        *_table(
            ("Tool URL (launch URL)", url),
            ("Initiate login URL", url + "hub/lti13/oauth_login"),
            ("Redirection URI", url + "hub/lti13/oauth_callback"),
            ("Public keyset", "not needed, leave it empty: the hub signs no messages"),
            ("Launch container", "Existing window (not embedded in a page of the LMS)"),
        ),
        "",
    ]
    if lti is None:
        lines += [
            "The hub does not know the LMS yet, so nobody can log in. Please send back:",
            "",
            *_table(
                (
                    "Platform ID (issuer)",
                    "the address by which the LMS calls itself, exactly, with or without a final slash",
                ),
                ("Client ID", "the LMS shows it when the tool has been saved"),
                ("Authorization URL", "where the LMS answers authentication requests"),
                ("Platform keyset URL", "where the LMS publishes its public keys (JWKS)"),
            ),
        ]
    else:
        lines += [
            "The hub knows the following about the LMS. Launches fail unless each value is exactly the LMS's own:",
            "",
            *_table(
                ("Platform ID (issuer)", lti["issuer"]),
                *(("Client ID", client_id) for client_id in lti["client_ids"]),
                ("Authorization URL", lti["authorize_url"]),
                ("Platform keyset URL", lti["jwks_endpoint"]),
            ),
            "",
            *_privacy(lti),
        ]
    return "\n".join(lines + links.section(url, wanted)) + "\n"


def _table(*rows: tuple[str, str]) -> tuple[str, ...]:
    return tuple(f"  {label + ':':<24}{value}" for label, value in rows)


def _privacy(lti: Mapping[str, Any]) -> tuple[str, ...]:
    key, prefix = lti["username_key"], lti["username_prefix"]
    if key == "sub":
        return (
            f"Users are called '{prefix}' and their ID in the LMS, such as {prefix}123.",
            "The LMS need not send names or e-mail addresses; a name is shown in the hub if it is sent.",
        )
    return (f"Users are called '{prefix}' and their {key}, so the LMS must send {key} with every launch.",)
