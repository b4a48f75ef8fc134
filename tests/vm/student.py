"""Runs in the hub's container: starts users' servers by the hub's API, and code in kernels of theirs.

student.py start NAME...    servers for these users; returns when all are ready
student.py welcome NAME...  makes these users known to the hub
student.py stop NAME...     ends them
student.py progress NAME    starts a server, waits for it, and prints what its user is told meanwhile
student.py run NAME CODE    prints {"text": what the code printed, "died": whether its kernel did}
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

BASE = "http://127.0.0.1:8000/small"
TIMEOUT = 900.0
"""Seconds for everything."""
TOKEN = sys.stdin.readline().strip()
HEADERS = {"Authorization": f"token {TOKEN}"}


async def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Ask the hub or a user's server; status and answer."""
    request = HTTPRequest(
        BASE + path,
        method=method,
        headers=HEADERS,
        body=None if body is None else json.dumps(body),
        request_timeout=TIMEOUT,
        allow_nonstandard_methods=True,
    )
    answer = await AsyncHTTPClient().fetch(request, raise_error=False)
    if answer.code >= 400 and answer.code != 409:  # 409: the user is there
        raise SystemExit(f"{method} {path}: {answer.code} {answer.body[:500]!r}")
    return answer.code, json.loads(answer.body) if answer.body else None


async def welcome(names: list[str]) -> None:
    """Make users known to the hub."""
    for name in names:
        await ask("POST", f"/hub/api/users/{name}")


async def start(names: list[str]) -> None:
    """Start servers and wait until they are ready."""
    await welcome(names)
    for name in names:
        await ask("POST", f"/hub/api/users/{name}/server")
    end = time.monotonic() + TIMEOUT
    waiting = set(names)
    while waiting:
        if time.monotonic() > end:
            raise SystemExit(f"not ready after {TIMEOUT:.0f} s: {sorted(waiting)}")
        await asyncio.sleep(2)
        for name in sorted(waiting):
            _status, user = await ask("GET", f"/hub/api/users/{name}")
            server = user["servers"].get("", {"ready": False, "pending": None})
            if server["ready"]:
                waiting.remove(name)
            elif not server["pending"]:
                raise SystemExit(f"the server of {name} did not start: {user}")


async def stop(names: list[str]) -> None:
    """Stop servers and wait until they are gone."""
    for name in names:
        await ask("DELETE", f"/hub/api/users/{name}/server")
        while (await ask("GET", f"/hub/api/users/{name}"))[1]["servers"]:
            await asyncio.sleep(1)


async def progress(name: str) -> str:
    """Start a server; what its user is told while it starts."""
    await ask("POST", f"/hub/api/users/{name}/server")
    path = f"{BASE}/hub/api/users/{name}/server/progress"
    answer = await AsyncHTTPClient().fetch(HTTPRequest(path, headers=HEADERS, request_timeout=TIMEOUT))
    lines = answer.body.decode().splitlines()
    return "\n".join(json.loads(line.removeprefix("data:"))["message"] for line in lines if line.startswith("data:"))


async def run(name: str, code: str) -> dict[str, Any]:
    """Run code in a new kernel of the user, which ends with it."""
    _status, kernel = await ask("POST", f"/user/{name}/api/kernels", {})
    address = f"{BASE.replace('http', 'ws', 1)}/user/{name}/api/kernels/{kernel['id']}/channels"
    socket = await websocket_connect(HTTPRequest(address, headers=HEADERS, request_timeout=TIMEOUT))
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": uuid.uuid4().hex, "username": name}
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    await socket.write_message(json.dumps(message))
    found: dict[str, Any] = {"text": "", "died": False}
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        raw = await asyncio.wait_for(socket.read_message(), end - time.monotonic())
        answer = json.loads(raw) if isinstance(raw, str) else None
        if answer is None:
            break
        kind, content = answer["header"]["msg_type"], answer["content"]
        ours = answer["parent_header"].get("msg_id") == header["msg_id"]
        if kind == "status" and content["execution_state"] in ("restarting", "autorestarting", "dead"):
            found["died"] = True
            break
        if ours and kind == "stream" and content["name"] == "stdout":
            found["text"] += content["text"]
        if ours and kind == "error":
            found["text"] += "\n".join(content["traceback"])
        # what was printed may come after the reply, but not after the kernel has said that it is idle
        if ours and kind == "status" and content["execution_state"] == "idle":
            break
    socket.close()
    if not found["died"]:  # one that was killed and is being restarted cannot be ended properly
        await ask("DELETE", f"/user/{name}/api/kernels/{kernel['id']}")
    return found


if __name__ == "__main__":
    if sys.argv[1] == "start":
        asyncio.run(start(sys.argv[2:]))
    elif sys.argv[1] == "welcome":
        asyncio.run(welcome(sys.argv[2:]))
    elif sys.argv[1] == "stop":
        asyncio.run(stop(sys.argv[2:]))
    elif sys.argv[1] == "progress":
        print(asyncio.run(progress(sys.argv[2])))
    else:
        print(json.dumps(asyncio.run(run(sys.argv[2], sys.argv[3]))))
