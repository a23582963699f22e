"""http.server as a receiver of webhooks: `python -m tests.stock.python.plain CERT KEY`."""

import gzip
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.stock.python.records import LIMIT_BYTES, decided, record, report


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP/1.1, but for the behaviour `http10`."""

    protocol_version = "HTTP/1.1"
    requests = 0

    def do_PUT(self) -> None:
        behaviour = self.path.split("/")[1]
        self.protocol_version = "HTTP/1.0" if behaviour == "http10" else "HTTP/1.1"
        self.requests += 1
        length = int(self.headers["Content-Length"])
        if behaviour == "drops-reused" and self.requests > 1:
            self.close_connection = True
        elif behaviour == "early":
            # What is unread makes the close a reset.
            self.close_connection = True
            self._record(200, None)
            self._respond(200, {}, b"")
        elif behaviour == "limit" and length > LIMIT_BYTES:
            self.close_connection = True
            self._record(413, None)
            self._respond(413, {}, b"too large")
        else:
            body = self.rfile.read(length)
            status = decided(behaviour, self.path, body)
            self._record(status, body)
            self._behave(behaviour, status)

    def _behave(self, behaviour: str, status: int) -> None:
        match behaviour:
            case "no-content":
                self._respond(status, {}, None)
            case "no-content-with-body":
                self._respond(status, {}, b"ok")
            case "close":
                self._respond(status, {"Connection": "close"}, b"ok")
            case "close-unannounced":
                self._respond(status, {}, b"ok")
                self.close_connection = True
            case "slow":
                time.sleep(0.15)
                self._in_chunks([b"slow"] * 3, pause_s=0.02)
            case "gzip":
                self._respond(status, {"Content-Encoding": "gzip"}, gzip.compress(b"ok" * 100))
            case "early-hints":
                self.send_response_only(103)
                self.send_header("Link", "</style.css>; rel=preload")
                self.end_headers()
                self._respond(status, {}, b"")
            case "continue-unasked":
                self.send_response_only(100)
                self.end_headers()
                self._respond(status, {}, b"")
            case "trailers":
                self._in_chunks([b"ok"], trailer=b"X-Sum: 1\r\n")
            case "chunked":
                self._in_chunks([b"ok"] * 3)
            case "long-body":
                self._respond(status, {}, b"long" * 250_000)
            case _:
                location = {"Location": f"/elsewhere{self.path}"} if status >= 300 else {}
                self._respond(status, location, b"ok")

    def _respond(self, status: int, headers: dict[str, str], body: bytes | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body or b"")

    def _in_chunks(self, pieces: list[bytes], *, trailer: bytes = b"", pause_s: float = 0) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            time.sleep(pause_s)
        self.wfile.write(b"0\r\n" + trailer + b"\r\n")

    def _record(self, status: int, body: bytes | None) -> None:
        record(
            self.path,
            status,
            body,
            headers=self.headers.items(),
            version=self.request_version,
            peer=self.client_address,
        )

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the records say it."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a caller may close while a body is written."""


def main(cert: str, key: str) -> None:
    servers = {name: Server(("127.0.0.1", 0), Handler) for name in ("http", "https")}
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    servers["https"].socket = context.wrap_socket(servers["https"].socket, server_side=True)
    for server in servers.values():
        threading.Thread(target=server.serve_forever).start()
    report({"ports": {name: server.server_address[1] for name, server in servers.items()}})


if __name__ == "__main__":
    main(*sys.argv[1:])
