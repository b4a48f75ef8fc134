"""What a student cannot reach: other homes, the hub's insides, the system, other hubs. Looked at from where they sit."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from browsing import Kernel, Lab, Person, Visitor
from facts import Demo, Hub, Machine
from playwright.sync_api import Browser

from exposure import exposures

DYNAMIC_UIDS = range(61184, 65520)
# What the hub must keep to itself, by the path in its container.
HUB_SECRETS = (
    "/var/lib/jupyterhub/jupyterhub.sqlite",
    "/var/lib/jupyterhub/cookie_secret",
    "/var/lib/jupyterhub/crypt_key",
    "/var/lib/jupyterhub/proxy.env",
    "/var/lib/jupyterhub/api_token",
    "/var/lib/jupyterhub/user_data.json",
    "/opt/user_data.json",
    "/etc/ananke/hub.json",
    "/opt/conda/envs/jhub/etc/jupyterhub/jupyterhub_config.d/00_base.py",
    "/etc/shadow",
)


@dataclass
class Seat:
    """A student at work: their server and a kernel in it."""

    person: Person
    visitor: Visitor
    lab: Lab
    kernel: Kernel

    def look(self, code: str, timeout: float = 60) -> Any:
        """Run Python in the student's kernel; the code leaves its finding in `found`, which is handed back."""
        program = f"{textwrap.dedent(code)}\nimport json as _json; print('FOUND' + _json.dumps(found))"
        return json.loads(self.kernel.run(program, timeout).rpartition("FOUND")[2])


@pytest.fixture(scope="module")
def seats(students: list[Person], hub: Hub, browser: Browser, demo: Demo) -> Iterator[list[Seat]]:
    """Two students at work on the same hub at the same time."""
    taken = []
    for person in students[:2]:
        visitor = Visitor(browser.new_context(), demo, person)
        lab = visitor.enter(hub)
        taken.append(Seat(person, visitor, lab, lab.kernel()))
    yield taken
    for seat in taken:
        seat.lab.close_kernels()
        seat.visitor.close()


def test_students_have_uids_of_their_own(seats: list[Seat]) -> None:
    uids = [seat.look("import os\nfound = [os.getuid(), os.geteuid(), os.getgid()]") for seat in seats]
    assert uids[0][0] != uids[1][0]
    for uid, euid, gid in uids:
        assert uid == euid
        assert uid in DYNAMIC_UIDS
        assert gid in DYNAMIC_UIDS


def test_a_student_s_home_is_theirs_and_closed_to_others(seats: list[Seat], hub: Hub) -> None:
    owner, other = seats
    home = owner.look(
        """
        import os, pathlib
        home = pathlib.Path.home()
        (home / "open.txt").write_text("for my eyes only")
        (home / "open.txt").chmod(0o666)
        found = [str(home), os.path.realpath(home), str(home.stat().st_uid == os.getuid())]
        """
    )
    assert home[2] == "True"
    places = sorted({home[0], home[1], f"/var/lib/private/{owner.lab.user}", f"/var/lib/{owner.lab.user}"})
    known = [place for place in places if hub.exec(f"test -e {place}/open.txt", check=False).returncode == 0]
    assert known, f"root of the container finds the file at none of {places}"
    found = other.look(
        f"""
        import os
        found = {{}}
        for place in {known!r}:
            for what, act in [("list", os.listdir), ("read", lambda p: open(p + "/open.txt").read()),
                              ("write", lambda p: open(p + "/open.txt", "a").close()),
                              ("make", lambda p: open(p + "/new.txt", "w").close())]:
                try:
                    found[what + " " + place] = repr(act(place))
                except OSError as error:
                    found[what + " " + place] = None
        """
    )
    # A student's own home may stand at the same path as everybody's (it is mounted); theirs has no such file.
    mine = other.look("import os\nfound = [os.path.expanduser('~'), os.path.realpath(os.path.expanduser('~'))]")
    assert {key: value for key, value in found.items() if value and key.partition(" ")[2] not in mine} == {}
    assert "for my eyes only" not in json.dumps(found)


def test_homes_cannot_even_be_listed(seats: list[Seat]) -> None:
    found = seats[1].look(
        """
        import os
        found = {}
        for place in ("/var/lib/private", "/home", "/root"):
            try:
                found[place] = os.listdir(place)
            except OSError:
                found[place] = []
        """
    )
    assert seats[0].lab.user not in json.dumps(found)
    assert not found["/root"]


def test_the_hub_s_secrets_cannot_be_read(seats: list[Seat], hub: Hub) -> None:
    there = [path for path in HUB_SECRETS if hub.exec(f"test -s {path}", check=False).returncode == 0]
    # these exist on every hub; the rest may come with a setting, and is looked at where it does
    assert {"/var/lib/jupyterhub/jupyterhub.sqlite", "/var/lib/jupyterhub/cookie_secret"} <= set(there)
    assert {"/var/lib/jupyterhub/proxy.env", "/var/lib/jupyterhub/api_token", "/etc/ananke/hub.json"} <= set(there)
    found = seats[0].look(
        f"""
        import os
        found = []
        for path in {there!r}:
            for folder_or_file in (path, os.path.dirname(path)):
                try:
                    content = os.listdir(path) if os.path.isdir(path) else open(path, "rb").read()
                    found.append(path)
                except OSError:
                    pass
        for folder in ("/var/lib/jupyterhub", "/etc/ananke", "/opt/conda/envs/jhub/etc/jupyterhub/jupyterhub_config.d"):
            try:
                found += [folder + "/" + name for name in os.listdir(folder)]
            except OSError:
                pass
        """
    )
    assert found == []


def test_modes_close_the_hub_s_data_too(seats: list[Seat], hub: Hub) -> None:
    """Students' servers do not have these folders at all; whatever else runs in the container is kept out by modes."""
    assert seats
    assert hub.exec("find /var/lib/jupyterhub /etc/ananke /var/lib/private -maxdepth 1 -perm /077").stdout == ""


def test_units_are_no_more_exposed_than_documented(seats: list[Seat], hub: Hub) -> None:
    """docs/security/units.md; a tenth is what versions of systemd differ by."""
    found = exposures(lambda script: str(hub.exec(script).stdout), "jupyter*")
    servers = [found.pop(name) for name in sorted(found) if name.startswith("jupyter-")]
    assert len(servers) >= len(seats)
    assert max(servers) <= 1.8
    assert set(found) == {"jupyterhub", "jupyterhub-proxy"}
    assert found["jupyterhub"] <= 3.7
    assert found["jupyterhub-proxy"] <= 1.6


def test_tokens_of_others_cannot_be_read_from_their_processes(seats: list[Seat]) -> None:
    own, foreign, leaks = seats[0].look(
        """
        import os
        own, foreign, leaks = 0, 0, []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                mine = os.stat("/proc/" + pid).st_uid == os.getuid()
            except OSError:
                continue
            own, foreign = own + mine, foreign + (not mine)
            if not mine:
                for name in ("environ", "mem", "maps", "cwd", "root", "fd"):
                    try:
                        path = "/proc/%s/%s" % (pid, name)
                        if name in ("cwd", "root"):
                            os.readlink(path)
                        elif name == "fd":
                            os.listdir(path)
                        else:
                            open(path, "rb").read(1)
                        leaks.append(path)
                    except OSError:
                        pass
        found = [own, foreign, leaks]
        """
    )
    assert own >= 2
    assert leaks == [], f"of {foreign} processes of others"


def test_no_token_of_anybody_stands_in_a_command_line(seats: list[Seat]) -> None:
    lines = seats[0].look(
        """
        import os
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                found.append(open("/proc/%s/cmdline" % pid, "rb").read().replace(b"\\0", b" ").decode(errors="replace"))
            except OSError:
                pass
        """
    )
    assert [line for line in lines if "token" in line.lower() or "secret" in line.lower()] == []


@pytest.fixture
def open_folders(hub: Hub) -> Iterator[list[str]]:
    """Folders of the system whose modes let everybody write."""
    folders = [f"{top}/open-to-everybody" for top in ("/opt", "/opt/conda/envs/python3", "/usr/local", "/etc", "/srv")]
    hub.exec(f"mkdir -m 1777 {' '.join(folders)}")
    yield folders
    hub.exec(f"rm -r {' '.join(folders)}")


def test_system_and_opt_cannot_be_written(seats: list[Seat], open_folders: list[str]) -> None:
    """Whatever modes say: the whole system is read-only for students."""
    writable, written = seats[0].look(
        f"""
        import os, stat
        home = os.path.realpath(os.path.expanduser("~"))
        # home, private scratch folders, the unit's own run-time folder; what is not a file system of the container's
        own = {{home, os.path.expanduser("~"), "/tmp", "/var/tmp", os.environ.get("RUNTIME_DIRECTORY"),
               "/dev", "/proc", "/sys"}}
        writable = []
        for top, folders, files in os.walk("/"):
            folders[:] = [name for name in folders if os.path.join(top, name) not in own
                          and not os.path.islink(os.path.join(top, name))]
            if os.access(top, os.W_OK):
                writable.append(top)
        written = []
        for place in ("/", "/opt", "/opt/conda", "/opt/conda/envs", "/opt/conda/envs/jhub", "/opt/conda/envs/python3",
                      "/opt/conda/envs/python3/lib", "/usr/local/bin", "/etc", "/var/lib", "/home", "/root", "/boot", *{open_folders!r}):
            try:
                path = os.path.join(place, ".written-by-a-student")
                open(path, "w").close()
                written.append(path)
                os.remove(path)
            except OSError:
                pass
        found = [sorted(writable), written]
        """,
        timeout=180,
    )
    assert written == []
    assert [place for place in writable if not place.startswith("/opt/nbgrader_exchange")] == []


def test_tmp_is_private(seats: list[Seat], hub: Hub) -> None:
    first, second = seats
    first.look(
        """
        import os
        for place in ("/tmp", "/var/tmp"):
            open(place + "/left-by-a-student", "w").write("mine")
            os.chmod(place + "/left-by-a-student", 0o666)
        found = True
        """
    )
    assert second.look(
        "import os\nfound = [os.path.exists(p + '/left-by-a-student') for p in ('/tmp', '/var/tmp')]"
    ) == [False, False]
    assert hub.exec("ls /tmp/left-by-a-student /var/tmp/left-by-a-student", check=False).returncode != 0


def test_a_student_stays_a_student(seats: list[Seat]) -> None:
    status, sudo = seats[0].look(
        """
        import shutil, subprocess
        status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
        sudo = shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode
        found = [{key: status[key].strip() for key in ("CapEff", "CapPrm", "NoNewPrivs")}, sudo]
        """
    )
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert sudo != 0


def test_other_students_servers_and_the_hub_s_apis_do_not_open_by_loopback(seats: list[Seat], hub: Hub) -> None:
    """Everything that listens in the container is asked from a student's kernel, without the student's browser."""
    listening = hub.exec("cat /proc/net/tcp /proc/net/tcp6").stdout.splitlines()
    ports = sorted({int(line.split()[1].rpartition(":")[2], 16) for line in listening if line.split()[3:4] == ["0A"]})
    assert 8000 in ports
    user, base = seats[1].lab.user, urlsplit(seats[1].lab.base).path
    paths = [f"{base}api/contents", f"{base}api/kernels", "/api/routes", f"{hub.path}hub/api/users"]
    paths.append(f"{hub.path}hub/api/users/{user}")
    answers = seats[0].look(
        f"""
        import http.client, itertools
        from concurrent.futures import ThreadPoolExecutor

        def ask(question):
            port, path, method = question
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request(method, path)
                return [method, port, path, connection.getresponse().status]
            except (OSError, http.client.HTTPException):
                return [method, port, path, 0]
            finally:
                connection.close()

        with ThreadPoolExecutor(16) as pool:
            answers = pool.map(ask, itertools.product({ports!r}, {paths!r}, ("GET", "POST")))
        found = [answer for answer in answers if 200 <= answer[3] < 300]
        """,
        timeout=180,
    )
    assert answers == []


def addresses_of_the_machine(machine: Machine) -> list[str]:
    """Every address by which something in a container might try to reach the machine."""
    own = machine.ssh("hostname -I").stdout.split()
    return [*own, "127.0.0.1", "10.0.2.2", "169.254.1.2", "host.containers.internal"]


PROBE = """
import http.client, itertools, socket
from concurrent.futures import ThreadPoolExecutor

gateways = []
for line in open("/proc/net/route").read().splitlines()[1:]:
    part = line.split()
    if part[1] == "00000000":
        gateways.append(socket.inet_ntoa(bytes.fromhex(part[2])[::-1]))


def ask(question):
    address, port = question
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", {path!r})
        answer = connection.getresponse()
        return answer.status == 200 and b"version" in answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


questions = list(itertools.product({addresses!r} + gateways, {ports!r}))
with ThreadPoolExecutor(16) as pool:
    found = [question for question, open_ in zip(questions, pool.map(ask, questions)) if open_]
"""


def test_other_hubs_are_reachable_only_by_their_public_address(
    seats: list[Seat], hub: Hub, demo: Demo, machine: Machine
) -> None:
    addresses = addresses_of_the_machine(machine)
    for other in demo.hubs.values():
        if other.name == hub.name:
            continue
        port = other.port()
        path = f"{other.path}hub/api"
        # the probe would find it: from the machine's own loopback it answers
        probe = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}{path}', timeout=5).status)"
        assert machine.ssh(f"python3 -c {shlex.quote(probe)}").stdout.strip() == "200"
        # 8000 too: another container's own port, if its network could be reached
        code = PROBE.format(addresses=addresses, ports=[port, 8000, 8001, 8081], path=path)
        assert seats[0].look(code, timeout=180) == [], f"{other.name} can be reached past nginx"
        # and as root of the container, without the student's limits
        program = f"{code}\nprint(found)"
        assert hub.exec(f"/opt/conda/bin/python -c {shlex.quote(program)}", timeout=180).stdout.strip() == "[]"


def test_another_hub_s_container_cannot_see_or_change_this_hub_s_files(hub: Hub, other_hub: Hub) -> None:
    assert hub.container_admin != other_hub.container_admin
    marker = f"only-{hub.name}-may-know-this"
    hub.exec(f"echo {marker} >/var/lib/jupyterhub/{marker} && chmod 666 /var/lib/jupyterhub/{marker}")
    try:
        # as root inside the other container: no path leads to the file, whoever's it is
        search = f"find / -path /proc -prune -o -path /sys -prune -o -name {marker} -print 2>/dev/null"
        assert marker in hub.exec(search, check=False, timeout=300).stdout
        assert other_hub.exec(search, check=False, timeout=300).stdout == ""
        mounts = other_hub.exec("cat /proc/self/mountinfo").stdout
        assert f"/hubs/{hub.name}/" not in mounts
        # nor does what the other container writes into the image that both share
        other_hub.exec(f"touch /opt/conda/{marker} /opt/conda/envs/python3/{marker}")
        try:
            assert hub.exec(f"find /opt/conda -maxdepth 3 -name {marker}").stdout == ""
        finally:
            other_hub.exec(f"rm -f /opt/conda/{marker} /opt/conda/envs/python3/{marker}")
    finally:
        hub.exec(f"rm -f /var/lib/jupyterhub/{marker}")


def test_another_hub_s_container_admin_cannot_reach_this_hub_on_the_machine(
    hub: Hub, other_hub: Hub, machine: Machine
) -> None:
    folder = hub.folder
    assert machine.as_root(f"test -d {folder}/data", check=False).returncode == 0
    for command in (
        f"ls {folder}",
        f"ls {folder.rpartition('/hubs/')[0]}",
        f"cat {folder}/description/hub.json",
        f"cat {folder}/data/cookie_secret",
        f"cat {folder}/lms.txt",
        f"touch {folder}/data/x",
        f"{folder}/shell true",
        f"podman exec {hub.container} true",
    ):
        done = other_hub.admin(command, check=False)
        assert done.returncode != 0, f"{command} works: {done.stdout}"
    pid = machine.as_root(
        f"cd / && sudo -u {hub.container_admin} XDG_RUNTIME_DIR=/run/user/$(id -u {hub.container_admin}) "
        f"podman container inspect --format '{{{{.State.Pid}}}}' {hub.container}"
    ).stdout.strip()
    for name in ("environ", "root/etc/ananke/hub.json", "root/var/lib/jupyterhub/cookie_secret"):
        assert other_hub.admin(f"cat /proc/{pid}/{name}", check=False).returncode != 0
    assert other_hub.admin(f"kill -0 {pid}", check=False).returncode != 0
    # the store of images that all share can be read, and nothing else
    writable = other_hub.admin("find /var/lib/ananke /etc/ananke -writable ! -type l 2>/dev/null", check=False)
    assert writable.stdout == ""
