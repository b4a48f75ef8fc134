# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are inside a hub's container.

``Paths.at(root)`` gives the same layout below another directory, which is how the tests run a real hub without one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

#: Set by tests and by ``ananke_hub.check``; empty in a container.
ROOT_VARIABLE = "ANANKE_ROOT"
DESCRIPTION_VARIABLE = "ANANKE_HUB_DESCRIPTION"


@dataclass(frozen=True)
class Paths:
    """Every path that the hub's parts agree on."""

    description: Path = Path("/etc/ananke/hub.json")
    own_cas: Path = Path("/etc/ananke/ca")
    data: Path = Path("/var/lib/jupyterhub")
    private: Path = Path("/var/lib/private")
    trusted_cas: Path = Path("/usr/local/share/ca-certificates/ananke")
    ca_bundle: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    zones: Path = Path("/usr/share/zoneinfo")
    local_time: Path = Path("/etc/localtime")
    proxy_pages: Path = Path("/run/ananke/proxy-pages")
    closing: Path = Path("/run/ananke/closing.json")
    jhub: Path = Path("/opt/conda/envs/jhub")

    @classmethod
    def at(cls, root: str | Path = "") -> Paths:
        """The layout below ``root`` (default: the container's own root)."""
        base = Path(root) if root else Path("/")
        return cls(**{f.name: base / str(f.default).lstrip("/") for f in fields(cls)})

    @classmethod
    def current(cls) -> Paths:
        """The layout that this process is to use."""
        paths = cls.at(os.environ.get(ROOT_VARIABLE, ""))
        override = os.environ.get(DESCRIPTION_VARIABLE)
        return cls(**{**paths.__dict__, "description": Path(override)}) if override else paths

    @property
    def config(self) -> Path:
        return self.jhub / "etc/jupyterhub/jupyterhub_config.py"

    @property
    def config_d(self) -> Path:
        return self.jhub / "etc/jupyterhub/jupyterhub_config.d"

    @property
    def database(self) -> Path:
        return self.data / "jupyterhub.sqlite"

    @property
    def cookie_secret(self) -> Path:
        return self.data / "cookie_secret"

    @property
    def crypt_key(self) -> Path:
        return self.data / "crypt_key"

    @property
    def proxy_env(self) -> Path:
        return self.data / "proxy.env"

    @property
    def api_token(self) -> Path:
        """Token of the service ``ananke``, with which modules of the collection talk to the hub."""
        return self.data / "api_token"

    @property
    def user_data(self) -> Path:
        return self.data / "user_data.json"

    @property
    def launches(self) -> Path:
        """Launches that were already used, kept until their tokens have expired."""
        return self.data / "lti_launches.sqlite"

    @property
    def departures(self) -> Path:
        """Has a file for each hub user whose home is being archived and removed; the module ``hub_offboard`` makes them."""
        return self.data / "departures"
