"""Files on any fsspec URL, opened in one way and, when an object store falters, tried again in one way.

Everything that reads or writes goes through here: run folders, videos, label files, weights, checkpoints. Three kinds
of trouble are told apart:

- It may pass (throttling, 5xx, time-outs, refused or broken connections, answers that break off): tried again with a
  growing, random wait, for up to `PATIENCE_SECONDS`; a server that is restarted in mid-run costs that wait and no more.
- It won't (a wrong key, no credentials, no such bucket): `AccessError` at once, in one sentence.
- It is an answer (no such file): raised as it is.

s3fs and botocore try again by themselves, too, but a few times within seconds, and neither covers all of the above.
No message holds credentials: they are never part of a URL here, and `storage_options` are never printed.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from http.client import IncompleteRead
from typing import Any, ParamSpec, TypeVar

import aiohttp
import fsspec
import tenacity
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from vtcav_ray.errors import ConfigError, EnvironmentFault
from vtcav_ray.guarded_http import GuardedHTTPFileSystem
from vtcav_ray.url_text import cleaned
from vtcav_ray.urls import READ_LIMITS, ReadLimits, check_options, check_scheme, origin_of

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 15.0
# What s3fs makes of answers such as SlowDown (EBUSY), InternalError (EREMOTEIO), and of those that it has no name for.
_PASSING_ERRNO = frozenset({errno.EBUSY, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE, errno.EAGAIN})
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling",
                            "ThrottlingException", "RequestLimitExceeded", "OperationAborted"})  # fmt: skip
_ANSWERS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
# What can rise out of a file system; botocore's errors are no OSErrors.
STORAGE_ERRORS = (OSError, BotoCoreError, ClientError, aiohttp.ClientError, IncompleteRead)
# What a local file system says of a name that no file can have: too long, below a file, in a loop of links.
_NO_NAME_ERRNO = frozenset({errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
# An object's first byte may take its time under load; s3fs's own 15 s would read that as a broken connection.
_S3_CONFIG = {"connect_timeout": 10, "read_timeout": 60}

P = ParamSpec("P")
T = TypeVar("T")


class AccessError(EnvironmentFault):
    """Storage refuses: a wrong key, no right, no credentials, no such bucket. Trying again is no use."""


def open_url(url: str, storage_options: Mapping[str, Any] | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL or path, and the path on it.

    Listings are never cached: other processes write into the same folders. fsspec keeps one instance for the same
    options, so calling this often is cheap.

    Raises:
        ConfigError: not a URL, credentials in it, a scheme that is not allowed (`vtcav_ray.urls`), or options that its
            file system refuses.
    """
    options = dict(storage_options or {})
    limits: ReadLimits | None = options.pop(READ_LIMITS, None)
    check_options(options)
    if "://" in url:
        check_scheme(url)
        scheme, rest = url.split("://", 1)
        url = f"{scheme.lower()}://{rest}"  # as fsspec spells them
        if scheme.lower() in ("s3", "s3a"):
            options["config_kwargs"] = {**_S3_CONFIG, **(options.get("config_kwargs") or {})}
    else:
        options = {}  # a local path among remote ones: their options are not its own
    try:
        if origin := origin_of(url):
            return _http(origin, limits, options), url
        fs, path = fsspec.core.url_to_fs(url, **{"use_listings_cache": False, **options})
    except (ValueError, ImportError, TypeError) as error:
        raise ConfigError(
            f"{url} can't be opened: {error} Check its scheme (s3://, gs://, a path), and that the package for it "
            "is there."
        ) from error
    return fs, str(path)


def _http(origin: str, limits: ReadLimits | None, options: Mapping[str, Any]) -> GuardedHTTPFileSystem:
    """Without limits, the URL was named by a person: its own host may have any address, those it redirects to not."""
    if limits is None:
        return GuardedHTTPFileSystem(private=(origin,), **options)
    return GuardedHTTPFileSystem(limits.private, limits.max_bytes, limits.seconds, **options)


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether a file system is this machine's own."""
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return "file" in protocols or "memory" in protocols


def patiently(call: Callable[[], T], where: str, *, patience: float | None = None) -> T:
    """Call, and call again while storage falters.

    Args:
        call: reads or writes; safe to repeat.
        where: the URL, for messages.
        patience: seconds after which no new try is begun; None: `PATIENCE_SECONDS`.

    Raises:
        AccessError: storage refuses.
        ConnectionError: storage faltered for longer than `patience`.
        Everything else: as `call` raises it.
    """
    seconds = PATIENCE_SECONDS if patience is None else patience
    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        wait=tenacity.wait_random_exponential(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS),
        stop=tenacity.stop_after_delay(seconds),
        before_sleep=lambda state: _log(state, where),
        reraise=True,
    )
    try:
        return tries(call)
    except STORAGE_ERRORS as error:
        if refusal := _refusal(error):
            raise AccessError(f"{where}: {refusal}") from error
        if may_pass(error):
            raise ConnectionError(
                f"{where} could not be reached for {seconds:.0f} s; the last answer: {_reason(error)}"
            ) from error
        raise


def kind_of(fs: fsspec.AbstractFileSystem, path: str) -> str | None:
    """`file`, `directory`, or None where there is nothing. (fsspec's `isfile` takes any error for a no.)"""
    try:
        return str(fs.info(path)["type"])
    except (FileNotFoundError, NotADirectoryError) as error:
        if _refusal(error):
            raise
        return None


def names_nothing(error: BaseException) -> bool:
    """Whether the answer is that there is no such file, or that there can be none of that name."""
    if isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.errno in _NO_NAME_ERRNO):
        return True
    # A bucket's name with a blank, say. s3fs makes a ValueError of it where it lists.
    return any(isinstance(e, ParamValidationError) for e in (error, error.__context__))


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, (*_ANSWERS, PermissionError)):
        return False
    answer = _answer(error)
    if answer is not None:
        code, status = answer
        return code in _PASSING_CODES or status in _PASSING_STATUS
    if isinstance(error, HTTPClientError | BotoConnectionError | ResponseStreamingError | IncompleteRead):
        return True
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in _PASSING_STATUS
    if isinstance(error, aiohttp.ClientError | TimeoutError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNO


def tells_storage_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Turn what storage raises on a user's way into an EnvironmentFault that says so in a sentence."""

    @functools.wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except STORAGE_ERRORS as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise EnvironmentFault(
                    f"No space left where the run is written ({_reason(error)}). Make room and run again: what is "
                    "finished is kept."
                ) from error
            raise EnvironmentFault(
                f"Storage: {_refusal(error) or _reason(error)} Run again: what is finished is kept."
            ) from error

    return telling


def _refusal(error: BaseException) -> str | None:
    """The sentence for trouble that won't pass and is about the whole storage; None: it is something else."""
    answer = _answer(error)
    code = answer[0] if answer else None
    if code == "NoSuchBucket":
        return "there is no such bucket. Check the bucket's name and the endpoint."
    if isinstance(error, NoCredentialsError):
        return "no credentials found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or `storage_options`."
    if isinstance(error, PermissionError) and answer is not None:
        said = str(error).strip().rstrip(".")
        return f"access is refused ({code}: {said}). Check the key, its secret and its rights, and the endpoint."
    return None


def _answer(error: BaseException) -> tuple[str, int] | None:
    """(error code, HTTP status) where an S3 server answered with an error."""
    for candidate in _chain(error):
        if isinstance(candidate, ClientError):
            response = candidate.response
            status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            return str(response.get("Error", {}).get("Code", status)), status
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {cleaned(lines[0])}" if lines else type(error).__name__


def _log(state: tenacity.RetryCallState, where: str) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0.0
    level = logging.WARNING if state.attempt_number > 1 else logging.INFO
    logger.log(level, "%s: try %d failed (%s); again in %.1f s", where, state.attempt_number,
               _reason(error) if error else "?", wait)  # fmt: skip
