"""The channel's HTTP server as a program: it starts, serves in parallel, and stops cleanly."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from channel import server
from channel.common import ChannelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one file to serve."""
    path = tmp_path / "channel"
    path.mkdir()
    (path / "repodata.json").write_text("{}")
    return path


@pytest.fixture
def state(folder: Path) -> Iterator[Path]:
    """Where the server notes itself; whatever runs is stopped at the end."""
    path = server.default_state(folder)
    yield path
    server.stop(path)


def get(url: str) -> bytes:
    """Return what an HTTP server answers."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - the server of this test
        return bytes(answer.read())


def test_serves_until_stopped(folder: Path, state: Path) -> None:
    url = server.start(folder, "127.0.0.1", 0, state)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(get, [f"{url}/repodata.json"] * 40)) == {b"{}"}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{url}/nothing")
    noted = server.read_state(state)
    assert noted["url"] == url
    server.stop(state)
    assert not state.exists()
    with pytest.raises(urllib.error.URLError, match="refused"):
        get(f"{url}/repodata.json")
    server.stop(state)  # nothing to stop is fine


def test_a_running_server_is_kept(folder: Path, state: Path) -> None:
    url = server.start(folder, "127.0.0.1", 0, state)
    process = server.read_state(state)["pid"]
    assert server.start(folder, "127.0.0.1", 0, state) == url
    assert server.read_state(state)["pid"] == process
    with pytest.raises(ChannelError, match="served already"):
        server.serve(folder, "127.0.0.1", 0, state)


def test_two_who_start_it_at_once_share_it(folder: Path, state: Path) -> None:
    with socket.socket() as found:  # as two scenarios do: both know the port
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with ThreadPoolExecutor(4) as pool:
        urls = set(pool.map(lambda _: server.start(folder, "127.0.0.1", port, state), range(4)))
    assert urls == {f"http://127.0.0.1:{port}"}


def test_a_taken_port_is_said(folder: Path, state: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ChannelError, match=f"cannot listen on 127.0.0.1:{port}"):
            server.start(folder, "127.0.0.1", port, state)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match="build the channel first"):
        server.start(tmp_path / "none", "127.0.0.1", 0, tmp_path / "state.json")


def test_the_note_of_a_dead_server_is_nothing(tmp_path: Path) -> None:
    note = tmp_path / "state.json"
    note.write_text(f'{{"pid": {os.getpid()}, "bind": "127.0.0.1", "port": 1, "url": "x"}}')
    assert server.read_state(note) == {}, "this process is another program"
    server.stop(note)
    assert not note.exists()
