"""Open files on any fsspec URL, and retry when storage fails for a while.

All reads and writes go through this module: run folders, videos, label files, weights, checkpoints.
`vtcav_ray.store.storage_errors` classifies errors; this module acts on the class:

- Transient errors (throttling, 5xx, time-outs, refused or broken connections, truncated answers) are retried for up to
  `PATIENCE_SECONDS`, with a growing, random wait or the wait that the server asks for (`Retry-After`). A server restart
  during a run costs that wait and no more.
- Permanent errors (a wrong key, no credentials, no such bucket, a refusal) raise `AccessError` at once, in one
  sentence. Only for a video may a refusal concern that one file: see `vtcav_ray.video.neighbours`.
- Definite answers (no such file) are raised unchanged.

s3fs and botocore also retry, but only a few times within seconds, and neither covers all of the above.
No message holds credentials: URLs here never contain them, and `storage_options` are never printed.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import fsspec
import tenacity

from vtcav_ray.errors import ConfigError, EnvironmentFault
from vtcav_ray.store.storage_errors import CutOff, Trouble, reason, refusal, retry_after, sort, storage_errors
from vtcav_ray.store.urls import READ_LIMITS, ReadLimits, check_options, check_scheme, origin_of

if TYPE_CHECKING:
    from vtcav_ray.store.guarded_http import GuardedHTTPFileSystem

__all__ = ["AccessError", "is_local", "kind_of", "may_pass", "names_nothing", "open_url", "patiently",
           "report_storage_errors", "storage_errors"]  # fmt: skip

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 15.0
# Under load, an object's first byte may be slow. s3fs's default of 15 s would treat that as a broken connection.
_S3_CONFIG = {"connect_timeout": 10, "read_timeout": 60}

P = ParamSpec("P")
T = TypeVar("T")


class AccessError(EnvironmentFault):
    """Storage refuses access: a wrong key, no permission, no credentials, no such bucket. A retry does not help."""


def open_url(url: str, storage_options: Mapping[str, Any] | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL or path, and the path on it.

    Listings are never cached, because other processes write into the same folders. Repeated calls are cheap: fsspec
    keeps one instance per set of options.

    Raises:
        ConfigError: not a URL, a URL with credentials, a scheme that is not allowed (`vtcav_ray.store.urls`), or
            options that the file system refuses.
    """
    options = dict(storage_options or {})
    limits: ReadLimits | None = options.pop(READ_LIMITS, None)
    check_options(options)
    if "://" in url:
        check_scheme(url)
        scheme, rest = url.split("://", 1)
        url = f"{scheme.lower()}://{rest}"  # fsspec expects lower case
        if scheme.lower() in ("s3", "s3a"):
            options["config_kwargs"] = {**_S3_CONFIG, **(options.get("config_kwargs") or {})}
    else:
        options = {}  # a local path among remote ones: the options are for the remote ones
    try:
        if origin := origin_of(url):
            return _http(origin, limits, options), url
        fs, path = fsspec.core.url_to_fs(url, **{"use_listings_cache": False, **options})
    except (ValueError, ImportError, TypeError) as error:
        raise ConfigError(
            f"{url} can't be opened: {error} Check its scheme (s3://, gs://, a path), and that the package for it "
            "is installed."
        ) from error
    return fs, str(path)


def _http(origin: str, limits: ReadLimits | None, options: Mapping[str, Any]) -> GuardedHTTPFileSystem:
    """Open an http(s) file system. Without limits, a person named the URL: its host may be private, redirects not."""
    from vtcav_ray.store.guarded_http import GuardedHTTPFileSystem

    if limits is None:
        return GuardedHTTPFileSystem(private=(origin,), **options)
    return GuardedHTTPFileSystem(limits.private, limits.max_bytes, limits.seconds, **options)


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Return whether a file system is local to this machine."""
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return "file" in protocols or "memory" in protocols


def patiently(call: Callable[[], T], where: str, *, patience: float | None = None, cut_offs: int | None = None) -> T:
    """Call a function, and retry it on transient storage errors.

    Args:
        call: reads or writes; safe to repeat.
        where: the URL, for messages.
        patience: seconds after which no new try starts; None: `PATIENCE_SECONDS`.
        cut_offs: maximum number of truncated answers in a row; None: no limit within `patience`.

    Raises:
        AccessError: storage refuses access.
        ConnectionError: storage failed for longer than `patience`, or asked for a longer wait; CutOff if the last
            answer was truncated.
        OSError: a server's answer was unusable, and neither a refusal nor "no such file".
        Everything else: as `call` raises it.
    """
    seconds = PATIENCE_SECONDS if patience is None else patience
    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        wait=_wait,
        stop=tenacity.stop_any(tenacity.stop_before_delay(seconds), _CutOffs(cut_offs)),
        before_sleep=lambda state: _log(state, where),
        reraise=True,
    )
    try:
        return tries(call)
    except storage_errors() as error:
        if why_refused := refusal(error):
            raise AccessError(f"{where}: {why_refused}") from error
        trouble = sort(error)
        if trouble is Trouble.CUT_OFF:
            raise CutOff(f"{where} breaks off each time; the last time: {reason(error)}") from error
        if trouble is Trouble.PASSING:
            asked = retry_after(error)
            why = f"it asks for a wait of {asked:.0f} s" if asked > seconds else f"the last answer: {reason(error)}"
            raise ConnectionError(f"{where} could not be reached for {seconds:.0f} s; {why}") from error
        if trouble is not Trouble.ABSENT and isinstance(error, FileNotFoundError):
            raise OSError(errno.EIO, f"{where} can't be read: {reason(error)}") from error
        raise


class _CutOffs(tenacity.stop.stop_base):
    """A retry rule that stops after `most` truncated answers in a row."""

    def __init__(self, most: int | None) -> None:
        self.most, self.seen = most, 0

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        self.seen = self.seen + 1 if error is not None and sort(error) is Trouble.CUT_OFF else 0
        return self.most is not None and self.seen >= self.most


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = retry_after(error) if error is not None else 0.0
    return max(asked, tenacity.wait_random_exponential(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)(state))


def kind_of(fs: fsspec.AbstractFileSystem, path: str) -> str | None:
    """Return `file`, `directory`, or None if the path does not exist. (fsspec's `isfile` treats any error as a no.)"""
    try:
        return str(fs.info(path)["type"])
    except (FileNotFoundError, NotADirectoryError) as error:
        if sort(error) is not Trouble.ABSENT:
            raise
        return None


def names_nothing(error: BaseException) -> bool:
    """Return whether the error means that the file does not exist, or that no file can have that name."""
    return sort(error) is Trouble.ABSENT


def may_pass(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    return sort(error) in (Trouble.PASSING, Trouble.CUT_OFF)


def report_storage_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that users call: turn storage errors into an EnvironmentFault with one clear sentence."""

    @functools.wraps(function)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except storage_errors() as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise EnvironmentFault(
                    f"No space left where the run is written ({reason(error)}). Free some space and run again: "
                    "finished work is kept."
                ) from error
            raise EnvironmentFault(
                f"Storage: {refusal(error) or reason(error)} Run again: finished work is kept."
            ) from error

    return reporting


def _log(state: tenacity.RetryCallState, where: str) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0.0
    level = logging.WARNING if state.attempt_number > 1 else logging.INFO
    logger.log(level, "%s: attempt %d failed (%s); next attempt in %.1f s", where, state.attempt_number,
               reason(error) if error else "?", wait)  # fmt: skip
