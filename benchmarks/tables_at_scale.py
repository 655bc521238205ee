"""Write the tables `videos`, `tracks` and `signatures` of a large corpus: the real schemas, synthetic rows.

A video has a label of Kinetics-400, 10 s of 25 frames per second, and `TRACKS_A_VIDEO` tracks with a box on every
second frame. Lengths are exponential, with a mean of 50 boxes; an object moves at a constant speed, or stands still.
`TEMPLATES` shards of tracks are written. They are read again and again, each time under other ids: 10,000 different
files would only test the disk. Signatures differ from video to video; one in 1,000 videos repeats the one before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources

import numpy as np
import pyarrow as pa

from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.read_ahead import read_ahead
from vtcav_ray.tables import SIGNATURE_NUMBERS, SIGNATURES, TRACKS, VIDEOS

SHARD_VIDEOS = 64
TRACKS_A_VIDEO = 3
TEMPLATES = 16
FRAMES, FPS, HEIGHT, WIDTH, STRIDE = 250, 25.0, 256, 340, 2
OBJECTS = ("person", "person", "person", "cup", "sports ball", "dog", "chair", "bicycle", "cell phone", "book")
COPY_EVERY = 1000


def labels() -> list[str]:
    """Return the classes of Kinetics-400."""
    text = resources.files("vtcav_ray.models").joinpath("assets/kinetics400.txt").read_text(encoding="utf-8")
    return text.split("\n")[:400]


def video_names(count: int) -> Iterator[tuple[str, str]]:
    """Yield (id, label) of each video of a folder of class folders, in the order of the ids."""
    names = sorted(name.replace(" ", "_") for name in labels())
    each = -(-count // len(names))
    for number in range(count):
        label = names[number // each]
        stem = hashlib.blake2b(str(number).encode(), digest_size=8).hexdigest()[:11]
        yield f"{label}/{number % each:05d}{stem}_000010_000020.mp4", label


def videos_table(count: int, bucket: str = "s3://kinetics") -> pa.Table:
    """Return the table `videos`, sorted by id."""
    rows = sorted(video_names(count))
    ids = [name for name, _ in rows]
    return pa.table(
        [
            ids,
            [f"{bucket}/{name}" for name in ids],
            [label for _, label in rows],
            pa.nulls(count, pa.string()),
            [400_000 + number % 77_777 for number in range(count)],
            [f'"{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"' for name in ids],
        ],
        schema=VIDEOS,
    )


def opened(folder: str) -> tuple[StageFolder, StageFolder]:
    """Return the folders of the stages `videos` and `tracks`."""
    return stage_folder(Folder(folder), "videos", "scale"), stage_folder(Folder(folder), "tracks", "scale")


def write_tables(folder: str, count: int) -> None:
    """Write the table `videos` of `count` videos, and `TEMPLATES` shards of `tracks`."""
    videos, tracks = opened(folder)
    table = videos_table(count)
    videos.commit("all", ShardOutput({"videos": table}))
    videos.finish({"inputs": {}}, {"notes": {"videos": count}})
    for number in range(TEMPLATES):
        tracks.commit(f"{number:05d}", ShardOutput({"tracks": tracks_of(table["video_id"][:SHARD_VIDEOS], number)}))
    tracks.finish({"inputs": {"videos": "scale"}}, {"notes": {}})


@dataclass(frozen=True)
class RepeatedTracks(StageFolder):
    """The stage `tracks` of a large corpus: `TEMPLATES` files, read and checked again for each shard, under its ids."""

    ids: pa.Array = field(default=None, repr=False)

    def iter_tables(
        self, table: str, *, columns: Sequence[str] | None = None, **partition: str
    ) -> Iterator[tuple[str, pa.Table]]:
        starts = range(0, len(self.ids), SHARD_VIDEOS)
        if table == "signatures":
            for number, start in enumerate(starts):
                yield f"{number:05d}", signatures_of(self.ids[start : start + SHARD_VIDEOS], number)
            return
        assert table == "tracks", table
        paths = self.files("tracks")
        sizes = {f"{number:05d}": 1 for number in range(len(starts))}
        parts = read_ahead(sizes, lambda name: self.read_file(paths[int(name) % len(paths)], columns))
        for name, start, part in zip(sizes, starts, parts, strict=True):
            ids = self.ids[start : start + SHARD_VIDEOS]
            part = part.slice(0, len(ids) * TRACKS_A_VIDEO)
            yield name, part.set_column(0, "video_id", [_repeated(ids)])

    def read(self, table: str, *, columns: Sequence[str] | None = None, **partition: str) -> pa.Table | None:
        assert table != "tracks", "too large to be read at once"
        return super().read(table, columns=columns, **partition)


def _repeated(ids: pa.Array) -> pa.Array:
    return ids.take(pa.array(np.repeat(np.arange(len(ids)), TRACKS_A_VIDEO)))


def tracks_of(ids: pa.Array, template: int) -> pa.Table:
    """Return the TRACKS rows of a shard."""
    columns = {"video_id": _repeated(ids), **_template(template)}
    return pa.table([columns[name] for name in TRACKS.names], schema=TRACKS)


def _template(seed: int) -> dict[str, pa.Array]:
    rng = np.random.default_rng(seed)
    rows = SHARD_VIDEOS * TRACKS_A_VIDEO
    lengths = np.clip(rng.exponential(50, rows).astype(int), 3, FRAMES // STRIDE)
    starts = (rng.random(rows) * (FRAMES // STRIDE - lengths + 1)).astype(int)
    offsets = np.concatenate(([0], lengths.cumsum())).astype(np.int32)
    at = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    frames = ((np.repeat(starts, lengths) + at) * STRIDE).astype(np.int32)
    speed = np.where(rng.random((rows, 1)) < 0.4, 0.0, rng.normal(0, 1.2, (rows, 2)))
    begin, size = rng.uniform(40, 200, (rows, 2)), rng.uniform(15, 90, (rows, 2))
    centre = (
        np.repeat(begin, lengths, 0) + at[:, None] * np.repeat(speed, lengths, 0) + rng.normal(0, 0.7, (len(at), 2))
    )
    half = np.repeat(size, lengths, 0) / 2 + rng.normal(0, 0.5, (len(at), 2))
    limit = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    boxes = np.clip(np.concatenate((centre - half, centre + half), 1), 0, limit).astype(np.float32)

    def listed(values: pa.Array, kind: pa.DataType) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(offsets), values).cast(kind)

    def fixed(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        inner = kind.value_type
        return listed(
            pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), inner.value_type), inner.list_size), kind
        )

    fields = {field.name: field.type for field in TRACKS}
    camera = np.repeat(rng.normal(0, 0.05, (rows, 2)), lengths, 0) * at[:, None]
    return {
        "track_id": pa.array(np.tile(np.arange(1, TRACKS_A_VIDEO + 1), SHARD_VIDEOS), pa.int32()),
        "label": pa.array(rng.choice(OBJECTS, rows).tolist()),
        "frames": listed(pa.array(frames), fields["frames"]),
        "boxes": fixed(boxes, fields["boxes"]),
        "confidence": listed(pa.array(rng.uniform(0.2, 0.95, len(at)).astype(np.float32)), fields["confidence"]),
        "fps": pa.array([FPS] * rows),
        "height": pa.array([HEIGHT] * rows, pa.int32()),
        "width": pa.array([WIDTH] * rows, pa.int32()),
        "num_frames": pa.array([FRAMES] * rows, pa.int32()),
        "camera": fixed(camera.astype(np.float32), fields["camera"]),
        "sharpness": listed(pa.array(rng.gamma(3, 60, len(at)).astype(np.float32)), fields["sharpness"]),
        "shot": listed(pa.array(np.zeros(len(at), np.int32)), fields["shot"]),
    }


def signatures_of(ids: pa.Array, number: int) -> pa.Table:
    """Return the SIGNATURES rows of a shard: spread like real ones (most of the variance in a few directions)."""
    rng = np.random.default_rng(number)
    scale = 1 / np.sqrt(np.arange(1, SIGNATURE_NUMBERS + 1))
    vectors = rng.standard_normal((len(ids), SIGNATURE_NUMBERS), np.float32) * scale
    vectors *= np.sqrt(2) / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in range(1, len(ids)):
        if (number * SHARD_VIDEOS + row) % COPY_EVERY == 0:
            vectors[row] = vectors[row - 1]
    flat = pa.array(vectors.astype(np.float32).ravel())
    return pa.table([ids, pa.FixedSizeListArray.from_arrays(flat, SIGNATURE_NUMBERS)], schema=SIGNATURES)
