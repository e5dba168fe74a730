"""A receiver of webhooks on this machine, which keeps what it gets and answers as it is told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WebhookReceiver:
    """What was received, and the HTTP status of the next answers."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.received: list[tuple[str, dict[str, Any]]] = []

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator["WebhookReceiver"]:
        """Listen on a free port while the context is open."""
        receiver = cls()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.received.append((self.headers["webhook-id"], body))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield receiver
            finally:
                server.shutdown()
                thread.join()
