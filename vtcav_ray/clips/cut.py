"""Cut the planned clips from their videos: open each video once, and use and drop each needed frame in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray.clips.kinds import ClipBuilder, builder_of
from vtcav_ray.clips.masks import COLUMN, GREY, ObjectMasks, alone
from vtcav_ray.config import ClipsConfig
from vtcav_ray.errors import InputError
from vtcav_ray.rows import Failure
from vtcav_ray.tables import CLIPS
from vtcav_ray.video.codec import encode_clip
from vtcav_ray.video.decode import MAX_CPU_SECONDS, MAX_FRAMES, MAX_HELD_BYTES, MAX_PIXELS, Source, Video
from vtcav_ray.video.limits import MAX_POSITION
from vtcav_ray.video.listed import Listed, Seen, check_as_seen, check_still_unchanged
from vtcav_ray.video.sample import random_clip, spread_clips
from vtcav_ray.video.segments import Segment, frame_ranges, outside


def cut_clips(
    plan: pa.Table,
    sources: Mapping[str, Source] | None,
    config: ClipsConfig,
    *,
    max_frames: int = MAX_FRAMES,
    max_pixels: int = MAX_PIXELS,
    max_cpu_seconds: float = MAX_CPU_SECONDS,
    max_held_bytes: int = MAX_HELD_BYTES,
    threads: int = 2,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[pa.Table, list[Failure]]:
    """Cut all planned clips of some videos.

    Args:
        plan: rows of `vtcav_ray.clips.plan_table.PLAN`, with `vtcav_ray.clips.masks.with_masks` if `config.mask`; pass
            all rows of a video in one call. Rows with `start` are cut from that segment alone. Files of one source
            video have different `uri`.
        sources: video_id -> URI or bytes; or `uri` -> the same. Videos that it does not contain use the plan's `uri`.
            A `vtcav_ray.video.listed.Listed` that was replaced since its tracks were found fails as `changed`.
        max_frames, max_pixels, max_cpu_seconds, max_held_bytes: limits per video, see
            `vtcav_ray.video.decode.Video`.
        threads: number of videos to decode in parallel.

    Returns:
        (CLIPS table in the order of the plan, failure rows: one per unreadable video, or one per clip).

    Raises:
        OSError, EnvironmentFault: the storage is to blame, not a single video (`vtcav_ray.video.neighbours`).
    """
    by_file: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    order = {}
    for place, row in enumerate(plan.to_pylist()):
        by_file[row["video_id"], row["uri"]].append(row)
        order[row["clip_id"]] = place

    def work(file: tuple[str, str]) -> tuple[list[dict[str, Any]], list[Failure]]:
        rows = by_file[file]
        known = sources or {}
        source = known.get(file[1], known.get(file[0], file[1]))
        try:
            with Video(
                source,
                max_frames=MAX_POSITION if any(segment_of(row) for row in rows) else max_frames,
                max_pixels=max_pixels,
                max_cpu_seconds=max_cpu_seconds,
                max_held_bytes=max_held_bytes,
                storage_options=storage_options,
            ) as video:
                _check_as_seen(video, source)
                cut = _cut(video, rows, config, max_frames)
                check_still_unchanged(source, storage_options)
                return cut
        except InputError as error:
            return [], [Failure.of_video(rows[0], error)]

    clips: list[dict[str, Any]] = []
    failures: list[Failure] = []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for cut, failed in pool.map(work, by_file):
            clips += cut
            failures += failed
    clips.sort(key=lambda c: order[c["clip_id"]])
    return pa.Table.from_pylist(clips, schema=CLIPS), failures


def _check_as_seen(video: Video, source: Source) -> None:
    if not isinstance(source, Listed) or source.seen is None:
        return
    if video.count() != source.seen.num_frames:  # counts packets that don't decode, unlike `tracks`
        for _ in video.frames(stride=2**31):
            pass
        count = video.num_frames
    else:
        count = source.seen.num_frames
    # Tracks that an earlier version found have the rate that the container states.
    fps = source.seen.fps if source.seen.fps == video.stated_fps else video.fps
    check_as_seen(Seen(count, video.height, video.width, fps), source)


def segment_of(row: Mapping[str, Any]) -> Segment | None:
    """Return the segment that a row of the plan is cut from; None: the whole video."""
    return None if row.get("start") is None else Segment(row["start"], row["end"])


def _cut(
    video: Video, rows: list[dict[str, Any]], config: ClipsConfig, max_frames: int
) -> tuple[list[dict[str, Any]], list[Failure]]:
    failures: list[Failure] = []
    size = (video.height, video.width)
    spans = _spans(video, [row for row in rows if row["frames"] is None], max_frames)
    builders: dict[int, tuple[dict[str, Any], np.ndarray, ClipBuilder]] = {}  # those that wait for frames
    # Frame -> (number of the clip, position in it, masks of the clip).
    takers: dict[int, list[tuple[int, int, ObjectMasks | None]]] = defaultdict(list)
    for number, row in enumerate(rows):
        try:
            frames = _frames(row, spans, config)
            masks = _masks(row, frames, size, config)
        except InputError as error:
            failures.append(Failure.of_clip(row, error))
            continue
        boxes = None if row["boxes"] is None or row["kind"] == "full" else np.array(row["boxes"], np.float32)
        builder = builder_of(row["kind"])(
            boxes, len(frames), size, config.size, pick=row["pick"], blur=config.context_blur, seed=row["seed"]
        )
        if masks is not None:
            builder.background = GREY
        builders[number] = (row, frames, builder)
        for position in builder.needs:
            takers[int(frames[position])].append((number, position, masks))
    clips = []
    for index, frame in video.frames_at(sorted(takers)):
        for number, position, masks in takers.pop(index):
            row, frames, builder = builders[number]
            if masks is None:
                builder.put(position, frame)
            else:
                shown = masks.at(position)
                builder.put(position, alone(frame, shown), shown)
            if builder.complete:  # encode it now: the clips of many segments would hold many frames
                clips.append(_clip_row(row, frames, builder))
                del builders[number]
    for row, _, _ in builders.values():
        kind = "truncated" if video.truncated else "too_short"
        message = f"{video.name} ends before this clip: {video.num_frames} frames decode."
        failures.append(Failure.of_clip(row, InputError(kind, message)))
    return clips, failures


def _spans(
    video: Video, rows: list[dict[str, Any]], max_frames: int
) -> dict[Segment | None, tuple[int, int] | InputError]:
    """Return the first frame and the number of frames of each segment that these rows name; None: the whole video."""
    parts = {segment_of(row) for row in rows}
    found: dict[Segment | None, tuple[int, int] | InputError] = {}
    if segments := sorted(part for part in parts if part is not None):
        seconds = video.frame_seconds()
        for segment, frames in zip(segments, frame_ranges(segments, seconds, max_frames), strict=True):
            if frames is None:
                found[segment] = InputError("segment", f"{video.name} {outside(segment, float(seconds[-1]))}")
            else:
                found[segment] = frames[0], frames[1] - frames[0] + 1
    if None in parts:
        found[None] = 0, min(video.count(), max_frames)
    return found


def _masks(row: dict[str, Any], frames: np.ndarray, size: tuple[int, int], config: ClipsConfig) -> ObjectMasks | None:
    """Return the masks of a clip that shows its object alone; None: it shows all that is there."""
    if not config.mask or row[COLUMN] is None:
        return None
    return ObjectMasks(row[COLUMN], frames, np.array(row["boxes"], np.float32), size)


def _frames(
    row: dict[str, Any], spans: Mapping[Segment | None, tuple[int, int] | InputError], config: ClipsConfig
) -> np.ndarray:
    if row["frames"] is not None:
        return np.array(row["frames"], np.int32)
    span = spans[segment_of(row)]
    if isinstance(span, InputError):
        raise span
    first, count = span
    if row["set"] == "random":
        return first + random_clip(count, config.frames, config.interval, np.random.default_rng(row["seed"]))
    return first + spread_clips(count, config.frames, config.interval, config.class_views)[row["view"]]


def _clip_row(row: dict[str, Any], frames: np.ndarray, builder: ClipBuilder) -> dict[str, Any]:
    clip = builder.finish()
    encoding, encoded = encode_clip(clip)
    keep = ("clip_id", "set", "name", "kind", "video_id", "label", "object", "motion", "track_id", "control_of")
    boxes = None if row["boxes"] is None or row["kind"] == "full" else [row["boxes"][i] for i in builder.order]
    return {
        **{name: row[name] for name in keep},
        "frames": frames[builder.order],
        "boxes": boxes,
        "num_frames": clip.shape[0],
        "height": clip.shape[1],
        "width": clip.shape[2],
        "encoding": encoding,
        "encoded": encoded,
    }
