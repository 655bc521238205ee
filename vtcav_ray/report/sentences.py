"""Findings in sentences. Every number in a sentence comes from the scores table.

The headline is the concept effect in logits, with its 95 % interval and its corrected p (q). The sign count (TCAV
score) follows with its null. "Not shown" is never written as "no effect": where the intervals are narrow, the sentence
gives the largest effect that they still allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vtcav_ray.pages.wording import between, count, equals, percent, probability, share, signed
from vtcav_ray.report.phrases import Phrase, Sentence, amount, at_layer, name, names, number, words
from vtcav_ray.report.score_cells import GROUP_WORDS, ScoreCells, Status

MAX_RAISING = 3
MAX_LOWERING = 2


@dataclass(frozen=True)
class ClassFinding:
    """The findings for one class.

    Attributes:
        name: class name.
        strongest: size of the largest significant effect, in logits; 0: none.
        sentences: in reading order.
    """

    name: str
    strongest: float
    sentences: Sequence[Sentence]


def overall(
    cells: ScoreCells, *, alpha: float, correction: str, min_effect: float = 0.0, effect: str = "first_order"
) -> list[Sentence]:
    """Summarise how much was tested and how much was found.

    Args:
        cells: of the run.
        alpha, correction, effect: as in the config.
        min_effect: as in the config, a share of the class's margin; 0: none.
    """
    if not len(cells):
        return [words("There are no scores: no class or no concept had enough clips.")]
    tested = int(np.isfinite(cells.numbers["p"]).sum())
    found = int(cells.significant_N.sum())
    sentence = (
        number(f"{found:,}"),
        Phrase(f" of {tested:,} comparisons {'is' if found == 1 else 'are'} significant at "),
        number(f"α = {alpha:g}"),
        Phrase(f" {correction_words(correction)} over all m = {tested:,} comparisons."),
    )
    return [sentence, *_three_answers(cells, min_effect), *_what_effect(effect)]


def _three_answers(cells: ScoreCells, min_effect: float) -> list[Sentence]:
    """Say what a significant effect has to exceed, and how many comparisons have no effect or are not decided."""
    if not min_effect:
        return []
    no_effect, open_ = int(cells.of(Status.NO_EFFECT).sum()), int(_open(cells).sum())
    return [
        (
            Phrase("A comparison is significant only if its interval lies beyond "),
            number(f"{100 * min_effect:g}\u00a0%"),
            Phrase(" of the class's margin, the distance of other classes' clips from its own. "),
            number(count(no_effect, "comparison")),
            Phrase(f" {'has' if no_effect == 1 else 'have'} no effect that large; "),
            number(f"{open_:,}"),
            Phrase(f" {'is' if open_ == 1 else 'are'} not decided."),
        )
    ]


def _what_effect(effect: str) -> list[Sentence]:
    if effect != "patch":
        return []
    return [
        words(
            "The effects are patch effects: real changes of the logit when a concept's activation, instead of a random "
            "clip's, is put into the reference clips."
        )
    ]


def _open(cells: ScoreCells) -> np.ndarray:
    return cells.of(Status.NOT_SHOWN) | cells.of(Status.NOT_LEARNABLE)


def group_shares(cells: ScoreCells) -> list[tuple[str, int, int]]:
    """Return (label, significant cells, all cells): by group against random clips, then the other comparisons."""
    alike = np.array([column.keeps_movement for column in cells.columns], bool)[cells.column_N]
    parts = [(f"{word}, against random", cells.group(g) & cells.contrast("random")) for g, word in GROUP_WORDS.items()]
    parts += [
        ("against the other concepts of its kind", cells.contrast("rest")),
        ("against the same clips without their movement", cells.contrast("pair") & ~alike),
        ("against the same movement without the object", cells.contrast("pair") & alike),
    ]
    return [(word, int((rows & cells.significant_N).sum()), int(rows.sum())) for word, rows in parts if rows.any()]


def correction_words(correction: str) -> str:
    """Name a correction for multiple testing."""
    return {
        "step_down": "after step-down correction within each concept and Holm's correction",
        "holm": "after Holm's correction",
        "bh": "after Benjamini and Hochberg's correction (false discovery rate)",
        "none": "WITHOUT a correction for multiple testing",
    }.get(correction, f"after the correction `{correction}`")


def findings(cells: ScoreCells, classes: Sequence[str]) -> list[ClassFinding]:
    """Describe what the logits of these classes depend on, in this order."""
    against_random = cells.contrast("random") & ~cells.answer_N
    effect_N = np.abs(np.where(cells.significant_N & against_random, cells.numbers["effect"], 0.0))
    strongest = np.zeros(len(cells.classes))
    np.maximum.at(strongest, cells.class_N, np.nan_to_num(effect_N))
    order = [list(cells.classes).index(name) for name in classes]
    return [
        ClassFinding(
            cells.classes[k],
            float(strongest[k]),
            _of_class(cells, np.flatnonzero(cells.class_N == k), against_random),
        )
        for k in order
    ]


def _of_class(cells: ScoreCells, all_rows: np.ndarray, against_random: np.ndarray) -> list[Sentence]:
    status = cells.status_N
    rows = all_rows[against_random[all_rows]]
    best = _strongest_a_column(cells, rows[cells.significant_N[rows]])
    controls = cells.group("control")
    raising = [i for i in best if status[i] == Status.RAISES and not controls[i]]
    lowering = [i for i in best if status[i] == Status.LOWERS and not controls[i]]
    sentences = [_effect_sentence(cells, i, "raises") for i in raising[:MAX_RAISING]]
    sentences += [_effect_sentence(cells, i, "lowers") for i in lowering[:MAX_LOWERING]]
    left = len(raising[MAX_RAISING:]) + len(lowering[MAX_LOWERING:])
    if left:
        sentences.append(words(f"{left} more {'concept has' if left == 1 else 'concepts have'} a significant effect."))
    if raising:
        sentences += _counterparts(cells, rows, raising[0])
    if not raising and not lowering:
        sentences.append(_nothing_shown(cells, rows))
    sentences += _paired(cells, all_rows[(cells.contrast("pair") & ~cells.answer_N)[all_rows]])
    return sentences


def _strongest_a_column(cells: ScoreCells, rows: np.ndarray) -> list[int]:
    """Return each concept's cell with the largest effect, largest first. The correction covers this choice.

    A cell of a degenerate layer is chosen only if no other layer has a significant effect.
    """
    best: dict[int, int] = {}
    effect = np.abs(cells.numbers["effect"][rows])
    for i in rows[np.lexsort((-effect, cells.degenerate_N[rows]))]:
        best.setdefault(int(cells.column_N[i]), int(i))
    return sorted(best.values(), key=lambda i: -abs(cells.numbers["effect"][i]))


def _effect_sentence(cells: ScoreCells, i: int, verb: str) -> Sentence:
    column, figures = cells.columns[cells.column_N[i]], cells.numbers
    null = f"{share(figures['tcav_null_mean'][i])} ± {share(figures['tcav_null_sd'][i])}"
    tail = f"TCAV score {share(figures['tcav_score'][i])}, null {null}"
    if cells.degenerate_N[i]:
        tail = "the sign count says nothing here, since the gradient is the same for every clip"
    return (
        Phrase(_sentence_start(column.group)),
        name(column.name),
        Phrase(f" ({column.kind}) {verb} the logit by "),
        Phrase(f"{amount(figures['effect'][i])}", verb),
        *_of_margin(cells, i),
        *at_layer(cells, i),
        Phrase("."),
        *_finite_change(cells, i),
        *_in_answer(cells, i),
        Phrase(f" 95\u00a0% interval {_interval(cells, i)}, q {equals(figures['q'][i])}; {tail}.", "detail"),
        *_beyond_class(cells, i),
    )


def _of_margin(cells: ScoreCells, i: int) -> list[Phrase]:
    """Write the effect as a share of the class's margin; nothing if the class has none."""
    part = cells.numbers.get("share_of_margin")
    if part is None or not np.isfinite(part[i]):
        return []
    return [Phrase(f" ({percent(abs(part[i]))} of the class's margin)")]


def _finite_change(cells: ScoreCells, i: int) -> list[Phrase]:
    """Write the patch effect beside its first-order prediction; nothing if the cell was not patched."""
    found = cells.numbers.get("effect_patch")
    if found is None or not np.isfinite(found[i]):
        return []
    return [Phrase(f" Putting the concept's activations in place changes it by {signed(found[i])}.", "detail")]


def _in_answer(cells: ScoreCells, i: int) -> list[Phrase]:
    """Write how the model's own answer differs between the same clips; nothing if the run has no such cell."""
    same = (cells.class_N == cells.class_N[i]) & (cells.column_N == cells.column_N[i]) & cells.answer_N
    effect, q, change = (cells.numbers.get(name) for name in ("effect", "q", "probability_change"))
    if effect is None or q is None or change is None or not same.any():
        return []
    j = int(np.flatnonzero(same)[0])
    if not np.isfinite(effect[j]):
        return []
    text = f" The model's answer differs by {signed(effect[j])} logits, its probability by {signed(change[j])}"
    return [Phrase(f"{text} (q {equals(q[j])}).", "detail")]


def _beyond_class(cells: ScoreCells, i: int) -> list[Phrase]:
    """Say which question the effect answers, and how much of it is beyond the class of the clips."""
    within, q, part = (cells.numbers.get(name) for name in ("effect_within", "q_within", "between_share"))
    if within is None or q is None or part is None or not np.isfinite(q[i]):
        return []
    of_it = f", and {_percent(part[i])} of it goes with their classes" if np.isfinite(part[i]) else ""
    beyond = f"{signed(within[i])}, q {equals(q[i])}"
    return [Phrase(f" This compares clips of any class{of_it}. Beyond the class itself: {beyond}.", "detail")]


def _percent(part: float) -> str:
    """Write a share as a percentage; parts of opposite signs give shares outside 0 to 100."""
    return "all" if part >= 0.995 else "none" if part < 0.005 else f"{100 * part:.0f}\u00a0%"


def _counterparts(cells: ScoreCells, rows: np.ndarray, lead: int) -> list[Sentence]:
    """Compare the strongest concept with its still and control versions: the effect that remains without motion."""
    column = cells.columns[cells.column_N[lead]]
    shown: list[Sentence] = []
    not_shown: list[tuple[str, str]] = []
    not_learnable: list[str] = []
    no_effect: list[str] = []
    for k, other in enumerate(cells.columns):
        of_it = rows[cells.column_N[rows] == k]
        if other.name != column.name or other.concept == column.concept or not len(of_it):
            continue
        best = _strongest_a_column(cells, of_it[cells.significant_N[of_it]])
        if best:
            shown.append(_short_effect(cells, best[0]))
        elif (cells.status_N[of_it] == Status.NO_EFFECT).all():
            no_effect.append(other.kind)
        elif (cells.status_N[of_it] == Status.NOT_LEARNABLE).all():
            not_learnable.append(other.kind)
        else:
            not_shown.append((other.kind, _reach(cells, of_it)))
    phrases: list[Phrase] = []
    for one in shown:
        phrases += [*one, Phrase("; ")]
    if not_shown:
        phrases.append(Phrase("no effect shown for "))
        commas = between(len(not_shown), more=False)
        for (kind, reach), comma in zip(not_shown, commas, strict=True):
            phrases += [name(kind), Phrase(f"{f' (at most {reach})' if reach else ''}{comma}")]
        phrases.append(Phrase("; "))
    if no_effect:
        phrases += [Phrase("no effect for "), *names(no_effect), Phrase("; ")]
    if not_learnable:
        phrases += [Phrase("not learnable: "), *names(not_learnable), Phrase("; ")]
    if not phrases:
        return []
    return [(Phrase("The same as other kinds: "), *phrases[:-1], Phrase("."))]


def _paired(cells: ScoreCells, rows: np.ndarray) -> list[Sentence]:
    """Compare concepts with their counterparts track by track: the effect of the motion itself."""
    best = _strongest_a_column(cells, rows[cells.significant_N[rows]])
    alike: dict[tuple[str, str, int], list[int]] = {}
    for i in best:
        column = cells.columns[cells.column_N[i]]
        alike.setdefault((column.kind, column.against.rpartition("/")[2], int(cells.status_N[i])), []).append(i)
    sentences: list[Sentence] = []
    for (kind, other, status), found in alike.items():
        verb, i = ("raises" if status == Status.RAISES else "lowers"), found[0]
        sentences.append(
            (
                Phrase("Compared track by track with the same as "),
                name(other),
                Phrase(", as "),
                name(kind),
                Phrase(" "),
                *names(cells.columns[cells.column_N[i]].name for i in found),
                Phrase(f" {verb[:-1]} the logit, by up to " if len(found) > 1 else f" {verb} the logit by "),
                Phrase(amount(cells.numbers["effect"][i]), verb),
                *at_layer(cells, i),
                Phrase(f" (q {equals(cells.numbers['q'][i])})."),
            )
        )
    return sentences


def _short_effect(cells: ScoreCells, i: int) -> Sentence:
    verb = "raises" if cells.status_N[i] == Status.RAISES else "lowers"
    return (
        name(cells.columns[cells.column_N[i]].kind),
        Phrase(f" {verb} it by "),
        Phrase(amount(cells.numbers["effect"][i]), verb),
        *at_layer(cells, i),
        Phrase(f" (q {equals(cells.numbers['q'][i])})"),
    )


def _nothing_shown(cells: ScoreCells, rows: np.ndarray) -> Sentence:
    q = cells.numbers["q"][rows]
    if not np.isfinite(q).any():
        return words("Nothing could be tested for this class.")
    if cells.of(Status.NO_EFFECT)[rows].all():
        return words(f"No concept has an effect of interest: all {len(rows):,} intervals lie inside its limits.")
    return words(
        f"No concept's effect was shown in {len(rows):,} comparisons{_bound(cells, rows)}; "
        f"the smallest q is {probability(float(np.nanmin(q)))}."
    )


def _bound(cells: ScoreCells, rows: np.ndarray) -> str:
    reach = _reach(cells, rows)
    return f" (the 95\u00a0% intervals allow at most {reach} either way)" if reach else ""


def _reach(cells: ScoreCells, rows: np.ndarray) -> str:
    """Write the largest effect that the intervals still allow where none was shown; empty: no interval."""
    rows = rows[cells.of(Status.NOT_SHOWN)[rows]]
    ends = np.abs(np.concatenate([cells.numbers[c][rows] for c in ("ci_low", "ci_high")]))
    return amount(float(np.nanmax(ends))) if np.isfinite(ends).any() else ""


def _interval(cells: ScoreCells, i: int) -> str:
    return f"{signed(cells.numbers['ci_low'][i])} to {signed(cells.numbers['ci_high'][i])}"


def _sentence_start(group: str) -> str:
    return {"static": "The still ", "dynamic": "The moving ", "context": "In the full frame, "}.get(
        group, "The concept "
    )
