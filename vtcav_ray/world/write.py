"""Write a whole world to storage: videos, the manifest, and the ground truth."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from vtcav_ray.store.access import open_url, patiently
from vtcav_ray.video.mp4 import encode_mp4
from vtcav_ray.world.render import ObjectTruth, render_scene
from vtcav_ray.world.rules import MOTION_ONLY, ClassRule, Role
from vtcav_ray.world.scene import Geometry, Scene, sample_scene

MANIFEST = "videos.parquet"
TRUTH = "truth.parquet"
RECORD = "world.json"  # written last: its presence marks the world as complete
_FORMAT = 1

MANIFEST_SCHEMA = pa.schema(
    [("video_id", pa.string()), ("uri", pa.string()), ("label", pa.string()), ("split", pa.string())]
)
TRUTH_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("object_id", pa.int32()),
        ("object", pa.string()),
        ("motion", pa.string()),
        ("moving", pa.bool_()),
        ("frames", pa.list_(pa.int32())),
        ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
        ("visible", pa.list_(pa.float32())),
        ("fps", pa.float64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("seed", pa.int64()),
    ]
)


@dataclass(frozen=True)
class WorldSummary:
    """A summary of the world that `write_world` wrote or found.

    Attributes:
        uri: the folder, as given.
        videos, frames, objects, bytes: totals; `bytes` counts the mp4 files.
        labels: number of videos with each label.
        splits: number of videos in each split.
        reused: whether the same world already existed and nothing was written.
    """

    uri: str
    videos: int
    frames: int
    objects: int
    bytes: int
    labels: dict[str, int]
    splits: dict[str, int]
    reused: bool = False


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """One finished video: its scene, the bytes of the mp4 file, and the ground truth of its objects."""

    scene: Scene
    mp4: bytes
    objects: tuple[ObjectTruth, ...]


def make_video(seed: int, index: int, role: Role, geometry: Geometry) -> EncodedVideo:
    """Sample, render and encode video `index` of world `seed`. Needs no other video, so calls can run anywhere."""
    rendered = render_scene(sample_scene(seed, index, role, geometry))
    return EncodedVideo(rendered.scene, encode_mp4(rendered.frames_THW3, rendered.scene.fps), rendered.objects)


def write_world(
    out: str,
    videos: int = 400,
    seed: int = 0,
    *,
    frames: tuple[int, int] = (16, 32),
    size: tuple[int, int] = (64, 112),
    distractors: tuple[int, int] = (0, 2),
    rule: ClassRule = MOTION_ONLY,
    workers: int | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> WorldSummary:
    """Render a planted world into the folder `out`, any fsspec URL.

    Writes `videos/NNNNNN.mp4` (H.264), `videos.parquet` (video_id, uri relative to `out`, label, split),
    `truth.parquet` (a row per video and object) and, last, `world.json`. Video i is the same for any `videos`.

    Args:
        videos: number of videos, at least 1.
        seed: 0 or more.
        frames, size, distractors: ranges, see `Geometry`.
        rule: defines the classes.
        workers: number of rendering threads; one per core by default.
        overwrite: replace another world, or part of one, in `out`.
        storage_options: passed to the fsspec filesystem.
        progress: called with (videos done, all videos) after each video.

    Raises:
        ValueError: a parameter is out of its range.
        FileExistsError: `out` contains another world. (The same world is kept: `reused` is true.)
    """
    geometry = Geometry(tuple(frames), tuple(size), tuple(distractors))  # type: ignore[arg-type]
    for name, value, least in (("videos", videos, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"{name}={value!r}: must be a whole number, {least} or more")
    filesystem, root = open_url(out, storage_options)
    root = root.rstrip("/")
    recipe = {"format": _FORMAT, "videos": videos, "seed": seed, "rule": repr(rule), **asdict(geometry)}
    recipe = json.loads(json.dumps(recipe))  # tuples become lists, as when the record is read back
    found = _found(filesystem, f"{root}/{RECORD}")
    if found is not None and found["recipe"] == recipe:
        return WorldSummary(uri=out, **found["summary"], reused=True)
    if not overwrite and (found is not None or filesystem.exists(f"{root}/{MANIFEST}")):
        what = "another world" if found is not None else "a video manifest that is not a finished world's"
        raise FileExistsError(f"{out} holds {what}")
    if overwrite:
        _remove(filesystem, root)
    filesystem.makedirs(f"{root}/videos", exist_ok=True)

    manifest: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    total_frames = total_bytes = 0
    for video in _make_all(videos, seed, geometry, rule, workers):
        uri = f"videos/{video.scene.video_id}.mp4"
        _put(filesystem, f"{root}/{uri}", video.mp4)
        manifest.append(_manifest_row(video.scene, uri))
        truth.extend(_truth_row(video.scene, thing) for thing in video.objects)
        total_frames += video.scene.frames
        total_bytes += len(video.mp4)
        if progress is not None:
            progress(len(manifest), videos)
    _write_table(filesystem, f"{root}/{TRUTH}", pa.Table.from_pylist(truth, TRUTH_SCHEMA))
    _write_table(filesystem, f"{root}/{MANIFEST}", pa.Table.from_pylist(manifest, MANIFEST_SCHEMA))
    summary = WorldSummary(
        uri=out,
        videos=videos,
        frames=total_frames,
        objects=len(truth),
        bytes=total_bytes,
        labels={label: sum(row["label"] == label for row in manifest) for label in rule.labels},
        splits={split: sum(row["split"] == split for row in manifest) for split in ("train", "val", "test")},
    )
    figures = {name: value for name, value in asdict(summary).items() if name not in ("uri", "reused")}
    record = json.dumps({"recipe": recipe, "summary": figures}, indent=2) + "\n"
    _put(filesystem, f"{root}/{RECORD}", record.encode())
    return summary


def write_manifest(out: str, videos: int, seed: int, rule: ClassRule = MOTION_ONLY) -> None:
    """Write a world's manifest and empty files into the local folder `out`: its list without its pictures."""
    roles = [(f"{index:06d}", rule.role(seed, index)) for index in range(videos)]
    rows = [{"video_id": v, "uri": f"videos/{v}.mp4", "label": r.label, "split": r.split} for v, r in roles]
    os.makedirs(os.path.join(out, "videos"))
    for row in rows:
        open(os.path.join(out, row["uri"]), "xb").close()
    pq.write_table(pa.Table.from_pylist(rows, MANIFEST_SCHEMA), os.path.join(out, MANIFEST))


def _remove(filesystem: fsspec.AbstractFileSystem, root: str) -> None:
    # Remove the record first: an interrupted removal must not leave a folder that claims to be complete.
    for name in (RECORD, MANIFEST, TRUTH):
        if filesystem.exists(f"{root}/{name}"):
            filesystem.rm_file(f"{root}/{name}")
    if filesystem.exists(f"{root}/videos"):
        filesystem.rm(f"{root}/videos", recursive=True)


def _make_all(
    videos: int, seed: int, geometry: Geometry, rule: ClassRule, workers: int | None
) -> Iterator[EncodedVideo]:
    tasks = ((seed, index, rule.role(seed, index), geometry) for index in range(videos))
    workers = min(workers or os.cpu_count() or 1, videos)
    if workers == 1:
        yield from itertools.starmap(make_video, tasks)
        return
    # Threads: OpenCV, NumPy and the encoder release the interpreter's lock most of the time, and processes would
    # require a `__main__` guard from every caller.
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(make_video, *task) for task in itertools.islice(tasks, 4 * workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting.extend(pool.submit(make_video, *task) for task in itertools.islice(tasks, 1))


def _manifest_row(scene: Scene, uri: str) -> dict[str, Any]:
    return {"video_id": scene.video_id, "uri": uri, "label": scene.role.label, "split": scene.role.split}


def _truth_row(scene: Scene, thing: ObjectTruth) -> dict[str, Any]:
    return {
        "video_id": scene.video_id,
        "object_id": thing.object_id,
        "object": thing.kind,
        "motion": thing.motion,
        "moving": thing.motion != "none",
        "frames": thing.frames_N.tolist(),
        "boxes": thing.boxes_N4.tolist(),
        "visible": thing.visible_N.tolist(),
        "fps": float(scene.fps),
        "height": scene.height,
        "width": scene.width,
        "seed": scene.seed,
    }


def _write_table(filesystem: fsspec.AbstractFileSystem, path: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    _put(filesystem, path, sink.getvalue().to_pybytes())


def _put(filesystem: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    patiently(lambda: filesystem.pipe_file(path, data), path)


def _found(filesystem: fsspec.AbstractFileSystem, path: str) -> dict[str, Any] | None:
    """Return the record of an existing world, or None."""
    try:
        record: dict[str, Any] = json.loads(patiently(lambda: filesystem.cat_file(path), path))
    except FileNotFoundError:
        return None
    return record if record.get("recipe", {}).get("format") == _FORMAT else {"recipe": {}, "summary": {}}
