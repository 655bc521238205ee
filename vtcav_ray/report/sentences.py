"""What the figures say, in sentences. Every number in a sentence is a number of the scores table.

The headline is the concept effect in logits, with its 95 % interval and its corrected p (q); the sign count (TCAV
score) stands beside it with its null. "Not shown" is never written as "no effect": where the intervals are narrow, the
sentence says how large an effect they still allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vtcav_ray.report.cells import GROUP_WORDS, Cells, Status
from vtcav_ray.report.words import between, count, layer_and_places, probability, share, signed

MAX_RAISING = 3
MAX_LOWERING = 2
MAX_NAMES = 6


@dataclass(frozen=True)
class Span:
    """A piece of a sentence.

    Attributes:
        text: as it is read.
        role: `name` (from the data), `number`, `raises`, `lowers`, `detail` (figures that stand behind the sentence),
            or empty for words.
    """

    text: str
    role: str = ""


Sentence = tuple[Span, ...]


@dataclass(frozen=True)
class ClassFinding:
    """What was found for one class.

    Attributes:
        name: of the class.
        strongest: the largest significant effect, in logits; 0: none.
        sentences: to be read in order.
    """

    name: str
    strongest: float
    sentences: Sequence[Sentence]


def plain(sentence: Sentence) -> str:
    """The sentence as one string."""
    return "".join(span.text for span in sentence)


def overall(cells: Cells, *, alpha: float, correction: str) -> list[Sentence]:
    """How much was tested, what came out of it, and moving concepts against their still twins."""
    if not len(cells):
        return [_words("There are no scores: no class or no concept had enough clips.")]
    tested = int(np.isfinite(cells.numbers["effect_p"]).sum())
    found = int(cells.significant_N.sum())
    sentence = (
        _number(f"{found:,}"),
        Span(f" of {tested:,} tested cells {'is' if found == 1 else 'are'} significant at "),
        _number(f"α = {alpha:g}"),
        Span(f" {correction_words(correction)} over all m = {tested:,} cells."),
    )
    return [sentence, *_twins(cells)]


def group_shares(cells: Cells) -> list[tuple[str, int, int]]:
    """(words, significant cells, all cells): against random clips by group, then the other comparisons."""
    parts = [(f"{word}, against random", cells.group(g) & cells.contrast("random")) for g, word in GROUP_WORDS.items()]
    parts += [
        ("against the rest of its kind", cells.contrast("rest")),
        ("against its own twin", cells.contrast("pair")),
    ]
    return [(word, int((rows & cells.significant_N).sum()), int(rows.sum())) for word, rows in parts if rows.any()]


def _twins(cells: Cells) -> list[Sentence]:
    """Moving against still, where a concept comes as both: in how many cells only one of the two is significant."""
    still, moving = (
        {
            (int(cells.class_N[i]), int(cells.layer_N[i]), cells.columns[cells.column_N[i]].name): i
            for i in np.flatnonzero(cells.contrast("random") & cells.kind(kind))
        }
        for kind in ("spatial", "spatiotemporal")
    )
    every = [(moving[k], still[k]) for k in moving if k in still]
    readable = cells.status_N <= Status.NOT_SHOWN
    pairs = [(m, s) for m, s in every if readable[m] and readable[s]]
    if not every:
        return []
    start = f"Of {count(len(every), 'pair')} of a moving concept and the same one still, "
    if not pairs:
        return [_words(f"{start}none can be compared: of each, at least one is not learnable.")]
    found = cells.significant_N
    only_moving = sum(bool(found[m] and not found[s]) for m, s in pairs)
    only_still = sum(bool(found[s] and not found[m]) for m, s in pairs)
    both = sum(bool(found[s] and found[m]) for m, s in pairs)
    if len(pairs) < len(every):
        start += f"{len(pairs):,} can be compared: "
    return [
        (
            Span(f"{start}only the moving one is significant in "),
            _number(f"{only_moving:,}"),
            Span(", only the still one in "),
            _number(f"{only_still:,}"),
            Span(", both in "),
            _number(f"{both:,}"),
            Span("."),
        )
    ]


def correction_words(correction: str) -> str:
    return {
        "holm": "after Holm's correction",
        "bh": "after Benjamini and Hochberg's correction (false discovery rate)",
        "none": "WITHOUT a correction for multiple testing",
    }.get(correction, f"after the correction `{correction}`")


def findings(cells: Cells, limit: int) -> list[ClassFinding]:
    """What each class's logit depends on: the classes with the largest significant effects first, at most `limit`."""
    against_random = cells.contrast("random")
    effect_N = np.abs(np.where(cells.significant_N & against_random, cells.numbers["effect_logits"], 0.0))
    strongest = np.zeros(len(cells.classes))
    np.maximum.at(strongest, cells.class_N, np.nan_to_num(effect_N))
    # With few classes their own order is kept, since people know it.
    order = range(len(strongest)) if len(strongest) <= limit else np.argsort(-strongest, kind="stable")[:limit]
    return [
        ClassFinding(
            cells.classes[k],
            float(strongest[k]),
            _of_class(cells, np.flatnonzero(cells.class_N == k), against_random),
        )
        for k in order
    ]


def _of_class(cells: Cells, all_rows: np.ndarray, against_random: np.ndarray) -> list[Sentence]:
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
        sentences.append(_words(f"{left} more {'concept has' if left == 1 else 'concepts have'} a significant effect."))
    if raising:
        sentences += _counterparts(cells, rows, raising[0])
    if not raising and not lowering:
        sentences.append(_nothing_shown(cells, rows))
    sentences += _paired(cells, all_rows[cells.contrast("pair")[all_rows]])
    return sentences


def _strongest_a_column(cells: Cells, rows: np.ndarray) -> list[int]:
    """Of each concept's cells the one with the largest effect, largest first; Holm's correction covers this choice.

    A degenerate layer is named only where no other one has a significant effect.
    """
    best: dict[int, int] = {}
    effect = np.abs(cells.numbers["effect_logits"][rows])
    for i in rows[np.lexsort((-effect, cells.degenerate_N[rows]))]:
        best.setdefault(int(cells.column_N[i]), int(i))
    return sorted(best.values(), key=lambda i: -abs(cells.numbers["effect_logits"][i]))


def _effect_sentence(cells: Cells, i: int, verb: str) -> Sentence:
    column, number = cells.columns[cells.column_N[i]], cells.numbers
    null = f"{share(number['null_mean'][i])} ± {share(number['null_sd'][i])}"
    tail = f"TCAV score {share(number['score'][i])}, null {null}"
    if cells.degenerate_N[i]:
        tail = "the sign count says nothing here, since the gradient is the same for every clip"
    return (
        Span(_sentence_start(column.group)),
        _name(column.name),
        Span(f" ({column.kind}) {verb} the logit by "),
        Span(f"{_amount(number['effect_logits'][i])}", verb),
        *_at_layer(cells, i),
        Span("."),
        Span(f" 95\u00a0% interval {_interval(cells, i)}, q {_equals(number['effect_q'][i])}; {tail}.", "detail"),
    )


def _counterparts(cells: Cells, rows: np.ndarray, lead: int) -> list[Sentence]:
    """The strongest concept's own still and control versions: what is left when the movement is taken away."""
    column = cells.columns[cells.column_N[lead]]
    shown: list[Sentence] = []
    not_shown: list[tuple[str, str]] = []
    not_learnable: list[str] = []
    for k, other in enumerate(cells.columns):
        of_it = rows[cells.column_N[rows] == k]
        if other.name != column.name or other.concept == column.concept or not len(of_it):
            continue
        best = _strongest_a_column(cells, of_it[cells.significant_N[of_it]])
        if best:
            shown.append(_short_effect(cells, best[0]))
        elif (cells.status_N[of_it] == Status.NOT_LEARNABLE).all():
            not_learnable.append(other.kind)
        else:
            not_shown.append((other.kind, _reach(cells, of_it)))
    spans: list[Span] = []
    for one in shown:
        spans += [*one, Span("; ")]
    if not_shown:
        spans.append(Span("no effect shown for "))
        commas = between(len(not_shown), more=False)
        for (kind, reach), comma in zip(not_shown, commas, strict=True):
            spans += [_name(kind), Span(f"{f' (at most {reach})' if reach else ''}{comma}")]
        spans.append(Span("; "))
    if not_learnable:
        spans += [Span("not learnable: "), *_names(not_learnable), Span("; ")]
    if not spans:
        return []
    return [(Span("The same as other kinds: "), *spans[:-1], Span("."))]


def _paired(cells: Cells, rows: np.ndarray) -> list[Sentence]:
    """Concepts against their own twins, track by track: what the movement itself adds."""
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
                Span("Compared track by track with the same as "),
                _name(other),
                Span(", as "),
                _name(kind),
                Span(" "),
                *_names(cells.columns[cells.column_N[i]].name for i in found),
                Span(f" {verb[:-1]} the logit, by up to " if len(found) > 1 else f" {verb} the logit by "),
                Span(_amount(cells.numbers["effect_logits"][i]), verb),
                *_at_layer(cells, i),
                Span(f" (q {_equals(cells.numbers['effect_q'][i])})."),
            )
        )
    return sentences


def _short_effect(cells: Cells, i: int) -> Sentence:
    verb = "raises" if cells.status_N[i] == Status.RAISES else "lowers"
    return (
        _name(cells.columns[cells.column_N[i]].kind),
        Span(f" {verb} it by "),
        Span(_amount(cells.numbers["effect_logits"][i]), verb),
        *_at_layer(cells, i),
        Span(f" (q {_equals(cells.numbers['effect_q'][i])})"),
    )


def _nothing_shown(cells: Cells, rows: np.ndarray) -> Sentence:
    q = cells.numbers["effect_q"][rows]
    if not np.isfinite(q).any():
        return _words("Nothing could be tested for this class.")
    return _words(
        f"No concept's effect was shown in {len(rows):,} cells{_bound(cells, rows)}; "
        f"the smallest q is {probability(float(np.nanmin(q)))}."
    )


def _bound(cells: Cells, rows: np.ndarray) -> str:
    reach = _reach(cells, rows)
    return f" (the 95\u00a0% intervals allow at most {reach} either way)" if reach else ""


def _reach(cells: Cells, rows: np.ndarray) -> str:
    """How large an effect the intervals still allow where none was shown; empty: there is no interval."""
    rows = rows[cells.of(Status.NOT_SHOWN)[rows]]
    ends = np.abs(np.concatenate([cells.numbers[c][rows] for c in ("effect_ci_low", "effect_ci_high")]))
    return _amount(float(np.nanmax(ends))) if np.isfinite(ends).any() else ""


def undecided(cells: Cells) -> list[Sentence]:
    """What could not be decided, and why."""
    sentences: list[Sentence] = []
    if not len(cells):
        return sentences
    not_learnable = cells.of(Status.NOT_LEARNABLE)
    if not_learnable.any():
        codes = zip(cells.column_N[not_learnable].tolist(), cells.layer_N[not_learnable].tolist(), strict=True)
        pairs = sorted({(cells.columns[k].concept, layer) for k, layer in codes})
        names = [f"{concept} at {cells.layers[layer]}" for concept, layer in pairs]
        sentences.append(
            (
                _number(count(len(pairs), "concept")),
                Span(f" {'is' if len(pairs) == 1 else 'are'} not learnable at a layer ("),
                *_names(names),
                Span(
                    "): a linear classifier tells the concept's clips from random ones no better than random sets "
                    "from one another."
                ),
            )
        )
    degenerate = cells.degenerate_N
    if degenerate.any():
        layers = [cells.layers[k] for k in np.unique(cells.layer_N[degenerate])]
        sentences.append(
            (
                Span("At "),
                *_names(layers),
                Span(
                    " a class's gradient is the same for every clip, so that the sign count is 0 or 1 whatever the "
                    "concept. Only the effect is read there."
                ),
            )
        )
    only_effect = cells.texts["decided_by"].equal("effect") & ~degenerate & ~not_learnable
    if only_effect.any():
        sd = float(np.nanmean(cells.numbers["null_sd"][only_effect]))
        sentences.append(
            (
                Span("In "),
                _number(count(int(only_effect.sum()), "cell")),
                Span(
                    f" the TCAV score can't decide: random-against-random scores spread by ± {share(sd)} on average, "
                    "since a class's gradients point nearly one way. The effect decides there."
                ),
            )
        )
    return sentences + _unread(cells) + _too_wide(cells)


def _unread(cells: Cells) -> list[Sentence]:
    rows = np.flatnonzero(cells.of(Status.UNDECIDED))
    reasons: dict[str, int] = {}
    for i in rows.tolist():
        reason = cells.texts["note"][i] or "no figure can be read"
        reasons[reason] = reasons.get(reason, 0) + 1
    ranked = sorted(reasons.items(), key=lambda item: -item[1])[:MAX_NAMES]
    return [(_number(count(n, "cell")), Span(" undecided: "), _name(reason), Span(".")) for reason, n in ranked]


def _too_wide(cells: Cells) -> list[Sentence]:
    """Cells without significance whose interval holds effects as large as the typical significant one."""
    effect, found = np.abs(cells.numbers["effect_logits"]), cells.significant_N
    if not found.any():
        return []
    typical = float(np.median(effect[found]))
    reach = np.fmax(np.abs(cells.numbers["effect_ci_low"]), np.abs(cells.numbers["effect_ci_high"]))
    open_ = cells.of(Status.NOT_SHOWN) & (reach >= typical)
    if not open_.any():
        return []
    return [
        (
            Span("In "),
            _number(count(int(open_.sum()), "cell")),
            Span(
                " no effect was shown, and the interval is too wide to rule out one as large as the median "
                f"significant effect ({_amount(typical)} logits): more clips would decide."
            ),
        )
    ]


def _interval(cells: Cells, i: int) -> str:
    return f"{signed(cells.numbers['effect_ci_low'][i])} to {signed(cells.numbers['effect_ci_high'][i])}"


def _amount(value: float) -> str:
    """The size of an effect, where a word says its direction."""
    return signed(abs(value)).lstrip("+")


def _equals(value: float) -> str:
    text = probability(value)
    return text if text.startswith("<") else f"= {text}"


def _sentence_start(group: str) -> str:
    return {"static": "The still ", "dynamic": "The moving ", "context": "In the full frame, "}.get(
        group, "The concept "
    )


def _words(text: str) -> Sentence:
    return (Span(text),)


def _number(text: str) -> Span:
    return Span(text, "number")


def _name(text: str) -> Span:
    return Span(text, "name")


def _at_layer(cells: Cells, i: int) -> list[Span]:
    """` at early`; with a projection that looks at places, also which."""
    layer, places = layer_and_places(cells.layers[cells.layer_N[i]])
    return [Span(" at "), _name(layer), *([Span(f", {places}")] if places else [])]


def _names(names: Iterable[str]) -> list[Span]:
    """The first few names, and how many more."""
    names = list(names)
    spans: list[Span] = []
    left = len(names) - MAX_NAMES
    for name, comma in zip(names[:MAX_NAMES], between(min(len(names), MAX_NAMES), more=left > 0), strict=True):
        spans += [_name(name), Span(comma)] if comma else [_name(name)]
    if left > 0:
        spans.append(Span(f"{left:,} more"))
    return spans
