"""Copies: the same video in another file, for example uploaded twice. They count as one source video.

Files of one video must not serve two uses: a class would be scored on what its concepts were learnt from, and a
"random" clip could show the concept. Nor may they count twice in one set. So only one video of each group of copies is
used for planning, and the others give no clips.

A video's signature is computed while it is decoded for tracking. It is a short vector of the lowest frequencies, over
time and space, of the video's small grey pictures, in two parts of equal weight:

- appearance: of the mean picture, without its brightness, divided by its norm;
- motion: how the picture changes over the whole video, divided by its norm. It excludes a background that many videos
  share (one camera, one room), so such videos differ by what moves in them.

Coding, scale, frame rate, brightness, contrast and black bars change it little. Mirrored or rotated copies, parts cut
out of a video, and copies that begin or end much earlier are not found (figures: benchmarks/RESULTS.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from vtcav_ray.tables import COPIES as COPIES
from vtcav_ray.tables import SIGNATURE_NUMBERS, SIGNATURES
from vtcav_ray.tracks.near import with_neighbour

_SIDE = 64  # of the small pictures, pixels
_PICTURES = 64  # minimum number kept of a longer video; fewer than twice as many are kept
_DARK = 16  # grey levels: a border that is never brighter is a black bar, including coding noise
_TIMES = 4  # frequencies over the video: 0 is its mean picture
_PLACES = 6  # frequencies along each side, of the mean picture
_PLACES_MOVING = 5
# Grey levels: parts shorter than these are mostly noise, and count less instead of being amplified.
_FAINT_LOOK, _FAINT_MOTION = 2.0, 1.0
_DIRECTIONS = 24  # dimensions of the projection in which neighbours are searched
NUMBERS = _PLACES**2 - 1 + (_TIMES - 1) * _PLACES_MOVING**2
assert NUMBERS == SIGNATURE_NUMBERS


class Pictures:
    """Small pictures spread evenly over a video of unknown length, in bounded memory."""

    def __init__(self) -> None:
        self._kept: list[np.ndarray] = []
        self._step = 1
        self._seen = 0

    def add(self, grey: np.ndarray) -> None:
        """Add the next frame, uint8 [h, w]; the small picture of `vtcav_ray.tracks.camera` is large enough."""
        if self._seen % self._step == 0:
            self._kept.append(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))
            if len(self._kept) == 2 * _PICTURES:
                self._kept, self._step = self._kept[::2], 2 * self._step
        self._seen += 1

    @property
    def is_empty(self) -> bool:
        """Whether no frame was added: then there is no signature."""
        return not self._kept

    def signature(self) -> np.ndarray:
        """Return the signature of the frames so far (at least one): float32 [NUMBERS], with length at most sqrt(2)."""
        pictures_THW = np.stack(self._kept)
        lit = pictures_THW.max(0) > _DARK
        pictures_THW = pictures_THW[:, _inside(lit.any(1)), _inside(lit.any(0))]
        waves = [_waves(k, n) for k, n in zip((_TIMES, _PLACES, _PLACES), pictures_THW.shape, strict=True)]
        low = np.einsum("at,by,cx,tyx->abc", *waves, pictures_THW.astype(np.float32), optimize=True)
        look = low[0].ravel()[1:]  # the first is the brightness
        motion = low[1:, :_PLACES_MOVING, :_PLACES_MOVING].ravel()
        parts = (_unit(look, _FAINT_LOOK), _unit(motion, _FAINT_MOTION))
        return np.concatenate(parts).astype(np.float32)


def _inside(lit: np.ndarray) -> slice:
    """Select what lies between two black bars of equal width, without their edge lines (half bar, half picture)."""
    places = np.flatnonzero(lit)
    bar = min(places[0], len(lit) - 1 - places[-1]) if len(places) else 0
    cut = bar + 1 if 0 < bar < len(lit) // 2 - 1 else 0
    return slice(cut, len(lit) - cut)


def _unit(part: np.ndarray, faint: float) -> np.ndarray:
    return part / (np.linalg.norm(part) + faint)


def _waves(count: int, length: int) -> np.ndarray:
    """Return the lowest cosine waves, float32 [count, length]. Coefficients do not depend on the length."""
    waves = np.cos(np.pi * np.arange(count)[:, None] * (np.arange(length) + 0.5) / length) / length
    waves[1:] *= np.sqrt(2)
    return waves.astype(np.float32)


def signature_table(signatures: Mapping[str, np.ndarray]) -> pa.Table:
    """Return the `SIGNATURES` table of video_id -> signature."""
    rows = [{"video_id": video_id, "signature": vector} for video_id, vector in signatures.items()]
    return pa.Table.from_pylist(rows, schema=SIGNATURES)


def copies_among(videos: pa.Table, signatures: Iterable[pa.Table], distance: float) -> dict[str, str]:
    """Find copies among the videos of a corpus, as `find_copies` does. Videos with a label are kept first, then by id.

    Args:
        videos: VIDEOS table.
        signatures: `SIGNATURES` tables; a video without a signature is not a copy.
        distance: `clips.quality.copy_distance`.
    """
    ids: list[str] = []
    # One array for all: for a large corpus it is most of the memory.
    vectors = np.empty((videos.num_rows, NUMBERS), np.float32)
    for table in signatures:
        part = vectors[len(ids) : len(ids) + table.num_rows]
        part[:] = table["signature"].combine_chunks().flatten().to_numpy().reshape(-1, NUMBERS)
        ids += table["video_id"].to_pylist()
    vectors = vectors[: len(ids)]
    unlabelled = set(videos.filter(pc.is_null(videos["label"]))["video_id"].to_pylist())
    order = sorted(range(len(ids)), key=lambda i: (ids[i] in unlabelled, ids[i]))
    if order == list(range(len(ids))):  # as the stages write them, if all or none have a label: no copy is needed
        return find_copies(ids, vectors, distance)
    return find_copies([ids[i] for i in order], vectors[order], distance)


def find_copies(video_ids: Sequence[str], signatures: np.ndarray, distance: float) -> dict[str, str]:
    """Find videos that are copies of another one: video_id -> the video that it repeats, which is not itself a copy.

    Videos with a near one are found first (`vtcav_ray.tracks.near`), by the few directions in which signatures differ
    most. This projection only shortens distances, so no near pair is missed. Only these videos are compared in full.

    Args:
        video_ids: in order of preference, those to keep first.
        signatures: float32 [N, NUMBERS], in the same order.
        distance: maximum distance between the signatures of copies.
    """
    # Many small matrix products: shared among BLAS's threads, they take three times the processor time, and longer.
    with threadpool_limits(1, user_api="blas"):
        return _copies(video_ids, signatures, distance)


def _copies(video_ids: Sequence[str], signatures: np.ndarray, distance: float) -> dict[str, str]:
    import scipy.spatial  # takes 0.25 s to import, and workers, which only compute signatures, do not need it

    directions = np.linalg.eigh(signatures.T @ signatures)[1][:, -_DIRECTIONS:]
    short = signatures @ directions
    bound = distance + 1e-4  # for rounding
    crowded = np.flatnonzero(with_neighbour(short, bound))
    short = short[crowded]
    tree = scipy.spatial.cKDTree(short)
    copies: dict[str, str] = {}
    for number, place in enumerate(crowded.tolist()):
        if video_ids[place] not in copies:
            near = np.array(tree.query_ball_point(short[number], bound), np.int64)
            others = crowded[near[near > number]]
            apart = np.linalg.norm(signatures[others] - signatures[place], axis=1)
            for other in others[apart <= distance].tolist():
                copies.setdefault(video_ids[other], video_ids[place])
    return copies
