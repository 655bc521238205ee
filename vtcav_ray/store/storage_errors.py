"""Classify storage errors: do they concern the service, one object, or access rights? Only this module does that.

| trouble | errors | consequence |
| --- | --- | --- |
| `PASSING` | 429, 5xx, time-outs, refused connections, DNS, a stale NFS handle | retried; then a fault |
| `CUT_OFF` | an answer that ends early, a connection that is reset | retried; then as `BROKEN` |
| `ABSENT` | 404, 410, no such file, a name that no file can have | a row of `failures` |
| `REFUSED` | 401, 403, EACCES | a row if other objects can be read, else a fault |
| `BROKEN` | other 4xx, a range error, EIO | a row if other objects can be read, else a fault |
| `NO_ACCESS` | a wrong key, no credentials, no such bucket, an untrusted certificate | a fault at once |
| `OTHER` | a full disk, too many open files, and everything else | a fault |

`vtcav_ray.store.access` acts on the first column for any file. For a video, `vtcav_ray.video.neighbours` also checks
whether its neighbours can be read.
"""

from __future__ import annotations

import datetime
import email.utils
import enum
import errno
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import IncompleteRead
from typing import Any


class Trouble(enum.Enum):
    """The first column of the table above."""

    PASSING = enum.auto()
    CUT_OFF = enum.auto()
    ABSENT = enum.auto()
    REFUSED = enum.auto()
    BROKEN = enum.auto()
    NO_ACCESS = enum.auto()
    OTHER = enum.auto()


class CutOff(ConnectionError):
    """Fewer bytes arrived than the object has."""


@dataclass(frozen=True)
class Answer:
    """An error response of a server.

    Attributes:
        code: S3's error code (`NoSuchKey`); for other servers, and if S3 sends no body, the status as text.
        status: HTTP status.
        headers: with names in lower case.
        s3: whether the server speaks S3.
    """

    code: str
    status: int
    headers: Mapping[str, str]
    s3: bool


_PASSING_STATUS = frozenset({408, 425, 429})  # and 5xx, except two that say what the server can't do at all
_NEVER_STATUS = frozenset({501, 505})
_PASSING_CODES = frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling",
                            "ThrottlingException", "RequestLimitExceeded", "OperationAborted"})  # fmt: skip
# These concern a key, a clock, a bucket or a region: every other object of the bucket is refused, too.
_NO_ACCESS_CODES = frozenset({"NoSuchBucket", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch",
                              "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed",
                              "AuthorizationHeaderMalformed", "PermanentRedirect", "NotSignedUp",
                              "AccountProblem"})  # fmt: skip
_ABSENT_STATUS = frozenset({404, 410})
_REFUSED_STATUS = frozenset({401, 403})
_PROXY_STATUS = 407  # the proxy wants a password
_LOCAL = {
    # s3fs translates answers such as SlowDown (EBUSY) and InternalError (EREMOTEIO). ESTALE comes from NFS.
    Trouble.PASSING: (errno.EBUSY, errno.EREMOTEIO, errno.ETIMEDOUT, errno.EAGAIN, errno.ESTALE),
    Trouble.CUT_OFF: (errno.ECONNRESET, errno.EPIPE),
    # Includes names that no file can have: too long, below a file, in a loop of links.
    Trouble.ABSENT: (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
    Trouble.REFUSED: (errno.EACCES, errno.EPERM),
    Trouble.BROKEN: (errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA),
}
_BY_ERRNO = {number: trouble for trouble, numbers in _LOCAL.items() for number in numbers}


def storage_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return the classes that a file system can raise, plus `others`: `except storage_errors(ValueError) as error`.

    Errors of botocore and aiohttp are not OSErrors. They can't be raised before their package is imported, so they are
    looked up among the imported modules: a run on local files imports neither.
    """
    return OSError, IncompleteRead, *_boto("BotoCoreError", "ClientError"), *_http("ClientError"), *others


def sort(error: BaseException) -> Trouble:
    """Classify an error. One that did not come from storage is `OTHER`."""
    error = _unwrapped(error)
    if (answer := answer_of(error)) is not None:
        return _sorted_answer(answer)
    for trouble, kinds in _kinds():
        if isinstance(error, kinds):
            return trouble
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, ValueError):
        return Trouble.BROKEN  # an answer with invalid headers
    if isinstance(error.__context__, _boto("ParamValidationError")):
        return Trouble.ABSENT  # s3fs turns it into a ValueError when it lists
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    if isinstance(error, (*_boto("HTTPClientError", "ConnectionError"), *_http("ClientError"), ConnectionError)):
        return Trouble.PASSING
    if isinstance(error, PermissionError):
        return Trouble.REFUSED
    return Trouble.ABSENT if isinstance(error, FileNotFoundError | NotADirectoryError) else Trouble.OTHER


def _kinds() -> tuple[tuple[Trouble, tuple[type[Exception], ...]], ...]:
    """Return the errors that their class alone classifies. A subclass comes before its base class."""
    return (
        (Trouble.BROKEN, _http("InvalidUrlRedirectClientError", "NonHttpUrlRedirectClientError")),
        # For example a bucket name with a blank.
        (Trouble.ABSENT, (*_boto("ParamValidationError"), *_http("InvalidURL"))),
        (Trouble.NO_ACCESS, (*_boto("NoCredentialsError"), *_http("ClientConnectorCertificateError"))),
        (Trouble.PASSING, (*_http("ClientConnectorError"), ConnectionRefusedError, TimeoutError)),
        (Trouble.CUT_OFF, (CutOff, IncompleteRead, ConnectionResetError, BrokenPipeError)),
        (Trouble.CUT_OFF, _boto("ResponseStreamingError", "IncompleteReadError", "ConnectionClosedError")),
        (Trouble.CUT_OFF, _http("ClientPayloadError", "ServerDisconnectedError")),
    )


def answer_of(error: BaseException) -> Answer | None:
    """Return the server's answer that an error reports; None if it reports none."""
    for candidate in _chain(_unwrapped(error)):
        if isinstance(candidate, _boto("ClientError")):
            response: Mapping[str, Any] = getattr(candidate, "response", {})
            about = response.get("ResponseMetadata", {})
            status = int(about.get("HTTPStatusCode", 0))
            code = str(response.get("Error", {}).get("Code", status))
            return Answer(code, status, _lower(about.get("HTTPHeaders")), s3=True)
        if isinstance(candidate, _http("ClientResponseError")):
            status = int(getattr(candidate, "status", 0))
            return Answer(str(status), status, _lower(getattr(candidate, "headers", None)), s3=False)
    return None


def retry_after(error: BaseException) -> float:
    """Return the seconds that the server asks to wait; 0 if it asks for nothing, or not in HTTP's format."""
    answer = answer_of(error)
    said = answer.headers.get("retry-after", "").strip() if answer is not None else ""
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        until = email.utils.parsedate_to_datetime(said)
    except (ValueError, OverflowError):
        return 0.0
    now = datetime.datetime.now(datetime.UTC)
    return max(0.0, (until.replace(tzinfo=until.tzinfo or datetime.UTC) - now).total_seconds())


def refusal(error: BaseException) -> str | None:
    """Return the sentence for a refusal or for wrongly configured storage; None for any other error."""
    answer = answer_of(error)
    if answer is not None and answer.code == "NoSuchBucket":
        return "there is no such bucket. Check the bucket's name and the endpoint."
    if isinstance(_unwrapped(error), _boto("NoCredentialsError")):
        return "no credentials found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or `storage_options`."
    if sort(error) is Trouble.NO_ACCESS and answer is None:
        return "its certificate is not trusted here. Check the host's name and this machine's certificates."
    if sort(error) not in (Trouble.REFUSED, Trouble.NO_ACCESS) or answer is None:
        return None
    if answer.s3:
        said = str(error).strip().rstrip(".")
        return f"access is refused ({answer.code}: {said}). Check the key, its secret and its rights, and the endpoint."
    return f"access is refused (HTTP {answer.status}). Check the URL, and what its server asks for (`storage_options`)."


def reason(error: BaseException) -> str:
    """Describe an error in one line."""
    error = _unwrapped(error)
    answer = answer_of(error)
    if answer is not None and not answer.s3:  # its text holds the redirect's URL, with its query
        return f"HTTP {answer.status}"
    if isinstance(error, _http("InvalidURL")):
        return "it leads to something that is not a URL"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _sorted_answer(answer: Answer) -> Trouble:
    code, status = answer.code, answer.status
    if code in _NO_ACCESS_CODES or status == _PROXY_STATUS or (answer.s3 and 300 <= status < 400):
        return Trouble.NO_ACCESS
    if code in _PASSING_CODES or status in _PASSING_STATUS or (status >= 500 and status not in _NEVER_STATUS):
        return Trouble.PASSING
    if status in _ABSENT_STATUS:
        return Trouble.ABSENT
    if status in _REFUSED_STATUS:
        return Trouble.REFUSED
    return Trouble.BROKEN if 300 <= status < 500 else Trouble.OTHER


def _unwrapped(error: BaseException) -> BaseException:
    """Return the real error: fsspec's HTTP file system turns every error into a FileNotFoundError."""
    while isinstance(error, FileNotFoundError) and isinstance(error.__cause__, storage_errors()):
        error = error.__cause__
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _lower(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in (headers or {}).items()}


def _boto(*names: str) -> tuple[type[Exception], ...]:
    return _imported("botocore.exceptions", names)


def _http(*names: str) -> tuple[type[Exception], ...]:
    return _imported("aiohttp", names)


def _imported(module: str, names: Iterable[str]) -> tuple[type[Exception], ...]:
    """Return classes of a module; none if it is not imported yet (or only partly, in another thread)."""
    found = sys.modules.get(module)
    return tuple(getattr(found, name) for name in names if hasattr(found, name))
