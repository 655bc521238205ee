"""Memory does not grow with the number of videos: the peak of a process after some, and after ten times as many."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLAN = """
from vtcav_ray.clips.select import plan_clips
from vtcav_ray.config import ClipsConfig

labels = {f"{i:06d}.mp4": "abcde"[i % 5] for i in range(count)}
config = ClipsConfig(frames=16, interval=1, size=32, per_class=5, per_concept=5, min_per_concept=5, random_pool=20)
tables = (
    tracks_table([track_row(f"{i:06d}.mp4", k, step=(2 if k % 2 else -1, 0)) for i in range(s, s + 10) for k in (1, 2)])
    for s in range(0, count, 10)
)
assert plan_clips(videos_table(labels), tables, [], config, 0).rows.num_rows > 50
"""

TRACK = """
from tests.helpers.drawn import encode, square_video
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.config import TracksConfig

data = encode(square_video([(2 * t, 60) for t in range(8)], height=240, width=320)[0])
table, failures, _ = track_videos([(str(i), data) for i in range(count)], RedSquares(), TracksConfig(batch_size=8))
assert table.num_rows == count and not failures
"""

CUT = """
from tests.helpers.drawn import encode, square_video
from vtcav_ray.clips.cut import cut_clips
from vtcav_ray.clips.duplicates import looks_of, near_duplicates
from vtcav_ray.clips.plan_table import PLAN
from vtcav_ray.config import ClipsConfig

data = encode(square_video([(2 * t, 60) for t in range(16)], height=240, width=320)[0])
looks = []
for start in range(0, count, 10):  # a shard: what a worker is given
    rows = [
        {"clip_id": f"{kind}/{i}", "set": "random", "name": kind, "kind": kind, "video_id": str(i), "uri": "",
         "frames": list(range(16)), "boxes": [[2 * t, 60, 2 * t + 40, 100] for t in range(16)], "pick": 0, "seed": i}
        for i in range(start, start + 10) for kind in ("spatial", "spatiotemporal", "context")
    ]
    plan = pa.Table.from_pylist(rows, schema=PLAN)
    clips, failures = cut_clips(plan, {str(i): data for i in range(start, start + 10)}, ClipsConfig(frames=16, size=64))
    assert clips.num_rows == 30 and not failures
    looks.append(looks_of(clips))
assert len(near_duplicates(looks, 4)) == 3 * count - 3
"""


def peaks_mb(script: str, counts: tuple[int, ...]) -> list[float]:
    """Run a script for each count in one process. Return the process's peak after each."""
    code = f"import resource\nfrom tests.helpers.tracked_things import *\nfor count in {counts}:\n"
    code += textwrap.indent(script, "    ")
    code += "    print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return [float(line.split()[1]) for line in run.stdout.splitlines() if line.startswith("peak ")]


@pytest.mark.full
@pytest.mark.parametrize(
    ("script", "videos"),
    [
        pytest.param(PLAN, 50, id="plan", marks=pytest.mark.full),
        pytest.param(TRACK, 10, id="track"),
        pytest.param(CUT, 10, id="cut", marks=pytest.mark.full),
    ],
)
def test_ten_times_the_videos_in_the_same_memory(script: str, videos: int) -> None:
    _, few, many = peaks_mb(script, (videos, videos, 10 * videos))  # the first pass leaves garbage
    print(f"peak {few:.0f} MB for {videos} videos, {many:.0f} MB for {10 * videos}")
    assert many <= 1.04 * few
