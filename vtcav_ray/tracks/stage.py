"""Stage `tracks`: detect and track objects in every video.

Modules that need torch are imported where they are used, so that a driver starts without torch."""

from __future__ import annotations

import functools
import hashlib
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray import stages
from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.runs.stage import Context, Stage, Work, make_shards, shard_size
from vtcav_ray.store.commits import ShardOutput
from vtcav_ray.store.records import canonical_digest
from vtcav_ray.tracks.detector_files import read_bytes, read_names
from vtcav_ray.video.neighbours import Neighbours, neighbours_of, with_neighbours

OPEN_VIDEOS = 4  # number that feed one detector, unless the config sets it


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
    if tracks["decoder"] == "pyav":
        del tracks["decoder"]  # tracks from before the option existed are equally valid
    return {
        "tracks": tracks,
        **_detector_digests(context),
        "shard_videos": config.shard_videos,
    }


def _detector_digests(context: Context) -> dict[str, Any]:
    """Return digests of the detector's files. Their location does not matter: a copy gives the same tracks."""
    if "detector" not in context.memo:
        tracks = context.config.tracks
        names = read_names(tracks.names, tracks.storage_options) if tracks.names is not None else None
        context.memo["detector"] = {
            "weights": hashlib.sha256(read_bytes(tracks.weights, tracks.storage_options)).hexdigest(),
            "names": canonical_digest(names) if names is not None else None,
        }
    return dict(context.memo["detector"])


class TrackWorker:
    """Detects and tracks objects in the videos of one shard. Frames of all videos share batches.

    Args:
        neighbours: of the run's videos (`vtcav_ray.video.neighbours`), read when one can't be read.
    """

    def __init__(self, config: Config, neighbours: Neighbours = MappingProxyType({})) -> None:
        from vtcav_ray.runs.devices import device_of_actor
        from vtcav_ray.tracks.detect import Detector

        self.config, self.neighbours = config, dict(neighbours)
        self.detector = Detector(config.tracks, device_of_actor(config.resources.detect))
        if config.tracks.decoder == "torchcodec":
            from vtcav_ray.video.gpu_decode import check_torchcodec

            check_torchcodec(str(self.detector.device))

    def __call__(self, rows: pa.Table) -> ShardOutput:
        from vtcav_ray.tracks.copies import signature_table
        from vtcav_ray.tracks.track import track_videos

        videos = list(with_neighbours(rows, self.neighbours).items())
        signatures: dict[str, np.ndarray] = {}
        tracks, failures, figures = track_videos(
            videos,
            self.detector,
            self.config.tracks,
            open_videos=self.config.resources.detect.decode_threads or OPEN_VIDEOS,
            max_cpu_seconds=self.config.resources.decode.cpu_seconds,
            max_held_bytes=int(self.config.resources.decode.frames_gb * 1e9),
            storage_options=self.config.videos.read_options,
            signatures=signatures,
        )
        # In the order of the videos: they finish in a different order.
        found = {video_id: signatures[video_id] for video_id, _ in videos if video_id in signatures}
        return ShardOutput({"tracks": tracks, "signatures": signature_table(found)}, failures, figures)


STAGE = Stage(stages.TRACKS, version=3, ingredients=_track_ingredients, prepare=_prepare_tracks)
