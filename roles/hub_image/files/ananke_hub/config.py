# SPDX-License-Identifier: GPL-3.0-or-later
"""From a hub's description to JupyterHub's configuration.

The four numbered files of ``jupyterhub_config.d`` call :func:`base`, :func:`servers`, :func:`users` and
:func:`lms`. Each only assigns values to ``c``, so that an admin's own files, which come later, can change every one
of them. Nothing is written here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import closing, description, forgetting, rooms, space, units
from .authenticator import LmsAuthenticator, WaitingAuthenticator
from .description import Description
from .files import read_secret
from .paths import Paths
from .spawner import AnankeSpawner
from .usernames import MAX_LENGTH, PROBE_ACCOUNT

HUB_PORT = 8081
PROXY_PORT = 8000
PROXY_API_PORT = 8001
#: Seconds that a start may spend in the queue; 60 s per server and eight at a time let 240 people start within it.
QUEUE_SECONDS = 1800
#: Hosts that many sites' LMS shares as issuer; a link there leads nobody to their course.
SHARED_LMS_HOSTS = frozenset(
    {"canvas.instructure.com", "sso.canvaslms.com", "blackboard.com", "developer.blackboard.com"}
)

#: What the proof of a hub may do with its own account, and with no other.
_PROBING = ("admin:users", "access:servers")

_loaded: dict[Path, Description] = {}


def current(paths: Paths | None = None) -> tuple[Description, Paths]:
    """The hub that this container is, read once per process. Raises DescriptionError."""
    paths = paths or Paths.current()
    if paths.description not in _loaded:
        _loaded[paths.description] = description.load(paths.description)
    return _loaded[paths.description], paths


def lms_site(hub: Description) -> str:
    """Address of the LMS for people, "" where it cannot be told."""
    if hub.lti is None:
        return ""
    parts = urlsplit(hub.lti.authorize_url)
    return "" if parts.hostname in SHARED_LMS_HOSTS else f"{parts.scheme}://{parts.netloc}/"


def announcement(hub: Description) -> Callable[[Any], str]:
    """What each of JupyterHub's pages says on top, from its user."""
    sources = [closing.announcement, *([forgetting.announcement] if hub.forget else []), space.announcement]
    return lambda user: " ".join(filter(None, (source(user) for source in sources)))


def base(c: Any) -> None:
    """Addresses, the proxy beside the hub, secrets, the data base, cookies, pages and the culling of idle servers."""
    hub, paths = current()
    c.JupyterHub.bind_url = f"http://0.0.0.0:{PROXY_PORT}{hub.base_url}"
    c.JupyterHub.public_url = hub.public_url
    c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{HUB_PORT}"
    c.JupyterHub.log_level = hub.log_level
    c.JupyterHub.log_datefmt = "%Y-%m-%dT%H:%M:%S"

    c.JupyterHub.db_url = f"sqlite:///{paths.database}"
    # a newer JupyterHub changes the database at its first start; a run that goes wrong gives back what was there before
    c.JupyterHub.upgrade_db = True
    c.JupyterHub.cookie_secret_file = str(paths.cookie_secret)
    crypt_key = read_secret(paths.crypt_key)
    if crypt_key:
        c.CryptKeeper.keys = [bytes.fromhex(crypt_key)]

    # The proxy is a service of its own and user servers are units of their own: a restart of the hub touches neither.
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.cleanup_proxy = False
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{PROXY_API_PORT}"
    proxy_token = read_secret(paths.proxy_env).removeprefix("CONFIGPROXY_AUTH_TOKEN=")
    if proxy_token:
        c.ConfigurableHTTPProxy.auth_token = proxy_token
    # a proxy that was restarted has lost its routes; look every half minute instead of every five
    c.JupyterHub.last_activity_interval = 30
    c.JupyterHub.trusted_downstream_ips = ["127.0.0.1", "::1"]

    # Lax, not Strict: people come here by a link from the LMS, and Strict cookies would not be sent with it.
    c.JupyterHub.tornado_settings = {
        "cookie_options": {"samesite": "Lax", "secure": hub.https},
        "slow_spawn_timeout": 5,
    }
    c.JupyterHub.template_paths = [str(Path(__file__).parent / "templates")]
    c.JupyterHub.template_vars = {
        "hub_name": hub.name,
        "lms_site": lms_site(hub),
        "has_lms": hub.lti is not None,
        "announcement": announcement(hub),
        "has_rooms": bool(hub.rooms),
        "room_entrances": rooms.entrances(hub),
        "rooms": partial(rooms.open_to, hub),
    }

    c.JupyterHub.services = []
    c.JupyterHub.load_roles = []
    _serve_modules(c, read_secret(paths.api_token))
    if hub.culling.timeout or hub.culling.max_age:
        _cull(c, hub)


def _serve_modules(c: Any, token: str) -> None:
    """Let the collection's modules see servers, start and stop them, and let people leave. Without a token (a check outside a container), nobody does."""
    if not token:
        return
    c.JupyterHub.services.append({"name": "ananke", "api_token": token})
    c.JupyterHub.load_roles.append(
        {
            "name": "ananke",
            "description": "See who is known, was there when and whose server runs, start and stop servers, delete who has left; prove that the hub works",
            # the first tells who is a hub admin, too; the third holds those to read and to stop
            "scopes": [
                *("list:users", "read:users:activity", "servers", "delete:users"),
                *(f"{scope}!user={PROBE_ACCOUNT}" for scope in _PROBING),
            ],
            "services": ["ananke"],
        }
    )


def _cull(c: Any, hub: Description) -> None:
    # without an idle timeout, an age limit alone: no server is idle for ten years
    timeout = hub.culling.timeout or 10 * 365 * 24 * 3600
    command = [
        sys.executable,
        "-m",
        "jupyterhub_idle_culler",
        f"--timeout={timeout}",
        f"--cull-every={hub.culling.every}",
        f"--max-age={hub.culling.max_age}",
    ]
    c.JupyterHub.services.append({"name": "idle-culler", "command": command})
    c.JupyterHub.load_roles.append(
        {
            "name": "idle-culler",
            "description": "See who is idle and stop their servers",
            "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
            "services": ["idle-culler"],
        }
    )


def servers(c: Any) -> None:
    """How hub users' servers run: isolated, limited, queued at their start."""
    hub, paths = current()
    limits = hub.servers
    c.JupyterHub.spawner_class = AnankeSpawner
    c.JupyterHub.allow_named_servers = False
    # The spawner queues. JupyterHub's own limit would send people away with error 429.
    c.JupyterHub.concurrent_spawn_limit = 0
    c.AnankeSpawner.concurrent_starts = limits.concurrent_spawns
    c.AnankeSpawner.server_start_timeout = limits.start_timeout
    c.Spawner.start_timeout = limits.start_timeout + QUEUE_SECONDS
    c.Spawner.http_timeout = limits.http_timeout

    # -s: packages that users install into their homes are for their kernels; a JupyterLab that loads them may not start any more
    c.Spawner.cmd = [str(paths.jhub / "bin/python"), "-s", str(paths.jhub / "bin/jupyterhub-singleuser")]
    # Kernels listen on sockets in the user's own folder instead of TCP ports that all users of the hub could read from.
    c.Spawner.args = ["--KernelManager.transport=ipc"]
    if (
        importlib.util.find_spec("nb_conda_kernels") is None
    ):  # an admin's choice, which lists users' environments itself
        c.Spawner.args.append("--ServerApp.kernel_spec_manager_class=ananke_hub.kernels.UserKernels")
    c.Spawner.default_url = limits.default_url
    c.Spawner.env_keep = ["LANG", "LC_ALL", "TZ"]
    c.Spawner.environment = units.environment(paths.ca_bundle, limits.environment)

    c.SystemdSpawner.dynamic_users = True
    c.SystemdSpawner.isolate_tmp = True
    c.SystemdSpawner.isolate_devices = True
    c.SystemdSpawner.disable_user_sudo = True
    c.SystemdSpawner.default_shell = "/bin/bash"
    c.Spawner.mem_limit = limits.memory
    c.Spawner.cpu_limit = limits.cpus
    c.AnankeSpawner.swap_limit = limits.swap
    c.AnankeSpawner.tasks_limit = limits.tasks
    c.AnankeSpawner.forget_homes = hub.forget
    c.AnankeSpawner.course = hub.name
    allowed = {rooms.account(room): rooms.visitors(hub, room) for room in hub.rooms}
    c.AnankeSpawner.room_visitors = {name: None if users is None else sorted(users) for name, users in allowed.items()}


def users(c: Any) -> None:
    """Who may enter the hub and its rooms, who is a hub admin, and where names are kept."""
    hub, paths = current()
    c.Authenticator.admin_users = set(hub.admins)
    c.Authenticator.allowed_users = set(hub.users) | set(hub.admins) if hub.users else set()
    c.Authenticator.allow_all = not hub.users
    # Who was removed from the list stays out, though JupyterHub's data base still knows them.
    c.Authenticator.allow_existing_users = False
    c.Authenticator.username_pattern = rf"^[a-z][a-z0-9_-]{{0,{MAX_LENGTH - 1}}}$"
    c.Authenticator.auth_refresh_age = 60
    # Then JupyterHub asks us for a person's groups, and nobody else changes them.
    c.Authenticator.manage_groups = bool(hub.groups)
    c.DeclaredUsers.declared_groups = {name: list(members) for name, members in hub.groups.items()}
    c.DeclaredUsers.room_accounts = {rooms.account(room) for room in hub.rooms}
    c.JupyterHub.load_roles.extend(rooms.roles(hub))
    c.LmsAuthenticator.user_data_file = str(paths.user_data)


def lms(c: Any) -> None:
    """Login by launches from the LMS; without an LMS, nobody logs in."""
    hub, paths = current()
    if hub.lti is None:
        c.JupyterHub.authenticator_class = WaitingAuthenticator
        return
    c.JupyterHub.authenticator_class = LmsAuthenticator
    c.LTI13Authenticator.issuer = hub.lti.issuer
    c.LTI13Authenticator.client_id = set(hub.lti.client_ids)
    c.LTI13Authenticator.authorize_url = hub.lti.authorize_url
    c.LTI13Authenticator.jwks_endpoint = hub.lti.jwks_endpoint
    c.LTI13Authenticator.username_key = hub.lti.username_key
    c.LTI13Authenticator.uri_scheme = "https" if hub.https else "http"
    c.LmsAuthenticator.username_prefix = hub.lti.username_prefix
    c.LmsAuthenticator.public_url = hub.public_url
    c.LmsAuthenticator.used_launches_file = str(paths.launches)
    c.LTI13LaunchValidator.max_age = 600
    c.LTI13LaunchValidator.time_leeway = 30  # clocks of two machines are never quite equal
    # Services of a course (grades, memberships) need what the launch says about it; it is encrypted with crypt_key.
    c.Authenticator.enable_auth_state = paths.crypt_key.exists()
