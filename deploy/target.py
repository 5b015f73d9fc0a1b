"""A target to try the gateway with: answers 200 to every call and prints a line for it. Needs Python alone.

python3 deploy/target.py 9000
"""

import contextlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Target(BaseHTTPRequestHandler):
    """Takes any method, prints ``POST /path client=… attempt=… body``."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """200 with a short body, after the call was printed."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
        client, attempt = self.headers.get("X-Client-ID", "-"), self.headers.get("X-Attempt", "-")
        sys.stdout.write(f"{self.command} {self.path} client={client} attempt={attempt} {body}\n")
        sys.stdout.flush()
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"ok\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Silent: `answer` prints what matters."""


def main() -> None:
    """Serves on 127.0.0.1 and the port given (9000) until Ctrl-C."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    with ThreadingHTTPServer(("127.0.0.1", port), Target) as server:
        sys.stdout.write(f"target on http://127.0.0.1:{server.server_port}/\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
