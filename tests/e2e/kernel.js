// Talks to a person's own Jupyter server from inside their page: the browser's cookies, the browser's TLS.
window.anankeKernel ??= (() => {
  const sockets = {};

  function cookie(name) {
    const found = document.cookie.split("; ").find((part) => part.startsWith(name + "="));
    return found ? found.slice(name.length + 1) : "";
  }

  async function api(base, method, path, body) {
    const answer = await fetch(base + path, {
      method,
      headers: { "X-XSRFToken": cookie("_xsrf"), "Content-Type": "application/json" },
      body: body === null || body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    let json = null;
    try { json = JSON.parse(text); } catch { /* not every answer is JSON */ }
    return { status: answer.status, text: text.slice(0, 2000), json };
  }

  function connect(base, id) {
    const known = sockets[id];
    if (known && known.readyState === WebSocket.OPEN) return Promise.resolve(known);
    if (known) return Promise.reject(new Error("the WebSocket of this kernel was closed"));
    const address = base.replace(/^http/, "ws") + "api/kernels/" + id + "/channels?session_id=" + crypto.randomUUID();
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(address);
      socket.onopen = () => { sockets[id] = socket; resolve(socket); };
      socket.onerror = () => reject(new Error("cannot open a WebSocket to " + address));
    });
  }

  async function run(base, id, code, milliseconds) {
    const socket = await connect(base, id);
    const request = crypto.randomUUID();
    return new Promise((resolve, reject) => {
      let output = "";
      let error = "";
      let replied = false;
      let idle = false;
      const timer = setTimeout(() => end(() => reject(new Error("no answer after " + milliseconds + " ms: " + output))), milliseconds);
      function end(how) {
        clearTimeout(timer);
        socket.removeEventListener("message", hear);
        socket.removeEventListener("close", closed);
        how();
      }
      function closed() { end(() => reject(new Error("the WebSocket was closed while the code ran"))); }
      function hear(event) {
        const message = JSON.parse(event.data);
        if (message.parent_header?.msg_id !== request) return;
        const content = message.content;
        switch (message.msg_type ?? message.header.msg_type) {
          case "stream": output += content.text; break;
          case "execute_result": case "display_data": output += content.data["text/plain"] ?? ""; break;
          case "error": error = content.traceback.join("\n") || content.ename; break;
          case "execute_reply": replied = true; break;
          case "status": idle = idle || content.execution_state === "idle"; break;
        }
        if (replied && idle) end(() => resolve({ output, error }));
      }
      socket.addEventListener("message", hear);
      socket.addEventListener("close", closed);
      socket.send(JSON.stringify({
        header: { msg_id: request, msg_type: "execute_request", username: "", session: request, version: "5.3", date: new Date().toISOString() },
        parent_header: {}, metadata: {}, channel: "shell", buffers: [],
        content: { code, silent: false, store_history: false, user_expressions: {}, allow_stdin: false, stop_on_error: true },
      }));
    });
  }

  function open(id) {
    return sockets[id]?.readyState === WebSocket.OPEN;
  }

  return { api, run, open };
})();
