"""The sentences of a page, from explanations that are written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.helpers.page_figures import EXPLAINED
from vtcav_ray.why.page import build_page, sentences, verdict


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "answers push_left (probability 0.700), which is wrong. The true class is lift (probability 0.250)."),
        ({"label": "push_left"}, "which is right. The runner-up is lift."),
        ({"label": None}, "The true class is not known."),
        ({"label": "juggling"}, "The true class is juggling, which the model does not have."),
    ],
)
def test_the_answer_is_said_with_what_is_true(changes: dict[str, str | None], said: str) -> None:
    assert said in verdict(replace(EXPLAINED, **changes))


def test_each_concept_is_named_once_on_the_side_that_it_pushes_to() -> None:
    toward, away = sentences(EXPLAINED)
    assert toward.startswith("Towards push_left and away from lift: stripes/context at late (weight +2.70")
    assert "early" not in toward
    assert away.startswith("Towards lift and away from push_left: moving up/context at late (weight −1.00")


def test_the_page_has_every_row_and_loads_nothing() -> None:
    html = build_page([EXPLAINED], "my run")
    assert html.count('<th scope="row">') == 3
    assert "−1.10 … −0.90" in html
    assert "default-src 'none'" in html
    assert "src=" not in html


def test_missing_numbers_are_null_in_json() -> None:
    nan = float("nan")
    found = replace(EXPLAINED, concepts=[replace(EXPLAINED.concepts[0], ci_low=nan, ci_high=nan)]).as_json()
    assert found["concepts"][0]["ci_low"] is None
    assert found["concepts"][0]["push"] == 2.0
    assert found["concepts"][0]["weight"] == pytest.approx(0.9 * 3.0)
