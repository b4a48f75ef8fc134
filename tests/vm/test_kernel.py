"""What the roles `baseline` and `cgroups` do to a kernel, and that hubs can live with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import INVENTORY, NAME, Applied
from guest import Guest

import playbook

SETTINGS = {
    "fs.protected_regular": "2",
    "fs.suid_dumpable": "0",
    "kernel.core_pattern": "|/bin/false",
    "kernel.dmesg_restrict": "1",
    "kernel.kptr_restrict": "2",
    "kernel.unprivileged_bpf_disabled": "1",
    "kernel.unprivileged_userns_clone": "1",
    "kernel.yama.ptrace_scope": "1",
    "net.core.bpf_jit_harden": "2",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.default.rp_filter": "1",
    "net.ipv6.conf.all.accept_redirects": "0",
}
PROBE = "kernel-probe"
CRASH = "rm -rf /tmp/crash; mkdir /tmp/crash; cd /tmp/crash; ulimit -c unlimited; sh -c 'kill -SEGV $$' || true; ls"
# an account at work on a machine that delegates little, and a setting that somebody has changed
SABOTAGE = f"""
echo 0 >/proc/sys/kernel/dmesg_restrict
printf '[Service]\\nDelegate=pids\\n' >/etc/systemd/system/user@.service.d/60-ananke.conf
systemctl daemon-reload
useradd --create-home {PROBE}
loginctl enable-linger {PROBE}
systemctl start user@$(id -u {PROBE}).service
"""
SLEEPER = "sleeper.service"


def as_probe(guest: Guest, command: str) -> str:
    """Output of a command of the account, which must succeed."""
    return guest.root(f"cd /; exec sudo -u {PROBE} env XDG_RUNTIME_DIR=/run/user/$(id -u {PROBE}) {command}")


def check_settings(guest: Guest) -> None:
    paths = " ".join(f"/proc/sys/{key.replace('.', '/')}" for key in SETTINGS)
    assert dict(zip(SETTINGS, guest.root(f"cat {paths}").splitlines(), strict=True)) == SETTINGS


def check_tasks(guest: Guest) -> None:
    whole = int(guest.root("cat /proc/sys/kernel/threads-max"))
    found = guest.root("cd /sys/fs/cgroup/user.slice; cat pids.max user-$(id -u small).slice/pids.max")
    shares = [int(number) / whole for number in found.split()]
    assert shares == [pytest.approx(0.9, abs=0.01), pytest.approx(0.8, abs=0.01)]


def test_the_kernel_has_its_settings(applied: Applied) -> None:
    check_settings(applied.guest)
    check_tasks(applied.guest)


def test_it_has_them_after_a_reboot(rebooted: Guest) -> None:
    check_settings(rebooted)
    check_tasks(rebooted)
    controllers = rebooted.root(
        "cat /sys/fs/cgroup/user.slice/user-*.slice/user@$(id -u small).service/cgroup.controllers"
    )
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(controllers.split())


def test_modules_that_nobody_needs_are_not_loaded(rebooted: Guest) -> None:
    for module in ("sctp", "udf", "hfsplus"):
        assert rebooted.root(f"modprobe {module} 2>/dev/null && echo loaded || echo refused") == "refused"
    rebooted.root("modprobe overlay; modprobe fuse; modprobe squashfs; modprobe tun")


def test_apparmor_confines_and_hubs_live_with_it(rebooted: Guest) -> None:
    assert rebooted.root("aa-enabled") == "Yes"
    confined = {line.split()[0] for line in rebooted.root("cat /sys/kernel/security/apparmor/profiles").splitlines()}
    assert {"passt", "pasta"} <= confined, sorted(confined)
    assert rebooted.root("cat /proc/$(pgrep --newest pasta)/attr/apparmor/current").startswith("pasta ")
    assert rebooted.inside(["echo", "a hub runs"]) == "a hub runs"
    assert rebooted.root("journalctl --boot --dmesg --output=cat --grep='apparmor=.DENIED' || true") == ""


def test_no_core_is_left_on_the_machine_or_in_a_hub(rebooted: Guest) -> None:
    assert rebooted.root(CRASH) == ""
    assert rebooted.inside(["sh", "-c", CRASH]) == ""


def test_accounts_have_user_namespaces_and_do_not_read_the_kernel_s_log(rebooted: Guest) -> None:
    assert rebooted.root("sudo -u small unshare --user --map-root-user id --user") == "0"
    assert rebooted.root("sudo -u small dmesg >/dev/null 2>&1 && echo read || echo refused") == "refused"


def test_a_rootless_container_can_be_bound_to_a_cpu(rebooted: Guest) -> None:
    podman = "sudo -u small env XDG_RUNTIME_DIR=/run/user/$(id -u small) podman"
    image = rebooted.root(f"cd /; {podman} container inspect --format {{{{.Image}}}} ananke-small")
    bound = f"run --rm --network=none --cpuset-cpus=1 --entrypoint=cat {image} /sys/fs/cgroup/cpuset.cpus.effective"
    assert rebooted.root(f"cd /; {podman} {bound}") == "1"


@pytest.fixture
def sabotaged(rebooted: Guest) -> Iterator[Guest]:
    """The machine with an account at work that may use few controllers."""
    rebooted.root(SABOTAGE)
    as_probe(rebooted, f"systemd-run --user --unit={SLEEPER} sleep infinity")
    yield rebooted
    rebooted.root(f"loginctl disable-linger {PROBE}; systemctl stop user@$(id -u {PROBE}); userdel --remove {PROBE}")


def test_another_run_repairs_the_machine_and_ends_nobody_s_process(sabotaged: Guest) -> None:
    manager = f"/sys/fs/cgroup/user.slice/user-*.slice/user@$(id -u {PROBE}).service"
    assert "cpuset" not in sabotaged.root(f"cat {manager}/cgroup.controllers")
    before = as_probe(sabotaged, f"systemctl --user show {SLEEPER} --property=MainPID")
    repaired = playbook.succeed("machines", INVENTORY, "--tags=baseline,cgroups", ANANKE_VM=NAME)
    # the kernel's setting; the file; what puts it in force
    assert repaired.changed == 3, repaired.output[-4000:]
    check_settings(sabotaged)
    bound = "systemd-run --user --wait --pipe --quiet --property=AllowedCPUs=1"
    own = "cat /sys/fs/cgroup$(cut -d : -f 3 /proc/self/cgroup)/cpuset.cpus"
    assert as_probe(sabotaged, f"{bound} sh -c '{own}'") == "1"
    assert as_probe(sabotaged, f"systemctl --user show {SLEEPER} --property=MainPID") == before
    assert sabotaged.healthy()
    unchanged = playbook.succeed("machines", INVENTORY, "--tags=baseline,cgroups", ANANKE_VM=NAME)
    assert unchanged.changed == 0, unchanged.output[-4000:]
