"""The report's section on mistakes: its sentences and its table."""

from __future__ import annotations

import math
from dataclasses import replace

import pyarrow as pa
import pytest

from tests.helpers.report_factory import report_data
from vtcav_ray.report import build_report
from vtcav_ray.report.mistakes import MAX_ROWS, OLD, sentences
from vtcav_ray.rows import MistakeRow, table_of

FIRST = MistakeRow(
    rank=1,
    concept="<b>stripes</b>/context",
    layer="late",
    push=1.25,
    push_correct=-0.5,
    difference=1.5,
    presence=0.9,
    presence_correct=0.2,
    p_examples=0.0002,
    p_direction=0.0004,
    p=0.0004,
    q=0.002,
    significant=True,
    n_mistakes=7,
    n_correct=33,
    note="",
)


def rows(*changed: MistakeRow) -> pa.Table:
    return table_of(changed, MistakeRow)


def test_the_first_concept_is_named_with_its_size_and_q() -> None:
    other = replace(FIRST, rank=2, layer="middle")
    found = sentences(rows(FIRST, other), 0.05)
    assert found[0] == "The model answers 7 class examples wrongly and 33 correctly."
    assert "stripes</b>/context at late pushes to the wrong class most clearly: by +1.50 logits" in found[1]
    assert "q = 0.002" in found[1]
    assert found[2] == "1 more row of the table is significant."


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, OLD),
        (rows(), "The model answers every class example correctly"),
        (rows(replace(FIRST, significant=False)), "No concept is shown to push to the wrong class"),
        (rows(replace(FIRST, significant=False, q=math.nan, note="Nothing to compare.")), "Nothing to compare."),
    ],
)
def test_what_was_not_found_is_said(table: pa.Table | None, said: str) -> None:
    assert said in " ".join(sentences(table, 0.05))


def test_the_section_has_the_table_and_escapes_names() -> None:
    many = [replace(FIRST, rank=k + 1, significant=k == 0) for k in range(MAX_ROWS + 3)]
    html = build_report(report_data(mistakes=rows(*many)))
    part = html[html.index('<section id="mistakes"') : html.index('<section id="run"')]
    assert part.count("&lt;b&gt;stripes&lt;/b&gt;") == MAX_ROWS + 1  # and in the sentence
    assert "<b>stripes" not in html
    assert "3 more rows" in part
    assert 'href="#mistakes"' in html
