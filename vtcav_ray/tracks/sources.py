"""Where the tracks of videos come from: the registry `TRACK_SOURCES`, and its built-in source, YOLO and a tracker.

What needs torch is imported where it is used: the driver asks a source for its part of the stage's key.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from vtcav_ray.config import Config
from vtcav_ray.registry import TRACK_SOURCES
from vtcav_ray.rows import Failure
from vtcav_ray.store.records import canonical_digest
from vtcav_ray.tracks.detector_files import read_bytes, read_names
from vtcav_ray.tracks.freed_memory import keep_freed_memory
from vtcav_ray.tracks.masks import masks_table
from vtcav_ray.tracks.media import Media
from vtcav_ray.tracks.vocabulary import TextFeatures, encoder_digest, text_features

if TYPE_CHECKING:
    from vtcav_ray.store.folder import Folder
    from vtcav_ray.video.decode import Source

BUILT_IN = "ultralytics"
_REREAD_HEADS = (b"RTDETRDecoder", b"rtdetr", b"rt-detr", b"YOLOE", b"OBB26")
OPEN_VIDEOS = 4  # that feed one detector, where the config says nothing


@dataclass(frozen=True)
class Tracked:
    """The tracks that a source found in some videos.

    Attributes:
        tracks: rows of `vtcav_ray.tables.TRACKS`; a video's rows lie together.
        failures: of the videos that can't be used (`Failure.of_video`).
        figures: numbers for the stage's metrics, summed over shards.
        signatures: video_id -> signature (`vtcav_ray.tracks.copies`). Copies are looked for among these videos alone.
        media: frame times of the videos whose rate varies (speeds are computed from them), and warnings about files.
        masks: rows of `vtcav_ray.tables.MASKS`; None: the source draws no masks.
        warnings: further sentences for the user.
    """

    tracks: pa.Table
    failures: list[Failure] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    signatures: Mapping[str, np.ndarray] = field(default_factory=dict)
    media: Media = field(default_factory=Media)
    masks: pa.Table | None = None
    warnings: Sequence[str] = ()


class TrackSource(ABC):
    """A source of tracks. One instance per actor, which is asked once per shard.

    Attributes:
        draws_masks: it returns `Tracked.masks` if `clips.mask` is set.
    """

    draws_masks: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def ingredients(cls, config: Config) -> dict[str, Any]:
        """Return what determines the tracks besides the section `tracks`, such as digests of files, for the key."""
        return {}

    @classmethod
    def shared(cls, config: Config, folder: Folder | None) -> dict[str, Any]:
        """Return what all actors need and the driver computes once: picklable keyword arguments of the constructor.

        Args:
            folder: the run folder, to keep it there; None: keep nothing.
        """
        return {}

    @abstractmethod
    def tracks_of(self, videos: Sequence[tuple[str, Source]]) -> Tracked:
        """Find the tracks of videos, given as (video_id, URI).

        Raises:
            StageError: what fails for every video. What is wrong with one video belongs in `failures`.
        """


@TRACK_SOURCES.register(BUILT_IN)
class Ultralytics(TrackSource):
    """Detect objects by YOLO, frames of all videos sharing batches, and follow them by an Ultralytics tracker.

    Args:
        config: of the run.
        features: of the words in `tracks.vocabulary`, from `shared`.
    """

    draws_masks = True

    def __init__(self, config: Config, features: TextFeatures | None = None) -> None:
        from vtcav_ray.runs.devices import device_of_actor
        from vtcav_ray.tracks.detect import Detector

        super().__init__(config)
        device = device_of_actor(config.resources.detect)
        self.detector = Detector(config.tracks, device, masks=config.clips.mask, features=features)
        if self.detector.device.type == "cpu":
            keep_freed_memory()
        if config.tracks.decoder == "torchcodec":
            from vtcav_ray.video.gpu_decode import check_torchcodec

            check_torchcodec(str(self.detector.device))

    @classmethod
    def ingredients(cls, config: Config) -> dict[str, Any]:
        """Return digests of the detector's files. Their place plays no part: copies of them find the same."""
        tracks = config.tracks
        names = read_names(tracks.names, tracks.storage_options) if tracks.names is not None else None
        weights = read_bytes(tracks.weights, tracks.storage_options)
        return {
            "weights": hashlib.sha256(weights).hexdigest(),
            # Earlier versions read the rows of these heads wrongly.
            **({"heads": 2} if any(name in weights for name in _REREAD_HEADS) else {}),
            "names": canonical_digest(names) if names is not None else None,
            **({"text_encoder": encoder_digest(tracks)} if tracks.vocabulary is not None else {}),
        }

    @classmethod
    def shared(cls, config: Config, folder: Folder | None) -> dict[str, Any]:
        """Return the features of the words in `tracks.vocabulary`, if there are any."""
        return {"features": text_features(config.tracks, folder)} if config.tracks.vocabulary is not None else {}

    def tracks_of(self, videos: Sequence[tuple[str, Source]]) -> Tracked:
        from vtcav_ray.tracks.track import track_videos

        signatures: dict[str, np.ndarray] = {}
        media = Media()
        masks: dict[str, list[dict[str, Any]]] | None = {} if self.config.clips.mask else None
        tracks, failures, figures = track_videos(
            videos,
            self.detector,
            self.config.tracks,
            open_videos=self.config.resources.detect.decode_threads or OPEN_VIDEOS,
            max_cpu_seconds=self.config.resources.decode.cpu_seconds,
            max_held_bytes=int(self.config.resources.decode.frames_gb * 1e9),
            storage_options=self.config.videos.read_options,
            signatures=signatures,
            media=media,
            masks=masks,
        )
        if self.detector.backend != "pytorch":
            figures[f"{self.detector.backend}_shards"] = 1.0
        drawn = None
        if masks is not None:
            drawn = masks_table(row for video_id, _ in videos for row in masks.get(video_id, ()))
        return Tracked(tracks, failures, figures, signatures, media, drawn)
