# SPDX-License-Identifier: GPL-3.0-or-later
"""The language server that JupyterLab starts completes, explains and finds mistakes, with the packages of python3 in view."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import checks

CODE = "import json\nimport ipykernel\njson.lo\njson.loads('1')\nprint(unknown)\n"
numbers = itertools.count(1)

with checks.server() as running:
    running.labextensions("@jupyter-lsp/jupyterlab-lsp")
    servers = checks.wait(lambda: running.ask("lsp/status")["sessions"], "no language server is known")
    assert "pylsp" in servers, f"JupyterLab finds the language servers {sorted(servers)}, not pylsp"
    settings = running.ask("lab/api/settings/@jupyter-lsp/jupyterlab-lsp:plugin")["schema"]["properties"]
    defaults = settings["language_servers"]["default"]["pylsp"]["serverSettings"]
    completer = running.ask("lab/api/settings/@jupyterlab/completer-extension:manager")["schema"]["properties"]
    patience = completer["providerTimeout"]["default"]
    assert patience >= 10_000, f"JupyterLab gives up on a completion after {patience} ms, before a busy machine has it"
python = Path(defaults["pylsp.plugins.jedi.environment"])

process = subprocess.Popen([sys.executable, "-m", "pylsp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert process.stdin
assert process.stdout


def send(method: str, parameters: object, **more: int) -> None:
    """Send a message."""
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": parameters, **more}).encode()
    process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    process.stdin.flush()


def receive() -> dict:
    """The next message."""
    length = 0
    while line := process.stdout.readline().strip():
        name, _colon, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    assert length, "the language server has ended"
    return json.loads(process.stdout.read(length))


def ask(method: str, line: int = 0, character: int = 0, **parameters: object) -> object:
    """The answer to a question about a place in the code."""
    number = next(numbers)
    place = {"textDocument": {"uri": "file:///check.py"}, "position": {"line": line, "character": character}}
    send(method, {**place, **parameters}, id=number)
    while (answer := receive()).get("id") != number or "method" in answer:
        pass
    assert "error" not in answer, answer
    return answer["result"]


try:
    ask("initialize", processId=None, rootUri=None, capabilities={})
    send("initialized", {})
    send(
        "workspace/didChangeConfiguration",
        {"settings": {"pylsp": {"plugins": {"jedi": {"environment": str(python)}}}}},
    )
    document = {"uri": "file:///check.py", "languageId": "python", "version": 1, "text": CODE}
    send("textDocument/didOpen", {"textDocument": document})
    while (message := receive()).get("method") != "textDocument/publishDiagnostics":
        pass
    mistakes = [one["message"] for one in message["params"]["diagnostics"]]
    assert any("undefined name 'unknown'" in one for one in mistakes), f"no mistake was found: {mistakes}"
    completions = [one["label"] for one in ask("textDocument/completion", 2, 7)["items"]]
    assert any(one.startswith("loads") for one in completions), f"no completion was found: {completions}"
    explained = json.dumps(ask("textDocument/hover", 3, 7))
    assert "Deserialize" in explained, f"nothing was explained: {explained}"
    places = [one["uri"] for one in ask("textDocument/definition", 1, 9)]
    folder = python.parents[1].as_uri()
    assert any(one.startswith(folder) for one in places), f"ipykernel was found in {places}, not in {folder}"
finally:
    process.kill()
