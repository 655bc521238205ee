"""The inputs of the statistics of one layer, as arrays: activations, gradients, CAVs, options.

Legend: M CAVs, N rows of the pool, V source videos, d numbers of a vector.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vtcav_ray.cavs.plan import CavJob, Pool
from vtcav_ray.scores.cells import Cell
from vtcav_ray.tcav.arrays import video_means


class Targets(NamedTuple):
    """A class's target at class clips: values, and label and source video of each clip."""

    values: Sequence[float]
    labels: Sequence[str]
    videos: Sequence[str]


@dataclass(frozen=True)
class ClassGradients:
    """The gradients of a class's logit.

    Attributes:
        name: of the class.
        vectors, videos: gradients at the class's own clips, [n, d], and the clips' source videos. Sign counts use them.
        for_effect: the same at the clips that `scores.gradients_at` names, used by the concept effect;
            None: it uses the class's own clips.
        gain: of the layer: effects are multiplied by it (`vtcav_ray.tcav.gains`).
        margin: median logit distance of the class's own clips to the runner-up; NaN: it is not above 0.
        responses_NV: for `scores.effect: patch`: responses to each row of the pool at V reference videos; NaN: none.
        targets: for `scores.effect: patch`: the class's target at class clips, by label and source video.
    """

    name: str
    vectors: NDArray[np.float32]
    videos: Sequence[str]
    for_effect: tuple[NDArray[np.float32], Sequence[str]] | None = None
    gain: float = 1.0
    margin: float = float("nan")
    responses_NV: NDArray[np.float64] | None = None
    targets: Targets | None = None

    def mean(self) -> NDArray[np.float64]:
        """Return the mean gradient over source videos that the concept effect uses, [d]."""
        rows, videos = self.for_effect or (self.vectors, self.videos)
        return np.asarray(video_means(rows, videos, "class_groups").mean(axis=0))


@dataclass(frozen=True)
class LayerClips:
    """One layer's activations and gradients as arrays.

    Attributes:
        layer: its name.
        model: as in the tables.
        pool: the clips of the activations, with `vectors_ND`.
        clip_ids: of the pool's rows.
        classes: their gradients.
        there_N: rows of the pool that effects may use; None: all. With `scores.effect: patch`: those with responses at
            every layer.
    """

    layer: str
    model: str
    pool: Pool
    clip_ids: Sequence[str]
    vectors_ND: NDArray[np.float32]
    classes: Sequence[ClassGradients]
    there_N: NDArray[np.bool_] | None = dataclasses.field(default=None, kw_only=True)

    @property
    def patched(self) -> bool:
        """Whether the effects are those of responses."""
        return any(one.responses_NV is not None for one in self.classes)


@dataclass(frozen=True)
class LayerData(LayerClips):
    """The same with the layer's CAVs.

    Attributes:
        jobs: the job of each row of the CAV arrays.
        cavs_Md: unit vectors; NaN: not trained.
        held_out_M: held-out accuracies.
        reasons_M: why a CAV could not be trained, or an empty string. An empty sequence: all were trained.
        chance: (concept, against) -> held-out accuracies of the concept and of its stand-ins (`vtcav_ray.cavs.chance`).
    """

    jobs: Sequence[CavJob]
    cavs_Md: NDArray[np.float32]
    held_out_M: NDArray[np.float64]
    reasons_M: Sequence[str] = ()
    chance: Mapping[tuple[str, str], NDArray[np.float64]] = dataclasses.field(default_factory=dict)

    def chance_of(self, cell: Cell) -> tuple[float, NDArray[np.float64]]:
        """Return the accuracy of a concept, and those of its stand-ins; no accuracies: NaN, and none."""
        found = self.chance.get((cell.concept, cell.against), np.full(1, np.nan))
        return float(found[0]), found[1:]


@dataclass(frozen=True)
class ScoreOptions:
    """Options of the statistics; see `ScoresConfig`.

    Attributes:
        bootstrap, permutations, seed: as in the config.
        device: where to multiply.
        level: of `EffectFamily.p_needed`: alpha over the number of families.
        labels_N: label of each row of the pool, if the effects on a class leave out videos of
            that class (`clips.concept_labels: other`); None: they use all videos.
    """

    bootstrap: int
    permutations: int
    seed: int
    device: str | torch.device = "cpu"
    level: float = 0.05
    labels_N: NDArray[np.str_] | None = None
