"""The report's section on single class examples: what the model answers to each clip, and which concepts push it there.

The figures travel packed, and the page's scripts draw an example when it is opened. Without scripts, a browser shows
the most telling examples as plain HTML, and the same links lead to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vtcav_ray.pages.wording import count
from vtcav_ray.registry import REPORT_SECTIONS
from vtcav_ray.report.data import ReportData
from vtcav_ray.report.mistakes import example_address, example_id, mistaken
from vtcav_ray.report.packed_tables import pack_arrays, rounded
from vtcav_ray.report.score_cells import ScoreCells
from vtcav_ray.report.sections import Section
from vtcav_ray.why.examples import ExplainedExample, ExplainedExamples
from vtcav_ray.why.page import HEADS, Row, rows_of, sentences, verdict

MOST_PLAIN = 40  # examples in plain HTML
PLAIN_ROWS = 8
MOST_CLASSES = 5  # likeliest classes of an example
FIGURES = ("presence", "push", "ci_low", "ci_high", "push_runner_up", "runner_up_ci_low", "runner_up_ci_high")


@dataclass(frozen=True)
class PlainExample:
    """An example in plain HTML."""

    id: str
    title: str
    verdict: str
    sentences: Sequence[str]
    rows: Sequence[Row]
    source: str


@REPORT_SECTIONS.register("examples")
class ExamplesSection(Section):
    """The class examples one by one."""

    title, heading = "Examples", "Example by example"
    template = "examples.html"

    def values(self, data: ReportData, cells: ScoreCells) -> Mapping[str, Any]:
        found = data.explained
        shown = _most_telling(found.examples, data) if found is not None else []
        return {
            "known": found is not None,
            "total": len(found.examples) if found is not None else 0,
            "notes": _notes(found),
            "plain": [_plain(one) for one in shown],
            "heads": HEADS,
        }


def pack_examples(found: ExplainedExamples | None) -> tuple[dict[str, Any], str]:
    """Pack the explanations as (head, data), as `packed_tables.pack_cells` packs the cells.

    Returns:
        head: `rows`; `fields`; `names`: the classes that indices refer to; `concepts`, `layers`; `target`;
            `examples`: [class, video, true class or -1, at its own clip, first row, [class, probability]...] each, the
            likeliest classes first, and the true class last if it is not among them.
    """
    examples = found.examples if found is not None else ()
    names: dict[str, int] = {}
    concepts: dict[str, int] = {}
    layers: dict[str, int] = {}

    def index(of: dict[str, int], value: str) -> int:
        return of.setdefault(value, len(of))

    facts: list[list[Any]] = []
    codes: list[tuple[int, int]] = []
    figures: list[tuple[float, ...]] = []
    for one in examples:
        of = one.explanation
        likely = list(of.probabilities.items())[:MOST_CLASSES]
        if of.label in of.probabilities and of.label not in dict(likely):
            likely.append((of.label, of.probabilities[of.label]))
        label = -1 if of.label is None else index(names, of.label)
        about = [index(names, one.name), of.video, label, int(one.at_clip), len(codes)]
        facts.append([*about, *([index(names, name), round(p, 5)] for name, p in likely)])
        for row in of.concepts:
            codes.append((index(concepts, row.concept), index(layers, row.layer)))
            figures.append(tuple(getattr(row, name) for name in FIGURES))
    code_N2 = np.array(codes, np.int64).reshape(-1, 2)
    figure_N7 = np.array(figures, np.float64).reshape(-1, len(FIGURES))
    arrays = {"concept": code_N2[:, 0].astype("<u4"), "layer": code_N2[:, 1].astype("<u4")}
    arrays |= {name: rounded(figure_N7[:, i]) for i, name in enumerate(FIGURES)}
    fields, packed = pack_arrays(arrays)
    head = {
        "rows": len(codes),
        "fields": fields,
        "names": list(names),
        "concepts": list(concepts),
        "layers": list(layers),
        "target": examples[0].explanation.target if examples else "logit",
        "examples": facts,
        "rowsLeftOut": found.rows_left_out if found is not None else 0,
    }
    return head, packed


def _most_telling(examples: Sequence[ExplainedExample], data: ReportData) -> list[ExplainedExample]:
    """Return the examples that the page links to in plain HTML: the most and least driven, and the mistakes."""
    driven = {(name, video) for name, one in data.examples.driven.items() for video in (one.most, one.least)}
    listed = {one.address for one in mistaken(data.explained)[0]}
    order = sorted(
        examples,
        key=lambda one: (
            (one.name, one.explanation.video) not in driven,
            example_address(one.name, one.explanation.video) not in listed,
        ),
    )
    return order[:MOST_PLAIN]


def _notes(found: ExplainedExamples | None) -> list[str]:
    if found is None:
        return []
    notes = []
    if found.left_out:
        notes.append(f"{count(found.left_out, 'more example')} can be explained with `vtcav explain RUN VIDEO`.")
    if found.rows_left_out:
        notes.append(
            f"Of each example, the {count(found.rows_left_out, 'row')} with the smallest weights are left out; "
            "`vtcav explain RUN VIDEO` shows all."
        )
    return notes


def _plain(one: ExplainedExample) -> PlainExample:
    found = one.explanation
    return PlainExample(
        id=example_id(one.name, found.video),
        title=f"{one.name}: {found.video}",
        verdict=verdict(found),
        sentences=sentences(found),
        rows=rows_of(found)[:PLAIN_ROWS],
        source=found.source,
    )
