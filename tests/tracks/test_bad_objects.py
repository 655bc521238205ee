"""The stages handle videos of one host of which some are refused or broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tests.helpers.bad_server import ALL, BadServer
from tests.helpers.drawn import encode, square_video
from tests.helpers.tracked_things import RedSquares
from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import EnvironmentFault
from vtcav_ray.store import access
from vtcav_ray.store.access import AccessError
from vtcav_ray.store.urls import ANY_ADDRESS, READ_LIMITS, ReadLimits
from vtcav_ray.tables import VIDEOS
from vtcav_ray.tracks.track import track_videos
from vtcav_ray.video.listed import Listed
from vtcav_ray.video.neighbours import neighbours_of, with_neighbours

NAMES = [f"{i}.mp4" for i in range(8)]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadServer]:
    monkeypatch.setattr(access, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(access, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(access, "LONGEST_WAIT_SECONDS", 0.01)
    for i, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(encode(square_video([(9.0 + i + 2 * n, 30.0) for n in range(12)])[0]))
    with BadServer(tmp_path) as running:
        yield running


# The server is on this machine, where only URLs that a config names may lead.
ANY_HOST = {READ_LIMITS: ReadLimits(private=(ANY_ADDRESS,))}


def sources(server: BadServer) -> list[tuple[str, Listed]]:
    rows = [dict.fromkeys(VIDEOS.names) | {"video_id": name, "uri": f"{server.url}/{name}"} for name in NAMES]
    videos = pa.Table.from_pylist(rows, schema=VIDEOS)
    return list(with_neighbours(videos, neighbours_of(videos)).items())


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
def test_bad_objects_are_rows_and_the_others_are_tracked(server: BadServer, turned: bool) -> None:
    videos = sources(server)[::-1] if turned else sources(server)
    undisturbed, failures, _ = track_videos(videos, RedSquares(), TracksConfig(), storage_options=ANY_HOST)
    assert list(failures) == []
    server.faults = {"0.mp4": "403", "3.mp4": "404", "5.mp4": "cut", "7.mp4": "416"}
    tracks, failures, _ = track_videos(videos, RedSquares(), TracksConfig(), storage_options=ANY_HOST)
    assert {f.video_id: f.error_kind for f in failures} == {
        "0.mp4": "permission",
        "3.mp4": "missing",
        "5.mp4": "unreadable",
        "7.mp4": "unreadable",
    }
    kept = [row for row in undisturbed.to_pylist() if row["video_id"] not in server.faults]
    assert kept
    assert tracks.to_pylist() == kept


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error"), [("403", AccessError), ("cut", EnvironmentFault), ("503", ConnectionError)]
)
def test_a_bad_host_ends_the_stage(server: BadServer, fault: str, error: type[Exception]) -> None:
    server.faults = {ALL: fault}
    with pytest.raises(error, match=r"[0-3]\.mp4"):
        track_videos(sources(server), RedSquares(), TracksConfig(), storage_options=ANY_HOST)
