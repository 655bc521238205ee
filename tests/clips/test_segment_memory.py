"""A long file with 20 segments takes the memory of one, and only its own frames are decoded."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FPS, SECONDS, SIZE, GOP = 25, 60, (360, 640), 25
LENGTH = 2.0  # of a segment, seconds

SCRIPT = """
import json, sys
import numpy as np, pyarrow as pa
from tests.helpers.tracked_things import RedSquares
from vtcav_ray.clips.cut import cut_clips
from vtcav_ray.clips.plan_table import PLAN, SEGMENT
from vtcav_ray.config import ClipsConfig, TracksConfig
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.video import bounded_decoder
from vtcav_ray.video.listed import Listed
from vtcav_ray.video.segments import Segment

def high_water():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024

decoded = 0
inner = bounded_decoder.BoundedDecoder._decode

def counted(self):
    global decoded
    for frame in inner(self):
        decoded += 1
        yield frame

bounded_decoder.BoundedDecoder._decode = counted


def measure(uri, starts):
    global decoded
    segments = tuple(Segment(start, start + LENGTH) for start in starts)
    decoded = 0
    config = TracksConfig(batch_size=8)
    tracks, failures, figures = track_videos([("v", Listed(uri, segments=segments))], RedSquares(), config)
    assert not failures, failures
    tracked, decoded = decoded, 0
    rows = [
        {"clip_id": part.name, "set": "class", "name": "n", "kind": "full", "video_id": "v", "uri": uri, "view": 0,
         "seed": 3, "pick": 0, "start": part.start, "end": part.end} for part in segments
    ]
    plan = pa.Table.from_pylist(rows, schema=pa.schema([*PLAN, *SEGMENT]))
    clips, failures = cut_clips(plan, None, ClipsConfig(frames=16, interval=2, size=112), threads=1)
    assert not failures and clips.num_rows == len(segments)
    return {"frames": figures["frames"], "tracked": tracked, "cut": decoded, "peak_mb": high_water()}


print(json.dumps([measure(sys.argv[1], starts) for starts in json.loads(sys.argv[2])]))
""".replace("LENGTH", str(LENGTH))


def write_long(path: Path, seconds: int = SECONDS, size: tuple[int, int] = SIZE, gop: int = GOP) -> None:
    """Write a long video of a still ground, on which a red square moves now and then."""
    ground = np.random.default_rng(0).integers(30, 140, (size[0] // 8, size[1] // 8, 1), np.uint8)
    ground = ground.repeat(8, 0).repeat(8, 1).repeat(3, 2)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": str(gop), "sc_threshold": "0"}
        for number in range(seconds * FPS):
            image = ground.copy()
            x = 10 + 2 * (number % 200)
            image[40:72, x : x + 32] = (250, 10, 10)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def measure(path: Path, *starts: list[float]) -> list[dict[str, Any]]:
    """Measure one set of segments after the other in one process: `peak_mb` is the highest so far."""
    call = [sys.executable, "-c", SCRIPT, str(path), json.dumps(starts)]
    found = subprocess.run(call, capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    return list(json.loads(found.stdout.splitlines()[-1]))


@pytest.mark.full
def test_twenty_segments_cost_twenty_times_the_frames_and_the_memory_of_one(tmp_path: Path) -> None:
    write_long(tmp_path / "long.mp4")
    one, many = measure(tmp_path / "long.mp4", [55.0], [2.9 * i for i in range(20)])
    print(f"one segment {one}, twenty {many}, of {SECONDS * FPS} frames")
    own = LENGTH * FPS
    assert (one["frames"], many["frames"]) == (own, 20 * own)
    # Each jump costs the frames since its keyframe; opening the file, one.
    assert one["tracked"] <= own + GOP + 2
    assert many["tracked"] <= 20 * (own + GOP) + 2
    assert many["cut"] <= 20 * (own + GOP) + 2
    # The frames of 19 more segments are 0.6 GB; what grows a little is what is kept of each frame, and the results.
    frames_mb = 19 * own * SIZE[0] * SIZE[1] * 3 / 2**20
    assert many["peak_mb"] - one["peak_mb"] < 0.08 * frames_mb
