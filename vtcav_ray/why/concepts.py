"""Read from a run's tables what its concepts are at each layer: their clips, runs and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vtcav_ray.cavs.plan import RANDOM
from vtcav_ray.cavs.pool import POOL_COLUMNS, pool_of
from vtcav_ray.cavs.stage import matching_of, read_plan
from vtcav_ray.clips.classes import same_class
from vtcav_ray.clips.usable import AcceptedRows, read_left_out
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.run import Run
from vtcav_ray.scores.cells import find_cells
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tcav.arrays import video_means
from vtcav_ray.why.pushes import ConceptClips, direction

NO_ANSWERS = "has no table `answers`: an older version made its activations. Run it again, then explain it."


@dataclass(frozen=True)
class LayerPool:
    """One layer of a run.

    Attributes:
        layer: its name.
        vectors: the pool's clips, [N, d].
        directions: v of each concept, in the order of `RunConcepts.concepts`, [J, d].
        random: projections of each concept's random clips on its own v: J arrays.
    """

    layer: str
    vectors: NDArray[np.float32]
    directions: NDArray[np.float64]
    random: Sequence[NDArray[np.float64]]


@dataclass(frozen=True)
class RunConcepts:
    """The concepts of a run that are compared with random clips. The rows are the same at every layer.

    Attributes:
        run: the run.
        activations: the stage, without the clips that are left out.
        concepts: their clips, as rows of the pool.
        videos: source video of each row of the pool.
    """

    run: Run
    activations: AcceptedRows
    concepts: Sequence[ConceptClips]
    videos: Sequence[str]

    @classmethod
    def of(cls, run: Run) -> RunConcepts:
        """Read the concepts of a run with finished CAVs.

        Raises:
            ConfigError: the run has not reached its CAVs, or its activations are of an older version.
        """
        run.manifest("cavs")
        activations = AcceptedRows.of(run.stage("activations"), read_left_out(run.stage("cavs")))
        if not activations.files("answers"):
            raise ConfigError(f"The run at {run.url} {NO_ANSWERS}")
        layer = run.config.activations.layers[0]
        rows = activations.read("activations", columns=("clip_id", *POOL_COLUMNS), layer=layer)
        assert rows is not None, "the CAVs were made from this table"
        matching = matching_of(run.stage("clips"), run.config)
        jobs = [job for job in read_plan(activations, layer, run.config, matching).jobs if job.against == RANDOM]
        runs: dict[str, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
        for job in jobs:
            if not job.is_null:
                runs.setdefault(job.concept, []).append(job.rows())
        cells = find_cells(pool_of(rows, matching), rows["clip_id"].to_pylist(), jobs)
        return cls(
            run,
            activations,
            [
                ConceptClips(c.concept, c.concept_rows, c.other_rows, [] if c.paired else runs[c.concept], c.paired)
                for c in cells
            ],
            rows["video_id"].to_pylist(),
        )

    @property
    def layers(self) -> Sequence[str]:
        return self.run.config.activations.layers

    def layer(self, name: str) -> LayerPool:
        """Read one layer's vectors."""
        rows = self.activations.read("activations", columns=("video_id", "vector"), layer=name)
        assert rows is not None, "the CAVs were made from this table"
        assert rows["video_id"].to_pylist() == self.videos, "all layers have the same clips in the same order"
        vectors = vectors_of(rows).astype(np.float32, copy=False)
        directions = np.stack([direction(vectors, self.videos, clips) for clips in self.concepts])
        random = [vectors[clips.random] @ v for clips, v in zip(self.concepts, directions, strict=True)]
        return LayerPool(name, vectors, directions, random)

    def mean_gradients(self, layer: str, classes: Sequence[str]) -> NDArray[np.float64]:
        """Return the mean gradient of each class at the clips at which the scores take it, [K, d]; NaN: there is none.

        These are the reference set, the class's own clips, or all, as `scores.gradients_at` says.
        """
        taken_at = self.run.config.scores.gradients_at
        columns = ("clip_id", "video_id", "class", "reference", "vector")
        rows = self.activations.read("gradients", columns=columns, layer=layer)
        assert rows is not None, "class examples have gradients"
        if taken_at == "reference":
            rows = rows.filter(rows["reference"])
        elif taken_at == "own":
            own = _own_class(self.activations.read("answers", columns=("clip_id", "name")))
            keep = [
                same_class(own.get(clip, ""), name)
                for clip, name in zip(rows["clip_id"].to_pylist(), rows["class"].to_pylist(), strict=True)
            ]
            rows = rows.filter(pa.array(keep, pa.bool_()))
        found = []
        for name in classes:
            part = rows.filter(pc.equal(rows["class"], name))
            if not part.num_rows:
                found.append(np.full(rows["vector"].type.list_size, np.nan))
                continue
            found.append(video_means(vectors_of(part), part["video_id"].to_pylist()).mean(axis=0))
        return np.stack(found)


def _own_class(answers: pa.Table | None) -> dict[str, str]:
    assert answers is not None, "the run has this table"
    return dict(zip(answers["clip_id"].to_pylist(), answers["name"].to_pylist(), strict=True))
