"""What stands in for a hub behind nginx on the machine: upstream.py PORT. It takes uploads, and echoes what comes over a WebSocket's connection."""

import http.server
import sys


class Upstream(http.server.BaseHTTPRequestHandler):
    """Says what a hub says where it matters to a proxy."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Upgrade, or say hello."""
        # as real WebSocket servers do, it upgrades nothing older
        if self.headers.get("Upgrade") != "websocket" or self.request_version != "HTTP/1.1":
            self.answer(self.headers.get("X-Forwarded-Proto", ""))
            return
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.end_headers()
        while line := self.rfile.readline():
            self.wfile.write(line)
        self.close_connection = True

    def do_POST(self) -> None:
        """Take an upload."""
        self.answer(str(len(self.rfile.read(int(self.headers["Content-Length"])))))

    def answer(self, text: str) -> None:
        """Answer in one word, with the headers that Jupyter sends as well."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "frame-ancestors 'self'")
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Upstream).serve_forever()
