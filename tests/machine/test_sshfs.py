"""Files of container admins from elsewhere, and files from elsewhere for hubs: real clients, real servers."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import container, data_sets
from conftest import INVENTORY, Apply

from testbed.client import HARDENED, MACHINE4, Client
from testbed.common import REPOSITORY
from testbed.machine import Machine, key_pair
from testbed.remote import PORT, USER, Remote
from testbed.waiting import until

NAME = "courier"
HOME = f"/home/{NAME}"
PASSWORD = secrets.token_urlsafe()
HASH = subprocess.run(
    ["openssl", "passwd", "-6", "-salt", "ananke", PASSWORD], capture_output=True, text=True, check=True
).stdout.strip()


def grant(machine: Machine, **options: object) -> None:
    """Let the module `container_admin` see to the account."""
    arguments = json.dumps({"name": NAME, **options})
    module = ["-m", "ananke.jupyterhub.container_admin", "-a", arguments, "--become", "-e", f"ansible_port={HARDENED}"]
    done = subprocess.run(
        ["ansible", machine.name, "-i", str(INVENTORY), *module],
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Courier:
    """A container admin with a key, a password and a home on an image of its own, at work elsewhere."""

    def __init__(self, machine: Machine, client: Client, folder: Path) -> None:
        self.machine, self.client = machine, client
        self.key = folder / "key"
        self.public = key_pair(self.key, NAME)
        self.mounted = folder / "mounted"

    def sftp(self, *commands: str, password: str | None = PASSWORD) -> subprocess.CompletedProcess[str]:
        """Let OpenSSH's client do this; it ends at the first command that fails, unless that begins with a dash."""
        options = self.client.settings(key=str(self.key), password=password)
        line = ["sftp", "-F", "none", "-P", str(HARDENED), *options, "-b", "-", f"{NAME}@{MACHINE4}"]
        # in a batch, sftp tells ssh to ask for nothing
        line[1:1] = ["-o", "BatchMode=no"]
        return self.client.run(*line, check=False, env=self.client.types(password), input="\n".join(commands) + "\n")

    def mount(self, folder: str = "") -> None:
        """Mount the home, or another folder, by sshfs."""
        self.mounted.mkdir(exist_ok=True)
        options = [*self.client.settings(key=str(self.key), password=PASSWORD), "-o", f"port={HARDENED}"]
        line = ["sshfs", *options, f"{NAME}@{MACHINE4}:{folder}", str(self.mounted)]
        self.client.run(*line, env=self.client.types(PASSWORD))

    def unmount(self) -> None:
        """Unmount it, if it is mounted."""
        subprocess.run(["fusermount3", "-uz", str(self.mounted)], check=False, capture_output=True)

    def own(self, script: str) -> str:
        """Output of a shell's script as the account, past SSH."""
        return self.machine.exec("runuser", "-u", NAME, "--", "sh", "-c", f"cd; {script}").stdout


@pytest.fixture(scope="module")
def courier(machine: Machine, client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Courier]:
    made = Courier(machine, client, tmp_path_factory.mktemp("courier"))
    grant(machine, password_hash=HASH, authorized_keys=[made.public.strip()], home_size="256M")
    yield made
    made.unmount()
    script = (
        f"rm /etc/ssh/ananke.d/{NAME}.conf; systemctl reload ssh; sha256sum /etc/ssh/ananke.d/* >/run/ananke/logins.applied;"
        f"uid=$(id -u {NAME}); loginctl disable-linger {NAME}; systemctl stop user@$uid home-{NAME}.mount;"
        f"systemctl disable home-{NAME}.mount; rm -f /etc/systemd/system/home-{NAME}.mount /var/lib/ananke/homes/{NAME}.img*;"
        f"userdel --remove {NAME}; rm -rf --one-file-system {HOME}; systemctl daemon-reload"
    )
    machine.exec("sh", "-c", script, check=False)


def test_sftp_needs_key_and_password(courier: Courier) -> None:
    assert courier.sftp("ls").returncode == 0
    alone = courier.sftp("ls", password=None)
    assert alone.returncode != 0
    assert "Permission denied (keyboard-interactive)" in alone.stderr


def test_sftp_reads_and_writes_the_home(courier: Courier, tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("parcel\n")
    done = courier.sftp(
        f"put {tmp_path}/sent one",
        "rename one two",
        "mkdir folder",
        "rename two folder/three",
        "ln -s folder/three link",
    )
    assert done.returncode == 0, done.stderr
    assert courier.own("cat link; stat -c '%a %U' folder folder/three").split() == ["parcel", "750", NAME, "640", NAME]
    got = courier.sftp(f"get {HOME}/link {tmp_path}/got", "rm link", "rm folder/three", "rmdir folder")
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "got").read_text() == "parcel\n"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/shadow",
        "/etc/hostname",
        "../../etc/hostname",
        "/home/hostadmin",
        "/proc/1/root/etc/hostname",
        "out",
        "up/etc/hostname",
    ],
)
def test_sftp_shows_nothing_outside_the_home(courier: Courier, tmp_path: Path, path: str) -> None:
    courier.own("ln -sfn /etc/hostname out; ln -sfn / up")
    assert courier.own("cat out").strip() == courier.machine.name, "the account itself may read it"
    done = courier.sftp(f"get {path} {tmp_path}/got")
    assert done.returncode != 0
    assert not (tmp_path / "got").exists()


def test_sftp_writes_nothing_outside_the_home(courier: Courier, tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("parcel\n")
    courier.own("ln -sfn /tmp tmp")
    for path in ("/tmp/sent", "/sent", "tmp/sent", "/dev/shm/sent", "../sent"):  # noqa: S108 - where everybody may write
        assert courier.sftp(f"put {tmp_path}/sent {path}").returncode != 0, path
    courier.own("rm tmp; test ! -e /tmp/sent")


def test_sftp_sees_no_more_than_it_needs(courier: Courier) -> None:
    lines = courier.sftp("ls -1 /", "ls -1 /home", "ls -1 /etc").stdout.splitlines()
    seen = {line for line in lines if line.startswith("/")}
    needed = {f"/{name}" for name in ("dev", "etc", "home", "lib", "lib64", "usr")}
    assert seen == {*needed, HOME, "/etc/passwd", "/etc/group"}


def test_files_of_hub_users_stay_theirs(courier: Courier, tmp_path: Path) -> None:
    """A hub user's files belong to one of the account's subordinate IDs; their modes count."""
    first = courier.machine.exec("sh", "-c", f"grep ^{NAME}: /etc/subuid").stdout.split(":")[1]
    script = (
        f"install -o {first} -m 600 /etc/hostname {HOME}/theirs; install -o {first} -m 644 /etc/hostname {HOME}/shown"
    )
    courier.machine.exec("sh", "-c", script)
    assert courier.sftp(f"get theirs {tmp_path}/got").returncode != 0
    assert courier.sftp(f"get shown {tmp_path}/got").returncode == 0


def test_a_login_shell_is_as_ever(courier: Courier) -> None:
    done = courier.client.ssh(
        "id -un; test -r /etc/hostname && echo $0", user=NAME, key=str(courier.key), password=PASSWORD
    )
    assert done.stdout.split() == [NAME, "bash"], done.stderr


def test_a_key_for_one_command_gets_no_files(courier: Courier) -> None:
    """What a key is for is said in its line, and no setting of sshd's is to go over that."""
    grant(courier.machine, authorized_keys=[f'command="echo only this" {courier.public.strip()}'])
    try:
        done = courier.client.ssh("cat /etc/hostname", user=NAME, key=str(courier.key), password=PASSWORD)
        assert done.stdout == "only this\n"
        assert courier.sftp("ls").returncode != 0
    finally:
        grant(courier.machine, authorized_keys=[courier.public.strip()])


def test_host_admins_are_not_confined(client: Client) -> None:
    line = ["sftp", "-o", "BatchMode=no", "-F", "none", "-P", str(HARDENED), *client.settings(), "-b", "-"]
    done = client.run(*line, f"{client.machine.ssh_user}@{MACHINE4}", env=client.types(), input="ls /etc/ssh\n")
    assert "/etc/ssh/sshd_config" in done.stdout


def test_a_mount_reads_and_writes(courier: Courier) -> None:
    courier.mount()
    try:
        mounted = courier.mounted
        assert os.statvfs(mounted).f_blocks * os.statvfs(mounted).f_frsize < 300_000_000, (
            "the size of the home's own file system"
        )
        data = os.urandom(3_000_000)
        (mounted / "one").write_bytes(data)
        (mounted / "one").rename(mounted / "two")
        os.truncate(mounted / "two", 1_000_000)
        (mounted / "link").symlink_to("two")
        assert (mounted / "link").read_bytes() == data[:1_000_000]
        with (mounted / "two").open("ab") as stream:
            stream.write(b"end")
        assert courier.own("tail -c 3 two; stat -c ' %a %s' two").split() == ["end", "640", "1000003"]
        (mounted / "two").unlink()
        assert not courier.own("ls two || true").strip()
    finally:
        courier.unmount()


def test_a_mount_of_what_lies_outside_shows_nothing(courier: Courier) -> None:
    courier.mount("/")
    try:
        assert not (courier.mounted / "etc/shadow").exists()
        assert sorted(os.listdir(courier.mounted / "home")) == [NAME]
        with pytest.raises(OSError, match="new"):
            (courier.mounted / "new").write_text("")
    finally:
        courier.unmount()


def test_what_was_transferred_is_in_the_journal(courier: Courier) -> None:
    courier.sftp("mkdir parcels", "rmdir parcels")
    show = ("journalctl", "--since=-2min", "--identifier=sftp-server", "--output=cat")
    line = f'mkdir name "{HOME}/parcels"'
    until(lambda: courier.machine.exec(*show).stdout, 60, "the journal has the transfer", lambda lines: line in lines)


SET = f"{data_sets.FOLDER}/corpus"
READ = ["cat", "/srv/corpus/files/file"]


@pytest.fixture(scope="module")
def remote(client: Client) -> Iterator[Remote]:
    """Another machine, which knows nobody's key."""
    made = Remote(client)
    made.remove()
    made.make()
    made.start()
    yield made
    made.remove()


class Hub:
    """A rootless container of the account's, with the volume that a hub would have."""

    def __init__(self, courier: Courier) -> None:
        self.courier = courier

    def start(self) -> None:
        """Start it, from a few programs of the machine's own."""
        programs = "/bin/sh /bin/cat /bin/sleep"
        script = (
            f"cd {HOME}; mkdir -p root/srv/corpus root/dev root/proc root/sys root/tmp;"
            f"for p in {programs}; do for f in $p $(ldd $p | grep -o '/[^ ]*'); do install -D $f root$f; done; done; chown -R {NAME}: root"
        )
        self.courier.machine.exec("sh", "-c", script)
        volume = container.Volume(SET, "/srv/corpus", True, True)
        described = container.Container(name="hub", image="", folder="", port=0, volumes=(volume,))
        self.podman(
            "run",
            "--detach",
            "--name=hub",
            f"--volume={described.mounts[-1]}",
            "--rootfs",
            f"{HOME}/root",
            "sleep",
            "3600",
        )

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run podman as the account."""
        script = 'cd; export XDG_RUNTIME_DIR=/run/user/$(id -u); exec timeout 90 podman "$@"'
        return self.courier.machine.exec("runuser", "-u", NAME, "--", "sh", "-c", script, "-", *arguments, check=check)

    def sees(self, *command: str, user: str = "0") -> str:
        """What a command says in it, and its errors."""
        done = self.podman("exec", f"--user={user}", "hub", *command, check=False)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def hub(courier: Courier, remote: Remote, apply: Apply) -> Iterator[Hub]:
    """A hub with a data set, which was described to a machine that did not let anybody in yet."""
    made = apply("sshfs", sshfs_mounts=[described(remote)])
    assert made.status == 0, made.output
    assert "the other machine refuses the login" in made.output
    line = re.search(r'restrict,command="internal-sftp" ssh-ed25519 \S+', made.output.replace("\\", ""))
    assert line, made.output
    started = Hub(courier)
    started.start()
    assert "file" in started.sees(*READ)
    remote.trust(line[0])
    yield started
    started.podman("rm", "--force", "--time=0", "hub", check=False)
    apply("sshfs")


def described(remote: Remote, **more: object) -> dict[str, object]:
    return {"name": "corpus", "source": remote.source, "port": PORT, "host_keys": [remote.host_key], **more}


def test_a_hub_reads_a_data_set_of_another_machine(hub: Hub) -> None:
    assert hub.sees(*READ) == "datum\n"
    assert hub.sees(*READ, user="61200") == "datum\n", "hub users have other UIDs"
    assert "Read-only file system" in hub.sees("sh", "-c", "echo >/srv/corpus/files/new")


def test_nothing_changes_when_nothing_is_to(hub: Hub, remote: Remote, apply: Apply) -> None:
    again = apply("sshfs", sshfs_mounts=[described(remote)])
    assert (again.status, again.changed) == (0, 0), again.output
    assert "WARNING" not in again.output


def test_a_data_set_comes_back_with_its_machine(hub: Hub, remote: Remote) -> None:
    assert hub.sees(*READ) == "datum\n"
    remote.stop()
    began = time.monotonic()
    assert "datum" not in hub.sees(*READ)
    assert time.monotonic() - began < 60
    remote.start()
    until(lambda: hub.sees(*READ), 60, "the data set is back", lambda seen: seen == "datum\n")


def test_another_machine_in_its_place_is_refused(hub: Hub, remote: Remote, apply: Apply, other_key: str) -> None:
    changed = apply("sshfs", sshfs_mounts=[described(remote, host_keys=[other_key])])
    assert changed.status == 0
    assert "shows another host key" in changed.output
    assert "datum" not in hub.sees(*READ)
    back = apply("sshfs", sshfs_mounts=[described(remote)])
    assert "WARNING" not in back.output
    assert hub.sees(*READ) == "datum\n", "the running container sees the new mount"


def test_who_may_write_is_said(hub: Hub, remote: Remote, apply: Apply, courier: Courier) -> None:
    uid, gid = (int(courier.own(f"id -{kind}")) for kind in "ug")
    apply("sshfs", sshfs_mounts=[described(remote, read_only=False, uid=uid, gid=gid)])
    write = ["sh", "-c", "echo new >/srv/corpus/files/new"]
    assert "Permission denied" in hub.sees(*write, user="61200")
    assert not hub.sees(*write), "root in the container is the account"
    assert courier.machine.exec("cat", f"/home/{USER}/set/new").stdout == "new\n"


def test_a_data_set_goes(hub: Hub, remote: Remote, apply: Apply, courier: Courier) -> None:
    gone = apply("sshfs")
    assert gone.changed == 1, gone.output
    assert "datum" not in hub.sees(*READ)
    left = f"ls -d /etc/systemd/system/*corpus* {data_sets.KEYS}/corpus; findmnt --noheadings {SET}/files"
    assert not courier.machine.exec("sh", "-c", left, check=False).stdout


@pytest.fixture(scope="module")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The host key of another machine."""
    return " ".join(key_pair(tmp_path_factory.mktemp("keys") / "other", "other").split()[:2])
