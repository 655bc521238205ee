"""Tracks written for other programs, and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.planted_run import PlantedRun
from tests.helpers.small_runs import without_ray
from vtcav_ray import pipeline
from vtcav_ray.errors import ConfigError
from vtcav_ray.exports.tracks import export_tracks
from vtcav_ray.tracks.formats.mot import _box, written

COORDINATE = st.floats(0, 8192, width=32)


@given(st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE))
def test_a_written_box_is_read_to_the_last_bit(corners: tuple[float, ...]) -> None:
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    box = np.array([x1, y1, x2, y2], np.float32)
    assert np.array_equal(np.array(_box(written(box)), np.float64).astype(np.float32), box)


@pytest.mark.full
def test_tracks_as_motchallenge_give_the_same_clips(planted: PlantedRun, tmp_path: Path) -> None:
    run = planted.run
    tracks = run.table("tracks")
    with_tracks = set(tracks["video_id"].to_pylist())
    assert export_tracks(run, "mot", str(tmp_path / "mot")) == len(with_tracks)
    first = tracks.slice(0, 1).to_pylist()[0]
    lines = (tmp_path / "mot" / first["video_id"] / "gt" / "gt.txt").read_text().splitlines()
    assert lines[0].startswith(f"{first['frames'][0] + 1},{first['track_id']},")
    config = planted.config(tmp_path / "run", f"tracks.source={tmp_path / 'mot'}", "tracks.format=mot")
    with without_ray():
        again = pipeline.run(config, until="clips")
    assert again.table("failures").num_rows == 0
    given_tracks = again.table("tracks")
    columns = [name for name in tracks.column_names if name != "camera"]
    assert given_tracks.select(columns).equals(tracks.select(columns))
    # The camera is seen outside of the objects: here outside of tracked ones, there outside of all detected ones.
    shift = np.concatenate([np.array(row) for row in tracks["camera"].to_pylist()])
    given_shift = np.concatenate([np.array(row) for row in given_tracks["camera"].to_pylist()])
    assert np.abs(shift - given_shift).max() < 0.5
    clips = run.table("clips")
    assert clips.num_rows > 100
    assert again.table("clips").equals(clips)


def test_a_format_that_is_not_written_is_an_error(planted: PlantedRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--tracks 'kitti': choose from mot"):
        export_tracks(planted.run, "kitti", str(tmp_path))
