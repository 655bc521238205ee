"""The sentences agree with the numbers and claim nothing more."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tests.helpers import report_factory as factory
from tests.helpers.report_factory import cell, table, world_rows
from vtcav_ray.report import sentences
from vtcav_ray.report.phrases import Sentence, plain
from vtcav_ray.report.score_cells import ScoreCells, Status, read_cells
from vtcav_ray.report.undecided import undecided


def cells_of(*rows: dict) -> ScoreCells:
    scores = table(list(rows))
    return read_cells(scores, list(dict.fromkeys(scores["layer"].to_pylist())))


def findings(cells: ScoreCells) -> list[sentences.ClassFinding]:
    return sentences.findings(cells, cells.classes)


def texts(found: list[Sentence]) -> list[str]:
    return [plain(s) for s in found]


RAISING = {
    "significant": True,
    "effect": 0.41,
    "ci_low": 0.30,
    "ci_high": 0.52,
    "q": 0.003,
    "tcav_score": 0.92,
}


def test_headline_gives_effect_interval_q_and_the_sign_count_beside_its_null() -> None:
    (finding,) = findings(cells_of(cell(**RAISING)))
    assert finding.name == "lift"
    assert finding.strongest == pytest.approx(0.41)
    assert texts(finding.sentences) == [
        "The moving cup up (spatiotemporal) raises the logit by 0.41 at late. 95\u00a0% interval +0.30 to +0.52, "
        "q = 0.003; TCAV score 0.92, null 0.50 ± 0.12."
    ]


def test_the_share_of_the_margin_and_the_finite_change_stand_beside_the_effect() -> None:
    scores = table([cell(**RAISING, share_of_margin=0.137)]).append_column("effect_patch", pa.array([0.38]))
    (finding,) = findings(read_cells(scores, ["late"]))
    assert texts(finding.sentences)[0].startswith(
        "The moving cup up (spatiotemporal) raises the logit by 0.41 (14\u00a0% of the class's margin) at late. "
        "Putting the concept's activations in place changes it by +0.38. 95\u00a0% interval"
    )


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.968, " This compares clips of any class, and 97\u00a0% of it goes with their classes."),
        (1.07, " This compares clips of any class, and all of it goes with their classes."),
        (-0.2, " This compares clips of any class, and none of it goes with their classes."),
        (float("nan"), " This compares clips of any class."),
    ],
)
def test_which_question_is_answered(share: float, text: str) -> None:
    row = cell(**RAISING, effect_within=0.013, p_within=0.2, q_within=0.41, between_share=share)
    (finding,) = findings(cells_of(row))
    assert texts(finding.sentences)[0].endswith(f"null 0.50 ± 0.12.{text} Beyond the class itself: +0.013, q = 0.41.")
    without = {**row, "p_within": None, "q_within": None}
    (finding,) = findings(cells_of(without))
    assert texts(finding.sentences)[0].endswith("null 0.50 ± 0.12.")


def test_a_table_of_an_older_run_has_no_split() -> None:
    scores = table([cell(**RAISING)]).drop_columns(["effect_within", "q_within", "between_share"])
    (finding,) = findings(read_cells(scores, ["late"]))
    assert texts(finding.sentences)[0].endswith("null 0.50 ± 0.12.")


def test_a_lowering_concept_is_said_to_lower() -> None:
    row = cell(**{**RAISING, "effect": -0.7, "ci_low": -0.9, "ci_high": -0.5})
    (finding,) = findings(cells_of(row))
    assert "lowers the logit by 0.70 at late. 95\u00a0% interval −0.90 to −0.50" in texts(finding.sentences)[0]


@pytest.mark.parametrize(
    ("layer", "reported"),
    [
        ("early@moving", "at early, where things move."),
        ("early@still", "at early, where nothing moves."),
        ("early@grid:4", "at early@grid:4."),
    ],
)
def test_a_layer_that_is_looked_at_in_places_is_reported_with_them(layer: str, reported: str) -> None:
    (finding,) = findings(cells_of(cell(**RAISING, layer=layer)))
    assert f"raises the logit by 0.41 {reported} 95" in texts(finding.sentences)[0]


def test_still_twin_and_controls_are_compared_with_what_the_intervals_allow() -> None:
    rows = [
        cell(**RAISING),
        cell(concept="cup up/spatial", ci_low=-0.03, ci_high=0.16),
        cell(concept="cup up/reversed", **{**RAISING, "effect": -0.5}),
        cell(concept="cup up/padding", learnable=False),
    ]
    (finding,) = findings(cells_of(*rows))
    assert texts(finding.sentences)[1] == (
        "The same as other kinds: reversed lowers it by 0.50 at late (q = 0.003); no effect shown for spatial "
        "(at most 0.16); not learnable: padding."
    )


def test_twins_compared_track_by_track_are_told_apart_from_random_clips() -> None:
    twin = {**RAISING, "effect": 0.38}
    rows = [
        cell(),
        cell(**twin, against="cup up/frozen"),
        cell(**{**twin, "effect": 0.2}, concept="ball/spatiotemporal", against="ball/frozen"),
        cell(**{**twin, "effect": -0.1}, against="cup up/reversed"),
        cell(concept="hand/spatiotemporal", against="hand/frozen"),
    ]
    (finding,) = findings(cells_of(*rows))
    assert finding.strongest == 0  # the headline is the comparison with random clips
    assert texts(finding.sentences)[1:] == [
        "Compared track by track with the same as frozen, as spatiotemporal cup up, ball raise the logit, by up to "
        "0.38 at late (q = 0.003).",
        "Compared track by track with the same as reversed, as spatiotemporal cup up lowers the logit by 0.10 at late "
        "(q = 0.003).",
    ]


def test_no_significance_is_never_called_no_effect() -> None:
    (finding,) = findings(cells_of(cell(), cell(layer="early", q=0.2)))
    assert finding.strongest == 0
    assert texts(finding.sentences) == [
        "No concept's effect was shown in 2 comparisons (the 95\u00a0% intervals allow at most 0.090 either way); "
        "the smallest q is 0.20."
    ]


def test_a_degenerate_layer_is_named_only_where_no_other_is_significant() -> None:
    head = cell(**{**RAISING, "effect": 2.0}, layer="head", degenerate=True)
    (both,) = findings(cells_of(cell(**RAISING), head))
    assert "at late." in texts(both.sentences)[0]
    (only,) = findings(cells_of(head))
    assert "at head." in texts(only.sentences)[0]
    assert "the sign count says nothing here" in texts(only.sentences)[0]


def test_overall_counts_m_and_names_alpha_and_correction() -> None:
    cells = cells_of(cell(**RAISING), cell(layer="early"), cell(layer="middle", p=None, q=None))
    (first,) = texts(sentences.overall(cells, alpha=0.05, correction="holm"))
    assert first == "1 of 2 comparisons is significant at α = 0.05 after Holm's correction over all m = 2 comparisons."
    (default,) = texts(sentences.overall(cells, alpha=0.05, correction="step_down"))
    assert "after step-down correction within each concept and Holm's correction over all m = 2 comparisons." in default
    assert "WITHOUT a correction" in texts(sentences.overall(cells, alpha=0.1, correction="none"))[0]


def test_shares_count_each_comparison_for_itself() -> None:
    rows = [cell(**RAISING), cell(layer="early"), cell(concept="x/frozen"), cell(**RAISING, against="cup up/frozen")]
    assert sentences.group_shares(cells_of(*rows)) == [
        ("moving, against random", 1, 2),
        ("motion control, against random", 0, 1),
        ("against the same clips without their movement", 1, 1),
    ]


def test_planted_world_finds_each_class_its_own_motion() -> None:
    scores = table(world_rows())
    found = {f.name: texts(f.sentences) for f in findings(read_cells(scores, factory.LAYERS))}
    assert list(found) == list(factory.CLASSES)
    for name, own in factory.OWN.items():
        assert found[name][0].startswith(f"The moving {own} (spatiotemporal) raises the logit by")
        assert f"The moving {factory.OPPOSITE[own]} (spatiotemporal) lowers the logit by" in found[name][1]


def test_undecided_says_why() -> None:
    cells = cells_of(
        cell(**RAISING),
        cell(concept="a/padding", learnable=False),
        cell(concept="b/spatial", layer="head", degenerate=True, decided_by="effect"),
        cell(concept="c/spatial", decided_by="effect", tcav_null_sd=0.4),
        cell(concept="d/spatial", decided_by="none", effect=None, note="only 3 videos"),
        cell(concept="e/spatial", ci_low=-0.6, ci_high=0.7),
    )
    found = texts(undecided(cells))
    assert found[0].startswith("1 concept is not learnable at a layer (a/padding at late)")
    assert found[1].startswith("At head a class's gradient is the same for every clip")
    assert found[2].startswith("In 1 comparison the TCAV score can't decide: random-against-random scores spread")
    assert "spread by ± 0.40" in found[2]
    assert found[3] == "1 comparison undecided: only 3 videos."
    assert found[4].startswith("In 1 comparison no effect was shown, and the interval is too wide to rule out")
    assert len(found) == 5


def test_a_score_that_was_compared_with_nothing_is_not_called_too_wide() -> None:
    assert not undecided(cells_of(cell(**RAISING), cell(concept="c/spatial", decided_by="effect", tcav_null_sd=None)))


def test_long_lists_of_names_are_cut() -> None:
    rows = [cell(concept=f"thing {i}/spatial", learnable=False) for i in range(9)]
    (found,) = texts(undecided(cells_of(*rows)))
    assert "thing 5/spatial at late and 3 more)" in found
    assert "thing 6" not in found


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"significant": True, "effect": 1.0}, Status.RAISES),
        ({"significant": True, "effect": -1.0}, Status.LOWERS),
        ({}, Status.NOT_SHOWN),
        ({"significant": None, "learnable": None}, Status.NOT_SHOWN),
        ({"learnable": False, "significant": True, "effect": 1.0}, Status.RAISES),
        ({"learnable": False}, Status.NOT_LEARNABLE),
        ({"learnable": False, "effect": None}, Status.NOT_LEARNABLE),
        ({"effect": None}, Status.UNDECIDED),
        ({"effect": float("nan"), "significant": True}, Status.UNDECIDED),
        ({"decided_by": "none"}, Status.UNDECIDED),
        ({"decided_by": None}, Status.NOT_SHOWN),
    ],
)
def test_status(changes: dict, status: Status) -> None:
    assert Status(cells_of(cell(**changes)).status_N[0]) is status


def test_groups_come_from_the_kind() -> None:
    kinds = ("spatial", "spatiotemporal", "tracked", "context", "frozen", "spatiotemporal-reversed", "new")
    cells = cells_of(*(cell(concept=f"x/{kind}") for kind in kinds))
    assert [c.group for c in cells.columns] == [
        "static",
        "dynamic",
        "dynamic",
        "context",
        "control",
        "control",
        "other",
    ]


def test_the_answer_stands_beside_the_effect_of_a_layer_and_is_no_layer() -> None:
    answer = {"layer": "answer", "tcav_score": None, "tcav_null_mean": None, "learnable": None, "decided_by": "effect"}
    own = cell(**{**RAISING, **answer, "effect": 3.3, "q": 0.002}, probability_change=0.31)
    cells = cells_of(cell(**RAISING), own)
    (finding,) = findings(cells)
    assert finding.strongest == pytest.approx(0.41)
    (sentence,) = texts(finding.sentences)
    assert "raises the logit by 0.41 at late" in sentence
    assert "The model's answer differs by +3.30 logits, its probability by +0.31 (q = 0.002)." in sentence
    assert not any("TCAV score" in text for text in texts(undecided(cells)))
    assert list(cells.status_N) == [Status.RAISES, Status.RAISES]
