"""Test the effects: all classes and layers of one concept against its other side together, as one family.

Every class and layer has its own projections of the same clips, so one set of arrangements serves all cells of a family
(`vtcav_ray.tcav.family`). Only these projections are needed: one number per clip, class and layer.

Legend: N rows of the pool, K classes, C cells (class and layer) of a family.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtcav_ray.cavs.mix import NO_LABEL
from vtcav_ray.cavs.plan import RANDOM, Pool
from vtcav_ray.rows import CompositionRow, EffectTestRow
from vtcav_ray.scores.cells import Cell, without_class
from vtcav_ray.scores.layer_data import LayerClips, ScoreOptions
from vtcav_ray.tcav.effect_cells import FLAT
from vtcav_ray.tcav.family import EffectFamily, effect_family, paired_effect_family

WIDE_RATIO = 2.0  # of the sides' spreads: above it, equal tails can reject too often
MAX_NAMES = 3
MOST_LABELS = 20  # rows of a concept in the table `composition`, with Kinetics' 400 labels, too
_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Projections:
    """Projections of the pool's clips on the mean gradients of all classes and layers, or mean responses to them.

    Attributes:
        cells: (class, layer) of each of the C columns.
        values_NC: in logits, without the gain. Rows that effects may not use have no meaning.
        negligible_C: a spread that is rounding.
        gain_C: of the layer, for sizes in logits.
    """

    cells: Sequence[tuple[str, str]]
    values_NC: NDArray[np.float32]
    negligible_C: NDArray[np.float64]
    gain_C: NDArray[np.float64]

    @classmethod
    def of(cls, layers: Iterable[LayerClips]) -> Projections:
        """Project layer by layer, so that one layer's vectors are in memory at a time."""
        cells: list[tuple[str, str]] = []
        values: list[NDArray[np.float32]] = []
        negligible: list[NDArray[np.float64]] = []
        gains: list[float] = []
        clip_ids: Sequence[str] | None = None
        for layer in layers:
            assert clip_ids in (None, layer.clip_ids), "all layers have the same clips in the same order"
            clip_ids = layer.clip_ids
            cells += [(one.name, layer.layer) for one in layer.classes]
            gains += [one.gain for one in layer.classes]
            if layer.patched:
                assert layer.there_N is not None, "responses come with the rows that have them"
                values_NK, size_K = _mean_responses(layer, layer.there_N)
                values.append(values_NK)
                negligible.append(FLAT * size_K)
                continue
            mean_KD = np.stack([one.mean() for one in layer.classes])
            values.append(_products(layer.vectors_ND, mean_KD))
            width = float(np.sqrt(np.einsum("nd,nd->n", layer.vectors_ND, layer.vectors_ND, dtype=np.float64).mean()))
            negligible.append(FLAT * np.linalg.norm(mean_KD, axis=1) * width)
        return cls(cells, np.concatenate(values, axis=1), np.concatenate(negligible), np.array(gains))

    def of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.values_NC[rows].astype(np.float64)

    def by_class(self) -> Iterator[tuple[str, Projections]]:
        """Yield each class with its own projections, of all layers."""
        for name in dict.fromkeys(name for name, _ in self.cells):
            of = [c for c, (other, _) in enumerate(self.cells) if other == name]
            part = ([self.cells[c] for c in of], self.values_NC[:, of], self.negligible_C[of], self.gain_C[of])
            yield name, Projections(*part)


def _mean_responses(layer: LayerClips, there_N: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return each class's mean response over the reference videos, centred, [N, K], and the size of its responses."""
    means, sizes = [], []
    for one in layer.classes:
        assert one.responses_NV is not None, "every class of the layer has responses"
        known = one.responses_NV[there_N]
        means.append(np.where(there_N, one.responses_NV.mean(axis=1), 0.0) - known.mean())
        sizes.append(np.sqrt(np.square(known).mean()))
    return np.stack(means, axis=1).astype(np.float32), np.array(sizes)


def _products(vectors_ND: NDArray[np.float32], mean_KD: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the inner products [N, K] in float64. The pool is centred first, which saves digits."""
    centre_D = vectors_ND.mean(axis=0, dtype=np.float64)
    out_NK = np.empty((len(vectors_ND), len(mean_KD)), dtype=np.float32)
    for start in range(0, len(vectors_ND), _ROWS_AT_A_TIME):
        some = slice(start, start + _ROWS_AT_A_TIME)
        out_NK[some] = (vectors_ND[some] - centre_D) @ mean_KD.T
    return out_NK


@dataclass(frozen=True)
class Labels:
    """The label of each row of the pool, [N]; `known`: at least one video has one."""

    of_rows: NDArray[np.str_]
    known: bool

    @classmethod
    def of(cls, pool: Pool, label_of_video: Mapping[str, str | None]) -> Labels:
        found = [label_of_video.get(video) or NO_LABEL for video in pool.video_id]
        return cls(np.array(found), any(label != NO_LABEL for label in found))


def family_tests(
    cell: Cell, projections: Projections, pool: Pool, labels: Labels, options: ScoreOptions
) -> list[EffectTestRow]:
    """Test one concept against its other side for every class and layer; no rows if a side has no clips.

    If the effects on a class leave out its own videos, each class has videos of its own, and is a family of its own:
    only the layers of a class share arrangements. Classes could share arrangements of ALL videos in two ways, and both
    are wrong. With a weight of 0 for the videos left out, the sizes of the sides that remain vary from arrangement to
    arrangement, while the observed ones are fixed: a concept of 20 videos, 16 of them of the class, has 4 left and is
    compared with arrangements that leave about 15, whose t varies less: at 5 % the test rejects in 10 % of null cells
    (tests/scores/test_label_sets.py). And arrangements that keep every label's sizes test
    the effect within labels only.
    """
    if options.labels_N is not None:
        labels_N, once = options.labels_N, dataclasses.replace(options, labels_N=None)
        return [
            row
            for name, projected in projections.by_class()
            for row in family_tests(without_class(cell, labels_N, name), projected, pool, labels, once)
        ]
    if not (len(cell.concept_rows) and len(cell.other_rows)):
        return []
    own, other = (projections.of_rows(rows) for rows in (cell.concept_rows, cell.other_rows))
    videos = np.array(pool.video_id)
    spread_C = np.abs(own - other).max(axis=0) if cell.paired else np.ptp(np.concatenate((own, other)), axis=0)
    flat_C = spread_C <= projections.negligible_C
    own[:, flat_C] = np.nan
    if cell.paired:
        paired = functools.partial(paired_effect_family, own - other, groups=videos[cell.concept_rows])
        found = _all_within(paired(**_settings(options)))
    else:
        rows = np.concatenate((cell.concept_rows, cell.other_rows))
        strata = labels.of_rows[rows] if labels.known else None
        unpaired = functools.partial(effect_family, own, other, groups=videos[rows], strata=strata)
        found = unpaired(**_settings(options))
    return [
        EffectTestRow(
            class_=name,
            layer=layer,
            concept=cell.concept,
            against=cell.against,
            p=float(found.p[c]),
            p_symmetric=float(found.p_symmetric[c]),
            p_adjusted=float(found.p_adjusted[c]),
            p_needed=found.p_needed,
            spread_ratio=float(found.spread_ratio[c]),
            effect_within=float(found.effect_within[c] * projections.gain_C[c]),
            p_within=float(found.p_within[c]),
            p_within_adjusted=float(found.p_within_adjusted[c]),
            between_share=float(found.between_share[c]),
            effect_unit=float(found.null_unit[c] * projections.gain_C[c]),
            effect_counts=found.null_counts[c].tolist(),
            note=" ".join(filter(None, (_spread_note(found, c), no_contrast_note(found.no_contrast)))),
        )
        for c, (name, layer) in enumerate(projections.cells)
    ]


def _settings(options: ScoreOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("permutations", "level", "seed", "device")}


def _all_within(found: EffectFamily) -> EffectFamily:
    """Complete a family of pairs: a clip and its twin have the same label, so the whole effect is within labels."""
    with np.errstate(invalid="ignore"):
        share = np.where(np.abs(found.effect) > found.null_unit, 0.0, np.nan)
    return dataclasses.replace(
        found,
        effect_within=found.effect,
        p_within=found.p,
        p_within_adjusted=found.p_adjusted,
        between_share=share,
    )


def _spread_note(found: EffectFamily, c: int) -> str:
    ratio = found.spread_ratio[c]
    if not ratio > WIDE_RATIO or np.isnan(found.p[c]):
        return ""
    sides = f"differ by a factor of {ratio:.1f}" if np.isfinite(ratio) else "differ, and one side has none"
    return (
        f"The spreads of the two sides {sides}: equal tails can reject too often there. By the size of t alone, p is "
        f"{found.p_symmetric[c]:.2g}."
    )


def no_contrast_note(labels: Sequence[str]) -> str:
    """Return a sentence on the labels that can't be told apart from the concept, or "" if there are none."""
    if not labels:
        return ""
    classes = [label for label in labels if label != NO_LABEL]
    named = ", ".join(classes[:MAX_NAMES]) + (f" and {len(classes) - MAX_NAMES} more" * (len(classes) > MAX_NAMES))
    which = [f"the class{'es' * (len(classes) > 1)} {named}"] * bool(classes)
    which += ["videos without a label"] * (NO_LABEL in labels)
    return f"The concept can't be told apart from {' and '.join(which)}: the other side has no such video."


def composition(cell: Cell, pool: Pool, labels: Labels) -> list[CompositionRow]:
    """Count the source videos of a concept and of its random clips by label.

    The MOST_LABELS labels with the most videos of the concept, then of the random clips, have rows of their own, in
    alphabetical order. One last row counts all others together, as `<number> other labels`.
    """
    own, other = (
        Counter({pool.video_id[row]: str(labels.of_rows[row]) for row in rows}.values())
        for rows in (cell.concept_rows, cell.other_rows)
    )
    assert cell.against == RANDOM, "other sides are made of concepts, which have their own rows"
    ranked = sorted({*own, *other}, key=lambda label: (-own[label], -other[label], label))
    # A single other label is named rather than counted.
    most = MOST_LABELS if len(ranked) > MOST_LABELS + 1 else len(ranked)
    groups = [(label, [label]) for label in sorted(ranked[:most])]
    if rest := ranked[most:]:
        groups.append((f"{len(rest)} other labels", rest))
    return [
        CompositionRow(
            concept=cell.concept,
            label=name,
            n_concept=sum(own[label] for label in group),
            n_random=sum(other[label] for label in group),
            no_contrast=any(own[label] and not other[label] for label in group),
        )
        for name, group in groups
    ]
