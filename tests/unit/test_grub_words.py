"""What update-grub makes of the kernel's command line when it reads the role's file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[2] / "roles/cgroups/templates/grub.cfg.j2"


def read_as_grub_does(line: str, default: str) -> tuple[str, str]:
    """GRUB_CMDLINE_LINUX and GRUB_CMDLINE_LINUX_DEFAULT afterwards."""
    script = TEMPLATE.read_text().replace("{{ ansible_managed }}", "")
    before = f'set -e\nGRUB_CMDLINE_LINUX="{line}"\nGRUB_CMDLINE_LINUX_DEFAULT="{default}"\n'
    after = 'printf "%s\\n%s\\n" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"\n'
    shown = subprocess.run(["sh", "-c", before + script + after], capture_output=True, text=True, check=True).stdout
    first, second = shown.splitlines()
    return first, second


@pytest.mark.parametrize(
    ("line", "default", "kept"),
    [
        ("", "", ("", "")),
        ("console=ttyS0", "quiet", ("console=ttyS0 ", "quiet")),
        ("systemd.unified_cgroup_hierarchy=0 a=b", "quiet systemd.unified_cgroup_hierarchy=false", ("a=b ", "quiet")),
        ("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "cgroup_disable=memory quiet splash", ("", "quiet splash")),
        ("systemd.unified_cgroup_hierarchy=1", "", ("", "")),
    ],
)
def test_what_switches_version_2_off_goes(line: str, default: str, kept: tuple[str, str]) -> None:
    first, second = read_as_grub_does(line, default)
    assert first.strip() == f"{kept[0]}systemd.unified_cgroup_hierarchy=1 cgroup_enable=memory"
    assert second == kept[1]
