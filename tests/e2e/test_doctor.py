"""The playbook `doctor`: a hub that is well, and what it says of one from which something was taken."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from acting import INVENTORY
from facts import Demo, Hub

import playbook
from testbed.waiting import until


@dataclass(frozen=True)
class Ill:
    """What is done to a hub, and what the doctor must say."""

    harm: str
    """A script of root on the machine; {home}, {account}, {hub} and {inside} (a command in the container) are filled in."""
    mend: str
    failing: set[str]
    words: str


CASES = {
    "services": Ill(
        "{inside} systemctl stop jupyterhub",
        "{inside} systemctl start jupyterhub",
        {"services"},
        "systemctl status jupyterhub jupyterhub-proxy",
    ),
    "configuration": Ill(
        "echo 'c.JupyterHub.bind_ulr = 1' >{home}/hubs/{hub}/jupyterhub_config.d/50_mine.py; chown {account}: {home}/hubs/{hub}/jupyterhub_config.d/50_mine.py",
        "rm {home}/hubs/{hub}/jupyterhub_config.d/50_mine.py",
        {"configuration"},
        "bind_ulr",
    ),
    "lms": Ill(
        "{inside} sh -c 'cp /etc/hosts /run/hosts.kept && echo 127.0.0.9 lms.localhost >/etc/hosts'",
        "{inside} sh -c 'cat /run/hosts.kept >/etc/hosts'",
        {"lti_jwks"},
        "correct hub_lti_jwks_endpoint",
    ),
    "path": Ill(
        "rm /etc/nginx/ananke/locations.d/{hub}.conf && systemctl reload nginx", "", {"location"}, "--limit sandbox"
    ),
    # the demo's LMS is behind the same nginx
    "web server": Ill(
        "systemctl stop nginx", "systemctl start nginx", {"web_server", "lti_jwks"}, "systemctl restart nginx"
    ),
    "unit": Ill(
        "{own} systemctl --user stop ananke-{hub}",
        "{own} systemctl --user start ananke-{hub}",
        {"unit"},
        "journalctl --user --unit=ananke-sandbox",
    ),
    "ids": Ill(
        "cp -p /etc/subuid /etc/subuid.kept && sed -i '/^{account}:/d' /etc/subuid",
        "mv /etc/subuid.kept /etc/subuid",
        {"subordinate_ids"},
        "usermod --add-subuids",
    ),
    "linger": Ill(
        "rm /var/lib/systemd/linger/{account}",
        "touch /var/lib/systemd/linger/{account}",
        {"linger"},
        "loginctl enable-linger sandbox",
    ),
    "image": Ill(
        "mv /var/lib/ananke/images/standard.json /var/lib/ananke/images/standard.kept",
        "mv /var/lib/ananke/images/standard.kept /var/lib/ananke/images/standard.json",
        {"image"},
        "run playbooks/images.yml",
    ),
}


@pytest.fixture(scope="module")
def hub(demo: Demo) -> Hub:
    return demo.hubs["sandbox"]


def as_root(hub: Hub, script: str) -> None:
    """Run a script of a case."""
    uid = hub.machine.ssh(f"id -u {hub.container_admin}").stdout.strip()
    own = f"cd / && runuser -u {hub.container_admin} -- env HOME=/home/{hub.container_admin} XDG_RUNTIME_DIR=/run/user/{uid}"
    words = {
        "home": hub.folder.rpartition("/hubs/")[0],
        "account": hub.container_admin,
        "hub": hub.name,
        "own": own,
        "inside": f"{own} podman exec {hub.container}",
    }
    hub.machine.as_root(script.format(**words), timeout=300)


def test_hubs_that_are_well() -> None:
    outcome = playbook.succeed("doctor", INVENTORY, "--limit", "math101,sandbox")
    said = " ".join(outcome.output.split())
    assert "sandbox is well" in said
    assert "math101 is well" in said
    assert outcome.changed == 0


@pytest.mark.parametrize("case", CASES)
def test_one_cause_is_named_with_what_to_do(case: str, hub: Hub) -> None:
    ill = CASES[case]
    as_root(hub, ill.harm)
    try:
        outcome = playbook.run("doctor", INVENTORY, "--limit", "sandbox")
    finally:
        if ill.mend:
            as_root(hub, ill.mend)
        else:
            playbook.succeed("hubs", INVENTORY, "--limit", "sandbox")
        until(hub.healthy, 180, "the hub is well again")
    assert outcome.status != 0
    said = " ".join(outcome.output.split())
    assert ill.words in said, outcome.output[-4000:]
    found = set(re.findall(r"['\"]([a-z_]+): ", said.partition("Action failed: [")[2].partition("Origin:")[0]))
    assert found == ill.failing, outcome.output[-4000:]
