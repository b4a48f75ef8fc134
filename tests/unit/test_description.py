# SPDX-License-Identifier: GPL-3.0-or-later
"""The description of hubs: what good hubs become, and that bad ones are refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils.description import (
    RESERVED_TARGETS,
    VARIABLES,
    Outline,
    Problem,
    Unusable,
    cross_check,
    describe,
    misplaced,
    outline,
)
from ansible_collections.ananke.jupyterhub.plugins.module_utils.description.lti import endpoints
from description_cases import (
    BAD_INPUTS,
    MACHINE,
    MACHINES,
    bad_hubs,
    good,
    hubs_together,
    inventory_variables,
    known_names,
    says,
    with_defaults,
)

BAD = bad_hubs()
PEM = "-----BEGIN CERTIFICATE-----\nMIIBAA==\n-----END CERTIFICATE-----\n"


def run(host: str, variables: dict[str, Any], **options: Any) -> tuple[dict[str, Any] | None, list[Problem]]:
    machine = MACHINE if variables.get("hub_machine") in MACHINES else None
    options = {
        "machine": machine,
        "machines": MACHINES,
        "known": known_names(),
        "directory": str(BAD_INPUTS / "files"),
        **options,
    }
    return describe(host, with_defaults(host, variables), **options)


def described(host: str = "math101", **variables: Any) -> dict[str, Any]:
    result, problems = run(host, {**good(host), **variables})
    assert problems == []
    assert result is not None
    return result


# ---------------------------------------------------------------- good hubs


def test_smallest_hub() -> None:
    result, problems = run("math101", {"hub_machine": "m1", "hub_port": 8101})
    assert problems == []
    assert result is not None
    assert result["hub"] == {
        "name": "math101",
        "host": "math101",
        "machine": "m1",
        "container": "ananke-math101",
        "container_admin": "math101",
        "port": 8101,
        "image": "standard",
        "features": [],
        "limits": {"memory": None, "cpus": None, "pids": 16384},
        "devices": [],
        "volumes": [],
        "extra_hosts": {},
        "ca_certificates": {},
        "health_timeout": 180,
        "forget_homes": False,
    }
    assert result["description"] == {
        "version": 1,
        "name": "math101",
        "base_url": "/math101/",
        "public_url": "https://hubs.example.org:8443/math101/",
        "log_level": "INFO",
        "time_zone": None,
        "forget": False,
        "admins": [],
        "users": [],
        "groups": {},
        "rooms": [],
        "servers": {
            "memory": 2 * 2**30,
            "swap": 0,
            "tasks": 1024,
            "cpus": None,
            "default_url": "/lab",
            "start_timeout": 120,
            "http_timeout": 120,
            "concurrent_spawns": 8,
            "environment": {},
        },
        "culling": {"timeout": 3600, "every": 300, "max_age": 0},
        "lti": None,
    }
    assert result["location"] == {"name": "math101", "path": "/math101/", "port": 8101, "upload_limit": 512 * 2**20}


@pytest.mark.parametrize(
    ("given", "path", "expected"),
    [
        ({"hub_port": "8101"}, ("hub", "port"), 8101),
        ({"hub_path": "science/physics"}, ("description", "base_url"), "/science/physics/"),
        ({"hub_memory": "3G"}, ("hub", "limits", "memory"), 3 * 2**30),
        ({"hub_memory": 2**30, "hub_user_memory": "1G"}, ("hub", "limits", "memory"), 2**30),
        ({"hub_memory": "3145728K"}, ("hub", "limits", "memory"), 3 * 2**30),
        ({"hub_user_memory": None}, ("description", "servers", "memory"), None),
        ({"hub_user_cpus": 2}, ("description", "servers", "cpus"), 2.0),
        ({"hub_user_cpus": "0.5"}, ("description", "servers", "cpus"), 0.5),
        ({"hub_admins": ["u2", "u1", "u2"]}, ("description", "admins"), ["u1", "u2"]),
        ({"hub_groups": {"b": [], "a": ["u2", "u1", "u2"]}}, ("description", "groups"), {"a": ["u1", "u2"], "b": []}),
        (
            {
                "hub_features": ["rtc"],
                "hub_rooms": [{"name": "b", "public": True}, {"name": "a", "title": "Ä & B", "users": ["u2", "u1"]}],
            },
            ("description", "rooms"),
            [
                {"name": "a", "title": "Ä & B", "public": False, "users": ["u1", "u2"], "groups": []},
                {"name": "b", "title": "b", "public": True, "users": [], "groups": []},
            ],
        ),
        ({"hub_environment": {"N": 4, "A": "b c"}}, ("description", "servers", "environment"), {"A": "b c", "N": "4"}),
        ({"hub_devices": ["nvidia.com/gpu=all", "/dev/kvm"]}, ("hub", "devices"), ["/dev/kvm", "nvidia.com/gpu=all"]),
        (
            {"hub_volumes": [{"source": "/srv//a/", "target": "/srv/a"}]},
            ("hub", "volumes"),
            [{"source": "/srv/a", "target": "/srv/a", "read_only": False, "follow_mounts": False}],
        ),
        ({"hub_extra_hosts": {"lms.local": "2001:DB8::1"}}, ("hub", "extra_hosts"), {"lms.local": "2001:db8::1"}),
        ({"hub_extra_hosts": {"lms.local": "host-gateway"}}, ("hub", "extra_hosts"), {"lms.local": "host-gateway"}),
        ({"hub_lti_client_ids": "abc"}, ("description", "lti", "client_ids"), ["abc"]),
        ({"hub_lti_client_ids": 10000000000007}, ("description", "lti", "client_ids"), ["10000000000007"]),
        ({"hub_lti_client_ids": ["b", "a", "b"]}, ("description", "lti", "client_ids"), ["a", "b"]),
        # the issuer is compared by the hub with a final slash or without, so it stays as it is
        ({"hub_lti_issuer": "https://a.org/"}, ("description", "lti", "issuer"), "https://a.org/"),
        (
            {"hub_lti_issuer": "https://a.org/"},
            ("description", "lti", "jwks_endpoint"),
            "https://a.org/mod/lti/certs.php",
        ),
        (
            {"hub_lti_authorize_url": "https://b.org/?x=1"},
            ("description", "lti", "authorize_url"),
            "https://b.org/?x=1",
        ),
        ({"hub_default_url": "/git-pull?repo=https%3A%2F%2Fa.org"}, ("description", "servers", "default_url"), None),
    ],
)
def test_values_are_normalised(given: dict[str, Any], path: tuple[str, ...], expected: Any) -> None:
    value: Any = described(**given)
    for key in path:
        value = value[key]
    assert value == (next(iter(given.values())) if expected is None and "default_url" in path else expected)
    assert type(value) is not bool


def test_public_url_leaves_the_usual_port_out() -> None:
    result, _problems = run("a", good("a"), machine={**MACHINE, "reverse_proxy_https_port": 443})
    assert result is not None
    assert result["description"]["public_url"] == "https://hubs.example.org/a/"


def test_order_in_the_inventory_means_nothing() -> None:
    variables = {
        **good("a"),
        "hub_admins": ["u2", "u1"],
        "hub_environment": {"B": "1", "A": "2"},
        "hub_volumes": [{"source": "/srv/b", "target": "/srv/b"}, {"source": "/srv/a", "target": "/srv/a"}],
        "hub_extra_hosts": {"b": "192.0.2.2", "a": "192.0.2.1"},
    }
    turned = {
        key: value[::-1]
        if isinstance(value, list)
        else dict(reversed(value.items()))
        if isinstance(value, dict)
        else value
        for key, value in reversed(variables.items())
    }
    assert json.dumps(run("a", variables)[0]) == json.dumps(run("a", turned)[0])


def test_certificates_are_read_and_kept_apart(tmp_path: Any) -> None:
    (tmp_path / "site.pem").write_text("Subject: a site\n" + PEM + PEM.replace("\n", "\r\n"))
    result, problems = run("a", {**good("a"), "hub_ca_certificates": ["site.pem"]}, directory=str(tmp_path))
    assert problems == []
    assert result is not None
    assert result["hub"]["ca_certificates"] == {"site.crt": PEM + PEM}


def test_two_certificates_do_not_become_one(tmp_path: Any) -> None:
    for name in ("a/site.pem", "b/site.crt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(PEM)
    variables = {**good("a"), "hub_ca_certificates": ["a/site.pem", "b/site.crt"]}
    (problem,) = run("a", variables, directory=str(tmp_path))[1]
    assert says(str(problem), "a", "hub_ca_certificates[1]", '"b/site.crt"', "Rename")


@pytest.mark.parametrize(
    ("platform", "issuer", "authorize_url", "jwks_endpoint"),
    [
        (
            "moodle",
            "https://a.org/moodle",
            "https://a.org/moodle/mod/lti/auth.php",
            "https://a.org/moodle/mod/lti/certs.php",
        ),
        (
            "canvas",
            "https://canvas.instructure.com",
            "https://sso.canvaslms.com/api/lti/authorize_redirect",
            "https://sso.canvaslms.com/api/lti/security/jwks",
        ),
        ("canvas", "https://c.org", "https://c.org/api/lti/authorize_redirect", "https://c.org/api/lti/security/jwks"),
    ],
)
def test_endpoints_follow_from_the_issuer(platform: str, issuer: str, authorize_url: str, jwks_endpoint: str) -> None:
    assert endpoints(platform, issuer) == (authorize_url, jwks_endpoint)


def test_sheet_tells_the_lms_admin_everything() -> None:
    sheet = described(hub_lti_client_ids=["one", "two"])["lms_sheet"]
    base = "https://hubs.example.org:8443/math101/"
    lines = {line.split(":", 1)[0].strip(): line.split(":", 1)[1].strip() for line in sheet.splitlines() if ":" in line}
    assert lines["Tool URL (launch URL)"] == base
    assert lines["Initiate login URL"] == base + "hub/lti13/oauth_login"
    assert lines["Redirection URI"] == base + "hub/lti13/oauth_callback"
    assert lines["Launch container"].startswith("Existing window")
    assert lines["Platform ID (issuer)"] == "https://lms.example.org"
    assert [line.split()[-1] for line in sheet.splitlines() if "Client ID" in line] == ["one", "two"]
    assert sheet.isascii()
    assert "send back" not in sheet


def test_sheet_of_a_hub_without_lms_asks_for_its_values() -> None:
    result, _problems = run("math101", {"hub_machine": "m1", "hub_port": 8101})
    assert result is not None
    assert "Please send back" in result["lms_sheet"]


def test_sheet_has_the_links() -> None:
    plain = {"title": "Übung 1", "repository": "https://git.example.org/a/math101.git"}
    full = {**plain, "title": "Data", "branch": "wi/26", "folder": "data", "path": "a b/c&d.ipynb"}
    lines = described(hub_links=[plain, full])["lms_sheet"].splitlines()
    base = "    https://hubs.example.org:8443/math101/hub/user-redirect/git-pull?repo=https%3A%2F%2Fgit.example.org%2Fa%2Fmath101.git"
    assert lines[lines.index("  Übung 1") + 1] == f"{base}&targetpath=math101&urlpath=lab%2Ftree%2Fmath101"
    address = lines[lines.index("  Data") + 1]
    assert address == f"{base}&branch=wi%2F26&targetpath=data&urlpath=lab%2Ftree%2Fdata%2Fa%2520b%2Fc%2526d.ipynb"


def test_only_the_hub_that_is_named_may_begin_to_forget() -> None:
    assert described(hub_forget=True, hub_forget_homes="math101")["hub"]["forget_homes"]
    assert not described(hub_forget=True, hub_forget_homes="physics")["hub"]["forget_homes"]


# ---------------------------------------------------------------- bad hubs


@pytest.mark.parametrize("host", [host for host, case in BAD.items() if not case.get("rendered")])
def test_bad_hub_is_refused(host: str) -> None:
    case = BAD[host]
    result, problems = run(host, inventory_variables(host, case))
    assert result is None
    assert len({problem.key for problem in problems}) == len(problems)
    expected = [case["key"], case["value"], case["remedy"], case.get("says", "")]
    assert any(says(str(problem), host, *expected) for problem in problems), problems
    assert all("\n" not in str(problem) and str(problem).isprintable() for problem in problems)


def test_there_are_enough_bad_hubs() -> None:
    assert len(BAD) >= 60


def test_every_problem_is_reported() -> None:
    problems = run("a", {**good("a"), "hub_port": 1, "hub_memory": "x", "hub_cpu": 1, "hub_path": "/"})[1]
    assert [problem.key for problem in problems] == ["hub_cpu", "hub_port", "hub_path", "hub_memory"]


def test_a_template_that_failed_is_one_problem() -> None:
    (problem,) = run("a", {**good("a"), "hub_path": Unusable("{{ x }}", "'x' is undefined")})[1]
    assert says(str(problem), "a", "hub_path", '"{{ x }}"', "define the variable", "'x' is undefined")


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("reverse_proxy_server_name", "a b", "hubs.example.org"),
        ("reverse_proxy_server_name", None, "hubs.example.org"),
        ("reverse_proxy_https_port", 0, "from 1"),
        ("hub_image_definitions", Unusable("{{ x }}", "'x' is undefined"), "define the variable"),
    ],
)
def test_what_the_machine_must_tell(variable: str, value: Any, remedy: str) -> None:
    (problem,) = run("a", good("a"), machine={**MACHINE, variable: value})[1]
    assert problem.key == f"{variable} of machine m1"
    assert remedy in problem.remedy


def test_a_path_has_two_hundred_characters_at_most() -> None:
    for length, keys in ((200, []), (201, ["hub_path"])):
        problems = run("a", {**good("a"), "hub_path": f"/{'a' * (length - 2)}/"})[1]
        assert [problem.key for problem in problems] == keys


@pytest.mark.parametrize("target", RESERVED_TARGETS)
def test_no_volume_hides_what_the_hub_uses(target: str) -> None:
    for path in (target, target + "/below"):
        variables = {**good("a"), "hub_volumes": [{"source": "/srv/a", "target": path}]}
        assert [problem.key for problem in run("a", variables)[1]] == ["hub_volumes[0].target"]


@pytest.mark.parametrize("key", sorted(VARIABLES))
@pytest.mark.parametrize(
    "text", ["{{ lookup('pipe', 'id') }}", "{% set x = 1 %}", "{# x #}", "a\nb", "a\x00b", "a\u202eb"]
)
def test_no_variable_takes_templates_or_control_characters(key: str, text: str) -> None:
    value: Any = text
    if key == "hub_environment":
        value = {"A": text}
    result, problems = run("a", {**good("a"), key: value})
    assert result is None
    assert any(problem.key.startswith(key) for problem in problems)


@pytest.mark.parametrize(
    "text", ['"""; import os #', "\\'); open('pwned', 'w'); ('", "__import__('os').system('id')", "$(id)`id`"]
)
def test_python_and_shell_in_free_text_stay_data(text: str) -> None:
    result = described(hub_environment={"A": text})
    assert json.loads(json.dumps(result["description"]))["servers"]["environment"] == {"A": text}


def test_messages_keep_secrets() -> None:
    for variables in (
        {"hub_environment": {"TOKEN": "s3cret\n"}},
        {"hub_environment": "s3cret"},
        {"hub_environment": {"TOKEN": ["s3cret"]}},
        {"hub_environment": Unusable("{'A': 's3cret', 'B': '{{ x }}'}", "'x' is undefined")},
        {"container_admin_password": "s3cret"},
    ):
        problems = run("a", {**good("a"), **variables})[1]
        assert problems
        assert "s3cret" not in "".join(map(str, problems))


# ---------------------------------------------------------------- hubs beside each other


@pytest.mark.parametrize("name", list(hubs_together()))
def test_hubs_that_clash_are_refused(name: str) -> None:
    case = hubs_together()[name]
    outlines = [outline(host, with_defaults(host, variables)) for host, variables in case["hubs"].items()]
    problems = cross_check(outlines)
    assert len(problems) == len(case["problems"])
    for problem, expected in zip(problems, case["problems"], strict=True):
        assert says(
            str(problem), expected["host"], expected["key"], expected["value"], expected["remedy"], expected["says"]
        )


def test_hubs_of_different_machines_do_not_clash() -> None:
    assert cross_check([Outline("a", "m1", "x", 8101, "/x/"), Outline("b", "m2", "x", 8101, "/x/")]) == []


def test_unknown_values_do_not_clash() -> None:
    assert cross_check([Outline("a", "m1", None, None, None), Outline("b", "m1", None, None, None)]) == []


def test_hubs_may_share_an_account() -> None:
    a = Outline("a", "m1", "a", 1, "/a/", "it", (2000, None, True, ["k"], None))
    b = Outline("b", "m1", "b", 2, "/b/", "it", (None, "h", True, ["k"], 2**30))
    assert cross_check([a, b]) == []


@pytest.mark.parametrize("options", ["", 'from="192.0.2.0/24",no-pty ', "restrict "])
def test_public_keys_are_taken_with_options_and_comments(options: str) -> None:
    blob = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + bytes(36)).decode()
    variables = {**good("a"), "container_admin_authorized_keys": [f"{options}ssh-ed25519 {blob} me@example.org  home"]}
    assert run("a", variables)[1] == []
    variables["container_admin_authorized_keys"] = [f"{options}ssh-rsa {blob} me"]
    assert [problem.key for problem in run("a", variables)[1]] == ["container_admin_authorized_keys[0]"]


@pytest.mark.parametrize(
    "text",
    ["$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7", "$6$rounds=656000$example$abcdefgh"],
)
def test_hash_of_a_password_is_taken(text: str) -> None:
    assert run("a", {**good("a"), "container_admin_password_hash": text})[1] == []


def test_only_the_plays_hubs_are_refused() -> None:
    outlines = [Outline("a", "m1", "a", 8101, "/a/"), Outline("b", "m1", "b", 8101, "/b/")]
    assert [problem.host for problem in cross_check(outlines, {"a"})] == ["a"]


def test_a_path_that_only_begins_alike_is_fine() -> None:
    assert cross_check([Outline("a", "m1", "a", 1, "/math/"), Outline("b", "m1", "b", 2, "/math101/")]) == []


# ---------------------------------------------------------------- settings of machines


def test_a_value_that_any_machine_has_is_no_mistake() -> None:
    names = ("hub_image_proxy", "podman_store")

    def refused(*machines: dict[str, Any]) -> list[str]:
        variables = {"hub_machine": "m1", "podman_store": "/a"}
        return [problem.key for problem in misplaced("hub", variables, names, lambda: machines)]

    assert refused({}, {"podman_store": "/b"}) == ["podman_store"]
    assert refused({"podman_store": "/b"}, {"podman_store": "/a"}) == []


def test_machines_are_not_looked_at_for_a_hub_without_such_settings() -> None:
    def machines() -> list[dict[str, Any]]:
        raise AssertionError

    assert misplaced("hub", {"hub_image": "standard"}, ("hub_image_proxy",), machines) == []


def test_what_comes_from_a_vault_is_not_shown() -> None:
    class Encrypted:
        def __str__(self) -> str:
            return "s3cret"

    variables = {"podman_store": {"a": [Encrypted()]}}
    (problem,) = misplaced("hub", variables, ("podman_store",), list)
    assert str(problem).startswith('hub: podman_store = {"a": ["(from a vault)"]}: it is a setting of machines')
    assert "Set it for its machine" in str(problem)


@pytest.mark.parametrize(("source", "features"), [({"features": ["lsp"]}, ["lsp"]), ({"source": "pull"}, None)])
def test_features_are_known_of_images_that_are_built(source: dict[str, Any], features: list[str] | None) -> None:
    machine = {**MACHINE, "hub_image_definitions": [{"name": "standard", **source}]}
    result, problems = run("math101", good("math101"), machine=machine)
    assert problems == []
    assert result is not None
    assert result["hub"]["features"] == features
