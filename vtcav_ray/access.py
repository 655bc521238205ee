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
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.client import IncompleteRead
from typing import Any, ParamSpec, TypeVar

import fsspec
import tenacity

from vtcav_ray.errors import ConfigError, EnvironmentFault
from vtcav_ray.urls import check_scheme

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
# What a local file system says of a name that no file can have: too long, below a file, in a loop of links.
_NO_NAME_ERRNO = frozenset({errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
# An object's first byte may take its time under load; s3fs's own 15 s would read that as a broken connection.
_S3_CONFIG = {"connect_timeout": 10, "read_timeout": 60}

P = ParamSpec("P")
T = TypeVar("T")


def storage_errors() -> tuple[type[BaseException], ...]:
    """List what a file system can raise: `except storage_errors() as error`.

    Those of botocore and aiohttp are no OSErrors. Nobody can raise them before their package is imported, so they are
    looked up among the imported modules: a run on local files imports neither.
    """
    return OSError, IncompleteRead, *_boto("BotoCoreError", "ClientError"), *_http("ClientError")


def _boto(*names: str) -> tuple[type[BaseException], ...]:
    return _imported("botocore.exceptions", names)


def _http(*names: str) -> tuple[type[BaseException], ...]:
    return _imported("aiohttp", names)


def _imported(module: str, names: Iterable[str]) -> tuple[type[BaseException], ...]:
    """Classes of a module; none while nobody has imported it (or, in another thread, is about to)."""
    found = sys.modules.get(module)
    return tuple(getattr(found, name) for name in names if hasattr(found, name))


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
    if "://" in url:
        check_scheme(url)
        scheme, rest = url.split("://", 1)
        url = f"{scheme.lower()}://{rest}"  # as fsspec spells them
        if scheme.lower() in ("s3", "s3a"):
            options["config_kwargs"] = {**_S3_CONFIG, **(options.get("config_kwargs") or {})}
    else:
        options = {}  # a local path among remote ones: their options are not its own
    try:
        fs, path = fsspec.core.url_to_fs(url, **{"use_listings_cache": False, **options})
    except (ValueError, ImportError, TypeError) as error:
        raise ConfigError(
            f"{url} can't be opened: {error} Check its scheme (s3://, gs://, a path), and that the package for it "
            "is there."
        ) from error
    return fs, str(path)


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
    except storage_errors() as error:
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
    return any(isinstance(e, _boto("ParamValidationError")) for e in (error, error.__context__))


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, (*_ANSWERS, PermissionError)):
        return False
    answer = _answer(error)
    if answer is not None:
        code, status = answer
        return code in _PASSING_CODES or status in _PASSING_STATUS
    if isinstance(error, (*_boto("HTTPClientError", "ConnectionError", "ResponseStreamingError"), IncompleteRead)):
        return True
    if isinstance(error, _http("ClientResponseError")):
        return getattr(error, "status", 0) in _PASSING_STATUS
    if isinstance(error, (*_http("ClientError"), TimeoutError, ConnectionError)):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNO


def tells_storage_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Turn what storage raises on a user's way into an EnvironmentFault that says so in a sentence."""

    @functools.wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except storage_errors() as error:
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
    if isinstance(error, _boto("NoCredentialsError")):
        return "no credentials found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or `storage_options`."
    if isinstance(error, PermissionError) and answer is not None:
        said = str(error).strip().rstrip(".")
        return f"access is refused ({code}: {said}). Check the key, its secret and its rights, and the endpoint."
    return None


def _answer(error: BaseException) -> tuple[str, int] | None:
    """(error code, HTTP status) where an S3 server answered with an error."""
    for candidate in _chain(error):
        if isinstance(candidate, _boto("ClientError")):
            response: Mapping[str, Any] = getattr(candidate, "response", {})
            status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            return str(response.get("Error", {}).get("Code", status)), status
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _log(state: tenacity.RetryCallState, where: str) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0.0
    level = logging.WARNING if state.attempt_number > 1 else logging.INFO
    logger.log(level, "%s: try %d failed (%s); again in %.1f s", where, state.attempt_number,
               _reason(error) if error else "?", wait)  # fmt: skip
