"""The review page's local server, on aiohttp, with strict access control.

- It listens on loopback by default.
- The printed address contains a random token, which becomes a cookie (HttpOnly, SameSite=Strict). Every other request
  needs the cookie, so neither another user of the machine nor a page from another site can read a clip.
- The `Host` header must name this machine, against DNS rebinding. A POST must come from this page (`Origin`) and be
  JSON, which a plain form cannot send.
- A body is read only after these checks, up to MAX_BODY bytes. Answering a request with an unread body closes the
  connection.
- Storage is read and written in threads, so a slow decision or preview does not delay other requests.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import ipaddress
import json
import os
import re
import secrets
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler

from vtcav_ray.errors import ConfigError, InputError
from vtcav_ray.review.page import ASSETS, build_page, read_asset
from vtcav_ray.review.session import Session

MAX_BODY = 4 * 2**20
PREVIEWS_AT_ONCE = min(max(os.cpu_count() or 1, 2), 16)  # asyncio has more threads, so decisions don't wait for them
_IDLE_SECONDS = 60  # for the next request, and for a whole body
_DROP_SECONDS = 0.5  # for an unread body: closing a socket with unread bytes may lose the response
_STOP_SECONDS = 5.0  # for requests in progress at the end
_WILDCARDS = ("0.0.0.0", "::")
_TYPES = {"js": "text/javascript", "css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "vtcav-review",
}
_NO_HOST = "This machine is not known by that name. See --host."
_NO_LENGTH = "Send exactly one Content-Length header."
# What aiohttp says about several lengths, and about a body without one, which it takes for the next request.
_LENGTH_ERROR = re.compile("Duplicate '?Content-Length|can't be present with|Invalid method encountered")


class ReviewServer:
    """Serves one session. A context manager: it listens from its creation to the end of the block.

    Args:
        host: address to listen on.
        port: 0: any free port.

    Raises:
        ConfigError: listening on the address fails.
    """

    def __init__(self, session: Session, host: str = "127.0.0.1", port: int = 0) -> None:
        self.session, self.host = session, host
        self.token = secrets.token_urlsafe(24)
        six = ":" in host
        try:
            self.socket = socket.create_server(
                (host, port),
                family=socket.AF_INET6 if six else socket.AF_INET,
                dualstack_ipv6=six and socket.has_dualstack_ipv6(),
            )
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"Can't listen on {host}, port {port}: {error}. Choose another --host or --port."
            ) from error
        self.port = int(self.socket.getsockname()[1])
        self.cookie = f"vtcav_review_{self.port}"  # cookies ignore ports, and two reviews may run
        self._names = {"localhost", host.lower()}
        if host in _WILDCARDS:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._previews = asyncio.Semaphore(PREVIEWS_AT_ONCE)
        self._stop = asyncio.Event()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()  # created here, since `shutdown` may be called before the server runs

    def __enter__(self) -> ReviewServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.close()
        self.socket.close()

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        host = "127.0.0.1" if self.host in _WILDCARDS else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/?token={self.token}"

    def serve_forever(self) -> None:
        """Answer requests until `shutdown`, or Ctrl-C (KeyboardInterrupt). Decisions in progress are written first."""
        with self._runner:  # its end waits for the threads
            self._runner.run(self._serve())

    def shutdown(self) -> None:
        """End `serve_forever`, from another thread."""
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self) -> None:
        app = web.Application(middlewares=[self._check_sender, _check_body], client_max_size=MAX_BODY)
        app.on_response_prepare.append(_add_headers)
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/favicon.ico", _favicon),  # browsers request it automatically
                web.get("/assets/{name}", _asset),
                web.get("/preview/{clip_id:.*}", self._preview),
                web.get("/api/state", self._state),
                web.post("/api/decide", self._decide),
                web.post("/api/undo", self._undo),
                web.route("*", "/{path:.*}", _nothing),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=_STOP_SECONDS)
        await runner.setup()
        assert runner.server is not None
        runner.server.request_factory = functools.partial(_request, runner.server.request_factory)
        # aiohttp documents `access_log=None` (log no request), but its types do not.
        connection = functools.partial(
            _Connection, runner.server, loop=self._loop, access_log=None, auto_decompress=False,  # type: ignore[arg-type]
            keepalive_timeout=_IDLE_SECONDS, lingering_time=_DROP_SECONDS,
        )  # fmt: skip
        listener = await self._loop.create_server(connection, sock=self.socket)
        try:
            await self._stop.wait()
        finally:
            listener.close()
            await runner.cleanup()

    @web.middleware
    async def _check_sender(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self.knows_host(request.headers.get("Host", "")):
            raise web.HTTPMisdirectedRequest(text=_NO_HOST)
        reads = request.method == "GET"
        if reads and request.path == "/" and self._is_token(request.query.get("token", "")):
            # Store the token in a cookie, and remove it from the address bar.
            cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            raise web.HTTPSeeOther("/", headers={"Set-Cookie": cookie}, text="")
        entered = self._is_token(request.cookies.get(self.cookie, ""))
        if reads and not entered:
            raise web.HTTPForbidden(text="Open the address that `vtcav review` printed: it has the token.")
        if not entered or (not reads and request.headers.get("Origin") != f"http://{request.headers.get('Host')}"):
            raise web.HTTPForbidden(text="This request comes from another page.")
        return await handler(request)

    def knows_host(self, header: str) -> bool:
        """Return whether a `Host` header names this machine. Its port is ignored: a tunnel may use another."""
        try:
            name = (urlsplit(f"//{header}").hostname or "").lower()
            return name in self._names or ipaddress.ip_address(name).is_loopback or self.host in _WILDCARDS
        except ValueError:  # neither a known name nor an address
            return False

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="surrogateescape"), self.token.encode())

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=build_page(self.session.wall.title), content_type="text/html")

    async def _state(self, request: web.Request) -> web.Response:
        return await _answer(self.session.state)

    async def _decide(self, request: web.Request) -> web.Response:
        return await _answer(functools.partial(self.session.decide, await _read_json(request)))

    async def _undo(self, request: web.Request) -> web.Response:
        await _read_json(request)
        return await _answer(self.session.undo)

    async def _preview(self, request: web.Request) -> web.Response:
        async with self._previews:
            if request.transport is None:  # the user moved to another group while this request waited
                return web.Response()
            try:
                made = await asyncio.to_thread(self.session.wall.preview, request.match_info["clip_id"])
            except KeyError as error:
                raise web.HTTPNotFound(text="No such clip.") from error
            except InputError as error:
                raise web.HTTPUnprocessableEntity(text=error.message) from error
            except OSError as error:
                raise web.HTTPBadGateway(text=f"The clip can't be read: {error}") from error
        # The address contains the clips' key, under which a clip never changes.
        cached = {"Cache-Control": "private, max-age=86400, immutable"}
        return web.Response(body=made.image, content_type="image/webp", headers=cached)


class _Connection(web.RequestHandler):
    """A connection that also answers what aiohttp can't parse in the form of all other answers."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):  # the browser disconnected
            raise exc
        if status != 400:
            return super().handle_error(request, status, exc, message)
        if "Missing 'Host'" in str(message):
            raise web.HTTPMisdirectedRequest(text=_NO_HOST, headers=_HEADERS)
        if _LENGTH_ERROR.search(str(message)):
            raise web.HTTPLengthRequired(text=_NO_LENGTH, headers=_HEADERS)
        raise web.HTTPBadRequest(text="This is not a valid HTTP request.", headers=_HEADERS)


def _request(make: Callable[..., web.BaseRequest], message: Any, *about: Any) -> web.BaseRequest:
    """Make a request that is answered as HTTP/1.1. aiohttp would answer one that it can't parse as HTTP/1.0."""
    return make(message._replace(version=HttpVersion11), *about)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)  # aiohttp's versions
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if not request.content.at_eof():  # the rest of the body must not count as the next request
        response.force_close()
        response.headers["Connection"] = "close"


@web.middleware
async def _check_body(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method != "GET":
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="Send JSON.")
        if request.content_length is None or "Transfer-Encoding" in request.headers:
            raise web.HTTPLengthRequired(text=_NO_LENGTH)
        if request.content_length > MAX_BODY:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length, text=f"At most {MAX_BODY} bytes.")
    return await handler(request)


async def _read_json(request: web.Request) -> Any:
    try:
        async with asyncio.timeout(_IDLE_SECONDS):
            body = await request.read()
        return await asyncio.to_thread(json.loads, body) if body else {}
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text=f"The body did not arrive within {_IDLE_SECONDS} s.") from error
    except (ValueError, RecursionError) as error:  # not JSON, or nested too deeply
        raise web.HTTPBadRequest(text="The body is not JSON.") from error


async def _answer(act: Callable[[], dict[str, Any]]) -> web.Response:
    try:
        body = await asyncio.to_thread(lambda: json.dumps(act(), ensure_ascii=False).encode())
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from error
    except ConfigError as error:  # the file was edited by hand
        raise web.HTTPConflict(text=str(error)) from error
    except OSError as error:
        raise web.HTTPBadGateway(text=f"review.csv can't be read or written: {error}") from error
    return web.Response(body=body, content_type="application/json")


async def _asset(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in ASSETS:
        return await _nothing(request)
    return web.Response(text=read_asset(name), content_type=_TYPES[name.rpartition(".")[2]])


async def _favicon(request: web.Request) -> web.Response:
    return web.Response(status=204, content_type="image/x-icon")


async def _nothing(request: web.Request) -> web.Response:
    raise web.HTTPNotFound(text="There is nothing here.")
