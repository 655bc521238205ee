"""Folders on a real S3 server, with and without faults."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from tests.helpers.faulty_proxy import FAULTS, FaultyProxy
from tests.helpers.seaweed import SECRET, Seaweed
from vtcav_ray.config import VideosConfig
from vtcav_ray.errors import StageError
from vtcav_ray.store import access
from vtcav_ray.store.access import AccessError
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.fetch import fetch
from vtcav_ray.videos.listing import list_videos

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket(s3: Seaweed) -> str:
    """Make a bucket with one object, `there/x`."""
    url = s3.bucket("faults")
    Folder(url, s3.storage_options).write_bytes("there/x", b"0123456789" * 20_000)
    return url


@pytest.mark.parametrize("fault", FAULTS)
def test_answers_that_may_pass_are_asked_for_again(bucket: str, s3: Seaweed, fault: str) -> None:
    with FaultyProxy(s3.url, delay=0.5) as proxy:
        folder = Folder(bucket, {**s3.storage_options, "endpoint_url": proxy.url})
        for use in (
            lambda: folder.read_bytes("there/x") == b"0123456789" * 20_000,
            lambda: folder.names("there") == ["x"],
            lambda: folder.exists("there/x"),
            lambda: fetch(f"{bucket}/there/x", folder.storage_options) == b"0123456789" * 20_000,
        ):
            proxy.faults = [fault] * 2
            assert use()
        proxy.faults = [fault] * 2
        folder.write_bytes(f"by-{fault}", b"abc" * 1000)
        proxy.faults = [fault] * 2
        assert folder.write_once(f"once-{fault}", b"mine") == b"mine"
        assert folder.write_once(f"once-{fault}", b"late") == b"mine"
        proxy.faults = [fault] * 2
        folder.remove(f"once-{fault}")
        proxy.faults = []
        assert s3.read("faults", f"by-{fault}") == b"abc" * 1000
        assert f"once-{fault}" not in s3.keys("faults")


def test_more_trouble_than_the_client_bears_is_waited_for_here(
    bucket: str, s3: Seaweed, caplog: pytest.LogCaptureFixture
) -> None:
    """Seven broken answers in a row are survived, although s3fs gives up after five."""
    with FaultyProxy(s3.url) as proxy, caplog.at_level(logging.INFO, "vtcav_ray.store.access"):
        proxy.faults = ["truncated"] * 7
        folder = Folder(bucket, {**s3.storage_options, "endpoint_url": proxy.url})
        assert len(folder.read_bytes("there/x")) == 200_000
        assert proxy.faults == []
    assert "attempt 1 failed" in caplog.text
    assert SECRET not in caplog.text


def test_patience_ends_with_a_sentence(s3: Seaweed, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PATIENCE_SECONDS", 0.1)
    away = Folder(bucket, {**s3.storage_options, "endpoint_url": "http://127.0.0.1:1"})
    with pytest.raises(ConnectionError, match=r"s3://faults/there/x could not be reached for 0 s; the last answer"):
        away.read_bytes("there/x")


@pytest.mark.parametrize("part", ["key", "secret"])
def test_a_wrong_key_is_reported_at_once(s3: Seaweed, bucket: str, part: str) -> None:
    wrong = {**s3.storage_options, part: "wr0ng-" + SECRET}
    folder = Folder(bucket, wrong)
    began = time.monotonic()
    for use in (
        folder.check,
        lambda: folder.read_bytes("there/x"),
        lambda: folder.write_bytes("y", b"1"),
        lambda: folder.names("there"),
        lambda: folder.exists("there/x"),
        lambda: fetch(f"{bucket}/there/x", wrong),
        lambda: list_videos(VideosConfig(uri=f"{bucket}/there", storage_options=wrong)),
    ):
        with pytest.raises(AccessError, match=r"s3://faults.*access is refused .*Check the key") as caught:
            use()
        assert SECRET not in str(caught.value)
    assert time.monotonic() - began < 20


def test_a_wrong_bucket_is_reported_at_once(s3: Seaweed) -> None:
    with pytest.raises(AccessError, match=r"s3://no-such-bucket/run: there is no such bucket"):
        Folder("s3://no-such-bucket/run", s3.storage_options).check()
    with pytest.raises(StageError, match="there is no such bucket"):
        list_videos(VideosConfig(uri="s3://no-such-bucket/videos", storage_options=s3.storage_options))


def test_no_credentials_is_reported_at_once(s3: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(AccessError, match="no credentials found"):
        Folder("s3://faults/x", {"endpoint_url": s3.url}).check()
