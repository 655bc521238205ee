"""The review page's local server: small, based on the standard library, with strict access control.

- It listens on loopback by default.
- The printed address contains a random token, which becomes a cookie (HttpOnly, SameSite=Strict). Every other request
  needs the cookie, so neither another user of the machine nor a page from another site can read a clip.
- The `Host` header must name this machine, against DNS rebinding. A POST must come from this page (`Origin`) and be
  JSON, which a plain form cannot send.
- A body is read only after these checks, up to MAX_BODY bytes. Refusing a request with an unread body closes the
  connection.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import re
import secrets
import select
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from vtcav_ray.errors import ConfigError, InputError
from vtcav_ray.review.page import ASSETS, build_page, read_asset
from vtcav_ray.review.session import Session

MAX_BODY = 4 * 2**20
PREVIEWS_AT_ONCE = max(os.cpu_count() or 1, 2)
_DROP_BYTES, _DROP_SECONDS = 2**16, 0.5  # limits for discarding a refused body
_TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class ReviewServer(ThreadingHTTPServer):
    """The HTTP server of one session.

    Args:
        host: address to listen on.
        port: 0: any free port.

    Raises:
        ConfigError: listening on the address fails.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64  # the default of 5 drops requests of a busy page

    def __init__(self, session: Session, host: str = "127.0.0.1", port: int = 0) -> None:
        self.session, self.host = session, host
        self.token = secrets.token_urlsafe(24)
        self.previews = threading.Semaphore(PREVIEWS_AT_ONCE)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"Can't listen on {host}, port {port}: {error}. Choose another --host or --port."
            ) from error
        self.port = int(self.server_address[1])

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        return f"vtcav_review_{self.port}"  # cookies ignore ports, and two reviews may run

    def knows_host(self, header: str) -> bool:
        """Return whether a `Host` header names this machine. Its port is ignored: a tunnel may use another."""
        name = (urlsplit(f"//{header}").hostname or "").lower()
        if name in ("localhost", self.host.lower()) or (_is_address(name) and _is_loopback(name)):
            return True
        if self.host in ("0.0.0.0", "::"):
            return _is_address(name) or name in (socket.gethostname().lower(), socket.getfqdn().lower())
        return False


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    server_version = "vtcav-review"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60
    unread = False  # whether the request has an unread body

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing per request, to keep the user's terminal clean."""

    def do_GET(self) -> None:
        # A GET has no body here. An unread one would be parsed as the next request.
        self.unread = self.headers.get("Content-Length", "0").strip() != "0" or "Transfer-Encoding" in self.headers
        address = urlsplit(self.path)
        if not self._host_is_known():
            return
        token = parse_qs(address.query).get("token", [""])[0]
        if address.path == "/" and token and hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._enter()
            return
        if not self._has_cookie():
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that `vtcav review` printed: it has the token.")
            return
        if address.path == "/":
            self._send("text/html; charset=utf-8", build_page(self.server.session.wall.title).encode())
        elif address.path == "/favicon.ico":  # browsers request it automatically
            self._send("image/x-icon", b"", status=HTTPStatus.NO_CONTENT)
        elif address.path == "/api/state":
            self._answer(self.server.session.state)
        elif address.path.startswith("/assets/"):
            self._asset(address.path.removeprefix("/assets/"))
        elif address.path.startswith("/preview/"):
            self._preview(unquote(address.path.removeprefix("/preview/")))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def do_POST(self) -> None:
        if not self._may_post() or (body := self._body()) is None:
            return
        path = urlsplit(self.path).path
        try:
            asked = json.loads(body) if body else {}
        except (ValueError, RecursionError):  # not JSON, or nested too deeply
            self._refuse(HTTPStatus.BAD_REQUEST, "The body is not JSON.")
            return
        if path == "/api/decide":
            self._answer(lambda: self.server.session.decide(asked))
        elif path == "/api/undo":
            self._answer(self.server.session.undo)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _may_post(self) -> bool:
        """Return whether the body should be read; if not, send the response."""
        self.unread = True
        if not self._host_is_known():
            return False
        if not self._has_cookie() or self.headers.get("Origin") != f"http://{self.headers.get('Host')}":
            self._refuse(HTTPStatus.FORBIDDEN, "This request comes from another page.")
            return False
        if self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send JSON.")
            return False
        return True

    def _body(self) -> bytes | None:
        """Read the whole body, so the connection can be reused. None: the request was refused."""
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or len(lengths) != 1:
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "Send exactly one Content-Length header.")
            return None
        if not re.fullmatch("[0-9]{1,18}", lengths[0]):  # `isdigit` also accepts a superscript two, which `int` rejects
            self._refuse(HTTPStatus.BAD_REQUEST, "Content-Length must be a number of bytes.")
            return None
        if int(lengths[0]) > MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {MAX_BODY} bytes.")
            return None
        body = self.rfile.read(int(lengths[0]))
        self.unread = False
        return body

    def _host_is_known(self) -> bool:
        try:
            known = self.server.knows_host(self.headers.get("Host", ""))
        except ValueError:
            known = False
        if not known:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This machine is not known by that name. See --host.")
        return known

    def _has_cookie(self) -> bool:
        try:
            morsel = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return False
        return morsel is not None and hmac.compare_digest(morsel.value.encode(), self.server.token.encode())

    def _enter(self) -> None:
        """Store the token in a cookie, and remove it from the address bar."""
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Set-Cookie", f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/")
        self.send_header("Location", "/")
        self.send_header("Content-Length", "0")
        self._safe_headers()
        self.end_headers()
        self.close_connection |= self.unread

    def _asset(self, name: str) -> None:
        if name not in ASSETS:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")
            return
        self._send(_TYPES[name.rpartition(".")[2]], read_asset(name).encode())

    def _preview(self, clip_id: str) -> None:
        try:
            with self.server.previews:
                if self._is_gone():  # the user moved to another group while this request waited
                    self.close_connection = True
                    return
                image = self.server.session.wall.preview(clip_id).image
        except KeyError:
            self._refuse(HTTPStatus.NOT_FOUND, "No such clip.")
        except InputError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, error.message)
        except OSError as error:
            self._refuse(HTTPStatus.BAD_GATEWAY, f"The clip can't be read: {error}")
        else:  # the address contains the clips' key, under which a clip never changes
            self._send("image/webp", image, cache="private, max-age=86400, immutable")

    def _is_gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

    def _answer(self, act: Callable[[], dict[str, Any]]) -> None:
        try:
            self._send("application/json", json.dumps(act(), ensure_ascii=False).encode())
        except ValueError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except ConfigError as error:  # the file was edited by hand
            self._refuse(HTTPStatus.CONFLICT, str(error))
        except OSError as error:
            self._refuse(HTTPStatus.BAD_GATEWAY, f"review.csv can't be read or written: {error}")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._send("text/plain; charset=utf-8", message.encode(), status=status)

    def _send(self, kind: str, body: bytes, *, status: HTTPStatus = HTTPStatus.OK, cache: str = "no-store") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", cache)
        if self.unread:
            self.send_header("Connection", "close")  # http.server then closes the connection
        self._safe_headers()
        self.end_headers()
        self.wfile.write(body)
        if self.unread:
            self._drop_body()

    def _drop_body(self) -> None:
        """Discard some of an unread body: closing a socket with unread bytes may lose the response."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(_DROP_SECONDS)
        left = _DROP_BYTES
        while left > 0 and (piece := self.connection.recv(min(left, 2**14))):
            left -= len(piece)

    def _safe_headers(self) -> None:
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):  # the browser disconnected
            self.close_connection = True


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return ipaddress.ip_address(name).is_loopback
