"""Cut the planned clips from their videos: open each video once, and use and drop each needed frame in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vtcav_ray.clips.kinds import ClipBuilder, builder_of
from vtcav_ray.clips.masks import COLUMN, GREY, ObjectMasks, alone
from vtcav_ray.clips.parts import Spans, segment_of, spans_of
from vtcav_ray.clips.signed import signatures_of_image, signatures_of_video
from vtcav_ray.config import ClipsConfig
from vtcav_ray.errors import InputError
from vtcav_ray.rows import Failure
from vtcav_ray.tables import CLIP_SIGNATURES, CLIPS
from vtcav_ray.video.codec import encode_clip
from vtcav_ray.video.decode import MAX_CPU_SECONDS, MAX_FRAMES, MAX_HELD_BYTES, MAX_PIXELS, Source, Video
from vtcav_ray.video.images import is_image, read_image
from vtcav_ray.video.limits import MAX_POSITION
from vtcav_ray.video.listed import Listed, Seen, check_as_seen, check_still_unchanged
from vtcav_ray.video.sample import random_clip, spread_clips

Row = dict[str, Any]


class Cut(NamedTuple):
    """CLIPS table, failures, and CLIP_SIGNATURES table."""

    clips: pa.Table
    failures: list[Failure]
    signatures: pa.Table


def cut_clips(
    plan: pa.Table, sources: Mapping[str, Source] | None, config: ClipsConfig, **options: Any
) -> tuple[pa.Table, list[Failure]]:
    """Cut all planned clips of some videos, without signatures: see `cut_files`."""
    found = cut_files(plan, sources, config, **options)
    return found.clips, found.failures


def cut_files(
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
    sign: Callable[[Row], bool] | None = None,
) -> Cut:
    """Cut all planned clips of some videos.

    Args:
        plan: rows of `vtcav_ray.clips.plan_table.PLAN` or `GIVEN_PLAN`, with `vtcav_ray.clips.masks.with_masks` if
            `config.mask`; pass all rows of a video in one call. Rows with `start` or `end` are cut from that segment
            alone. Files of one source video have different `uri`.
        sources: video_id -> URI or bytes; or `uri` -> the same. Videos that it does not contain use the plan's `uri`.
            A `vtcav_ray.video.listed.Listed` that was replaced since its tracks were found fails as `changed`.
        max_frames, max_pixels, max_cpu_seconds, max_held_bytes: limits per video, see
            `vtcav_ray.video.decode.Video`.
        threads: number of videos to decode in parallel.
        sign: whether a row's file gets a signature, by which its copies are found: it is then decoded completely.

    Returns:
        The CLIPS table in the order of the plan, and a failure row per unreadable file, or per clip.

    Raises:
        OSError, EnvironmentFault: the storage is to blame, not a single video (`vtcav_ray.video.neighbours`).
    """
    by_file: dict[tuple[str, str], list[Row]] = defaultdict(list)
    order = {}
    for place, row in enumerate(plan.to_pylist()):
        by_file[row["video_id"], row["uri"]].append(row)  # a source video may be several files
        order[row["clip_id"]] = place

    limits = {"max_cpu_seconds": max_cpu_seconds, "max_held_bytes": max_held_bytes, "storage_options": storage_options}

    def work(file: tuple[str, str]) -> tuple[list[Row], list[Failure], list[Row]]:
        rows = by_file[file]
        known = sources or {}
        source = known.get(file[1], known.get(file[0], file[1]))
        signed = [row for row in rows if sign is not None and row["control_of"] is None and sign(row)]
        try:
            if is_image(file[1]):
                image = read_image(source, max_pixels=max_pixels, storage_options=storage_options)
                return *_cut_image(image, rows, config), signatures_of_image(image, signed)
            return _cut_video(source, rows, signed, config, max_frames, max_pixels=max_pixels, **limits)
        except InputError as error:
            return [], [Failure.of_video(rows[0], error)], []

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        done = list(pool.map(work, by_file))
    clips = sorted((clip for cut, _, _ in done for clip in cut), key=lambda c: order[c["clip_id"]])
    failures = [failure for _, failed, _ in done for failure in failed]
    signatures = pa.Table.from_pylist([row for _, _, found in done for row in found], schema=CLIP_SIGNATURES)
    return Cut(pa.Table.from_pylist(clips, schema=CLIPS), failures, signatures)


def _cut_video(
    source: Source, rows: list[Row], signed: list[Row], config: ClipsConfig, max_frames: int, **limits: Any
) -> tuple[list[Row], list[Failure], list[Row]]:
    """Return the clips, failures and signatures of one video file.

    Args:
        rows: of the plan, to cut.
        signed: those of them that get a signature.
        max_frames: of the video, or of each of its segments.
        limits: further arguments of `Video`.
    """
    in_segments = any(segment_of(row) for row in rows)
    with Video(source, max_frames=MAX_POSITION if in_segments else max_frames, **limits) as video:
        _check_as_seen(video, source)
        spans = spans_of(video, [row for row in rows if row["frames"] is None], max_frames)
        cut, failed = _cut(video, rows, spans, config)
        found = signatures_of_video(video, signed, spans) if signed else []
        check_still_unchanged(source, limits["storage_options"])
        return cut, failed, found


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


def _cut_image(image: np.ndarray, rows: list[Row], config: ClipsConfig) -> tuple[list[Row], list[Failure]]:
    """Cut clips that show one image, T times."""
    clips = []
    for row in rows:
        builder = builder_of(row["kind"])(None, config.frames, (image.shape[0], image.shape[1]), config.size)
        builder.put(0, image)
        clips.append(_clip_row(row, np.zeros(config.frames, np.int32), builder))
    return clips, []


def _cut(video: Video, rows: list[Row], spans: Spans, config: ClipsConfig) -> tuple[list[Row], list[Failure]]:
    failures: list[Failure] = []
    size = (video.height, video.width)
    builders: dict[int, tuple[Row, np.ndarray, ClipBuilder]] = {}  # those that wait for frames
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


def _masks(row: Row, frames: np.ndarray, size: tuple[int, int], config: ClipsConfig) -> ObjectMasks | None:
    """Return the masks of a clip that shows its object alone; None: it shows all that is there."""
    if not config.mask or row.get(COLUMN) is None:
        return None
    return ObjectMasks(row[COLUMN], frames, np.array(row["boxes"], np.float32), size)


def _frames(row: Row, spans: Spans, config: ClipsConfig) -> np.ndarray:
    if row["frames"] is not None:
        return np.array(row["frames"], np.int32)
    span = spans[segment_of(row)]
    if isinstance(span, InputError):
        raise span
    first, count = span
    if row.get("given"):  # from the middle, also those of a random set, which show what their owner chose
        return first + spread_clips(count, config.frames, config.interval, 1)[0]
    if row["set"] == "random":
        return first + random_clip(count, config.frames, config.interval, np.random.default_rng(row["seed"]))
    return first + spread_clips(count, config.frames, config.interval, config.class_views)[row["view"]]


def _clip_row(row: Row, frames: np.ndarray, builder: ClipBuilder) -> Row:
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
