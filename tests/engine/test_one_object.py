"""One object of a bucket, or the bucket itself, is refused, absent or breaks off, on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from tests.helpers.drawn import encode, square_video
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.seaweed import SECRET, Seaweed
from vtcav_ray.clips.cut import cut_clips
from vtcav_ray.config import ClipsConfig, VideosConfig
from vtcav_ray.errors import ConfigError, EnvironmentFault, InputError
from vtcav_ray.store import access
from vtcav_ray.store.access import AccessError
from vtcav_ray.store.files import read_bytes
from vtcav_ray.store.folder import Folder
from vtcav_ray.video.fetch import fetch
from vtcav_ray.video.neighbours import neighbours_of, with_neighbours
from vtcav_ray.videos.listing import list_videos

pytestmark = pytest.mark.slow
NAMES = [f"{i}.mp4" for i in range(4)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(access, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(access, "LONGEST_WAIT_SECONDS", 0.01)


@pytest.fixture(scope="module")
def bucket(s3: Seaweed) -> str:
    url = s3.bucket("objects")
    folder = Folder(url, s3.storage_options)
    for i, name in enumerate(NAMES):
        folder.write_bytes(f"videos/{name}", encode(square_video([(9.0 + i, 30.0)] * 12)[0]))
    folder.write_bytes("lists/some.csv", ("uri\n" + "\n".join(f"{url}/videos/{name}" for name in NAMES)).encode())
    s3.bucket("empty")
    return url


@pytest.fixture
def proxy(s3: Seaweed) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3.url) as running:
        yield running


@pytest.fixture
def options(s3: Seaweed, proxy: FaultyProxy) -> dict[str, Any]:
    return {**s3.storage_options, "endpoint_url": proxy.url}


def listed(bucket: str, s3: Seaweed) -> pa.Table:
    return list_videos(VideosConfig(uri=f"{bucket}/videos", storage_options=s3.storage_options))[0]


def outcomes(videos: pa.Table, options: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name, video in with_neighbours(videos, neighbours_of(videos)).items():
        try:
            found[name] = "read" if isinstance(fetch(video, options), bytes) else "?"
        except InputError as error:
            found[name] = error.kind
    return found


@pytest.mark.parametrize("place", [0, 3])
def test_one_object_that_is_refused_is_a_row(
    bucket: str, s3: Seaweed, proxy: FaultyProxy, options: dict[str, Any], place: int
) -> None:
    proxy.refused = {NAMES[place]}
    assert outcomes(listed(bucket, s3), options) == dict.fromkeys(NAMES, "read") | {NAMES[place]: "permission"}
    config = VideosConfig(uri=f"{bucket}/lists/some.csv", storage_options=options)
    videos, failures = list_videos(config)
    assert [name.rsplit("/")[-1] for name in videos["video_id"].to_pylist()] == [n for n in NAMES if n != NAMES[place]]
    assert [(f.uri, f.error_kind) for f in failures] == [(f"{bucket}/videos/{NAMES[place]}", "permission")]
    assert SECRET not in str(failures)


def test_every_object_that_is_refused_is_the_buckets_fault(
    bucket: str, s3: Seaweed, proxy: FaultyProxy, options: dict[str, Any]
) -> None:
    proxy.refused = set(NAMES)
    with pytest.raises(AccessError, match=r"access is refused .*No other video of s3://objects"):
        outcomes(listed(bucket, s3), options)
    with pytest.raises(AccessError, match=r"access is refused"):
        list_videos(VideosConfig(uri=f"{bucket}/lists/some.csv", storage_options=options))


def test_an_object_alone_in_its_bucket(bucket: str, s3: Seaweed, proxy: FaultyProxy, options: dict[str, Any]) -> None:
    """Without neighbours, whether the bucket can be listed decides."""
    one = listed(bucket, s3).slice(1, 1)
    proxy.refused = {NAMES[1]}
    assert outcomes(one, options) == {NAMES[1]: "permission"}
    with pytest.raises(AccessError, match="access is refused"):
        outcomes(one, {**s3.storage_options, "secret": "wr0ng"})


def test_one_object_that_breaks_off_is_a_row_and_all_that_do_are_a_fault(
    bucket: str, s3: Seaweed, proxy: FaultyProxy, options: dict[str, Any]
) -> None:
    videos = listed(bucket, s3)
    proxy.always = {NAMES[2]: "truncated"}
    assert outcomes(videos, options) == dict.fromkeys(NAMES, "read") | {NAMES[2]: "unreadable"}
    proxy.always = dict.fromkeys(NAMES, "truncated")
    with pytest.raises(EnvironmentFault, match="No other video of s3://objects"):
        outcomes(videos.slice(0, 2), options)


def test_a_service_that_is_too_busy_for_one_object_is_nobodys_failure(
    bucket: str, s3: Seaweed, proxy: FaultyProxy, options: dict[str, Any]
) -> None:
    proxy.always = {NAMES[0]: "503"}
    with pytest.raises(ConnectionError, match="could not be reached"):
        outcomes(listed(bucket, s3), options)


def test_a_wrong_key_and_a_wrong_bucket(bucket: str, s3: Seaweed, options: dict[str, Any]) -> None:
    videos = listed(bucket, s3)
    with pytest.raises(AccessError, match="Check the key"):
        outcomes(videos, {**s3.storage_options, "secret": "wr0ng"})
    elsewhere = [uri.replace("s3://objects", "s3://no-such-bucket") for uri in videos["uri"].to_pylist()]
    place = videos.schema.get_field_index("uri")
    with pytest.raises(AccessError, match="there is no such bucket"):
        outcomes(videos.set_column(place, videos.schema.field(place), pa.array(elsewhere)), s3.storage_options)
    with pytest.raises(ConfigError, match=r"No checkpoint at s3://objects/absent\.pth"):
        read_bytes(f"{bucket}/absent.pth", options, what="checkpoint")


def test_an_object_that_was_replaced_is_noticed_also_while_it_is_read(
    bucket: str, s3: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = listed(bucket, s3)
    folder = Folder(bucket, s3.storage_options)
    before = s3.read("objects", f"videos/{NAMES[0]}")
    other = before[:-1] + bytes([before[-1] ^ 1])  # of the same size
    folder.write_bytes(f"videos/{NAMES[0]}", other)
    try:
        assert outcomes(videos, s3.storage_options) == dict.fromkeys(NAMES, "read") | {NAMES[0]: "changed"}
        folder.write_bytes(f"videos/{NAMES[0]}", before)
        assert outcomes(videos, s3.storage_options) == dict.fromkeys(NAMES, "read")

        from vtcav_ray.video import fetch as module

        real = module.read_object

        def read_then_replaced(fs: Any, path: str, uri: str, *rest: Any) -> bytes:
            data = real(fs, path, uri, *rest)
            if path.endswith(NAMES[0]):
                folder.write_bytes(f"videos/{NAMES[0]}", other)
            return data

        monkeypatch.setattr(module, "read_object", read_then_replaced)
        assert outcomes(videos, s3.storage_options) == dict.fromkeys(NAMES, "read") | {NAMES[0]: "changed"}
    finally:
        folder.write_bytes(f"videos/{NAMES[0]}", before)


def test_no_clip_is_cut_from_an_object_that_was_replaced(bucket: str, s3: Seaweed) -> None:
    videos = listed(bucket, s3)
    sources = with_neighbours(videos, neighbours_of(videos))
    plan = pa.Table.from_pylist(
        [
            {"clip_id": f"c{i}", "set": "class", "name": "a", "kind": "full", "video_id": name,
             "uri": sources[name].uri, "label": "a", "frames": None, "boxes": None, "control_of": None,
             "object": None, "motion": None, "track_id": None, "pick": 0, "view": 0, "seed": 1}
            for i, name in enumerate(NAMES)
        ]
    )  # fmt: skip
    folder = Folder(bucket, s3.storage_options)
    before = s3.read("objects", f"videos/{NAMES[3]}")
    folder.write_bytes(f"videos/{NAMES[3]}", encode(square_video([(50.0, 60.0)] * 12)[0]))
    try:
        config = ClipsConfig(frames=8, interval=1, size=32)
        clips, failures = cut_clips(plan, sources, config, storage_options=s3.storage_options)
    finally:
        folder.write_bytes(f"videos/{NAMES[3]}", before)
    assert clips["video_id"].to_pylist() == NAMES[:3]
    assert [(f.video_id, f.error_kind) for f in failures] == [(NAMES[3], "changed")]
