# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays that a real ansible-playbook runs on this computer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml
from description_cases import ROOT


def succeed(folder: Path, inventory: dict[str, Any], play: dict[str, Any]) -> str:
    """All that a run says, which must succeed; its files lie in the folder."""
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        ["ansible-playbook", "-i", str(folder / "hosts.yml"), str(folder / "play.yml")],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
