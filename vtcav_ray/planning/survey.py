"""Look at a corpus before a config exists: labels by counts, and the headers of a few videos. For `vtcav init`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.config import Config, VideosConfig
from vtcav_ray.errors import InputError
from vtcav_ray.preflight.checks import LabelRow, listed
from vtcav_ray.preflight.corpus import label_rows
from vtcav_ray.videos.listing import list_videos

HEADERS = 6  # videos that are opened
FIRST_FRAMES = 2_000  # decoded at most, where a header has no number of frames


@dataclass(frozen=True)
class Survey:
    """What a folder has.

    Attributes:
        videos: number of videos.
        labels: label -> number of videos that have it; the empty label: those without one.
        fps, height, width, frames: medians of the videos that were opened; 0: none could be. With segments, `frames` is
            that of a segment.
        segments: parts of videos that are used, where a list gives some.
        opened, unreadable: number of videos that were opened, and that could not be.
    """

    videos: int
    labels: dict[str, int]
    fps: float = 0.0
    height: int = 0
    width: int = 0
    frames: int = 0
    opened: int = 0
    unreadable: int = 0
    segments: int = 0

    @property
    def sentences(self) -> list[str]:
        """What was found, for the comments of a config."""
        named = sorted(((n, label) for label, n in self.labels.items() if label), reverse=True)
        shown = listed([f"{label} {count}" for count, label in named]) if named else "none"
        lines = [f"{self.videos:,} videos; {len(named):,} labels: {shown}"]
        if self.segments:
            lines.append(f"{self.segments:,} segments; clips are cut inside them, and the source video is the unit")
        if without := self.labels.get("", 0):
            lines.append(f"{without:,} videos have no label")
        if self.opened:
            lines.append(
                f"{self.opened} of them were opened; median: {self.fps:.3g} frames per second, {self.width}x"
                f"{self.height} pixels, {self.frames:,} frames"
            )
        if self.unreadable:
            lines.append(f"{self.unreadable} of those that were tried can't be read")
        return lines

    def interval(self, frames: int, wanted: int) -> int:
        """Return the largest interval up to `wanted` at which a clip of `frames` fits into the median video."""
        if not self.frames:
            return wanted
        return max(1, min(wanted, self.frames // frames))


def survey(uri: str, labels: str | None = None) -> Survey:
    """List the videos at a URI, and open a few of them, spread over the list.

    Raises:
        ConfigError: there is no video at the URI.
    """
    settings = VideosConfig(uri=uri, labels=labels)
    videos, _ = list_videos(settings)
    corpus = Corpus.of(videos)
    counts, total, segments = Counter(label or "" for label in corpus.labels()), len(corpus.examples), corpus.segments
    from vtcav_ray.video.decode import probe

    places = sorted({int(i) for i in np.linspace(0, videos.num_rows - 1, HEADERS)}) if videos.num_rows else []
    found, unreadable = [], 0
    for place in places:
        try:
            source = videos["uri"][place].as_py()
            found.append(probe(source, max_frames=FIRST_FRAMES, storage_options=settings.read_options))
        except InputError:
            unreadable += 1
    if not found:
        return Survey(total, dict(counts), unreadable=unreadable, segments=segments)
    fps, height, width, frames = (
        float(np.median([getattr(info, name) for info in found])) for name in ("fps", "height", "width", "num_frames")
    )
    if lengths := corpus.seconds:
        frames = min(frames, fps * float(np.median(lengths)))
    size = (fps, int(height), int(width), int(frames))
    return Survey(total, dict(counts), *size, len(found), unreadable, segments)


def matched_labels(found: Survey, config: Config) -> list[LabelRow]:
    """Compare the labels of a survey with the classes of the config's model; empty if only the checkpoint has them."""
    from vtcav_ray.models import describe

    classes = describe(config.model, seed=config.seed).class_names
    if classes is None:
        return []
    labels: Sequence[str] = [label for label, count in found.labels.items() for _ in range(count)]
    return label_rows(labels, classes, classes)
