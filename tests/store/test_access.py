"""Storage errors that are retried, errors that are reported at once, and objects that can't be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from vtcav_ray.errors import ConfigError, EnvironmentFault, InputError
from vtcav_ray.store import access
from vtcav_ray.store.access import AccessError, may_pass, open_url, patiently, report_storage_errors
from vtcav_ray.video.fetch import fetch


def answered(code: str, status: int, wrapped: type[OSError] = OSError) -> OSError:
    """Make an error as s3fs raises it: an OSError whose cause is botocore's error."""
    error = wrapped(f"{code} said the server")
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error.__cause__ = ClientError(response, "GetObject")  # type: ignore[arg-type]
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (answered("SlowDown", 503), True),
        (answered("InternalError", 500), True),
        (answered("TooManyRequests", 429), True),
        (answered("AccessDenied", 403, PermissionError), False),
        (answered("InvalidRange", 416), False),
        (answered("NoSuchKey", 404, FileNotFoundError), False),
        (EndpointConnectionError(endpoint_url="http://x"), True),
        (NoCredentialsError(), False),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.ENOSPC, "full"), False),
        (OSError(errno.EIO, "a disk"), False),
        (ValueError(), False),
    ],
)
def test_what_may_pass(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(access, "LONGEST_WAIT_SECONDS", 0.01)


class Flaky:
    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "data"


@pytest.mark.usefixtures("quick")
def test_trouble_that_passes_is_waited_for() -> None:
    call = Flaky(answered("SlowDown", 503), ConnectionResetError(), TimeoutError())
    assert patiently(call, "s3://b/x") == "data"
    assert call.calls == 4


@pytest.mark.usefixtures("quick")
def test_patience_ends() -> None:
    call = Flaky(*[answered("SlowDown", 503)] * 1000)
    with pytest.raises(ConnectionError, match=r"s3://b/x could not be reached for 0 s; the last answer: OSError: Slow"):
        patiently(call, "s3://b/x", patience=0.05)
    assert 1 < call.calls < 1000


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (answered("InvalidAccessKeyId", 403, PermissionError), "access is refused .*Check the key"),
        (answered("NoSuchBucket", 404, FileNotFoundError), "no such bucket"),
        (NoCredentialsError(), "no credentials found"),
    ],
)
def test_a_refusal_is_reported_at_once(error: Exception, sentence: str) -> None:
    call = Flaky(error)
    with pytest.raises(AccessError, match=f"s3://b/x: .*{sentence}"):
        patiently(call, "s3://b/x")
    assert call.calls == 1


def test_an_answer_is_an_answer() -> None:
    with pytest.raises(FileNotFoundError):
        patiently(Flaky(answered("NoSuchKey", 404, FileNotFoundError)), "s3://b/x")


def test_what_storage_raises_becomes_a_sentence() -> None:
    @report_storage_errors
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(EnvironmentFault, match="No space left where the run is written"):
        full()


@pytest.mark.parametrize("url", ["s3://key:hush@bucket/x", "https://me:hush@host/v.mp4", "s3://hush@bucket/x"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="holds a credential") as caught:
        open_url(url)
    assert "hush" not in str(caught.value)


def test_options_of_a_bucket_are_not_a_local_paths(tmp_path: Path) -> None:
    fs, path = open_url(str(tmp_path), {"key": "k", "secret": "s"})
    assert path == str(tmp_path)
    assert "secret" not in fs.storage_options


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.mp4")
    with pytest.raises(InputError, match="not a regular file"):
        fetch(str(tmp_path / "v.mp4"))
