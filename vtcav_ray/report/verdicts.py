"""One verdict per class: what the model uses for it, from which depth on, how much, and what was not shown to matter.

A verdict reads all comparisons of a class together: with random clips, with the other concepts of the same kind, and
with the same clips without their movement, or without what moves. A finding that all classes share says nothing about
one of them, so it is stated once, for all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa

from vtcav_ray.config.clips import GIVEN_KINDS
from vtcav_ray.pages.wording import between, equals, percent, signed
from vtcav_ray.report.phrases import Phrase, Sentence, amount, at_layer, name, names, number, plain, words
from vtcav_ray.report.score_cells import Column, ScoreCells, Status
from vtcav_ray.rows import VerdictRow, table_of
from vtcav_ray.stages import ANSWER

MAX_NAMED = 2  # concepts of one theme that a verdict names with their figures
IN_ANSWER = " in the answer"


class Theme(StrEnum):
    """What a concept is about. The values are the words of the verdict."""

    MOVEMENT = "movement"
    MOVING_OBJECT = "moving object"
    OBJECT = "object"
    SCENE = "scene"
    OTHER = "concept"


@dataclass(frozen=True)
class Verdict:
    """The answer for one class.

    Attributes:
        name: class name.
        surest: |z| of the clearest finding; 0: none.
        lead: row of the clearest comparison that raises its logit; None: nothing does.
        leads: rows of the clearest comparison of each concept that raises or lowers it, in the order of the sentences.
        themes: what raises its logit, the clearest first.
        sentences: in reading order; the first is the answer.
    """

    name: str
    surest: float
    lead: int | None
    leads: Sequence[int]
    themes: Sequence[Theme]
    sentences: Sequence[Sentence]


def verdicts(cells: ScoreCells, movements: Collection[str] = ()) -> list[Verdict]:
    """Return one verdict per class, in the order of the classes.

    Args:
        cells: of a run.
        movements: names of the concepts that are defined by a motion, whatever their kind.
    """
    shared = _shared(cells)
    themes = [theme_of(column, movements) for column in cells.columns]
    return [_of_class(cells, k, themes, shared) for k in range(len(cells.classes))]


def verdict_table(cells: ScoreCells, movements: Collection[str] = ()) -> pa.Table:
    """Return the verdicts as rows of `tables.VERDICTS`."""
    return table_of([_row(cells, one) for one in verdicts(cells, movements)], VerdictRow)


def _row(cells: ScoreCells, one: Verdict) -> VerdictRow:
    i = one.lead
    column = None if i is None else cells.columns[cells.column_N[i]]

    def figure(name: str) -> float | None:
        known = i is not None and name in cells.numbers and np.isfinite(cells.numbers[name][i])
        return float(cells.numbers[name][i]) if known else None

    return VerdictRow(
        class_=one.name,
        verdict=" ".join(plain(sentence) for sentence in one.sentences).replace("\u00a0", " "),
        uses=", ".join(one.themes),
        concept=column.concept if column else None,
        layer=cells.layers[cells.layer_N[i]] if i is not None else None,
        against=column.against if column else None,
        effect=figure("effect"),
        share_of_margin=figure("share_of_margin"),
        z=figure("z"),
        q=figure("q"),
    )


def clearest(every: Sequence[Verdict], limit: int) -> list[Verdict]:
    """Return at most `limit` verdicts: all in their order if there are no more, else the surest first."""
    return list(every) if len(every) <= limit else sorted(every, key=lambda one: -one.surest)[:limit]


def for_all_classes(cells: ScoreCells) -> list[Sentence]:
    """State what raises or lowers the logit of every class alike."""
    shared = _shared(cells)
    sentences: list[Sentence] = []
    for status, verb in ((Status.RAISES, "raises"), (Status.LOWERS, "lowers")):
        rows = np.flatnonzero(shared & cells.of(status))
        if not len(rows):
            continue
        of_concept: dict[str, set[int]] = {}
        for i in rows.tolist():
            of_concept.setdefault(cells.columns[cells.column_N[i]].concept, set()).add(int(cells.layer_N[i]))
        phrases = [Phrase(f"Every class alike: its logit is {verb[:-1]}{'d' if verb[-2] == 'e' else 'ed'} by ")]
        commas = between(len(of_concept), more=False)
        for (concept, layers), comma in zip(of_concept.items(), commas, strict=True):
            phrases += [name(concept), Phrase(f" ({_at(cells, layers)}){comma}")]
        sentences.append((*phrases, Phrase(".")))
    return sentences


def _at(cells: ScoreCells, layers: Collection[int]) -> str:
    named = [cells.layers[k] for k in sorted(layers)]
    at = " and ".join(layer for layer in named if layer != ANSWER)
    return " and ".join(filter(None, (f"at {at}" if at else "", IN_ANSWER.strip() if ANSWER in named else "")))


def theme_of(column: Column, movements: Collection[str] = ()) -> Theme | None:
    """Return what a comparison is about; None: it is a control, which is evidence only beside its original."""
    if column.group == "control":
        return None
    if column.contrast == "pair":  # the same clips with and without their movement, or two kinds of one object
        if column.group not in ("dynamic", "context"):
            return None
        return Theme.OBJECT if column.keeps_movement else Theme.MOVEMENT
    if column.name in movements:
        return Theme.MOVEMENT
    if column.kind in GIVEN_KINDS:  # what own clips show is their author's
        return Theme.OTHER
    of_group = {"dynamic": Theme.MOVING_OBJECT, "static": Theme.OBJECT, "context": Theme.SCENE}
    return of_group.get(column.group, Theme.OTHER)


def _shared(cells: ScoreCells) -> np.ndarray:
    """Return bool [N]: against random clips, the concept changes EVERY class's logit in the same direction there."""
    found = np.zeros(len(cells), bool)
    if len(cells.classes) < 2:
        return found
    against_random = cells.contrast("random") & cells.significant_N
    groups: dict[tuple[int, int, int], list[int]] = {}
    for i in np.flatnonzero(against_random).tolist():
        groups.setdefault((int(cells.column_N[i]), int(cells.layer_N[i]), int(cells.status_N[i])), []).append(i)
    for rows in groups.values():
        if len({int(cells.class_N[i]) for i in rows}) == len(cells.classes):
            found[rows] = True
    return found


def _of_class(cells: ScoreCells, k: int, themes: Sequence[Theme | None], shared: np.ndarray) -> Verdict:
    rows = np.flatnonzero((cells.class_N == k) & ~shared)
    found = rows[cells.significant_N[rows]]
    raising = _by_theme(cells, found[cells.of(Status.RAISES)[found]], themes)
    lowering = _by_theme(cells, found[cells.of(Status.LOWERS)[found]], themes)
    sentences: list[Sentence] = []
    for theme, concepts in raising.items():
        sentences.append(_uses(cells, theme, concepts, first=not sentences))
    if lowering:
        sentences.append(_lowered(cells, lowering))
    if disagreement := _disagreement(cells, found, themes):
        sentences.append(disagreement)
    answered = {*raising, *lowering}
    absent = _not_shown(cells, rows, themes, answered)
    if not sentences:
        sentences.append(words("Nothing was shown to matter."))
    if absent:
        sentences.append(absent)
    surest = max((abs(float(cells.numbers["z"][i])) for i in found if np.isfinite(cells.numbers["z"][i])), default=0.0)
    lead = next((rows[0] for concepts in raising.values() for _, rows in concepts), None)
    leads = [rows[0] for by_theme in (raising, lowering) for concepts in by_theme.values() for _, rows in concepts]
    return Verdict(cells.classes[k], surest, lead, leads, tuple(raising), tuple(sentences))


def _by_theme(
    cells: ScoreCells, rows: np.ndarray, themes: Sequence[Theme | None]
) -> dict[Theme, list[tuple[str, list[int]]]]:
    """Return theme -> (concept, its rows) pairs: the clearest theme, concept and row first, by |z|.

    Layers come before the model's own answer, which says that a concept counts and not where.
    Against another concept of the same name, a row belongs to what that one lacks: movement, or the object itself.
    """
    z = np.abs(np.nan_to_num(cells.numbers["z"]))
    answer_N, degenerate_N = cells.answer_N, cells.degenerate_N
    found: dict[Theme, dict[str, list[int]]] = {}
    for i in sorted(rows.tolist(), key=lambda i: (answer_N[i], degenerate_N[i], -z[i])):
        theme = themes[cells.column_N[i]]
        if theme is not None:
            found.setdefault(theme, {}).setdefault(cells.columns[cells.column_N[i]].name, []).append(i)
    return {theme: list(concepts.items()) for theme, concepts in found.items()}


def _uses(cells: ScoreCells, theme: Theme, concepts: list[tuple[str, list[int]]], *, first: bool) -> Sentence:
    """State that the class uses something: which concepts, from which depth on, and how much."""
    phrases: list[Phrase] = [Phrase("Uses " if first else "Also uses "), Phrase(f"{_article(theme)}", "raises")]
    phrases.append(Phrase(": "))
    for place, (concept, rows) in enumerate(concepts[:MAX_NAMED]):
        of_concept = theme is Theme.MOVEMENT and cells.columns[cells.column_N[rows[0]]].contrast == "pair"
        start = f"{'; ' if place else ''}{'that of ' if of_concept else ''}"
        phrases += [Phrase(start), name(concept), *_depth(cells, rows), *_size(cells, rows[0])]
    left = concepts[MAX_NAMED:]
    if left:
        phrases += [Phrase("; and "), *names(concept for concept, _ in left)]
    return (*(p for p in phrases if p.text), Phrase("."))


def _article(theme: Theme) -> str:
    return {
        Theme.MOVEMENT: "movement",
        Theme.MOVING_OBJECT: "an object that moves",
        Theme.OBJECT: "an object",
        Theme.SCENE: "the scene",
        Theme.OTHER: "a concept",
    }[theme]


def _depth(cells: ScoreCells, rows: Sequence[int]) -> list[Phrase]:
    """Write at which layers the rows are: `, from middle on`, `, at early only`. The answer is no depth."""
    of_layer = [layer.partition("@")[0] for layer in cells.layers]
    order = [layer for layer in dict.fromkeys(of_layer) if layer != ANSWER]
    at = sorted({order.index(of_layer[cells.layer_N[i]]) for i in rows if not cells.answer_N[i]})
    if not at:
        return [Phrase(f",{IN_ANSWER} only")]
    if len(order) == 1:
        return []
    if len(at) == len(order):
        return [Phrase(", at every depth")]
    if at == list(range(at[0], len(order))) and len(at) > 1:
        return [Phrase(", from "), name(order[at[0]]), Phrase(" on")]
    return [Phrase(", at "), *names(order[k] for k in at), *([Phrase(" only")] if len(at) == 1 else [])]


def _size(cells: ScoreCells, i: int) -> list[Phrase]:
    """Write the figures of one row: ` (+0.74 logits at late, 14 % of its margin, q = 0.004)`."""
    figures = cells.numbers
    part = figures["share_of_margin"][i] if "share_of_margin" in figures else float("nan")
    of_margin = f", {percent(abs(part))} of its margin" if np.isfinite(part) else ""
    return [
        Phrase(" ("),
        number(signed(figures["effect"][i])),
        Phrase(" logits"),
        *_where(cells, i),
        Phrase(f"{of_margin}, q {equals(figures['q'][i])}{_compared(cells, i)})"),
    ]


def _where(cells: ScoreCells, i: int) -> list[Phrase]:
    return [Phrase(IN_ANSWER)] if cells.answer_N[i] else at_layer(cells, i)


def _compared(cells: ScoreCells, i: int) -> str:
    column = cells.columns[cells.column_N[i]]
    if column.contrast == "rest":
        return ", against the other concepts of its kind"
    if column.contrast == "pair":
        other = column.against.rpartition("/")[2]
        if column.keeps_movement:
            return f", against {other}, which moves alike"
        return ", against the same objects still" if other == "spatial" else f", against the same clips {other}"
    return ""


def _lowered(cells: ScoreCells, lowering: dict[Theme, list[tuple[str, list[int]]]]) -> Sentence:
    """State what lowers the logit: the clearest of it with its figures, the others by name."""
    concepts = [pair for pairs in lowering.values() for pair in pairs]
    (lead, rows), rest = concepts[0], list(dict.fromkeys(concept for concept, _ in concepts[1:]))
    phrases = [Phrase("Lowered by "), name(lead), *_depth(cells, rows), *_size(cells, rows[0])]
    others = [concept for concept in rest if concept != lead]
    if others:
        phrases += [Phrase("; also by "), *names(others)]
    return (*phrases, Phrase("."))


def _disagreement(cells: ScoreCells, found: np.ndarray, themes: Sequence[Theme | None]) -> Sentence | None:
    """State where a layer and the model's own answer have effects of opposite signs, both significant."""
    answer_N, z = cells.answer_N, np.abs(np.nan_to_num(cells.numbers["z"]))
    of_column = {int(cells.column_N[i]): i for i in found.tolist() if answer_N[i]}
    against: dict[int, list[int]] = {}
    for i in sorted(found.tolist(), key=lambda i: (cells.degenerate_N[i], -z[i])):
        k = int(cells.column_N[i])
        opposite = k in of_column and cells.status_N[i] != cells.status_N[of_column[k]]
        if opposite and not answer_N[i] and themes[k] is not None:
            against.setdefault(k, []).append(i)
    if not against:
        return None
    phrases = [Phrase("A layer and the answer disagree: ")]
    for place, (k, rows) in enumerate(list(against.items())[:MAX_NAMED]):
        verb, other = ("raises", "lowers") if cells.status_N[rows[0]] == Status.RAISES else ("lowers", "raises")
        phrases += [
            Phrase("; " if place else ""),
            name(cells.columns[k].name),
            Phrase(f" {verb} the logit"),
            *at_layer(cells, rows[0]),
            Phrase(f" and {other} it{IN_ANSWER} ("),
            number(signed(cells.numbers["effect"][of_column[k]])),
            Phrase(f" logits, q {equals(cells.numbers['q'][of_column[k]])}{_compared(cells, of_column[k])})"),
        ]
    if left := len(against) - MAX_NAMED:
        phrases.append(Phrase(f"; and {left:,} more" if left > 0 else ""))
    return (*(p for p in phrases if p.text), Phrase("."))


def _not_shown(
    cells: ScoreCells, rows: np.ndarray, themes: Sequence[Theme | None], answered: Iterable[Theme]
) -> Sentence | None:
    """State what does not matter, or is not shown to, with the largest effect that the intervals allow."""
    against_random = cells.contrast("random")
    clauses: list[list[Phrase]] = []
    for theme in Theme:
        if theme in answered:
            continue
        of_theme = [i for i in rows.tolist() if themes[cells.column_N[i]] == theme and against_random[i]]
        tested = [i for i in of_theme if np.isfinite(cells.numbers["p"][i])]
        if not tested:
            continue
        count = len({cells.column_N[i] for i in tested})
        ends = np.abs([[cells.numbers[c][i] for i in tested] for c in ("ci_low", "ci_high")])
        top = amount(float(np.nanmax(ends))) if np.isfinite(ends).any() else ""
        if cells.of(Status.NO_EFFECT)[tested].all():
            clauses.append([Phrase(f"no {theme.value} matters ({count:,} tested, each within ±{top} logits)")])
            continue
        reach = f", each below {top} logits" if top else ""
        shown = f"no {theme.value} is shown to matter ({count:,} tested{reach}"
        clauses.append([Phrase(shown), *_would_decide(cells, tested), Phrase(")")])
    if not clauses:
        return None
    phrases: list[Phrase] = []
    for clause, comma in zip(clauses, between(len(clauses), more=False), strict=True):
        phrases += [*clause, Phrase(comma)]
    first = phrases[0].text
    return (Phrase(first[0].upper() + first[1:]), *(p for p in phrases[1:] if p.text), Phrase("."))


def _would_decide(cells: ScoreCells, rows: Sequence[int]) -> list[Phrase]:
    """Say which concept is nearly found, and how many clips would decide it: at most as many as it has now."""
    more_clips, own = cells.numbers.get("more_clips"), cells.numbers["n_concept"]
    if more_clips is None:  # the table of an older run
        return []
    near = [i for i in rows if 0 < more_clips[i] <= own[i]]
    if not near:
        return []
    i = min(near, key=lambda i: more_clips[i])
    step = 5 if more_clips[i] < 100 else 50
    about = step * math.ceil(more_clips[i] / step)
    return [
        Phrase(f"; about {about:,} more clips of "),
        name(cells.columns[cells.column_N[i]].name),
        Phrase(" would decide"),
    ]
