"""A clip built in one call, for tests of concept kinds and motion controls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vtcav_ray.clips.kinds import builder_of


def build_clip(
    kind: str,
    frames: Sequence[np.ndarray] | np.ndarray,
    boxes: np.ndarray | None,
    size: int,
    *,
    pick: int = 0,
    blur: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """Build a clip of a kind from all T frames of its span: uint8 [T, S, S, 3], or [T, h, w, 3] for full frames.

    Args:
        kind: see `builder_of`.
        frames: T frames uint8 [H, W, 3].
        boxes: see `ClipBuilder`, as the rest.
    """
    height, width = frames[0].shape[:2]
    builder = builder_of(kind)(boxes, len(frames), (height, width), size, pick=pick, blur=blur, seed=seed)
    for position in builder.needs:
        builder.put(position, frames[position])
    return builder.finish()
