"""Each storage error is classified by what it concerns: one object, or the storage."""

from __future__ import annotations

import datetime
import email.utils
import errno
from http.client import IncompleteRead
from typing import Any

import aiohttp
import botocore.exceptions
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from vtcav_ray.store import access
from vtcav_ray.store.access import AccessError, patiently
from vtcav_ray.store.storage_errors import CutOff, Trouble, reason, retry_after, sort

PASSING, CUT_OFF, ABSENT, REFUSED = Trouble.PASSING, Trouble.CUT_OFF, Trouble.ABSENT, Trouble.REFUSED
BROKEN, NO_ACCESS, OTHER = Trouble.BROKEN, Trouble.NO_ACCESS, Trouble.OTHER


def http(status: int, **headers: str) -> aiohttp.ClientResponseError:
    url = URL("http://h/x?token=hush")
    about = aiohttp.RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict()), url)
    given = CIMultiDictProxy(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}))
    return aiohttp.ClientResponseError(about, (), status=status, message="said", headers=given)


def as_fsspec(cause: BaseException) -> FileNotFoundError:
    """Make the error that fsspec's HTTP file system raises for any failure when it asks for a size."""
    error = FileNotFoundError("http://h/x")
    error.__cause__ = cause
    return error


def s3(code: str, status: int, kind: type[OSError] = OSError, **headers: str) -> OSError:
    response: Any = {
        "Error": {"Code": code},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    error = kind(f"{code} said the server")
    error.__cause__ = botocore.exceptions.ClientError(response, "GetObject")
    return error


def connector(cause: OSError) -> aiohttp.ClientConnectorError:
    # Without an address in its name, because pytest-xdist needs the same test names in every process.
    named = {"host": "h", "port": 80, "ssl": True, "is_ssl": False, "__repr__": lambda key: "h:80"}
    key: Any = type("Key", (), named)()
    return aiohttp.ClientConnectorError(key, cause)


TABLE = [
    *[(http(status), PASSING) for status in (408, 425, 429, 500, 502, 503, 504, 520, 599)],
    *[(http(status), ABSENT) for status in (404, 410)],
    *[(http(status), REFUSED) for status in (401, 403)],
    *[(http(status), BROKEN) for status in (302, 400, 405, 416, 418, 451)],
    *[(http(status), OTHER) for status in (501, 505)],
    (http(407), NO_ACCESS),
    *[(as_fsspec(http(status)), sort(http(status))) for status in (404, 403, 401, 416, 429, 500, 503)],
    (as_fsspec(as_fsspec(http(404))), ABSENT),
    (as_fsspec(connector(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))), PASSING),
    (connector(OSError(None, "Name or service not known")), PASSING),
    (connector(ConnectionResetError(errno.ECONNRESET, "while connecting")), PASSING),
    (aiohttp.ServerTimeoutError(), PASSING),
    (aiohttp.ClientPayloadError(), CUT_OFF),
    (aiohttp.ServerDisconnectedError(), CUT_OFF),
    (aiohttp.ClientOSError(errno.ECONNRESET, "reset"), CUT_OFF),
    (aiohttp.InvalidURL("http://[/"), ABSENT),
    (aiohttp.InvalidUrlRedirectClientError("http://[/"), BROKEN),
    (as_fsspec(ValueError("invalid literal for int(): '\xb2'")), BROKEN),
    (s3("SlowDown", 503), PASSING),
    (s3("InternalError", 500), PASSING),
    (s3("TooManyRequests", 429), PASSING),
    (s3("NoSuchKey", 404, FileNotFoundError), ABSENT),
    (s3("404", 404, FileNotFoundError), ABSENT),
    (s3("AccessDenied", 403, PermissionError), REFUSED),
    (s3("403", 403, PermissionError), REFUSED),
    (s3("InvalidObjectState", 403, PermissionError), REFUSED),
    (s3("InvalidRange", 416), BROKEN),
    (s3("400", 400), BROKEN),
    (s3("NotImplemented", 501), OTHER),
    *[(s3(code, 403, PermissionError), NO_ACCESS) for code in ("InvalidAccessKeyId", "SignatureDoesNotMatch")],
    *[(s3(code, 400), NO_ACCESS) for code in ("ExpiredToken", "AuthorizationHeaderMalformed")],
    (s3("NoSuchBucket", 404, FileNotFoundError), NO_ACCESS),
    (s3("301", 301), NO_ACCESS),
    (botocore.exceptions.NoCredentialsError(), NO_ACCESS),
    (botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"), PASSING),
    (botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"), PASSING),
    (botocore.exceptions.ConnectionClosedError(endpoint_url="http://x"), CUT_OFF),
    (botocore.exceptions.ResponseStreamingError(error="x"), CUT_OFF),
    (botocore.exceptions.ParamValidationError(report="x"), ABSENT),
    (IncompleteRead(b""), CUT_OFF),
    (CutOff("5 of 10 bytes"), CUT_OFF),
    (ConnectionRefusedError(errno.ECONNREFUSED, "x"), PASSING),
    (ConnectionError("could not be reached"), PASSING),
    (TimeoutError(), PASSING),
    *[(OSError(number, "x"), PASSING) for number in (errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY)],
    *[(OSError(number, "x"), REFUSED) for number in (errno.EACCES, errno.EPERM)],
    *[(OSError(number, "x"), BROKEN) for number in (errno.EIO, errno.EBADMSG)],
    *[(OSError(number, "x"), ABSENT) for number in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)],
    *[(OSError(number, "x"), OTHER) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)],
    (FileNotFoundError("absent"), ABSENT),
    (ValueError("x"), OTHER),
]


@pytest.mark.parametrize(("error", "trouble"), TABLE, ids=lambda value: getattr(value, "name", repr(value))[:60])
def test_what_an_error_is_about(error: Exception, trouble: Trouble) -> None:
    assert sort(error) is trouble


def test_an_untrusted_certificate_is_no_matter_of_patience() -> None:
    key: Any = type("Key", (), {"host": "h", "port": 443, "ssl": True, "is_ssl": True})()
    error = aiohttp.ClientConnectorCertificateError(key, OSError("self-signed"))
    assert sort(error) is NO_ACCESS
    with pytest.raises(AccessError, match="certificate is not trusted"):
        patiently(raising(as_fsspec(error)), "https://h/x")


def raising(*errors: Exception) -> Any:
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "data"

    return call


def in_seconds(seconds: float) -> str:
    return email.utils.format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("7", 7), (" 120 ", 120), ("0", 0), ("-5", 0), ("\xb2", 0), ("soon", 0), ("", 0), ("9" * 400, 999_999_999),
     pytest.param(in_seconds(-60), 0, id="a minute ago"), ("Mon, 01 Jan 99999 00:00:00 GMT", 0)],
)  # fmt: skip
def test_the_wait_that_a_server_asks_for(said: str, seconds: float) -> None:
    assert retry_after(http(503, Retry_After=said)) == seconds
    assert retry_after(as_fsspec(http(503, Retry_After=said))) == seconds
    assert retry_after(s3("SlowDown", 503, **{"retry-after": said})) == seconds


def test_the_wait_may_be_a_date() -> None:
    assert 3000 < retry_after(http(503, Retry_After=in_seconds(3600))) <= 3600
    assert retry_after(OSError()) == 0


def test_a_server_is_left_alone_for_as_long_as_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    assert patiently(raising(http(429, Retry_After="7"), http(503, Retry_After="0")), "http://h/x") == "data"
    assert waits[0] == 7
    assert waits[1] <= access.LONGEST_WAIT_SECONDS


def test_nobody_waits_for_longer_than_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waits for {seconds} s"))
    with pytest.raises(ConnectionError, match="it asks for a wait of 3600 s"):
        patiently(raising(http(503, Retry_After="3600")), "http://h/x")


def test_answers_that_break_off_are_counted_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    cut = aiohttp.ClientPayloadError("cut")
    assert patiently(raising(cut, cut, http(503), cut, cut), "http://h/x", cut_offs=3) == "data"
    with pytest.raises(CutOff, match="http://h/x breaks off each time"):
        patiently(raising(cut, http(503), cut, cut, cut), "http://h/x", cut_offs=3)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_over_http_is_a_refusal_and_not_an_absent_file(status: int) -> None:
    with pytest.raises(AccessError, match=rf"http://h/x: access is refused \(HTTP {status}\)") as caught:
        patiently(raising(as_fsspec(http(status))), "http://h/x")
    assert "hush" not in str(caught.value)


def test_an_answer_of_no_use_is_not_an_absent_file() -> None:
    with pytest.raises(OSError, match="http://h/x can't be read: HTTP 416") as caught:
        patiently(raising(as_fsspec(http(416))), "http://h/x")
    assert not isinstance(caught.value, FileNotFoundError)
    assert sort(caught.value) is BROKEN
    assert "hush" not in reason(http(416))
