from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.drawn import encode, square_video
from tests.helpers.tracked_things import RedSquares
from vtcav_ray.config import TracksConfig
from vtcav_ray.rows import Failure
from vtcav_ray.tables import SEGMENTS, TRACKS
from vtcav_ray.tracks.media import Media
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.video.listed import Listed
from vtcav_ray.video.segments import Segment

SHARP = {"crf": "12", "preset": "ultrafast", "g": "12"}
WAY = [(10 + 2 * (t % 50), 30 + 10 * (t // 50)) for t in range(200)]  # of 200 frames, 8 s; it jumps every 2 s


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    path.write_bytes(encode(square_video(WAY)[0], options=SHARP))
    return str(path)


def run(
    uri: str, *segments: Segment, signatures: dict[str, np.ndarray] | None = None, **options: int
) -> tuple[pa.Table, list[Failure], dict[str, float], Media]:
    media = Media()
    config = TracksConfig(**{"batch_size": 8, **options})
    source = Listed(uri, segments=segments)
    return *track_videos([("v", source)], RedSquares(), config, media=media, signatures=signatures), media


@pytest.mark.slow
def test_tracks_lie_inside_segments_and_have_the_frames_of_the_file(long_file: str) -> None:
    table, failures, figures, media = run(long_file, Segment(4, 5), Segment(0.4, 1.2))
    assert not failures
    assert table.schema == TRACKS
    one, other = table.to_pylist()
    assert one["frames"] == list(range(10, 30))
    assert other["frames"] == list(range(100, 125))
    for row in (one, other):
        truth = np.array([WAY[i] for i in row["frames"]])
        assert np.abs(np.array(row["boxes"])[:, :2] - truth).max() < 3
        assert (row["num_frames"], row["fps"]) == (200, 25.0)
        assert np.abs(np.array(row["camera"])).max() < 1.5
    assert (one["track_id"], other["track_id"]) == (1, 2)
    assert set(one["shot"]) != set(other["shot"])
    assert figures["frames"] == 45
    found = media.segment_table(["v"])
    assert found.schema == SEGMENTS
    assert [(row["start"], row["end"], row["first"], row["last"]) for row in found.to_pylist()] == [
        (4.0, 5.0, 100, 124), (0.4, 1.2, 10, 29),
    ]  # fmt: skip


@pytest.mark.slow
def test_what_a_segment_shows_does_not_depend_on_the_rest_of_the_file(long_file: str) -> None:
    """A tracker, the camera's motion and the copies' signature start with the segment."""
    alone, together = {}, {}
    one, *_ = run(long_file, Segment(4, 5), signatures=alone)
    both, *_ = run(long_file, Segment(0, 1), Segment(4, 5), signatures=together)
    last = both.slice(1).drop_columns(["track_id", "shot"])
    assert last.equals(one.drop_columns(["track_id", "shot"]))
    assert set(alone) == set(together) == {"v"}
    assert not np.array_equal(alone["v"], together["v"])


@pytest.mark.slow
def test_segments_that_overlap_are_decoded_once(long_file: str) -> None:
    table, _, figures, _ = run(long_file, Segment(0, 1), Segment(0.5, 1.5), Segment(1.5, 1.9))
    assert figures["frames"] == 48
    (row,) = table.to_pylist()
    assert row["frames"] == list(range(48))


def test_a_segment_beyond_the_end_is_a_failure_and_the_others_are_used(long_file: str) -> None:
    table, failures, _, media = run(long_file, Segment(1, 2), Segment(9, 10))
    assert table.num_rows == 1
    (failure,) = failures
    assert (failure.video_id, failure.error_kind) == ("v", "segment")
    assert "no frame in its segment 9-10 s: its last frame is at 7.96 s" in failure.message
    assert media.segment_table(["v"])["first"].to_pylist() == [25, None]
    table, (failure,), _, _ = run(long_file, Segment(9, 10))
    assert (table.num_rows, failure.error_kind) == (0, "no_segment")


def test_a_limit_of_frames_is_of_each_segment(long_file: str) -> None:
    table, failures, _, _ = run(long_file, Segment(0, 1), Segment(6, 7), max_frames=10)
    assert not failures
    assert [row["frames"] for row in table.to_pylist()] == [list(range(10)), list(range(150, 160))]


def test_a_stride_counts_from_the_start_of_a_segment(long_file: str) -> None:
    table, *_ = run(long_file, Segment(0.12, 1), frame_stride=2)
    assert table["frames"].to_pylist() == [list(range(3, 25, 2))]


def test_a_broken_file_with_segments_is_one_failure(long_file: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(long_file).read_bytes()[:500])
    table, failures, _, _ = run(str(broken), Segment(0, 1))
    assert table.num_rows == 0
    assert [one.video_id for one in failures] == ["v"]
