"""Endless inputs: limits apply to the bytes and frames that arrive, not to claimed sizes."""

from __future__ import annotations

import gzip
import itertools
import json
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.answering import Answering, answering, body, endless
from vtcav_ray.clips.cut import cut_clips
from vtcav_ray.clips.plan_table import PLAN
from vtcav_ray.config import ClipsConfig, Config, VideosConfig
from vtcav_ray.errors import ConfigError, InputError, RefusedURL
from vtcav_ray.store import files, reading
from vtcav_ray.store.access import open_url
from vtcav_ray.store.reading import read_object
from vtcav_ray.store.urls import READ_LIMITS, ReadLimits
from vtcav_ray.tracks.detector_files import read_names
from vtcav_ray.video.decode import Video
from vtcav_ray.video.fetch import fetch
from vtcav_ray.videos import tables as lists
from vtcav_ray.videos.listing import list_videos

MEBI = 2**20


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as server:
        yield server


def kind_of(url: str, server: Answering, **limits: Any) -> str:
    with pytest.raises(InputError) as caught:
        fetch(url, {READ_LIMITS: ReadLimits((server.host,), **limits)})
    return caught.value.kind


# Bytes over HTTP.


def test_a_body_without_end_is_cut(server: Answering) -> None:
    server.answers["/a.mp4"] = endless(b"x" * MEBI)
    server.answers["/chunked.mp4"] = endless(b"100000\r\n" + b"x" * MEBI + b"\r\n", Transfer_Encoding="chunked")
    for path in ("/a.mp4", "/chunked.mp4"):
        assert kind_of(server.url(path), server, max_bytes=3 * MEBI) == "too_large"


def test_a_length_that_is_claimed_is_refused_before_it_is_read(server: Answering) -> None:
    server.answers["/a.mp4"] = endless(b"", wait=lambda: 1 / 0, Content_Length=str(2**62))
    assert kind_of(server.url("/a.mp4"), server, max_bytes=3 * MEBI) == "too_large"


def test_a_body_that_drips_is_ended(server: Answering) -> None:
    stop = threading.Event()
    server.answers["/a.mp4"] = endless(b"x", wait=lambda: stop.wait(0.05))
    assert kind_of(server.url("/a.mp4"), server, seconds=1.0) == "timeout"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_compressed_body_is_not_unpacked(server: Answering, coding: str) -> None:
    bomb = gzip.compress(bytes(64 * MEBI), 1)
    server.answers["/a.mp4"] = body(bomb, Content_Encoding=coding)
    assert kind_of(server.url("/a.mp4"), server, max_bytes=MEBI) == "refused"
    assert all(headers["Accept-Encoding"] == "identity" for _, headers in server.asked)
    with pytest.raises(RefusedURL, match="compressed"):
        open_url(server.url("/a.mp4"))[0].open(server.url("/a.mp4")).read()


def test_a_range_that_does_not_end_is_cut(server: Answering) -> None:
    def lying(request: Any) -> None:
        if "Range" in request.headers:
            endless(b"x" * MEBI, Content_Range="bytes 0-9/1000000000")(request)
        else:
            body(b"", Content_Length="1000000000")(request)

    def partial(request: Any) -> None:
        send = request.send_response
        request.send_response = lambda status: send(206 if "Range" in request.headers else status)
        lying(request)

    server.answers["/a.bin"] = partial
    fs, path = open_url(server.url("/a.bin"))
    with pytest.raises(RefusedURL, match="more than"):
        fs.open(path).read(10)


def test_limits_of_the_config_are_those_that_hold() -> None:
    config = VideosConfig(uri="http://127.0.0.1:8000/v.csv", max_bytes=7, max_fetch_seconds=3.0)
    assert config.read_options == {READ_LIMITS: ReadLimits(("127.0.0.1:8000",), 7, 3.0)}
    limits = Config.model_validate({"videos": {"uri": "v"}}).videos.read_options[READ_LIMITS]
    assert (limits.private, limits.max_bytes) == ((), 4 * 2**30)


@pytest.mark.slow
def test_files_that_the_config_names_have_limits_too(server: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/names.txt", "/m.csv", "/config.py", "/weights.pth"):
        server.answers[path] = endless(b"a\n" * MEBI)
    monkeypatch.setattr("vtcav_ray.tracks.detector_files.MOST_NAMES_BYTES", 3 * MEBI)
    monkeypatch.setattr(lists, "MAX_TABLE_BYTES", 3 * MEBI)
    most = 3 * MEBI
    with pytest.raises(ConfigError, match=r"names\.txt has more than"):
        read_names(server.url("/names.txt"))
    with pytest.raises(ConfigError, match=r"m\.csv has more than"):
        list_videos(VideosConfig(uri=server.url("/m.csv")))
    with pytest.raises(ConfigError, match=r"config\.py is larger than"):
        files.read_bytes(server.url("/config.py"), what="model config", most=most)
    with pytest.raises(ConfigError, match=r"weights\.pth is larger than"):
        files.read_bytes(server.url("/weights.pth"), what="checkpoint", most=most)


def test_a_server_that_gives_no_parts_is_read_whole(server: Answering) -> None:
    data = bytes(range(256)) * (12 * MEBI // 256)
    server.answers["/weights.pth"] = body(data)
    assert files.read_bytes(server.url("/weights.pth"), what="checkpoint", most=16 * MEBI) == data


# Bytes from an object store.


class Store(fsspec.AbstractFileSystem):
    """A store that claims one size for its object and serves another."""

    protocol = "store"
    cachable = False

    def __init__(self, size: int | None, data: bytes, tags: Iterator[str] = itertools.repeat("t")) -> None:
        super().__init__()
        self.size_said, self.data, self.tags = size, data, tags

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": self.size_said, "type": "file", "ETag": next(self.tags)}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return self.data[start:end]


LIMITS = ReadLimits(max_bytes=100, seconds=60.0)


def test_an_object_is_as_long_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PIECE_BYTES", 16)
    data = bytes(range(90))
    assert read_object(Store(90, data), "o", "o", LIMITS) == data
    assert read_object(Store(None, data), "o", "o", LIMITS) == data
    assert read_object(Store(0, b""), "o", "o", LIMITS) == b""
    for store in (Store(101, data), Store(None, bytes(200)), Store(10, bytes(200))):
        with pytest.raises(RefusedURL, match="more than 100"):
            read_object(store, "o", "o", LIMITS)
    for store in (Store(95, data), Store(90, data, iter("ab")), Store(10, data)):  # cut off, or replaced meanwhile
        with pytest.raises(ConnectionError):
            read_object(store, "o", "o", LIMITS)
    with pytest.raises(RefusedURL, match="within 0 seconds"):
        read_object(Store(90, data), "o", "o", ReadLimits(seconds=0.0))


# Frames.


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_apng(path: Path, side: int, frames: int, bits: int, colours: int) -> None:
    """Write an animated, all-black PNG of few bytes. `colours`: samples per pixel (3: RGB, 4: RGBA)."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side * bits // 8 * colours)
    packed = b"".join([packer.compress(row) for _ in range(side)]) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, bits, {3: 2, 4: 6}[colours], 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"acTL", struct.pack(">II", frames, 0))
    number = itertools.count()
    for i in range(frames):
        data += chunk(b"fcTL", struct.pack(">IIIIIHHBB", next(number), side, side, 0, 0, 1, 25, 2, 1))
        data += chunk(b"fdAT", struct.pack(">I", next(number)) + packed) if i else chunk(b"IDAT", packed)
    path.write_bytes(data + chunk(b"IEND", b""))


DECODE = """
import json, sys
from vtcav_ray.errors import InputError
from vtcav_ray.video.decode import Video

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

before, frames, kind = peak(), 0, None
try:
    with Video(sys.argv[1], max_held_bytes=int(sys.argv[2])) as video:
        for _ in video.frames():
            frames += 1
except InputError as error:
    kind = error.kind
print(json.dumps([kind, frames, peak() - before]))
"""


def decode_apart(path: Path, max_held_bytes: int) -> tuple[str | None, int, int]:
    """Decode in a separate process; return the kind of the error, the frames, and the bytes that the process used."""
    done = subprocess.run(
        [sys.executable, "-c", DECODE, str(path), str(max_held_bytes)], capture_output=True, text=True, check=True
    )
    kind, frames, took = json.loads(done.stdout)
    return kind, frames, took


@pytest.mark.full
def test_a_large_animated_picture_is_refused_before_its_memory_is_taken(tmp_path: Path) -> None:
    write_apng(tmp_path / "a.mp4", 8192, 2, 16, 4)
    assert (tmp_path / "a.mp4").stat().st_size < 2 * MEBI
    kind, frames, took = decode_apart(tmp_path / "a.mp4", 1_600_000_000)
    assert (kind, frames) == ("too_large", 0)
    assert took < 1_600_000_000
    kind, frames, took = decode_apart(tmp_path / "a.mp4", 600_000_000)  # not opened at all
    assert (kind, frames) == ("too_large", 0)
    assert took < 100_000_000


@pytest.mark.slow
@pytest.mark.parametrize("form", ["gif", *[pytest.param(form, marks=pytest.mark.full) for form in ("h264", "apng")]])
def test_the_limit_on_frames_in_memory_holds_where_they_are_taken(tmp_path: Path, form: str) -> None:
    side = 4096 if form == "apng" else 2048
    path = tmp_path / "a.mp4"
    if form == "apng":
        write_apng(path, side, 4, 16, 4)
        limit = side * side * (8 * 4 + 3)
    else:
        pixels = {"gif": ("rgb8", 4, 4), "h264": ("yuv420p", 1.5, 28)}[form]
        options = {"preset": "ultrafast", "x264-params": "ref=16:bframes=0:scenecut=0"} if form == "h264" else {}
        with av.open(str(path), "w", format="gif" if form == "gif" else "mp4") as out:
            stream: Any = out.add_stream("gif" if form == "gif" else "libx264", rate=10, options=options)
            stream.width = stream.height = side
            stream.pix_fmt = pixels[0]
            for i in range(24):
                image = np.full((side, side, 3), 9 * i, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixels[0])))
            out.mux(stream.encode())
        limit = int(side * side * (pixels[1] * pixels[2] + 3))
    kind, frames, took = decode_apart(path, limit)
    assert (kind, frames > 0) == (None, True)
    assert took < limit + 40 * MEBI  # plus FFmpeg's own memory
    assert decode_apart(path, limit - 1)[0] == "too_large"


def write_gif(path: Path, frames: int, side: int) -> None:
    """Write a GIF of many frames whose pictures are tiny parts of a large canvas."""
    data = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    piece = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    path.write_bytes(data + (b"\x21\xf9\x04\x04\x01\x00\x00\x00" + piece) * frames + b"\x3b")


@pytest.mark.slow
def test_a_picture_of_thirty_thousand_frames_ends(tmp_path: Path) -> None:
    write_gif(tmp_path / "a.mp4", 30_000, 1024)
    with pytest.raises(InputError) as caught, Video(str(tmp_path / "a.mp4"), max_cpu_seconds=0.5) as video:
        video.count()
    assert caught.value.kind == "timeout"
    with Video(str(tmp_path / "a.mp4"), max_frames=50) as video:
        assert video.count() == 50


@pytest.mark.slow
def test_each_of_these_is_a_row_of_failures_and_the_others_go_on(server: Answering, tmp_path: Path) -> None:
    stop = threading.Event()
    write_apng(tmp_path / "apng.mp4", 2048, 2, 16, 4)
    write_gif(tmp_path / "good.mp4", 40, 64)
    server.answers |= {
        "/endless.mp4": endless(b"x" * MEBI),
        "/drip.mp4": endless(b"x", wait=lambda: stop.wait(0.05)),
        "/gzip.mp4": body(gzip.compress(bytes(8 * MEBI)), Content_Encoding="gzip"),
    }
    uris = {name: server.url(f"/{name}.mp4") for name in ("endless", "drip", "gzip")}
    uris |= {name: str(tmp_path / f"{name}.mp4") for name in ("apng", "good")}
    rows = [
        {**dict.fromkeys(PLAN.names), "clip_id": name, "video_id": name, "uri": uri, "set": "class", "name": "x",
         "kind": "full", "frames": [0, 1]}
        for name, uri in uris.items()
    ]  # fmt: skip
    clips, failures = cut_clips(
        pa.Table.from_pylist(rows, schema=PLAN),
        None,
        ClipsConfig(size=32),
        max_held_bytes=120_000_000,
        storage_options={READ_LIMITS: ReadLimits((server.host,), 3 * MEBI, 1.5)},
    )
    assert {f.video_id: f.error_kind for f in failures} == {
        "endless": "too_large", "drip": "timeout", "gzip": "refused", "apng": "too_large",
    }  # fmt: skip
    assert clips["clip_id"].to_pylist() == ["good"]
