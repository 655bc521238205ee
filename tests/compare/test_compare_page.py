"""The comparison in sentences, and the figures inside its page."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa

from tests.helpers.page_figures import comparison
from vtcav_ray.compare import COMPARISON
from vtcav_ray.compare.page import MAX_SENTENCES, build_page, sentences


def facts_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script[^>]*id="facts"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def changed(*changes: dict[str, Any]) -> pa.Table:
    """Return the first row of the made-up comparison, once with each of these changes."""
    first = comparison().to_pylist()[0]
    return pa.Table.from_pylist([{**first, **change} for change in changes], schema=COMPARISON)


def test_the_sentences_name_what_moved_with_its_interval() -> None:
    first, second = sentences(comparison())
    assert (
        first == "1 effect moved beyond its uncertainty, of 8 comparisons (8 on the same videos, 0 on different ones)."
    )
    assert second.startswith("lift: up/spatiotemporal against random at late went from +0.10 to +0.50 logits: +0.40")
    assert "+0.35 to +0.45, q 0.004" in second


def test_the_largest_changes_come_first_and_the_rest_is_counted() -> None:
    moved = [{"concept": f"c{i}", "change": (-1) ** i * (1.0 + i), "moved": True, "paired": i > 1} for i in range(11)]
    lines = sentences(changed(*moved))
    assert lines[0].startswith(
        "11 effects moved beyond their uncertainty, of 11 comparisons (9 on the same videos, 2 on"
    )
    assert [line.split()[1] for line in lines[1:-1]] == [f"c{i}" for i in range(10, 2, -1)]
    assert lines[-1] == f"{11 - MAX_SENTENCES} more are in the table."


def test_nothing_that_moved_is_one_sentence() -> None:
    (line,) = sentences(changed({}))
    assert (
        line == "0 effects moved beyond their uncertainty, of 1 comparison (1 on the same videos, 0 on different ones)."
    )


def test_the_page_holds_the_rows_by_step_and_no_number_that_json_lacks() -> None:
    page = build_page(comparison(), ["<e0>", "e1", "e2"], "Too few permutations <here>.")
    assert "&lt;e0&gt; → e1 → e2" in page
    assert "Too few permutations &lt;here&gt;." in page
    facts = facts_of(page)
    rows = [dict(zip(facts["columns"], row, strict=True)) for row in facts["rows"]]
    assert facts["names"] == ["<e0>", "e1", "e2"]
    assert [row["step"] for row in rows] == [0] * 4 + [1] * 4
    assert {row["tcav_score_b"] for row in rows} == {None}  # NaN
    assert [row["concept"] for row in rows if row["moved"]] == ["up/spatiotemporal"]


def test_figures_are_rounded_for_the_page() -> None:
    table = changed({"change": 0.123456789, "effect_b": float("inf")})
    facts = facts_of(build_page(table, ["a", "b"]))
    row = dict(zip(facts["columns"], facts["rows"][0], strict=True))
    assert (row["change"], row["effect_b"]) == (0.12346, None)
