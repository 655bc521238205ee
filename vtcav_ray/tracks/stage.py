"""Stage `tracks`: detect and track objects in every video.

Modules that need torch are imported where they are used, so that a driver starts without torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from vtcav_ray import stages
from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.registry import TRACK_FORMATS, TRACK_SOURCES, added_code
from vtcav_ray.runs.stage import Context, Shard, Stage, Work, make_shards, shard_size
from vtcav_ray.store.commits import ShardOutput
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import canonical_digest
from vtcav_ray.tracks.sources import BUILT_IN, TrackSource
from vtcav_ray.video.neighbours import Neighbours, neighbours_of, with_neighbours

RESERVED = "reserved"  # a column of `videos` that later stages use, and tracks do not depend on


def _prepare_tracks(context: Context) -> Work:
    videos = context.input("videos").read("videos")
    if videos is None or not videos.num_rows:
        raise StageError(
            "There is no video to track: every row of the manifest failed. See `vtcav table RUN failures`."
        )
    config = context.config
    size = shard_size(videos.num_rows, config.shard_videos)
    if config.tracks.given:
        return _prepare_given(context, videos, size)
    listed = context.input("videos")
    if config.stops_at_enough and listed.complete:  # the shards of the rounds (vtcav_ray.clips.search)
        size = listed.manifest()["notes"].get("enough", {}).get("shard_videos", size)
    if RESERVED in videos.column_names:
        videos = videos.drop_columns([RESERVED])
    return work_on(context, videos, make_shards(videos, size))


def work_on(context: Context, videos: pa.Table, shards: Sequence[Shard]) -> Work:
    """Return the work of detecting and tracking in some shards.

    Args:
        context: its config and run folder count.
        videos: VIDEOS table of the corpus.
        shards: of these videos.
    """
    config = context.config
    return Work(
        shards=shards,
        make_worker=functools.partial(
            TrackWorker,
            config,
            neighbours_of(videos),
            shared=TRACK_SOURCES[_source_name(config)].shared(config, context.run),
        ),
        resources=config.resources.detect,
    )


def _prepare_given(context: Context, videos: pa.Table, size: int) -> Work:
    """Find the lines of each video in the files that `tracks.source` names. Their workers need no GPU."""
    from vtcav_ray.tracks.given_index import find_tracks

    config = context.config
    found = find_tracks(config.tracks, videos, size, context.run)
    return Work(
        shards=make_shards(found.videos, size),
        make_worker=functools.partial(TrackWorker, config, neighbours_of(videos), found.folder),
        resources=config.resources.detect.model_copy(update={"gpus": 0.0}),
        warnings=found.warnings,
    )


def _track_ingredients(context: Context) -> dict[str, Any]:
    config = context.config
    if config.tracks.given:
        return _given_ingredients(context)
    # All backends find the same boxes, but for the last digits, as all processors do.
    left_out = {"weights", "names", "text_encoder", "format", "backend"}
    tracks = config.tracks.model_dump(mode="json", exclude=left_out)
    name = _source_name(config)
    # Tracks found before there was a choice are as good.
    if tracks["decoder"] == "pyav":
        del tracks["decoder"]
    if tracks["precision"] == "float32":
        del tracks["precision"]
    if name == BUILT_IN:
        del tracks["source"]
    if tracks["vocabulary"] is None:
        del tracks["vocabulary"]
    if "source" not in context.memo:  # it reads the detector's files
        context.memo["source"] = TRACK_SOURCES[name].ingredients(config)
    return {
        "tracks": tracks,
        **context.memo["source"],
        **added_code({TRACK_SOURCES: [name]}),
        **({"masks": 1} if config.clips.mask else {}),
        "shard_videos": config.shard_videos,
    }


def _given_ingredients(context: Context) -> dict[str, Any]:
    """Return what determines tracks that exist already: the files, and what the pass over the frames depends on."""
    from vtcav_ray.tracks.given_files import list_files, reader_of

    config = context.config
    if "given" not in context.memo:
        reader = reader_of(config.tracks)
        context.memo["given"] = {
            "files": list_files(config.tracks, reader).digest,
            "names": canonical_digest(list(reader.names)) if reader.names is not None else None,
        }
    settings = ("format", "classes", "frame_stride", "max_frames", "max_pixels", "camera_motion")
    return {
        "given": {**config.tracks.model_dump(mode="json", include=set(settings)), **context.memo["given"]},
        **added_code({TRACK_FORMATS: [config.tracks.format or ""]}),
        "shard_videos": config.shard_videos,
    }


def _source_name(config: Config) -> str:
    return config.tracks.source or BUILT_IN


def imports_of(config: Config) -> Callable[[], None] | None:
    """Return what imports the packages that the stage's worker needs, which takes seconds; None: it needs few."""
    return _import_detector if not config.tracks.given and _source_name(config) == BUILT_IN else None


def _import_detector() -> None:
    from vtcav_ray.tracks import detect, track  # noqa: F401 - torch, OpenCV and PyAV
    from vtcav_ray.tracks.ultralytics_import import import_ultralytics

    import_ultralytics()


class TrackWorker:
    """Ask the source for the tracks in the videos of one shard.

    Args:
        neighbours: of the run's videos (`vtcav_ray.video.neighbours`), read when one can't be read.
        lines: the folder of the sorted lines of given tracks (`vtcav_ray.tracks.given_index`).
        shared: of the source, from `TrackSource.shared`.
    """

    def __init__(
        self,
        config: Config,
        neighbours: Neighbours = MappingProxyType({}),
        lines: Folder | None = None,
        shared: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.source: TrackSource | None = None
        if config.tracks.given:
            from vtcav_ray.tracks.given import GivenSource

            self.given = GivenSource(config, lines)
        else:
            self.source = TRACK_SOURCES[_source_name(config)](config, **shared)
        self.neighbours = dict(neighbours)

    def __call__(self, rows: pa.Table) -> ShardOutput:
        from vtcav_ray.tracks.copies import signature_table

        videos = list(with_neighbours(rows, self.neighbours).items())
        found = self.source.tracks_of(videos) if self.source is not None else self.given.tracks_of(rows, videos)
        # In the order of the videos: they finish in a different order.
        signatures = {video_id: found.signatures[video_id] for video_id, _ in videos if video_id in found.signatures}
        made = {"tracks": found.tracks, "signatures": signature_table(signatures)}
        if found.media.times:
            made["times"] = found.media.table([video_id for video_id, _ in videos])
        if found.media.segments:
            made["segments"] = found.media.segment_table([video_id for video_id, _ in videos])
        if found.masks is not None:
            made["masks"] = found.masks
        return ShardOutput(made, found.failures, found.figures, [*found.media.warnings(), *found.warnings])


STAGE = Stage(stages.TRACKS, version=3, ingredients=_track_ingredients, prepare=_prepare_tracks)
