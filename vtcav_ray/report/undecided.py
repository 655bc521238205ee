"""Sentences about what could not be decided, and why."""

from __future__ import annotations

import numpy as np

from vtcav_ray.pages.wording import count, share
from vtcav_ray.report.phrases import MAX_NAMES, Phrase, Sentence, amount, name, names, number
from vtcav_ray.report.score_cells import ScoreCells, Status


def undecided(cells: ScoreCells, *, alpha: float = 0.05) -> list[Sentence]:
    """List what could not be decided: concepts, layers, sign counts, single cells, and intervals that are too wide."""
    if not len(cells):
        return []
    return [
        *_not_learnable(cells),
        *_degenerate(cells),
        *_only_effect(cells),
        *_without_figures(cells),
        *_too_near(cells, alpha),
        *_too_wide(cells),
    ]


def _not_learnable(cells: ScoreCells) -> list[Sentence]:
    rows = cells.of(Status.NOT_LEARNABLE)
    if not rows.any():
        return []
    codes = zip(cells.column_N[rows].tolist(), cells.layer_N[rows].tolist(), strict=True)
    pairs = sorted({(cells.columns[k].concept, layer) for k, layer in codes})
    return [
        (
            number(count(len(pairs), "concept")),
            Phrase(f" {'is' if len(pairs) == 1 else 'are'} not learnable at a layer ("),
            *names(f"{concept} at {cells.layers[layer]}" for concept, layer in pairs),
            Phrase(
                "): a linear classifier tells the concept's clips from random ones no better than random sets "
                "from one another."
            ),
        )
    ]


def _degenerate(cells: ScoreCells) -> list[Sentence]:
    rows = cells.degenerate_N
    if not rows.any():
        return []
    return [
        (
            Phrase("At "),
            *names(cells.layers[k] for k in np.unique(cells.layer_N[rows])),
            Phrase(
                " a class's gradient is the same for every clip, so that the sign count is 0 or 1 whatever the "
                "concept. Only the effect is read there."
            ),
        )
    ]


def _only_effect(cells: ScoreCells) -> list[Sentence]:
    """Describe the cells where the TCAV score's null is too wide to decide anything."""
    rows = cells.texts["decided_by"].equal("effect") & ~cells.degenerate_N & ~cells.of(Status.NOT_LEARNABLE)
    sd_N = cells.numbers["tcav_null_sd"]
    rows = rows & ~cells.answer_N & np.isfinite(sd_N)  # NaN: nothing was compared, so the null's width is not the cause
    if not rows.any():
        return []
    sd = float(sd_N[rows].mean())
    return [
        (
            Phrase("In "),
            number(count(int(rows.sum()), "comparison")),
            Phrase(
                f" the TCAV score can't decide: random-against-random scores spread by ± {share(sd)} on average, "
                "since a class's gradients point nearly one way. The effect decides there."
            ),
        )
    ]


def _without_figures(cells: ScoreCells) -> list[Sentence]:
    """List the most frequent reasons why a cell has no readable figure."""
    reasons: dict[str, int] = {}
    for i in np.flatnonzero(cells.of(Status.UNDECIDED)).tolist():
        reason = cells.texts["note"][i] or "no figure can be read"
        reasons[reason] = reasons.get(reason, 0) + 1
    ranked = sorted(reasons.items(), key=lambda item: -item[1])[:MAX_NAMES]
    return [(number(count(n, "comparison")), Phrase(" undecided: "), name(reason), Phrase(".")) for reason, n in ranked]


def _too_near(cells: ScoreCells, alpha: float) -> list[Sentence]:
    """Count cells whose effect differs from 0 while the interval includes effects that are too small to call."""
    if "min_effect" not in cells.numbers:
        return []
    with np.errstate(invalid="ignore"):
        differs = (cells.numbers["q"] < alpha) & (cells.numbers["min_effect"] > 0)
    rows = differs & ~cells.of(Status.NO_EFFECT) & ~cells.significant_N
    if not rows.any():
        return []
    return [
        (
            Phrase("In "),
            number(count(int(rows.sum()), "comparison")),
            Phrase(" the effect differs from 0, and may be smaller than the smallest effect of interest."),
        )
    ]


def _too_wide(cells: ScoreCells) -> list[Sentence]:
    """Describe cells without a significant effect whose interval includes effects as large as the median one."""
    effect, found = np.abs(cells.numbers["effect"]), cells.significant_N
    if not found.any():
        return []
    typical = float(np.median(effect[found]))
    reach = np.fmax(np.abs(cells.numbers["ci_low"]), np.abs(cells.numbers["ci_high"]))
    rows = cells.of(Status.NOT_SHOWN) & (reach >= typical)
    if not rows.any():
        return []
    return [
        (
            Phrase("In "),
            number(count(int(rows.sum()), "comparison")),
            Phrase(
                " no effect was shown, and the interval is too wide to rule out one as large as the median "
                f"significant effect ({amount(typical)} logits): more clips would decide."
            ),
        )
    ]
