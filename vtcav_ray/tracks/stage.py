"""Stage `tracks`: detect and track objects in every video.

Modules that need torch are imported where they are used, so that a driver starts without torch."""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from vtcav_ray import stages
from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.registry import TRACK_SOURCES, added_code
from vtcav_ray.runs.stage import Context, Stage, Work, make_shards, shard_size
from vtcav_ray.store.commits import ShardOutput
from vtcav_ray.tracks.sources import BUILT_IN, TrackSource
from vtcav_ray.video.neighbours import Neighbours, neighbours_of, with_neighbours


def _prepare_tracks(context: Context) -> Work:
    videos = context.input("videos").read("videos")
    if videos is None or not videos.num_rows:
        raise StageError(
            "There is no video to look at: every row of the manifest failed. See `vtcav table RUN failures`."
        )
    config = context.config
    return Work(
        shards=make_shards(videos, shard_size(videos.num_rows, config.shard_videos)),
        make_worker=functools.partial(TrackWorker, config, neighbours_of(videos)),
        resources=config.resources.detect,
    )


def _track_ingredients(context: Context) -> dict[str, Any]:
    config = context.config
    tracks = config.tracks.model_dump(mode="json", exclude={"weights", "names"})
    name = _source_name(config)
    # Tracks found before there was a choice are as good.
    if tracks["decoder"] == "pyav":
        del tracks["decoder"]
    if name == BUILT_IN:
        del tracks["source"]
    if "source" not in context.memo:  # it reads the detector's files
        context.memo["source"] = TRACK_SOURCES[name].ingredients(config)
    return {
        "tracks": tracks,
        **context.memo["source"],
        **added_code({TRACK_SOURCES: [name]}),
        "shard_videos": config.shard_videos,
    }


def _source_name(config: Config) -> str:
    return config.tracks.source or BUILT_IN


class TrackWorker:
    """Ask the source for the tracks in the videos of one shard.

    Args:
        neighbours: of the run's videos (`vtcav_ray.video.neighbours`), read when one can't be read.
    """

    def __init__(self, config: Config, neighbours: Neighbours = MappingProxyType({})) -> None:
        self.source: TrackSource = TRACK_SOURCES[_source_name(config)](config)
        self.neighbours = dict(neighbours)

    def __call__(self, rows: pa.Table) -> ShardOutput:
        from vtcav_ray.tracks.copies import signature_table

        videos = list(with_neighbours(rows, self.neighbours).items())
        found = self.source.tracks_of(videos)
        # In the order of the videos: they finish in a different order.
        signatures = {video_id: found.signatures[video_id] for video_id, _ in videos if video_id in found.signatures}
        made = {"tracks": found.tracks, "signatures": signature_table(signatures)}
        if found.media.times:
            made["times"] = found.media.table([video_id for video_id, _ in videos])
        if found.media.segments:
            made["segments"] = found.media.segment_table([video_id for video_id, _ in videos])
        return ShardOutput(made, found.failures, found.figures, found.media.warnings())


STAGE = Stage(stages.TRACKS, version=3, ingredients=_track_ingredients, prepare=_prepare_tracks)
