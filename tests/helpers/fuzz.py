"""Decode mutated videos in a separate process and print the outcomes as JSON.

    python -m tests.helpers.fuzz COUNT SEED            small files of many containers and codecs, rendered
    python -m tests.helpers.fuzz COUNT SEED VIDEO...   these files, of each at most 8 frames

Each file is decoded or refused with an InputError. Anything else ends the process, which the caller detects.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path

from tests.helpers.drawn import encode, numbered_frames
from tests.helpers.odd_videos import dahua, encrypted_mp4, wmv_with_cover
from vtcav_ray.errors import InputError
from vtcav_ray.video.decode import Video

LIMITS = {"max_frames": 200, "max_pixels": 2_100_000, "max_cpu_seconds": 10.0}
FRAMES_OF_GIVEN = 8


def originals() -> list[bytes]:
    """Render small files in different containers and codecs."""
    frames = numbered_frames(6)
    return [
        encode(frames),
        encode(frames, container_options={"movflags": "frag_keyframe+empty_moov"}),
        encode(frames, container="matroska"),
        encode(frames, container="avi", codec="mpeg4"),
        encode(frames, container="webm", codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
        encode(frames, container="mpegts", codec="mpeg2video"),
        encode(frames, container="gif", codec="gif", pix_fmt="rgb8"),
        encode(frames, container="h264"),
        encode(frames, container="asf", codec="wmv2"),
        encode(frames, container="flv", codec="flv"),
        encode(frames, container="ogg", codec="libvpx"),
        encode(frames, container="mpeg", codec="mpeg2video"),
        encode(frames, container="mxf", codec="mpeg2video"),
        encode(frames, container="wtv", codec="mpeg2video"),
        encode(frames, container="nut", codec="mpeg4"),
        encode(numbered_frames(6, 96, 128), container="rm", codec="rv10"),
        encode(frames, container="yuv4mpegpipe", codec="rawvideo"),
        encode(frames, container="apng", codec="apng", pix_fmt="rgb24"),
        dahua(frames),
        wmv_with_cover(frames, frames[3]),
        encrypted_mp4(),
    ]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Damage a file as a broken disk, a broken network or an attacker would."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        kind = rng.randrange(7)
        at = rng.randrange(len(out)) if rng.random() < 0.6 else rng.randrange(min(len(out), 400))
        size = rng.choice((1, 4, 16, 200))
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + size] = rng.randbytes(len(out[at : at + size]))
        elif kind == 2:
            out[at : at + size] = b"\xff" * len(out[at : at + size])
        elif kind == 3:
            out[at : at + size] = b"\0" * len(out[at : at + size])
        elif kind == 4:
            del out[at : at + size]
        elif kind == 5:
            out[at:at] = out[max(0, at - size) : at]
        else:
            del out[max(at, 16) :]
        if not out:
            out = bytearray(b"\0")
    return bytes(out)


def look_at(data: bytes, limits: dict[str, float]) -> str:
    """Read in every way that the stages use; return `decoded` or the kind of the InputError."""
    try:
        with Video(data, **limits) as video:  # type: ignore[arg-type]
            for _ in video.frames():
                pass
            last = video.num_frames - 1
            for _ in video.frames_at(sorted({max(0, last // 2), max(0, last)})):
                pass
            video.count()
    except InputError as error:
        return error.kind
    return "decoded"


def main(count: int, seed: int, paths: list[str]) -> None:
    files = [Path(path).read_bytes() for path in paths] or originals()
    limits = LIMITS | ({"max_frames": FRAMES_OF_GIVEN} if paths else {})
    found: Counter[str] = Counter()
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")
        print(number, file=sys.stderr, flush=True)  # so that a crash shows the file
        found[look_at(mutated(files[number % len(files)], rng), limits)] += 1
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
