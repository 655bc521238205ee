"""Clips of one set that show the same content: found by a perceptual hash, confirmed on small pictures.

A video that was uploaded or cut again would count as a second source video and make a result look too certain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa

from vtcav_ray.tables import DUPLICATES as DUPLICATES
from vtcav_ray.tables import LOOKS, THUMB_NUMBERS
from vtcav_ray.video.codec import decode_clip

COLUMNS = ("clip_id", "video_id", "set", "name", "kind", "control_of", "num_frames", "encoding", "encoded")
_HASH_SIDE = 32
_THUMB_SIDE = 16
assert THUMB_NUMBERS == 3 * _THUMB_SIDE**2
_SAME = 8.0  # grey levels, maximum mean difference of the small pictures


@dataclass(frozen=True)
class Appearance:
    """The look of a clip.

    Attributes:
        bits: 64-bit perceptual hash (signs of the lowest frequencies of its mean picture).
        thumbs: float32 [3, 16, 16], grey: its first, middle and last frame.
    """

    bits: int
    thumbs: np.ndarray


def appearance_of(clip: np.ndarray, background: int = 0) -> Appearance:
    """Compute the look of a clip from its first, middle and last frame, ignoring borders of the background.

    Args:
        clip: uint8 [T, H, W, 3].
        background: value of every channel of the border.
    """
    frames = clip[[0, len(clip) // 2, -1]]
    lit = (frames != background).any(axis=(0, 3))
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    if len(rows):
        frames = frames[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    greys = [cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_RGB2GRAY) for f in frames]
    side = (_HASH_SIDE, _HASH_SIDE)
    mean = np.mean([cv2.resize(g, side, interpolation=cv2.INTER_AREA) for g in greys], axis=0)
    low = cv2.dct(mean.astype(np.float32))[:8, :8].ravel()
    low[0] = 0  # brightness
    bits = int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")
    thumbs = [cv2.resize(g, (_THUMB_SIDE, _THUMB_SIDE), interpolation=cv2.INTER_AREA) for g in greys]
    return Appearance(bits, np.stack(thumbs).astype(np.float32))


def alike(a: Appearance, b: Appearance, distance: int) -> bool:
    """Return whether two clips look alike: hashes differ in at most `distance` bits, and small pictures are similar."""
    return (a.bits ^ b.bits).bit_count() <= distance and float(np.abs(a.thumbs - b.thumbs).mean()) <= _SAME


def looks_of(clips: pa.Table, *, background: int = 0) -> pa.Table:
    """Return the looks of clips as a `LOOKS` table, small enough to be compared over a whole corpus.

    Three frames per clip are decoded. Controls have no look, since they follow the clip that they control.

    Args:
        clips: CLIPS table with at least `COLUMNS`.
        background: see `appearance_of`; full frames have no border, whatever it is.
    """
    rows = []
    for row in clips.select(list(COLUMNS)).to_pylist():
        if row["control_of"] is None:
            last = row["num_frames"] - 1
            look = appearance_of(decode_clip(row["encoding"], row["encoded"], [0, (last + 1) // 2, last]), background)
            about = {name: row[name] for name in ("clip_id", "video_id", "set", "name", "kind")}
            rows.append({**about, "bits": look.bits, "thumbs": look.thumbs.round().astype(np.uint8).ravel()})
    return pa.Table.from_pylist(rows, schema=LOOKS)


def near_duplicates(looks: Iterable[pa.Table], distance: int) -> dict[str, str]:
    """Find clips that repeat another one: clip_id -> the clip that it repeats.

    Clips are compared within one (set, name, kind). Of similar clips, the first by clip_id is the original. Views of
    one class video (`clips.class_views`) are kept: they are averaged, and the views of a still video are rightly
    similar.

    Args:
        looks: `LOOKS` tables.
        distance: `clips.quality.duplicate_distance`.
    """
    groups: dict[tuple[str, str, str], dict[str, Appearance]] = defaultdict(dict)
    view_of: dict[str, str] = {}
    for table in looks:
        for row in table.to_pylist():
            thumbs = np.array(row["thumbs"], np.float32).reshape(3, _THUMB_SIDE, _THUMB_SIDE)
            groups[row["set"], row["name"], row["kind"]][row["clip_id"]] = Appearance(row["bits"], thumbs)
            if row["set"] == "class":
                view_of[row["clip_id"]] = row["video_id"]
    repeats: dict[str, str] = {}
    for group in groups.values():
        kept: list[str] = []
        for clip_id in sorted(group):
            video = view_of.get(clip_id)
            others = (k for k in kept if video is None or view_of[k] != video)
            first = next((k for k in others if alike(group[k], group[clip_id], distance)), None)
            if first is None:
                kept.append(clip_id)
            else:
                repeats[clip_id] = first
    return repeats
