"""fsspec's file system for http(s) URLs, with limits on where it connects and how much it reads.

- Every hop of a redirect is checked like the first URL: http or https, never from https to http, no credential in it.
- An address that is private, loopback, link-local or otherwise not public is refused, unless its `host:port` is
  allowed. The check uses the addresses that a host name resolves to, and the connection goes to these same addresses,
  so a name that resolves differently a moment later can't bypass the check.
- Headers, cookies and passwords from `storage_options` go to the first host only, not to redirect targets.
- A body ends at `max_bytes` and at `seconds`, whatever its headers say, and is never decompressed.
- No error quotes the URL that a redirect led to: such URLs are often signed.
"""

from __future__ import annotations

import contextvars
import functools
import io
import re
from typing import IO, Any, ClassVar, NoReturn

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from fsspec.asyn import sync, sync_wrapper
from fsspec.implementations.http import HTTPFileSystem, HTTPStreamFile
from multidict import CIMultiDict

from vtcav_ray.errors import RefusedURL
from vtcav_ray.store.urls import ANY_ADDRESS, PRIVATE, is_public, names_private_host, origin_of
from vtcav_ray.text.url_text import HTTP, cleaned, shown

MAX_BODY_BYTES = 16 * 2**30
MAX_SECONDS = 3600.0  # per request, with its body and redirects
CONNECT_SECONDS, SILENT_SECONDS = 30.0, 60.0
_PIECE_BYTES = 2**20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OWN_HEADERS = frozenset({"accept", "accept-encoding", "host", "range", "user-agent"})

_first_host: contextvars.ContextVar[str | None] = contextvars.ContextVar("vtcav_first_host", default=None)


def refuse_private(url: str) -> NoReturn:
    """Raise the error for a URL that leads to a host that is not public."""
    raise RefusedURL("refused", f"{shown(url)} {PRIVATE}")


class GuardedHTTPFileSystem(HTTPFileSystem):  # type: ignore[misc]
    """fsspec's file system for http(s), with the limits listed at the top of this module.

    Args:
        private: `host:port` of the hosts that may have a private address; `ANY_ADDRESS`: all hosts.
        max_bytes: maximum size of one answer's body.
        seconds: time limit for one request, from the connection to the end of the body.
        client_kwargs, options: as in `HTTPFileSystem`.
    """

    keeps_read_limits: ClassVar[bool] = True

    def __init__(
        self,
        private: tuple[str, ...] = (),
        max_bytes: int = MAX_BODY_BYTES,
        seconds: float = MAX_SECONDS,
        client_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.private, self.max_bytes, self.seconds = private, max_bytes, seconds
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
        options.pop("get_client", None)
        super().__init__(
            client_kwargs={"timeout": timeout, **(client_kwargs or {})},
            get_client=functools.partial(_client, private=private, max_bytes=max_bytes),
            **options,
        )

    async def _info(self, url: str, **kwargs: Any) -> dict[str, Any]:
        try:
            return dict(await super()._info(url, **kwargs))
        except FileNotFoundError as error:  # fsspec raises this whatever went wrong
            if isinstance(error.__cause__, RefusedURL):
                raise error.__cause__ from None
            raise

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        try:
            return bytes(await super()._cat_file(url, start, end, **kwargs))
        except aiohttp.TooManyRedirects as error:
            raise RefusedURL("refused", f"{shown(url)} redirects too many times.") from error
        except aiohttp.InvalidURL as error:
            raise RefusedURL("refused", f"{shown(url)} is not a URL that can be opened.") from error
        except TimeoutError as error:
            if isinstance(error, aiohttp.ServerTimeoutError):  # the server was silent for a while: retry
                raise
            raise RefusedURL(
                "timeout", f"{shown(url)} was not read to its end within {self.seconds:.0f} seconds."
            ) from error

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        if mode != "rb":
            raise NotImplementedError(f"{shown(path)} can only be read")
        info = self.info(path)
        if info["size"] and info.get("partial", True) and (self.block_size if block_size is None else block_size):
            return super()._open(path, mode, block_size, **{**kwargs, "size": info["size"]})
        return self.stream(path)

    def stream(self, path: str) -> IO[bytes]:
        """Open a file to read it from start to end in one request. (Not all servers support range requests.)"""
        file: IO[bytes] = _LimitedStream(
            self, path, loop=self.loop, session=sync(self.loop, self.set_session), **self.kwargs
        )
        return file


class _LimitedStream(HTTPStreamFile):  # type: ignore[misc]
    """A body that is read from its start; `read(n)` returns n bytes, fewer only at the end."""

    async def _read(self, num: int = -1) -> bytes:
        most = self.fs.max_bytes - self.loc
        data = await _read_body(self.r, most if num < 0 else min(num, most + 1), num < 0)
        self.loc += len(data)
        if self.loc > self.fs.max_bytes:
            _too_large(self.url, self.fs.max_bytes)
        return data

    read = sync_wrapper(_read)


async def _read_body(response: aiohttp.ClientResponse, most: int, whole: bool) -> bytes:
    """Read up to `most` bytes of a body. With `whole`, a larger body is an error."""
    data = io.BytesIO()  # grows in place, and `getvalue` does not copy
    while data.tell() < most + whole:
        piece = await response.content.read(min(_PIECE_BYTES, most + whole - data.tell()))
        if not piece:
            break
        data.write(piece)
    if whole and data.tell() > most:
        response.close()
        _too_large(str(response.request_info.url), most)
    return data.getvalue()


def _too_large(url: str, most: int) -> NoReturn:
    raise RefusedURL("too_large", f"{shown(url)} has more than {most:,} bytes, which is the limit.")


class _Response(aiohttp.ClientResponse):
    max_bytes: ClassVar[int] = MAX_BODY_BYTES

    async def read(self) -> bytes:
        if self._body is not None:
            return await super().read()
        most = self.max_bytes
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", self.request_info.headers.get("Range", ""))
        if asked and self.status == 206:
            most = min(most, int(asked[2]) - int(asked[1]) + 1)
        if (self.content_length or 0) > most:
            self.close()
            _too_large(str(self.request_info.url), most)
        self._body = await _read_body(self, most, True)
        return self._body

    def raise_for_status(self) -> None:
        try:
            super().raise_for_status()
        except aiohttp.ClientResponseError as error:
            url = yarl.URL(shown(str(error.request_info.url)))
            info = aiohttp.RequestInfo(url, error.request_info.method, error.request_info.headers, url)
            message = cleaned(error.message)
            wait = error.headers.get("Retry-After") if error.headers is not None else None
            headers = CIMultiDict({"Retry-After": wait} if wait is not None else {})  # the others may hold a URL
            raise aiohttp.ClientResponseError(info, (), status=error.status, message=message, headers=headers) from None


class _GuardedResolver(AbstractResolver):
    """A resolver that resolves names as the system does and refuses names of hosts that are not public."""

    def __init__(self, private: tuple[str, ...]) -> None:
        self._private, self._system = private, ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        allowed = ANY_ADDRESS in self._private or f"{host.lower()}:{port}" in self._private
        if not allowed and not all(is_public(result["host"]) for result in found):
            refuse_private(f"http://{host}:{port}")
        return found

    async def close(self) -> None:
        await self._system.close()


async def _client(private: tuple[str, ...], max_bytes: int, **kwargs: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        **{
            **kwargs,
            "connector": aiohttp.TCPConnector(resolver=_GuardedResolver(private)),
            "middlewares": (functools.partial(_guard, private),),
            "response_class": type("_LimitedResponse", (_Response,), {"max_bytes": max_bytes}),
            "auto_decompress": False,
        }
    )


async def _guard(
    private: tuple[str, ...], request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Check one hop before its request and after its answer. aiohttp calls this for every hop."""
    url = str(request.url)
    if names_private_host(url, private):
        refuse_private(url)
    request.headers["Accept-Encoding"] = "identity"
    first, here = _first_host.get(), origin_of(url)
    if first is not None and first != here:
        for name in [n for n in request.headers if n.lower() not in _OWN_HEADERS]:
            request.headers.popall(name, None)
    response = await handler(request)
    _first_host.set(None)
    try:
        if response.status in _REDIRECTS:
            _check_redirect(request.url, response.headers.get("Location") or response.headers.get("URI") or "")
            _first_host.set(first or here)
        elif (coding := response.headers.get("Content-Encoding", "identity").strip().lower()) not in ("identity", ""):
            raise RefusedURL(
                "refused",
                f"{shown(url)} comes compressed ({coding[:20]!r}), though the plain file was requested. Serve the "
                "plain file.",
            )
    except RefusedURL:
        response.close()
        raise
    return response


def _check_redirect(url: yarl.URL, location: str) -> None:
    """Refuse a redirect whose target may not be opened. The message omits its query, which may be a signature."""
    where = f"{shown(str(url))} redirects to"
    try:
        target = url.join(yarl.URL(location)) if location else url
    except ValueError as error:
        raise RefusedURL("refused", f"{where} something that is not a URL.") from error
    if target.scheme not in HTTP or not target.host:
        raise RefusedURL("refused", f"{where} a {target.scheme or 'relative'} URL, which is not followed.")
    if url.scheme == "https" and target.scheme == "http":
        raise RefusedURL("refused", f"{where} http, which gives up the encryption. Give the final URL.")
    if target.user is not None or target.password is not None:
        raise RefusedURL("refused", f"{where} a URL with a user or password in it, which is not followed.")
