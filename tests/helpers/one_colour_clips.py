"""A pool of clips of one colour each, whose activations at the layer `early` are their colours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tests.helpers.colour_squares import FRAMES, SIDE, clip_row, clips_of, config_of
from vtcav_ray import tables
from vtcav_ray.config import Config
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.vectors import vector_array

WARM, RANDOM = 6, 24  # clips of the concept, and random ones
REFERENCE = {"red/a": "a", "red/b": "b", "blue/c": "c"}  # class example -> source video
BROWN = (90, 60, 30)  # of every class example
BROKEN = b"no clip at all, but long enough"


def pool() -> dict[str, np.ndarray]:
    """Return clip id -> its colour, uint8: the concept's are redder."""
    rng = np.random.default_rng(3)
    found = {f"warm/{i}": np.array([rng.integers(150, 250), *rng.integers(20, 235, 2)]) for i in range(WARM)}
    found |= {f"random/{i}": rng.integers(20, 235, 3) for i in range(RANDOM)}
    return found


def config(seed: int = 0, **sections: Any) -> Config:
    clips = {"per_concept": WARM, "min_per_concept": 4}
    return config_of(seed=seed, cavs={"random_sets": 2}, clips=clips, **sections)


def written_clips(folder: Folder, broken: Collection[str] = ()) -> StageFolder:
    """Write the frames of the pool and of the class examples, which are brown; those of some can't be decoded."""
    rows = []
    for clip, colour in (*pool().items(), *((clip, np.array(BROWN)) for clip in REFERENCE)):
        frames = np.broadcast_to(colour.astype(np.uint8), (FRAMES, SIDE, SIDE, 3))
        data = BROKEN if clip in broken else np.ascontiguousarray(frames)
        rows.append(clip_row(clip, _video_of(clip), clip.partition("/")[0], data, _set_of(clip)))
    return clips_of(folder, rows)


def activations_of(folder: Folder, gradients: Mapping[str, Sequence[float]] | None = None) -> StageFolder:
    """Write the activations of the pool and the class examples: the layer's mean is the colour.

    Args:
        folder: of the run.
        gradients: class -> its gradient at every class example, at a gain of 1; None: there are none.
    """
    colours = {**pool(), **dict.fromkeys(REFERENCE, np.array(BROWN))}
    number = len(colours)
    columns = {
        "clip_id": list(colours),
        "set": [_set_of(clip) for clip in colours],
        "name": ["random/spatial" if _set_of(clip) == "random" else clip.partition("/")[0] for clip in colours],
        "kind": ["full" if clip in REFERENCE else "spatial" for clip in colours],
        "video_id": [_video_of(clip) for clip in colours],
        "layer": ["early"] * number,
        "views": [1] * number,
        "model": ["m@1"] * number,
        "vector": vector_array(np.array(list(colours.values()), np.float32) / 255),
    }
    parts = {"activations/layer=early": pa.table(columns, schema=tables.activations(3))}
    if gradients is not None:
        rows = [(clip, name) for clip in REFERENCE for name in gradients]
        of = {
            "clip_id": [clip for clip, _ in rows],
            "video_id": [_video_of(clip) for clip, _ in rows],
            "class": [name for _, name in rows],
            "reference": [True] * len(rows),
            "gain": [1.0] * len(rows),
            "vector": vector_array(np.array([gradients[name] for _, name in rows], np.float32)),
        }
        parts["gradients/layer=early"] = pa.table(of)
    output = stage_folder(folder, "activations", "k")
    output.commit("0", ShardOutput(parts))
    output.finish({}, {"notes": {}, "warnings": []})
    return output


def _set_of(clip: str) -> str:
    if clip in REFERENCE:
        return "class"
    return "concept" if clip.startswith("warm") else "random"


def _video_of(clip: str) -> str:
    return REFERENCE.get(clip, clip.replace("/", "-"))
