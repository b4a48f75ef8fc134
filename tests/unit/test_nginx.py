"""nginx fragments: no half-applied state, no lost reload, no needless one."""

from __future__ import annotations

import os
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import files, nginx


class FakeNginx:
    """Answers like nginx and systemctl, and remembers what it loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reloads = 0
        self.loaded: dict[str, str] = {}

    def __call__(self, argv: t.Sequence[str]) -> tuple[int, str]:
        present = {path: Path(path).read_text() for path in nginx.fragments(str(self.folder))}
        if argv[0] == "nginx":
            bad = [path for path, text in present.items() if "broken" in text]
            return (1, f"unknown directive in {bad[0]}") if bad else (0, "")
        self.reloads += 1
        self.loaded = present
        return 0, ""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNginx:
    conf, run = tmp_path / "conf", tmp_path / "run"
    conf.mkdir()
    run.mkdir()
    (run / "nginx.pid").write_text(f"{os.getpid()}\n")
    os.utime(run / "nginx.pid", (1, 1))
    monkeypatch.setattr(nginx, "APPLIED", str(run / "applied"))
    monkeypatch.setattr(nginx, "PID_FILE", str(run / "nginx.pid"))
    monkeypatch.setattr(nginx, "FRAME", str(tmp_path / "frame.conf"))
    original_lock, original_fragments = files.lock, nginx.fragments
    monkeypatch.setattr(files, "lock", lambda name: original_lock(name, str(run)))
    monkeypatch.setattr(nginx, "fragments", lambda directory=str(conf): original_fragments(directory))
    return FakeNginx(conf)


def test_a_change_is_loaded_once(server: FakeNginx) -> None:
    path = str(server.folder / "a.conf")
    assert nginx.apply(path, "one", server) == [f"{path} written", "nginx reloaded"]
    assert nginx.apply(path, "one", server) == []
    assert server.reloads == 1


def test_a_refused_change_leaves_everything_as_it_was(server: FakeNginx) -> None:
    path = str(server.folder / "a.conf")
    nginx.apply(path, "one", server)
    with pytest.raises(nginx.NginxError, match="unknown directive"):
        nginx.apply(path, "broken", server)
    assert Path(path).read_text() == "one"
    new = str(server.folder / "b.conf")
    with pytest.raises(nginx.NginxError):
        nginx.apply(new, "broken", server)
    assert not os.path.exists(new)
    assert server.reloads == 1


def test_a_reload_that_a_killed_run_owes_is_made_good(server: FakeNginx) -> None:
    path = server.folder / "a.conf"
    path.write_text("one")
    os.chmod(path, 0o644)
    assert nginx.pending()
    assert nginx.apply(str(path), "one", server) == ["nginx reloaded"]
    assert server.loaded == {str(path): "one"}
    assert not nginx.pending()


def test_the_reload_for_a_frame_that_a_killed_run_wrote_is_made_good(server: FakeNginx) -> None:
    nginx.apply(str(server.folder / "a.conf"), "one", server)
    assert not nginx.pending()
    Path(nginx.FRAME).write_text("frame")
    os.chmod(nginx.FRAME, 0o644)
    assert nginx.pending()
    assert nginx.apply(nginx.FRAME, "frame", server) == ["nginx reloaded"]
    assert not nginx.pending()


def test_a_server_that_was_started_after_the_last_change_needs_no_reload(server: FakeNginx) -> None:
    (server.folder / "a.conf").write_text("one")
    os.utime(nginx.PID_FILE, (2**32, 2**32))
    assert not nginx.pending()


def test_removal(server: FakeNginx) -> None:
    path = str(server.folder / "a.conf")
    nginx.apply(path, "one", server)
    assert nginx.apply(path, None, server) == [f"{path} removed", "nginx reloaded"]
    assert server.loaded == {}


@pytest.mark.parametrize("content", ["one", "two", None])
@pytest.mark.parametrize("state", ["absent", "loaded", "written only", "other mode"])
def test_what_is_foretold_is_done(
    server: FakeNginx, content: str | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nginx, "CONF_DIR", str(server.folder))
    path = server.folder / "a.conf"
    nginx.apply(str(server.folder / "b.conf"), "another", server)
    if state != "absent":
        nginx.apply(str(path), "one", server)
    if state == "written only":
        path.write_text("two")
    if state == "other mode":
        path.chmod(0o600)
    before = path.read_text() if path.exists() else None
    foretold = nginx.foretell(str(path), content)
    assert (path.read_text() if path.exists() else None) == before
    assert nginx.apply(str(path), content, server) == foretold
    assert nginx.foretell(str(path), content) == []


def test_a_change_is_foretold_where_nginx_is_not_installed_yet(
    server: FakeNginx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nginx, "CONF_DIR", str(tmp_path / "absent"))
    path = str(tmp_path / "absent/a.conf")
    assert nginx.foretell(path, "one") == [f"{path} written", "nginx reloaded"]
    assert nginx.foretell(path, None) == []


def test_twenty_side_by_side_are_all_loaded(server: FakeNginx) -> None:
    paths = [str(server.folder / f"hub{number}.conf") for number in range(20)]
    threads = [threading.Thread(target=nginx.apply, args=(path, path, server)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.loaded == {path: path for path in paths}
    assert server.reloads <= 20


def test_location() -> None:
    text = nginx.location("math101", "/math101/", 8101, "2g")
    assert "location = /math101 {" in text
    assert "proxy_pass http://127.0.0.1:8101;" in text
    assert "client_max_body_size 2g;" in text
    assert "location = " not in nginx.location("only", "/", 8101, "0")


def test_files_that_belong_together_come_together_or_not_at_all(server: FakeNginx, tmp_path: Path) -> None:
    paths = {name: str(server.folder / name) for name in ("a.conf", "b.conf", "old.conf")}
    folder = tmp_path / "conf/tls"
    first = [nginx.Fragment(paths["a.conf"], "one"), nginx.Fragment(paths["old.conf"], "old")]
    assert nginx.apply_all(first, server, [nginx.Folder(str(folder), 0o700)]) == [
        f"{folder} made",
        f"{paths['a.conf']} written",
        f"{paths['old.conf']} written",
        "nginx reloaded",
    ]
    assert folder.stat().st_mode & 0o777 == 0o700
    loaded = dict(server.loaded)
    bad = [
        nginx.Fragment(paths["old.conf"], None),
        nginx.Fragment(paths["a.conf"], "two", 0o600),
        nginx.Fragment(paths["b.conf"], "broken"),
    ]
    with pytest.raises(nginx.NginxError, match=r"nginx refuses .*a\.conf.*unknown directive"):
        nginx.apply_all(bad, server)
    assert {path: Path(path).read_text() for path in nginx.fragments()} == loaded
    assert Path(paths["a.conf"]).stat().st_mode & 0o777 == 0o644
    good = [*bad[:2], nginx.Fragment(paths["b.conf"], "two")]
    assert nginx.foretell_all(good) == nginx.apply_all(good, server)
    assert server.loaded == {paths["a.conf"]: "two", paths["b.conf"]: "two"}
    assert nginx.foretell_all(good) == []
    assert server.reloads == 2
