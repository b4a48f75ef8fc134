# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of mail that do not fit together are refused with what to do, and without showing a password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from description_cases import ROOT

PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: ananke.jupyterhub.mail, tasks_from: preflight}
"""
LOGIN = {"mail_smarthost": "smtp.example.org", "mail_smarthost_user": "u", "mail_smarthost_password": "s3cret-word"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ananke_admin_mail": ["a@example.org"]}, "mail for a@example.org has no way there. Set mail_smarthost"),
        (
            {"mail_aliases": {"physics": ["b@example.org"]}},
            "mail for b@example.org has no way there. Set mail_smarthost",
        ),
        ({**LOGIN, "mail_smarthost_user": ""}, "needs mail_smarthost, mail_smarthost_user and mail_smarthost_password"),
        ({**LOGIN, "mail_smarthost": "smtp.example.org:25"}, "its port is mail_smarthost_port"),
        (
            {**LOGIN, "mail_smarthost_user": "a|b"},
            "needs mail_smarthost, mail_smarthost_user and mail_smarthost_password",
        ),
        ({**LOGIN, "mail_smarthost_tls": "none"}, "would send the smarthost's password in clear"),
        ({**LOGIN, "mail_smarthost_fingerprint": "abc"}, "openssl s_client -connect HOST:PORT"),
        ({**LOGIN, "mail_groups": ["nosuchgroup"]}, "does not have: nosuchgroup"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    play = tmp_path / "play.yml"
    play.write_text(PLAY)
    line = [
        "ansible-playbook",
        "-i",
        "localhost,",
        str(play),
        "-e",
        json.dumps({**settings, "ansible_python_interpreter": sys.executable}),
    ]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert message in " ".join((done.stdout + done.stderr).split())
    assert "s3cret-word" not in done.stdout + done.stderr
