"""A layer's tables as the arrays that its scores are computed from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vtcav_ray.cavs.mix import Matching
from vtcav_ray.cavs.plan import CavJob
from vtcav_ray.cavs.pool import pool_of, require_finite
from vtcav_ray.clips.classes import same_class
from vtcav_ray.errors import StageError
from vtcav_ray.scores.layer_data import ClassGradients, LayerClips, LayerData
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tcav.gains import margin, with_gains

NO_REFERENCE = (
    "No clip of the reference set has gradients: all failed or were left out in the review. Set scores.gradients_at to "
    "`own`, or activations.reference to more videos."
)


def layer_clips(
    layer: str, activations: pa.Table, gradients: pa.Table, gradients_at: str, matching: Matching | None = None
) -> LayerClips:
    """Return a layer's activations and gradients.

    Args:
        layer: its name.
        activations, gradients: its rows of these tables.
        gradients_at: as in `scores.gradients_at`.
        matching: how random sets match labels; None: they don't.

    Raises:
        StageError: a gradient holds NaN or infinity, or no clip of the reference set has gradients.
    """
    clip_ids = activations["clip_id"].to_pylist()
    own = dict(zip(clip_ids, activations["name"].to_pylist(), strict=True))
    require_finite(vectors_of(gradients), gradients["clip_id"].to_pylist(), layer)
    return LayerClips(
        layer=layer,
        model=activations["model"][0].as_py(),
        pool=pool_of(activations, matching),
        clip_ids=clip_ids,
        vectors_ND=vectors_of(activations),
        classes=by_class(gradients, own, gradients_at),
    )


def with_cavs(clips: LayerClips, jobs: Sequence[CavJob], cavs: pa.Table, chance: pa.Table) -> LayerData:
    """Return a layer's clips with its CAVs.

    Args:
        clips: of the layer.
        jobs: the plan of its CAVs, in the order of `cavs`.
        cavs, chance: its rows of these tables.
    """
    assert cavs["concept"].to_pylist() == [job.concept for job in jobs], "the plan is the same each time"
    accuracies: dict[tuple[str, str], list[float]] = {}
    for row in chance.sort_by("draw").to_pylist():
        accuracies.setdefault((row["concept"], row["against"]), []).append(row["accuracy"])
    return LayerData(
        **{field.name: getattr(clips, field.name) for field in dataclasses.fields(clips)},
        jobs=jobs,
        cavs_Md=vectors_of(cavs),
        held_out_M=np.asarray(cavs["held_out_accuracy"], np.float64),
        reasons_M=cavs["reason"].to_pylist(),
        chance={key: np.array(values) for key, values in accuracies.items()},
    )


def by_class(gradients: pa.Table, class_of_clip: dict[str, str], taken_at: str) -> list[ClassGradients]:
    """Return the gradients of each class at its own clips, and at those that `scores.gradients_at` names.

    Raises:
        StageError: no clip of the reference set is left.
    """
    vectors, videos = vectors_of(gradients), gradients["video_id"].to_pylist()
    gains, margins = (np.asarray(gradients[name], np.float64) for name in ("gain", "margin"))
    own_rows: dict[str, list[int]] = {}
    effect_rows: dict[str, list[int]] = {}
    columns = (gradients[name].to_pylist() for name in ("class", "clip_id", "reference"))
    for i, (name, clip, reference) in enumerate(zip(*columns, strict=True)):
        own = same_class(class_of_clip[clip], name)
        if own:
            own_rows.setdefault(name, []).append(i)
        if taken_at == "all" or (taken_at == "reference" and reference) or (taken_at == "own" and own):
            effect_rows.setdefault(name, []).append(i)

    if taken_at == "reference" and not own_rows.keys() <= effect_rows.keys():
        raise StageError(NO_REFERENCE)

    def of_class(name: str, own: list[int], taken: list[int]) -> ClassGradients:
        plain = vectors[taken]
        weighed, gain = with_gains(plain, gains[taken])
        return ClassGradients(
            name,
            vectors[own],
            [videos[i] for i in own],
            for_effect=None if taken_at == "own" and weighed is plain else (weighed, [videos[i] for i in taken]),
            gain=gain,
            margin=margin(margins[own]),
        )

    return [of_class(name, rows, effect_rows[name]) for name, rows in sorted(own_rows.items())]
