"""The page and its sentences, from made-up figures whose verdict is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from tests.helpers.gradcam_figures import NASTY, comparison, page_data, rows, tcav
from vtcav_ray import tables
from vtcav_ray.config.gradcam import GradcamConfig
from vtcav_ray.gradcam import sentences
from vtcav_ray.gradcam.compare import Interval
from vtcav_ray.gradcam.page import build_page
from vtcav_ray.gradcam.summary import summarise
from vtcav_ray.heatmaps.intervals import mean_interval, median_interval, separation


@pytest.mark.slow
def test_a_mean_has_an_interval_over_source_videos() -> None:
    values = np.random.default_rng(1).normal(2.0, 1.0, 40)
    mean, low, high = mean_interval(values)
    assert low < mean < high
    reach = 2.02 * values.std(ddof=1) / math.sqrt(40)  # Student's
    assert (low, high) == (pytest.approx(mean - reach, abs=0.1), pytest.approx(mean + reach, abs=0.1))
    assert np.isnan(mean_interval(np.array([1.0]))[1])
    table = rows()
    doubled = pa.concat_tables([table, table])  # repeating the same videos adds no evidence
    pairs = (summarise(t).to_pylist() for t in (table, doubled))
    for one, two in zip(*pairs, strict=True):
        for figure in ("mean", "ci_low", "ci_high"):
            assert one[figure] is two[figure] is None or one[figure] == pytest.approx(two[figure])


@pytest.mark.slow
def test_a_median_has_an_interval_that_covers_whatever_the_distribution() -> None:
    rng = np.random.default_rng(0)
    found = [median_interval(rng.lognormal(size=14)) for _ in range(400)]
    assert np.mean([low <= 1 <= high for _, low, high in found]) >= 0.94
    assert all(low <= median <= high for median, low, high in found)
    assert np.isnan(median_interval(np.ones(5))[1:]).all()
    assert np.isnan(median_interval(np.array([]))).all()


def test_the_place_is_on_the_page_only_if_it_was_asked_about() -> None:
    row = {"class": "lift", "layer": "middle", "mode": "clip", "median": 0.098, "ci_low": 0.07, "ci_high": 0.13,
           "area": 0.035, "n": 12}  # fmt: skip
    few = {**row, "class": "all", "ci_low": None, "ci_high": None, "n": 3}
    page = build_page(page_data(place=[0.5, 0.9, 1, 1], places=[row, few]))
    assert "50 to 100 % of the width, 90 to 100 % of the height" in page
    assert all(text in page for text in ("9.8 %", "7.0 % to 13.0 %", "3.5 %"))
    assert "In the place" not in build_page(page_data())


def test_a_place_is_a_box_in_fractions() -> None:
    assert GradcamConfig(place=(0, 0.5, 1, 1)).place == (0, 0.5, 1, 1)
    for place in ([0.5, 0, 0.2, 1], [0, 0, 1, 20]):
        with pytest.raises(ValidationError):
            GradcamConfig.model_validate({"place": place})


def test_separation_counts_pairs_in_order() -> None:
    assert separation(np.array([3.0, 4, 5]), np.array([0.0, 1, 2]))[0] == 1
    assert separation(np.array([1.0, 2, 3]), np.array([1.0, 2, 3]))[0] == 0.5
    area, low, high = separation(np.arange(20.0) + 5, np.arange(20.0))
    assert area == pytest.approx(np.mean([[a > b or (a == b) / 2 for b in range(20)] for a in range(5, 25)]))
    assert 0.5 < low < area < high < 1
    assert separation(np.ones(4) * 2, np.ones(4))[1] == pytest.approx(0.025 ** (1 / 4))


def test_the_verdict_follows_the_figures() -> None:
    """This covers blind and other maps, a drift that separates the classes, and Video-TCAV that does or does not."""
    blind = comparison(rows(), None).maps["middle"]
    assert blind.axis == "y"
    assert blind.track_area.value == 1
    assert blind.drift_area.low < 0.5 < blind.drift_area.high
    text = sentences.verdict(blind, tcav(0.5, -0.5))
    assert "nearly the same" in text
    assert "drift" not in text
    assert "opposite signs" in text
    assert "not shown to tell" in sentences.verdict(blind, tcav(0.5, 0.5))
    assert "not shown to tell" in sentences.verdict(blind, tcav(0.05, -0.5))
    assert "no figures of Video-TCAV" in sentences.verdict(blind, None)
    moving = rows()
    column = pa.array([y if y is None else y / 2 for y in moving["track_drift_y"].to_pylist()])
    moving = moving.set_column(moving.schema.get_field_index("drift_y"), "drift_y", column)
    drifting = comparison(moving, None).maps["middle"]
    assert drifting.drift_area.value == 1
    assert "their drift, measured, tells them apart" in sentences.verdict(drifting, tcav(0.5, -0.5))
    assert "over 50 % of the object's way" in " ".join(
        sentences.maps_of_pair(comparison(moving, None), drifting, "middle")
    )
    seeing = comparison(rows(direction_predicted=0.1), None).maps["middle"]
    assert "differ" in sentences.verdict(seeing, tcav(0.5, -0.5))


@pytest.mark.slow
def test_the_summary_states_flicker_against_the_object() -> None:
    cells = page_data().cells("all", "middle", "frame")
    text = sentences.flicker_sentence(cells, "middle", "frame")
    assert "30 %" in text
    assert "10 %" in text
    assert "3.0 times" in text
    assert "5.0 times" in text
    assert "less than a map that is the same everywhere" in sentences.background_sentence(cells, "middle", "frame")
    assert "does not come from" in sentences.sanity_sentence(
        {"shuffled_weights_similarity": {"mean": 0.8, "ci_low": 0.7, "ci_high": 0.9}}, "middle", "clip"
    )


@pytest.mark.slow
def test_the_page_shows_the_figures_and_escapes_names() -> None:
    page = build_page(page_data(title=NASTY))
    assert NASTY not in page
    assert "<script>" in page
    assert page.count("<script") == 1
    for text in ("lift or put_down", "moving up/context", "Video-TCAV names the direction", "report.html"):
        assert text in page
    assert "The config names no classes" in build_page(page_data(comparisons=[]))
    assert "No scores." in build_page(page_data(comparisons=[comparison(rows(), None)]))
    assert "UNTRAINED" in build_page(page_data(untrained=True))
    failed = [{"clip_id": NASTY, "error_kind": "decode", "message": "gone"}]
    assert "gone" in build_page(page_data(failures=failed))
    assert NASTY not in build_page(page_data(failures=failed))


@pytest.mark.slow
def test_a_page_of_nothing_is_a_page() -> None:
    empty = tables.GRADCAM.empty_table()
    data = dataclasses.replace(
        page_data(),
        clips=empty,
        summary=tables.GRADCAM_SUMMARY.empty_table(),
        aggregate=None,
        comparisons=[],
        pictures=[],
    )
    assert "None: every clip could be used" in build_page(data)
    without = rows(track_flicker=None, track_jump=None, background_share=None, background_chance=None,
                   track_agreement=None, track_drift_x=None, track_drift_y=None, direction_predicted=None)  # fmt: skip
    page = build_page(page_data(without, comparisons=[comparison(without, None)]))
    assert "nothing can be said of the background" in page
    assert "nan" not in page.replace("nance", "").lower().split("<body>")[1].split("data:image")[0]


def test_a_correlations_interval_stays_inside_one() -> None:
    values = np.array([0.999, 0.97, 0.995, 0.4])
    plain = mean_interval(values)
    mean, low, high = mean_interval(values, correlation=True)
    assert plain[2] > 1  # what the plain scale gives
    assert mean == plain[0]
    assert -1 < low < mean < high <= 1
    mean, low, high = mean_interval(-values, correlation=True)
    assert -1 <= low < mean < high < 1
    assert mean_interval(np.ones(4), correlation=True) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    ("effect", "p", "text"),
    [
        ((-0.0074, -0.0120, -0.0021), 0.002, "lowers lift's logit by 0.0074 [0.0021, 0.012"),
        ((0.5, 0.25, 0.75), 0.002, "raises lift's logit by 0.50 [0.25, 0.75] (p = 0.002)"),
        ((0.5, -0.25, 1.25), 0.3, "by +0.50 [−0.25, +1.25], which is not shown to differ from 0 (p = 0.30)"),
        ((0.5, -0.25, 1.25), 0.002, "which is not decided (p = 0.002, but the interval over other videos includes 0)"),
    ],
)
def test_the_direction_is_in_the_verb_alone_and_p_never_contradicts_it(
    effect: tuple[float, float, float], p: float, text: str
) -> None:
    assert text in sentences._moves(Interval(*effect), p, "lift")
