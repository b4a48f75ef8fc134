# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the variables of a hub in the inventory to its validated, normalised description. Runs on the controller only.

``describe()`` judges one hub by itself, ``cross_check()`` all hubs beside each other. Both collect every problem and do
not stop at the first. Nothing here knows Ansible: values come rendered, as plain data, and leave as plain data.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from . import backup, checks, image, links, lti, rooms
from .misplaced import misplaced
from .problems import NOT_SET, Bad, Problem, Unusable, nearest, shown, shown_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    ReadFile = Callable[[str], str]

__all__ = ["VARIABLES", "Outline", "Problem", "Unusable", "cross_check", "describe", "misplaced", "outline"]

VERSION = 1
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_M, _G, _T = 2**20, 2**30, 2**40
_DAY = 86400
HUB_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}\Z")
ACCOUNT = re.compile(r"[a-z][a-z0-9_-]{0,30}\Z")
_HUB_USER = re.compile(r"[a-z][a-z0-9_-]{0,30}\Z")
_PREFIX = re.compile(r"[a-z][a-z0-9_-]{0,7}\Z")
_CLAIM = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z")
_CLIENT_ID = re.compile(r"[A-Za-z0-9._~:/@+-]{1,255}\Z")
_HASH = re.compile(r"\$[0-9a-z]{1,10}\$[A-Za-z0-9./$=,+*-]{8,300}\Z")
_DEFAULT_URL = re.compile(r"/(?!/)[A-Za-z0-9/_.~%?=&+:@,;#-]{0,1000}\Z")

#: Accounts and groups of Debian and of programs on a machine; a container admin of such a name would be one of them.
RESERVED_ACCOUNTS = frozenset(
    """
    root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nogroup _apt
    messagebus sshd nginx postfix postdrop polkitd dnsmasq tcpdump ntpsec chrony uuidd unbound postgres mysql redis
    statd avahi rtkit systemd-network systemd-resolve systemd-timesync systemd-coredump systemd-journal systemd-oom
    adm tty disk kmem dialout fax voice cdrom floppy tape sudo audio dip operator src shadow utmp video sasl plugdev
    staff users crontab kvm render input sgx netdev docker podman containers lxd wheel ssl-cert ssh nvidia ananke
    system
    """.split()  # noqa: SIM905 - a hundred names read better as text
)

#: Folders of a machine that no hub gets.
HIDDEN_SOURCES = ("/boot", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/var/lib/ananke")
#: Paths inside a hub's container that are its own; nothing is mounted at, in or above them.
RESERVED_TARGETS = (
    *("/etc", "/opt/conda", "/opt/install", "/opt/nbgrader_exchange", "/opt/user_data.json", "/home", "/root"),
    *("/var/lib/jupyterhub", "/var/lib/private", "/var/lib/systemd", "/var/lib/dpkg", "/var/log", "/var/run"),
    *("/bin", "/boot", "/dev", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr"),
    *("/tmp", "/var/tmp"),  # noqa: S108 - named to keep mounts away
)

_USERS = checks.text(
    _HUB_USER,
    "it is not a user name inside a hub",
    "Write the name inside the hub: lower case letters, digits, _ and -, a letter first, 31 at most, such as u123",
)
_LMS_URL = "Write the LMS's own value, such as https://lms.example.org"


def _account(value: Any) -> str:
    remedy = "Set hub_container_admin to lower case letters, digits, _ and -, a letter first, 31 at most"
    name = checks.text(ACCOUNT, "it is not a user name of Debian", remedy)(value)
    if name in RESERVED_ACCOUNTS:
        raise Bad(
            "it is the name of a system account or group",
            "Set hub_container_admin to another name, such as " + name + "-hub",
        )
    return str(name)


def _username_prefix(value: Any) -> str:
    remedy = (
        "Write lower case letters, digits, _ and -, a letter first, 8 at most; Debian's user names start with a letter"
    )
    return rooms.prefix(checks.text(_PREFIX, "it cannot start a user name", remedy)(value))


def _client_ids(value: Any) -> list[str]:
    remedy = "Write the client id that the LMS shows, or a list of them"

    def one(item: Any) -> str:
        if isinstance(item, int) and not isinstance(item, bool):
            item = str(item)  # Canvas's are long numbers
        return str(checks.text(_CLIENT_ID, "it contains a space, a comma or a special character", remedy)(item))

    if isinstance(value, list):
        if not value:
            raise Bad("it is empty", remedy)
        return sorted(set(checks.listing(one, remedy)(value)))
    return [one(value)]


def _volumes(value: Any) -> list[dict[str, Any]]:
    each = checks.listing(
        lambda entry: checks.volume(entry, HIDDEN_SOURCES, RESERVED_TARGETS),
        "Write a list of {source: ..., target: ..., read_only: ...}",
    )
    return checks.distinct(each(value), "target", "volumes")


_QUOTA = checks.size(16 * _M, 64 * _T, "2G")


def _quotas(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise Bad("it is not a mapping of user names to sizes", "Write {NAME: SIZE}, such as {u123: 10G}")
    result = {}
    for name, size in value.items():
        _USERS(name)
        try:
            result[str(name)] = _QUOTA(size)
        except Bad as error:
            raise error.inside(f".{name}", shown(size)) from None
    return result


def _default_url(value: Any) -> str:
    remedy = "Write a path inside the user's server, such as /lab"
    result = str(checks.text(_DEFAULT_URL, "it is not a path of an address", remedy)(value))
    if ".." in re.split(r"[/?#]", result):
        raise Bad("it contains ..", remedy)
    return result


def _file_names(value: Any) -> list[str]:
    def one(item: Any) -> str:
        remedy = "Write the path of a PEM file on the controller, absolute or relative to the inventory"
        if not isinstance(item, str) or not item:
            raise Bad("it is not a path", remedy)
        if item.startswith("~"):
            raise Bad("~ is not expanded", remedy)
        if not re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z", os.path.basename(item)):
            raise Bad("the file's name has other characters than letters, digits and . _ -", "Rename the file")
        return item

    return checks.listing(one, "Write a list of PEM files")(value)


#: Every variable of the roles hub and hub_lti and of the hub's account, and what it may hold. Names, types and defaults are also in the roles'
#: argument specs; a test holds both together.
VARIABLES: dict[str, checks.Check] = {
    "hub_name": checks.text(
        HUB_NAME,
        "it is not a hub's name",
        "Set hub_name to lower case letters, digits and -, a letter first, 31 at most",
    ),
    "hub_machine": checks.text(re.compile(r".+\Z"), "it is not a name", "Write the name of a machine of the inventory"),
    "hub_port": checks.integer(1024, 65535, "a port that no other hub of the machine uses,"),
    "hub_path": checks.url_path,
    "hub_container_admin": _account,
    **image.VARIABLES,
    "hub_memory": checks.optional(checks.size(256 * _M, 64 * _T, "8G")),
    "hub_cpus": checks.optional(checks.number(0.1, 4096, "a number of CPUs")),
    "hub_pids": checks.optional(checks.integer(256, 4194304, "a number of processes")),
    "hub_volumes": _volumes,
    "hub_extra_hosts": checks.extra_hosts,
    "hub_ca_certificates": _file_names,
    "hub_upload_limit": checks.size(_M, _T, "512M"),
    "hub_health_timeout": checks.integer(5, 3600, "seconds"),
    "hub_user_memory": checks.optional(checks.size(64 * _M, 64 * _T, "2G")),
    "hub_user_swap": checks.optional(checks.size(0, 64 * _T, "1G")),
    "hub_user_tasks": checks.optional(checks.integer(32, 4194304, "a number of tasks")),
    "hub_user_cpus": checks.optional(checks.number(0.1, 4096, "a number of CPUs")),
    "hub_user_quota": checks.optional(_QUOTA),
    "hub_user_quotas": _quotas,
    **backup.VARIABLES,
    "hub_admins": checks.names(_USERS, "Write a list of names"),
    "hub_users": checks.names(_USERS, "Write a list of names"),
    "hub_groups": rooms.groups,
    "hub_rooms": rooms.rooms,
    "hub_log_level": checks.choice(*LOG_LEVELS),
    "hub_default_url": _default_url,
    "hub_start_timeout": checks.integer(10, 3600, "seconds"),
    "hub_http_timeout": checks.integer(10, 3600, "seconds"),
    "hub_concurrent_spawns": checks.integer(1, 1000, "a number of servers"),
    "hub_cull_timeout": checks.integer(0, 365 * _DAY, "seconds (0: never)"),
    "hub_cull_every": checks.integer(10, _DAY, "seconds"),
    "hub_cull_max_age": checks.integer(0, 365 * _DAY, "seconds (0: no limit)"),
    "hub_environment": checks.environment,
    "hub_time_zone": checks.optional(checks.time_zone),
    "hub_forget": checks.boolean,
    "hub_forget_homes": checks.text(re.compile(r".*\Z"), "it is not a name", "Write the name of the hub"),
    "hub_links": links.links,
    "hub_lti_platform": checks.choice(*lti.PLATFORMS),
    "hub_lti_issuer": checks.optional(lambda value: checks.https_url(value, _LMS_URL, query=False)),
    "hub_lti_client_ids": checks.optional(_client_ids),
    "hub_lti_authorize_url": checks.optional(lambda value: checks.https_url(value, _LMS_URL + "/auth", query=True)),
    "hub_lti_jwks_endpoint": checks.optional(lambda value: checks.https_url(value, _LMS_URL + "/jwks", query=True)),
    "hub_lti_username_key": checks.text(
        _CLAIM, "it is not the name of a claim", "Write sub, email or another claim of letters, digits and _"
    ),
    "hub_lti_username_prefix": _username_prefix,
    "hub_lti_sheet_dir": checks.text(
        re.compile(r"(?!~).*\Z"),
        "~ is not expanded",
        "Write a folder of the controller, absolute or relative to the inventory, or ''",
    ),
    "container_admin_uid": checks.optional(checks.integer(1000, 59999, "a UID")),
    "container_admin_password_hash": checks.optional(
        checks.text(
            _HASH, "it is not the hash of a password", "Write what mkpasswd -m yescrypt prints, and keep it in a vault"
        )
    ),
    "container_admin_password_change": checks.boolean,
    "container_admin_authorized_keys": checks.optional(
        checks.listing(checks.public_key, "Write a list of public SSH keys")
    ),
    "container_admin_home_size": checks.optional(checks.size(256 * _M, 64 * _T, "50G")),
}

#: What the hubs of one account must agree on.
_ACCOUNT_VARIABLES = (
    "container_admin_uid",
    "container_admin_password_hash",
    "container_admin_password_change",
    "container_admin_authorized_keys",
    "container_admin_home_size",
)

#: Names that people know from elsewhere and that do nothing here.
_REFUSED = {
    "hub_lti_access_token_url": (
        "logins by LTI 1.3 use no access token, and the authenticator would silently ignore it",
        "Remove it; hub_lti_authorize_url and hub_lti_jwks_endpoint are the endpoints that a hub uses",
    ),
    "hub_lti_authorize_endpoint": (
        "the authenticator has no such option and would silently ignore it",
        "Rename it to hub_lti_authorize_url",
    ),
}

#: Variables with these beginnings are checked for misspelt names.
PREFIXES = ("hub_", "container_admin_")


class Outline(NamedTuple):
    """What must differ between the hubs of one machine; None where it could not be worked out."""

    host: str
    machine: Optional[str]
    name: Optional[str]
    port: Optional[int]
    path: Optional[str]
    container_admin: Optional[str] = None
    account: tuple[Any, ...] = (None,) * 5


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


class _Reader:
    """Takes variables through their checks and collects what is wrong."""

    def __init__(self, host: str, variables: Mapping[str, Any]) -> None:
        self.host, self.variables = host, variables
        self.problems: list[Problem] = []
        self.values: dict[str, Any] = {}

    def refuse(self, key: str, value: Optional[str], what: str, remedy: str) -> None:
        """Report a problem with the variable ``key``, or the part of it; ``value`` None shows the whole variable."""
        if value is None:
            value = shown_of(key, self.variables[key]) if key in self.variables else NOT_SET
        self.problems.append(Problem(self.host, key, value, what, remedy))

    def take(self, key: str, check: checks.Check) -> None:
        """Put the normalised value into ``values``, or its problem into ``problems``."""
        value = self.variables.get(key)
        if isinstance(value, Unusable):
            self.refuse(key, None, value.reason, "Correct the template, or define the variable that it names")
            return
        try:
            (checks.screen_environment if key.endswith("_environment") else checks.screen)(value)
            self.values[key] = check(value)
        except Bad as error:
            if value is None:
                self.refuse(key, NOT_SET, "it is required", error.remedy)
            else:
                self.refuse(key + error.where, error.value or shown_of(key, value), error.what, error.remedy)

    def has(self, *keys: str) -> bool:
        """Whether all of them are known and not null."""
        return all(self.values.get(key) is not None for key in keys)


def outline(host: str, variables: Mapping[str, Any]) -> Outline:
    """What cross_check() compares, of a hub that may have problems otherwise."""
    reader = _Reader(host, variables)
    for key in ("hub_machine", "hub_name", "hub_port", "hub_path", "hub_container_admin", *_ACCOUNT_VARIABLES):
        reader.take(key, VARIABLES[key])
    known = reader.values.get
    account = tuple(known(key) for key in _ACCOUNT_VARIABLES)
    place = known("hub_machine"), known("hub_name"), known("hub_port"), known("hub_path")
    return Outline(host, *place, known("hub_container_admin"), account)


def describe(
    host: str,
    variables: Mapping[str, Any],
    machine: Optional[Mapping[str, Any]],
    machines: Collection[str] = (),
    known: Collection[str] = (),
    directory: str = "",
    read_file: ReadFile = _read,
) -> tuple[Optional[dict[str, Any]], list[Problem]]:
    """Describe one hub.

    ``variables`` are the hub's rendered variables with the defaults of the roles, ``machine`` those of its machine
    (reverse_proxy_server_name, reverse_proxy_https_port, hub_image_definitions), None if there is no such machine.
    ``machines`` are the names of all machines, ``known`` the names of variables that other roles read, ``directory`` is
    what paths of files are relative to.

    Returns ``(result, problems)``: result is None if there are problems, and otherwise
    ``{"hub", "description", "account", "location", "quota", "backup", "lms_sheet"}``.
    """
    reader = _Reader(host, variables)
    _unknown_names(reader, {*VARIABLES, *known})
    for key, check in VARIABLES.items():
        if not _follows_bad_name(reader, key):
            reader.take(key, check)
    site = _machine(reader, host, machine, machines)
    start = _image(reader, machine, directory)
    _together(reader)
    rooms.together(reader.values, image.features_of(start), reader.refuse)
    login = _lti(reader)
    ca = _certificates(reader, directory, read_file)
    if reader.problems:
        return None, reader.problems
    return _result(host, reader.values, site, start, login, ca), []


def _follows_bad_name(reader: _Reader, key: str) -> bool:
    """Whether the value comes from a hub_name that has been refused, so that no more needs to be said."""
    name = reader.variables.get("hub_name")
    derived = {"hub_container_admin": name, "hub_path": f"/{name}/"}
    return "hub_name" not in reader.values and key in derived and reader.variables.get(key) == derived[key]


def _unknown_names(reader: _Reader, known: Collection[str]) -> None:
    for key in sorted(reader.variables):
        if key in _REFUSED:
            reader.refuse(key, None, *_REFUSED[key])
        elif key.lower().startswith(PREFIXES) and key not in known:
            reader.refuse(key, None, "there is no such variable", f"The nearest valid name is {nearest(key, known)}")


def _machine(
    reader: _Reader, host: str, machine: Optional[Mapping[str, Any]], machines: Collection[str]
) -> dict[str, Any]:
    """Check what the hub needs of its machine; returns ``{"server_name", "https_port"}``."""
    name = reader.values.get("hub_machine")
    if name is None:
        return {}
    if name == host:
        reader.refuse(
            "hub_machine", None, "a hub is an inventory host of its own", "Write the name of the machine that runs it"
        )
        return {}
    if machine is None:
        guess = nearest(name, machines)
        hint = f"The nearest machine is {guess}" if guess else "Add the machine to the inventory's group of machines"
        reader.refuse("hub_machine", None, "the inventory has no such machine", hint)
        return {}

    result: dict[str, Any] = {}
    of_machine = _Reader(reader.host, machine)
    of_machine.take("reverse_proxy_server_name", _server_name)
    of_machine.take("reverse_proxy_https_port", checks.integer(1, 65535, "a port"))
    result["server_name"] = of_machine.values.get("reverse_proxy_server_name")
    result["https_port"] = of_machine.values.get("reverse_proxy_https_port")
    reader.problems += [problem._replace(key=f"{problem.key} of machine {name}") for problem in of_machine.problems]
    if reader.has("hub_port") and reader.values["hub_port"] == result["https_port"]:
        reader.refuse("hub_port", None, f"the proxy of machine {name} listens there", "Write another port")
    return result


def _server_name(value: Any) -> str:
    if not checks.host_name(value):
        raise Bad(
            "it is not the name of a host",
            "Set it to the name under which browsers reach the machine, such as hubs.example.org",
        )
    return str(value).lower()


def _image(reader: _Reader, machine: Optional[Mapping[str, Any]], directory: str) -> dict[str, Any]:
    """Definition of the image that the hub starts from, empty if that cannot be told."""
    if machine is None or not reader.has(*image.VARIABLES):
        return {}  # reported already
    name, definitions = reader.values["hub_machine"], machine.get("hub_image_definitions")
    if isinstance(definitions, Unusable):
        remedy = "Correct the template, or define the variable that it names"
        reader.refuse(f"hub_image_definitions of machine {name}", shown(definitions), definitions.reason, remedy)
        return {}
    wish = image.wish(reader.values, directory)
    problems = list(image.check(wish, name, definitions))
    for problem in problems:
        reader.refuse(*problem)
    return {} if problems else wish.definition(next(one for one in definitions or () if one["name"] == wish.image))


def _together(reader: _Reader) -> None:
    """Rules between two variables of one hub."""
    values = reader.values
    for inner, outer, what in (
        ("hub_user_memory", "hub_memory", "memory"),
        ("hub_user_tasks", "hub_pids", "processes"),
        ("hub_user_cpus", "hub_cpus", "CPUs"),
    ):
        if reader.has(inner, outer) and values[inner] > values[outer]:
            what = f"one user may have more {what} than the hub ({outer} is {shown(reader.variables[outer])})"
            reader.refuse(inner, None, what, f"Lower {inner} or raise {outer}")
    _quota_fits(reader)
    found = backup.problem(values)
    if found:
        reader.refuse(found[0], NOT_SET, *found[1:])
    if reader.has("hub_cull_timeout", "hub_cull_every") and 0 < values["hub_cull_timeout"] < values["hub_cull_every"]:
        what = f"idle servers are looked for only every {values['hub_cull_every']} seconds"
        reader.refuse("hub_cull_timeout", None, what, "Raise hub_cull_timeout or lower hub_cull_every")


def _quota_fits(reader: _Reader) -> None:
    """Quotas need a file system of the account's own, and mean nothing when they are larger than that."""
    values = reader.values
    if values.get("hub_user_quotas") and "hub_user_quota" in values and not reader.has("hub_user_quota"):
        what = "it names exceptions from hub_user_quota, which is not set"
        reader.refuse("hub_user_quotas", None, what, "Set hub_user_quota for all users of the hub, such as 2G")
    if not reader.has("hub_user_quota") or "container_admin_home_size" not in values:
        return
    size = values["container_admin_home_size"]
    if size is None:
        what = "quotas of hub users need a home of a size, and the hub's account has none"
        reader.refuse("hub_user_quota", None, what, "Set container_admin_home_size, such as 50G, or remove it")
        return
    quotas = {"hub_user_quota": values["hub_user_quota"]}
    quotas.update((f"hub_user_quotas.{name}", one) for name, one in (values.get("hub_user_quotas") or {}).items())
    for key, quota in quotas.items():
        if quota > size:
            what = f"one user may have more than the account's whole home, which has {size >> 20}M"
            reader.refuse(key, shown(quota), what, "Lower it or raise container_admin_home_size")


def _lti(reader: _Reader) -> Optional[dict[str, Any]]:
    """The login part of the description; None for a hub that waits for its LMS."""
    values = reader.values
    if "hub_lti_issuer" not in values:
        return None  # its own problem has been reported
    if not reader.has("hub_lti_issuer"):
        for key in ("hub_lti_client_ids", "hub_lti_authorize_url", "hub_lti_jwks_endpoint"):
            if reader.has(key):
                what = f"it is required, since {key} is set"
                reader.refuse(
                    "hub_lti_issuer", NOT_SET, what, "Write the LMS's platform ID, such as https://lms.example.org"
                )
                break
        return None
    if "hub_lti_client_ids" in values and not reader.has("hub_lti_client_ids"):
        what = "it is required, since hub_lti_issuer is set"
        reader.refuse("hub_lti_client_ids", NOT_SET, what, "Write the client id that the LMS shows, or a list of them")
    if "hub_lti_platform" not in values:
        return None
    derived = lti.endpoints(values["hub_lti_platform"], values["hub_lti_issuer"]) or (None, None)
    result = {
        "issuer": values["hub_lti_issuer"],
        "client_ids": values.get("hub_lti_client_ids"),
        "authorize_url": values.get("hub_lti_authorize_url") or derived[0],
        "jwks_endpoint": values.get("hub_lti_jwks_endpoint") or derived[1],
        "username_key": values.get("hub_lti_username_key"),
        "username_prefix": values.get("hub_lti_username_prefix"),
    }
    for key in ("authorize_url", "jwks_endpoint"):
        if f"hub_lti_{key}" in values and result[key] is None:
            what = "it is required, since hub_lti_platform is custom"
            reader.refuse(
                f"hub_lti_{key}",
                NOT_SET,
                what,
                "Write the LMS's own value, or set hub_lti_platform to moodle or canvas",
            )
    _reachable_names(reader)
    return result


def _reachable_names(reader: _Reader) -> None:
    """Refuse admins and users whom no login can be, which is what forgetting the prefix looks like."""
    prefix = reader.values.get("hub_lti_username_prefix")
    named = {key: reader.values.get(key) or [] for key in ("hub_admins", "hub_users")}
    for key, names in {**named, **rooms.people(reader.values)}.items():
        for name in names:
            if prefix and not name.startswith(prefix):
                what = f"users from the LMS have names that start with {prefix}"
                reader.refuse(key, shown(name), what, f"Write {prefix}{name}, or change hub_lti_username_prefix")


def _certificates(reader: _Reader, directory: str, read_file: ReadFile) -> dict[str, str]:
    """The hub's private CAs: ``{"NAME.crt": text}``."""
    result: dict[str, str] = {}
    for number, path in enumerate(reader.values.get("hub_ca_certificates") or []):
        key, name = f"hub_ca_certificates[{number}]", os.path.splitext(os.path.basename(path))[0] + ".crt"
        try:
            content = read_file(os.path.join(directory, path))
            if name in result:
                raise Bad(f"another file becomes {name}, too", "Rename one of the files")
            result[name] = checks.certificates(content)
        except Bad as error:
            reader.refuse(key, shown(path), error.what, error.remedy)
        except UnicodeError:
            reader.refuse(key, shown(path), "the file is not text", "Name a file of certificates in PEM")
        except OSError as error:
            what = f"the controller cannot read it ({error.strerror})"
            reader.refuse(key, shown(path), what, "Write a path that is absolute or relative to the inventory's folder")
    return dict(sorted(result.items()))


def _result(
    host: str,
    values: Mapping[str, Any],
    site: Mapping[str, Any],
    start: Mapping[str, Any],
    login: Optional[Mapping[str, Any]],
    ca: Mapping[str, str],
) -> dict[str, Any]:
    name, path = values["hub_name"], values["hub_path"]
    port = "" if site["https_port"] == 443 else f":{site['https_port']}"
    description = {
        "version": VERSION,
        "name": name,
        "base_url": path,
        "public_url": f"https://{site['server_name']}{port}{path}",
        "log_level": values["hub_log_level"],
        "time_zone": values["hub_time_zone"],
        "forget": values["hub_forget"],
        "admins": values["hub_admins"],
        "users": values["hub_users"],
        "groups": values["hub_groups"],
        "rooms": values["hub_rooms"],
        "servers": {
            "memory": values["hub_user_memory"],
            "swap": values["hub_user_swap"],
            "tasks": values["hub_user_tasks"],
            "cpus": values["hub_user_cpus"],
            "default_url": values["hub_default_url"],
            "start_timeout": values["hub_start_timeout"],
            "http_timeout": values["hub_http_timeout"],
            "concurrent_spawns": values["hub_concurrent_spawns"],
            "environment": values["hub_environment"],
        },
        "culling": {
            "timeout": values["hub_cull_timeout"],
            "every": values["hub_cull_every"],
            "max_age": values["hub_cull_max_age"],
        },
        "lti": login,
    }
    hub = {
        "name": name,
        "host": host,
        "machine": values["hub_machine"],
        "container": f"ananke-{name}",
        "container_admin": values["hub_container_admin"],
        "port": values["hub_port"],
        "image": start["name"],
        "features": image.features_of(start),
        "limits": {"memory": values["hub_memory"], "cpus": values["hub_cpus"], "pids": values["hub_pids"]},
        "devices": values["hub_devices"],
        "volumes": values["hub_volumes"],
        "extra_hosts": values["hub_extra_hosts"],
        "ca_certificates": dict(ca),
        "health_timeout": values["hub_health_timeout"],
        "forget_homes": values["hub_forget_homes"] == name,
    }
    location = {"name": name, "path": path, "port": values["hub_port"], "upload_limit": values["hub_upload_limit"]}
    return {
        "hub": hub,
        "description": description,
        "account": {key.removeprefix("container_admin_"): values[key] for key in _ACCOUNT_VARIABLES},
        "location": location,
        "quota": {"hub": name, "size": values["hub_user_quota"], "users": values["hub_user_quotas"]},
        "backup": backup.described(values, name),
        "lms_sheet": lti.sheet(description, values["hub_links"]),
    }


def cross_check(outlines: Iterable[Outline], refused: Optional[Collection[str]] = None) -> list[Problem]:
    """Problems between hubs of one machine: the same name, port or path, a path inside another's, accounts that disagree.

    Each is reported for both hubs; ``refused`` names the hubs whose problems count, by default all.
    """
    by_machine: dict[str, list[Outline]] = {}
    for one in outlines:
        if one.machine is not None:
            by_machine.setdefault(one.machine, []).append(one)
    problems = []
    for machine, hubs in sorted(by_machine.items()):
        ports = {hub.port for hub in hubs}
        for hub in hubs:
            if refused is None or hub.host in refused:
                problems += _clashes(hub, [other for other in hubs if other is not hub], machine, ports)
    return problems


def _clashes(hub: Outline, others: list[Outline], machine: str, ports: Collection[Optional[int]]) -> list[Problem]:
    problems = []
    same_name = sorted(other.host for other in others if hub.name is not None and other.name == hub.name)
    if same_name:
        what = f"on machine {machine} it is also the name of {', '.join(same_name)}"
        problems.append(Problem(hub.host, "hub_name", shown(hub.name), what, "Give each hub of a machine its own name"))
    same_port = sorted(other.host for other in others if hub.port is not None and other.port == hub.port)
    if same_port:
        free = next(port for port in range(8001, 65536) if port not in ports)
        what = f"on machine {machine} it is also the port of {', '.join(same_port)}"
        problems.append(
            Problem(hub.host, "hub_port", shown(hub.port), what, f"Give each its own; the inventory leaves {free} free")
        )
    for other in others:
        if hub.path is None or other.path is None:
            continue
        if hub.path == other.path:
            what = f"on machine {machine} it is also the path of {other.host}"
        elif hub.path.startswith(other.path):
            what = f"on machine {machine} it lies inside {other.path}, the path of {other.host}"
        else:
            continue
        problems.append(
            Problem(hub.host, "hub_path", shown(hub.path), what, "Give each hub a path of its own, such as /NAME/")
        )
    return problems + _account_clashes(hub, others)


def _account_clashes(hub: Outline, others: list[Outline]) -> list[Problem]:
    """Hubs may share an account, but not want it to be different: each run would change it to and fro."""
    problems: list[Problem] = []
    if hub.container_admin is None:
        return problems
    for position, key in enumerate(_ACCOUNT_VARIABLES):
        value = hub.account[position]
        if value is None:
            continue
        partners = [other for other in others if other.container_admin == hub.container_admin]
        differing = sorted(other.host for other in partners if other.account[position] not in (None, value))
        if differing:
            what = f"{', '.join(differing)} wants another value for the same container admin, {hub.container_admin}"
            problems.append(Problem(hub.host, key, shown_of(key, value), what, "Set it once, for both"))
        same = sorted(other.host for other in others if other not in partners and other.account[position] == value)
        if key == "container_admin_uid" and same:
            what = f"another container admin has it, that of {', '.join(same)}"
            problems.append(
                Problem(hub.host, key, shown(value), what, "Give each account its own UID, or leave it out")
            )
    return problems
