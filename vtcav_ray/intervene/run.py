"""`vtcav intervene`: real changes of the logit for several sizes of a shift, and the gain of a layer.

`vtcav patch` tests finite effects. This check gives what the table `patch_effects` does not: the change at each step
of a shift at the class's own clips, and the factor between the concept effect and the change to first order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.cavs.pool import POOL_COLUMNS, pool_of
from vtcav_ray.cavs.stage import left_out_labels, matching_of, read_plan
from vtcav_ray.clips.classes import same_class
from vtcav_ray.clips.usable import AcceptedRows, read_left_out
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.intervene.effect import intervention, layer_projection
from vtcav_ray.models import load_recogniser
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.run_lease import writing
from vtcav_ray.scores.cells import Cell, find_cells, without_class
from vtcav_ray.scores.choose import Wanted, choose
from vtcav_ray.store.commits import parquet_bytes
from vtcav_ray.store.records import canonical_digest
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tcav.arrays import video_means
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.video.codec import decode_clip

STEPS = (-0.5, 0.1, 0.25, 0.5, 1.0)


def intervene_run(
    run: Run, wanted: Wanted, steps: Sequence[float] = STEPS, *, max_clips: int = 16, trust_code: bool = False
) -> pa.Table:
    """Run the check and store its table in the run folder.

    Args:
        run: a run with finished scores.
        wanted: the cells; those without an effect are left out.
        steps: sizes t of the shift.
        max_clips: maximum class clips per cell, the first in the order of the table.
        trust_code: run the model config that run.json names, if it is a program.

    Returns:
        Rows of `tables.INTERVENTIONS`.

    Raises:
        ConfigError: no such cell, a step of 0, or a model other than the run's.
    """
    with writing(run.folder, "vtcav intervene"):
        return _run(run, wanted, steps, max_clips, trust_code=trust_code)


def _run(run: Run, wanted: Wanted, steps: Sequence[float], max_clips: int, *, trust_code: bool) -> pa.Table:
    if not steps or 0 in steps or not np.isfinite(steps).all():
        raise ConfigError(f"--step must be finite numbers other than 0, and is {list(steps)}.")
    cells = choose(run, dataclasses.replace(wanted, measured=True))
    config = run.config.trusting("anywhere") if trust_code else run.config
    recogniser = load_recogniser(config.model, seed=config.seed)
    tag = run.manifest("activations")["notes"]["model"]
    if recogniser.description.tag != tag:
        raise ConfigError(
            f"The run was made with the model {tag}, and {config.model.checkpoint} is now "
            f"{recogniser.description.tag}. Restore the old weights, or run again."
        )
    index = NameIndex(recogniser.class_names)
    rows: list[dict[str, Any]] = []
    for layer in dict.fromkeys(cell.layer for cell in cells):
        data = _Layer(run, layer)
        for cell in (cell for cell in cells if cell.layer == layer):
            clip_ids, videos, gradients = data.class_clips(cell.class_, max_clips)
            frames = _frames(run, clip_ids)
            found = intervention(
                recogniser,
                frames,
                layer,
                layer_projection(
                    recogniser,
                    frames[0],
                    layer,
                    config.activations.projection,
                    config.activations.sketch_seed,
                    config.activations.views,
                ),
                data.shift(cell.concept, cell.against, cell.class_),
                _place(index, cell.class_),
                gradients,
                steps,
                groups=videos,
                target=config.activations.target,
                views=config.activations.views,
            )
            rows += [
                {
                    **dict(zip(tables.CELL_KEY, cell, strict=True)),
                    "step": float(found.steps[i]),
                    "gain": found.gain,
                    "predicted": float(found.predicted[i]),
                    "real": float(found.real[i]),
                    "real_sd": float(found.real_sd[i]),
                    "n": found.num_videos,
                    "model": tag,
                }
                for i in range(len(steps))
            ]
    table = pa.Table.from_pylist(rows, schema=tables.INTERVENTIONS)
    # Under the key of the checked scores; repeating the same check writes the same file.
    name = canonical_digest([[r[name] for name in (*tables.CELL_KEY, "step")] for r in rows])[:16]
    run.folder.write_bytes(f"interventions/{run.keys['scores']}/{name}.parquet", parquet_bytes(table))
    return table


def _place(index: NameIndex, name: str) -> int:
    """Return a class's place among the logits."""
    place = index.place(name)
    if place is None:
        raise StageError(f"The model has no class {name!r}, which the run's scores have. Run it again.")
    return place


class _Layer:
    """One layer's activations and gradients, and its cells."""

    def __init__(self, run: Run, layer: str) -> None:
        folder = AcceptedRows.of(run.stage("activations"), read_left_out(run.stage("cavs")))
        pool = folder.read("activations", columns=("clip_id", *POOL_COLUMNS, "vector"), layer=layer)
        gradients = folder.read("gradients", columns=("clip_id", "video_id", "class", "vector"), layer=layer)
        assert pool is not None, "there are scores of this layer"
        assert gradients is not None, "there are scores of this layer"
        self.vectors = vectors_of(pool)
        self.gradients = gradients
        clip_ids = pool["clip_id"].to_pylist()
        self.name_of = dict(zip(clip_ids, pool["name"].to_pylist(), strict=True))
        self.videos = pool["video_id"].to_pylist()
        clips = run.stage("clips")
        matching = matching_of(clips, run.config)
        self._labels_N = left_out_labels(clips, self.videos, run.config)
        jobs = read_plan(folder, layer, run.config, matching).jobs
        self.cells = {(c.concept, c.against): c for c in find_cells(pool_of(pool, matching), clip_ids, jobs)}

    def shift(self, concept: str, against: str, class_name: str) -> np.ndarray:
        """Return an effect's shift, [d]: mean of the concept minus mean of the other side, both over source videos."""
        cell: Cell = self.cells[concept, against]
        if self._labels_N is not None:
            cell = without_class(cell, self._labels_N, class_name)
        own, other = self.vectors[cell.concept_rows], self.vectors[cell.other_rows]
        own_videos = [self.videos[i] for i in cell.concept_rows]
        if cell.paired:
            return np.asarray(video_means(own.astype(np.float64) - other, own_videos).mean(axis=0))
        other_videos = [self.videos[i] for i in cell.other_rows]
        return np.asarray(video_means(own, own_videos).mean(axis=0) - video_means(other, other_videos).mean(axis=0))

    def class_clips(self, name: str, most: int) -> tuple[list[str], list[str], np.ndarray]:
        """Return clip ids, source videos and gradients [B, d] of a class's own clips."""
        of, clips = self.gradients["class"].to_pylist(), self.gradients["clip_id"].to_pylist()
        rows = [
            i
            for i, (k, clip) in enumerate(zip(of, clips, strict=True))
            if k == name and same_class(self.name_of.get(clip, ""), name)
        ]
        taken = self.gradients.take(rows[:most])
        return taken["clip_id"].to_pylist(), taken["video_id"].to_pylist(), vectors_of(taken)


def _frames(run: Run, clip_ids: Sequence[str]) -> list[np.ndarray]:
    found: dict[str, np.ndarray] = {}
    wanted = set(clip_ids)
    for part in run.iter_tables("clips", columns=["clip_id", "encoding", "encoded"]):
        here = pa.array([clip in wanted for clip in part["clip_id"].to_pylist()], pa.bool_())
        for row in part.filter(here).to_pylist():
            found[row["clip_id"]] = decode_clip(row["encoding"], row["encoded"])
    return [found[clip] for clip in clip_ids]
