"""An HTTP proxy between a client and an S3 server that gives a number of faulty answers."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"
FAULTS = ("503", "500", "reset", "truncated", "slow")


class FaultyProxy:
    """A proxy that forwards requests to `upstream`. While `faults` lists faults, each request gets the next one.

    `refused` names objects, by the end of their path, that are never served: S3's AccessDenied.

    Faults: `503` (SlowDown), `500`, `reset` (the connection is cut off without an answer), `truncated` (the body ends
    halfway), `slow` (the answer waits for `delay` seconds).
    """

    def __init__(self, upstream: str, delay: float = 2.0) -> None:
        self.delay = delay
        self.requests = 0
        self.faults: list[str] = []
        self.refused: set[str] = set()
        self.always: dict[str, str] = {}  # the end of a path -> the fault of each request for it
        self._lock = threading.Lock()
        self._upstream = urlsplit(upstream)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault_of(self, path: str, method: str) -> str | None:
        """Return the fault of a request, or None; a fault from `faults` is used up."""
        always = [fault for end, fault in self.always.items() if path.endswith(end)]
        return always[0] if always else self._next(method)

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection to the upstream server."""
        return http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=30)

    def _next(self, method: str) -> str | None:
        with self._lock:
            self.requests += 1
            # Only what is read can arrive in part.
            if self.faults and (self.faults[0] != "truncated" or method == "GET"):
                return self.faults.pop(0)
            return None

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Forwards one request, or answers it with a fault."""

    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        if path.endswith(tuple(self.proxy.refused)):
            self._answer(403, {"Content-Type": "application/xml"}, DENIED)
            return
        fault = self.proxy.fault_of(path, self.command)
        if fault in ("503", "500"):
            self._answer(int(fault), {"Content-Type": "application/xml"}, SLOW_DOWN if fault == "503" else b"")
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._hang_up()
        else:
            if fault == "slow":
                time.sleep(self.proxy.delay)
            self._forward(body, cut=fault == "truncated")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

    def _forward(self, body: bytes, cut: bool) -> None:
        forward = self.proxy.connect()
        try:
            forward.request(self.command, self.path, body, dict(self.headers))
            answer = forward.getresponse()
            data = answer.read()
        except OSError:  # the server is down, so the proxy cannot answer either
            self._hang_up()
            return
        finally:
            forward.close()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")}
        self._answer(answer.status, headers, data, cut=cut)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None: ...
