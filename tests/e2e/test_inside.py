"""What admins do inside a hub: commands for its users, the owners of homes, its servers, what is known of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from acting import act, send, settled, succeed
from ansible_collections.ananke.jupyterhub.plugins.module_utils import inside, user_ownership
from browsing import Kernel, Lab, Person, Visitor
from facts import ROOT, Demo, DemoError, Hub
from playwright.sync_api import Browser

from testbed.waiting import until

LIVES = 200


@dataclass
class Seat:
    """A student at work on a hub."""

    hub: Hub
    lab: Lab
    kernel: Kernel

    @property
    def user(self) -> str:
        return self.lab.user

    @property
    def home(self) -> str:
        """The home as root of the container sees it."""
        return f"/var/lib/private/{self.user}"

    def owners(self) -> set[str]:
        """UIDs of all files in the home."""
        return set(self.hub.exec(f"find {self.home} -printf '%U\\n' | sort -u").stdout.split())

    def uid(self) -> str:
        """UID that the student's kernel runs as."""
        return self.kernel.run("import os; print(os.getuid())").strip()

    def command(self, **options: object) -> dict[str, object]:
        return succeed(self.hub, "dynamic_user_command", user=self.user, **options)


@pytest.fixture(scope="module")
def seat(students: list[Person], hub: Hub, browser: Browser, demo: Demo) -> Iterator[Seat]:
    visitor = Visitor(browser.new_context(), demo, students[0])
    lab = visitor.enter(hub)
    yield Seat(hub, lab, lab.kernel())
    visitor.close()


# ---------------------------------------------------------------------------------------------------------------
# commands


def test_a_command_is_the_user_s_own_while_the_server_runs(seat: Seat) -> None:
    word = "a secret ü ' \" $X"
    result = seat.command(
        cmd='id -u; pwd; echo $HOME; echo "$WORD"; cat; printf %s "$WORD" > by-command',
        environment={"WORD": word},
        stdin="in\n",
    )
    uid, home = seat.uid(), f"/var/lib/{seat.user}"
    # what was given as a variable is in no result
    assert str(result["stdout"]).splitlines() == [uid, seat.home, home, "********", "in"]
    assert result["owner"] == result["owner_before"] == int(uid)
    assert seat.owners() == {uid}
    assert seat.kernel.run("import os; print(open(os.path.expanduser('~/by-command')).read())").strip() == word


def test_a_command_sees_no_more_than_the_server(seat: Seat) -> None:
    closed = "/var/lib/jupyterhub/jupyterhub.sqlite /etc/ananke/hub.json /etc/shadow"
    looks = f"for f in {closed}; do cat $f && echo OPEN; done; touch /opt/x /usr/x && echo WRITTEN; ls /var/lib/private"
    result = seat.command(cmd=looks)
    assert str(result["stdout"]).split() == [seat.user], "of all homes, the own one alone"


def test_what_people_do_in_a_home(seat: Seat) -> None:
    """The home directory of a dynamic user is / for the system; programs that ask it must find the real one."""
    seat.command(cmd="ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_test && rm -r ~/.ssh")
    seat.command(
        cmd="git init -q g && cd g && git config user.email a@b && git config user.name a && git commit -q --allow-empty -m x && rm -rf ~/g"
    )
    assert seat.command(argv=["bash", "-lc", "echo ~; getent passwd $(id -un) | cut -d: -f6"])["stdout"] == "\n".join(
        [f"/var/lib/{seat.user}"] * 2
    )


def test_exit_status_timeout_and_check(seat: Seat) -> None:
    failed = act(seat.hub, "dynamic_user_command", user=seat.user, cmd="echo last words >&2; exit 7")
    assert failed["failed"]
    assert failed["rc"] == 7
    assert failed["msg"] == "the command ended with exit status 7: last words"
    slow = act(seat.hub, "dynamic_user_command", user=seat.user, cmd="echo began; sleep 600", timeout=3)
    assert "did not end within 3 s and was stopped" in slow["msg"]
    assert slow["stdout"] == "began"
    assert seat.hub.exec("systemctl list-units --all --plain --no-legend 'ananke-command-*'").stdout == ""
    assert succeed(seat.hub, "dynamic_user_command", user=seat.user, cmd="touch never", check=True)["changed"]
    assert seat.hub.exec(f"test -e {seat.home}/never", check=False).returncode == 1
    assert not seat.command(cmd="touch never", creates="by-command")["changed"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"user": "unobody", "cmd": "true"}, "has no home here"),
        ({"user": "root", "cmd": "true"}, "is an account of the system"),
        ({"user": "../x", "cmd": "true"}, "no name of a hub user"),
        ({"user": "ux"}, "one of the following is required: argv, cmd"),
        ({"user": "ux", "cmd": " "}, "there is nothing to run"),
        ({"user": "ux", "argv": []}, "there is nothing to run"),
        ({"user": "ux", "cmd": "true", "argv": ["true"]}, "mutually exclusive"),
        ({"user": "ux", "cmd": "true", "timeout": 0}, "give seconds, at least 1"),
        ({"user": "ux", "cmd": "true", "chdir": "/etc"}, "relative to the user's home"),
        ({"user": "ux", "cmd": "true", "creates": "../x"}, "relative to the user's home"),
        ({"user": "ux", "cmd": "true", "container": "ananke-nothing"}, "has no such container"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_bad_commands(hub: Hub, options: dict[str, object], said: str) -> None:
    result = act(hub, "dynamic_user_command", **options)  # type: ignore[arg-type]
    assert result["failed"]
    assert said in result["msg"]


# ---------------------------------------------------------------------------------------------------------------
# owners


def test_a_second_unit_takes_a_home_away_and_the_module_gives_it_back(seat: Seat) -> None:
    """The race that breaks the existing system, with its own command; a command of ours at the same moment does not."""
    uid = seat.uid()
    seat.kernel.run("import pathlib; pathlib.Path.home().joinpath('mine').write_text('1')")
    theft = f"systemd-run --quiet --pipe --wait --property=DynamicUser=yes --property=StateDirectory={seat.user} id -u"
    thief = seat.hub.exec(theft).stdout.strip()
    assert thief != uid
    assert seat.owners() == {thief}
    with pytest.raises(DemoError, match="PermissionError"):
        seat.kernel.run("pathlib.Path.home().joinpath('mine').write_text('2')")
    done = settled(seat.hub, "dynamic_user_ownership", users=[seat.user])
    (home,) = done["homes"]
    assert home["changed_files"] == home["seen"]
    assert home["former_owners"] == {thief: home["seen"]}
    assert seat.owners() == {uid}
    seat.kernel.run("pathlib.Path.home().joinpath('mine').write_text('2')")


def test_all_homes_at_once_and_one_wrong_file(seat: Seat) -> None:
    seat.hub.exec(f"install -D /dev/null {seat.home}/deep/er/file && chown -R 65000:65000 {seat.home}/deep")
    done = settled(seat.hub, "dynamic_user_ownership")
    assert {path for home in done["homes"] for path in home["paths"]} == {"deep", "deep/er", "deep/er/file"}
    assert seat.uid() in {str(home["owner"]) for home in done["homes"]}


def test_a_running_server_keeps_its_home(seat: Seat) -> None:
    result = act(seat.hub, "dynamic_user_ownership", users=[seat.user], state="admin")
    assert result["failed"]
    assert "runs: stop it first" in result["msg"]
    assert seat.owners() == {seat.uid()}


def test_lives_on_a_real_systemd(hub: Hub) -> None:
    """Random starts, stops, commands, thefts and our module, with real units; the unit tests have ten thousand on a model."""
    folder = "/run/ananke-lives"
    send(hub, f"{folder}/user_ownership.py", inside.source(user_ownership))
    send(hub, f"{folder}/lives.py", (ROOT / "tests/e2e/lives.py").read_text())
    out = hub.exec(f"/opt/conda/envs/jhub/bin/python {folder}/lives.py {LIVES}; rm -r {folder}", timeout=900).stdout
    result = json.loads(out.strip().splitlines()[-1])
    assert result["problems"] == []
    assert result["left"] == []
    assert result["broken"] > LIVES / 20, "thefts must have broken homes, or nothing was put right"
    assert sum(result["acts"].values()) > LIVES


# ---------------------------------------------------------------------------------------------------------------
# what is known of a hub, and its servers


def test_what_is_known_of_a_hub(seat: Seat) -> None:
    info = succeed(seat.hub, "hub_info")
    # the test machine delegates no controllers
    assert [problem for problem in info["problems"] if "role cgroups" not in problem] == []
    assert info["versions"]["jupyterhub"].startswith("5.")
    assert info["health"]["hub"] is True
    assert info["users"]["running"] == sorted({seat.user, *info["users"]["running"]})
    assert "python3" in {kernel["name"] for kernel in info["kernels"]}
    assert info["lti"]["client_ids"]
    secrets = seat.hub.exec("cat /var/lib/jupyterhub/cookie_secret /var/lib/jupyterhub/api_token").stdout.split()
    assert not any(secret in json.dumps(info) for secret in secrets)


def test_servers_are_stopped_handed_over_given_back_and_started(seat: Seat) -> None:
    """Last, as it ends the student's kernel: the whole way of a home to the container admin and back."""
    listed = succeed(seat.hub, "hub_servers")
    assert seat.user in {server["user"] for server in listed["servers"]}
    assert settled(seat.hub, "hub_servers", state="stopped", users=[seat.user])["users_stopped"] == [seat.user]
    assert seat.hub.exec(f"systemctl is-active jupyter-{seat.user}", check=False).returncode != 0

    settled(seat.hub, "dynamic_user_ownership", users=[seat.user], state="admin")
    account = seat.hub.admin("id -u").stdout.strip()
    on_machine = f"{seat.hub.folder}/private/{seat.user}"
    assert set(seat.hub.machine.as_root(f"find {on_machine} -printf '%U\\n' | sort -u").stdout.split()) == {account}
    assert seat.hub.admin(f"cat {shlex.quote(on_machine)}/mine").stdout == "2"
    refused = act(seat.hub, "dynamic_user_command", user=seat.user, cmd="true")
    assert "give it back first" in refused["msg"]

    settled(seat.hub, "dynamic_user_ownership", users=[seat.user], state="restored")
    assert settled(seat.hub, "hub_servers", state="started", users=[seat.user])["users_started"] == [seat.user]
    until(seat.owners, 60, "the home has one owner", lambda owners: len(owners) == 1)
    assert seat.command(cmd="cat mine")["stdout"] == "2"
    unknown = act(seat.hub, "hub_servers", state="stopped", users=[f"{seat.user}x"])
    assert unknown["failed"]
    assert seat.user in unknown["msg"].replace(f"{seat.user}x", "")


def test_a_container_that_does_not_run(demo: Demo) -> None:
    hub = demo.hubs["sandbox"]
    hub.admin(f"systemctl --user stop {hub.unit}")
    try:
        # podman removes a hub's container when it stops
        assert "has no such container" in act(hub, "hub_info")["msg"]
        hub.admin("podman create --name ananke-halted $(podman image ls --quiet | head -n 1) true")
        assert "does not run: start it first" in act(hub, "hub_info", container="ananke-halted")["msg"]
    finally:
        hub.admin("podman rm ananke-halted", check=False)
        hub.admin(f"systemctl --user start {hub.unit}")
        hub.wait_healthy()


def test_homes_of_a_hub_that_is_gone(demo: Demo) -> None:
    """Without a container: the owners are those that the account's containers would see."""
    hub = demo.hubs["sandbox"]
    gone = f"{hub.folder}-gone"
    hub.admin(
        f"mkdir -p {gone}/private/uold/deep && touch {gone}/private/uold/deep/file && podman unshare chown -R 61234:61234 {gone}/private/uold"
    )
    try:
        result = act(hub, "dynamic_user_ownership", container="", folder=f"{gone}/private", state="admin")
        assert not result.get("failed"), result
        assert hub.admin(f"stat -c %U {gone}/private/uold/deep/file").stdout.strip() == hub.container_admin
        result = act(hub, "dynamic_user_ownership", container="", folder=f"{gone}/private", state="restored")
        assert result["homes"][0]["owner"] == 61234
    finally:
        hub.admin(f"podman unshare rm -rf {gone}")
