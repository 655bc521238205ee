"""An HTTP server over a folder that gives faulty answers, for one object or for all."""

from __future__ import annotations

import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

ALL = "*"


class BadServer:
    """A server of `folder`. `faults` maps a file's name, or `ALL`, to its fault.

    Faults: a status (`503`), `cut` (the body ends halfway), `reset` (the connection is cut off after the headers),
    `retry` (429 once, with `Retry-After: 7`), `later` (503, with `Retry-After: 3600`), `length` (a Content-Length that
    is not a number).
    """

    def __init__(self, folder: Path) -> None:
        self.faults: dict[str, str] = {}
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                server.asked.append(name)
                fault = server.faults.get(name) or server.faults.get(ALL, "")
                headers = {}
                if fault == "retry":
                    del server.faults[name]
                    fault, headers = "429", {"Retry-After": "7"}
                elif fault == "later":
                    fault, headers = "503", {"Retry-After": "3600"}
                if fault.isdigit():
                    self._answer(int(fault), headers, b"")
                elif not (folder / name).is_file():
                    self._answer(404, {}, b"")
                else:
                    self._answer(200, {"Content-Length": "\xb2"} if fault == "length" else {},
                                 (folder / name).read_bytes(), fault)  # fmt: skip

            do_GET = do_HEAD = do

            def _answer(self, status: int, headers: dict[str, str], data: bytes, fault: str = "") -> None:
                self.send_response_only(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                if fault == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                elif fault == "cut":
                    self.wfile.write(data[: len(data) // 2])
                else:
                    self.wfile.write(data)
                self.close_connection = fault != ""

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # it is the one that hangs up
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> BadServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
