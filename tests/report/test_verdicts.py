"""Verdicts: the answer of each class from all its comparisons."""

from __future__ import annotations

import pytest

from tests.helpers import report_factory as factory
from tests.helpers.report_factory import CLASSES, cell, table, world_rows
from vtcav_ray.report.depths import depths
from vtcav_ray.report.phrases import Sentence, plain
from vtcav_ray.report.score_cells import ScoreCells, read_cells
from vtcav_ray.report.verdicts import Theme, clearest, for_all_classes, verdict_table, verdicts

FOUND = {"significant": True, "effect": 0.41, "ci_low": 0.30, "ci_high": 0.52, "z": 9.0, "q": 0.004}


def cells_of(*rows: dict, layers: tuple[str, ...] = ("early", "middle", "late", "head")) -> ScoreCells:
    return read_cells(table(list(rows)), layers)


def texts(sentences: list[Sentence]) -> list[str]:
    return [plain(one) for one in sentences]


def only(*rows: dict, movements: tuple[str, ...] = ()) -> list[str]:
    (verdict,) = verdicts(cells_of(*rows), movements)
    return texts(verdict.sentences)


def test_the_answer_names_theme_depth_size_share_and_q() -> None:
    rows = [
        cell(concept="moving left/context", layer="early"),
        cell(**FOUND, concept="moving left/context", layer="middle"),
        cell(**{**FOUND, "effect": 0.74, "z": 20.0}, share_of_margin=0.14, concept="moving left/context"),
        cell(**FOUND, concept="moving left/context", layer="head"),
        cell(concept="cup/spatial", ci_low=-0.03, ci_high=0.1),
        cell(concept="ball/spatial", ci_low=-0.08, ci_high=0.02),
    ]
    assert only(*rows, movements=("moving left",)) == [
        "Uses movement: moving left, from middle on (+0.74 logits at late, 14\u00a0% of its margin, q = 0.004).",
        "No object is shown to matter (2 tested, each below 0.10 logits).",
    ]


def test_the_clearest_comparison_leads_whatever_it_is_compared_with() -> None:
    """A small effect against random clips doesn't hide the finding against the other movements."""
    rows = [
        cell(**{**FOUND, "effect": -0.004, "z": -5.0}, concept="moving right/context"),
        cell(**{**FOUND, "effect": 0.9, "z": 46.8}, concept="moving left/context", against="rest of context"),
    ]
    first, second = only(*rows, movements=("moving left", "moving right"))
    assert first.startswith("Uses movement: moving left, at late only (+0.90 logits at late, q = 0.004, against the")
    assert second.startswith("Lowered by moving right, at late only (−0.0040 logits")
    (verdict,) = verdicts(cells_of(*rows), ("moving left", "moving right"))
    assert verdict.surest == pytest.approx(46.8)


def test_movement_of_an_object_is_found_against_the_same_object_still() -> None:
    rows = [
        cell(concept="cup/spatiotemporal"),
        cell(**FOUND, concept="cup/spatiotemporal", against="cup/spatial"),
        cell(concept="cup/spatial"),
    ]
    assert only(*rows)[0] == (
        "Uses movement: that of cup, at late only (+0.41 logits at late, q = 0.004, against the same objects still)."
    )
    frozen = cell(**FOUND, concept="cup/spatiotemporal", against="cup/frozen")
    assert "against the same clips frozen" in only(frozen)[0]


def test_a_difference_from_what_moves_alike_is_the_object_and_not_its_movement() -> None:
    rows = [cell(**FOUND, concept="cup/spatiotemporal", against="cup/padding"), cell(concept="cup/spatiotemporal")]
    (verdict,) = verdicts(cells_of(*rows))
    assert verdict.themes == (Theme.OBJECT,)
    assert plain(verdict.sentences[0]) == (
        "Uses an object: cup, at late only (+0.41 logits at late, q = 0.004, against padding, which moves alike)."
    )


@pytest.mark.parametrize(
    ("kind", "theme"),
    [("spatial", Theme.OBJECT), ("spatiotemporal", Theme.MOVING_OBJECT), ("context", Theme.SCENE)],
)
def test_each_kind_has_its_theme(kind: str, theme: Theme) -> None:
    (verdict,) = verdicts(cells_of(cell(**FOUND, concept=f"cup/{kind}")))
    assert list(verdict.themes) == [theme]


def test_controls_are_no_finding() -> None:
    assert only(cell(**FOUND, concept="cup/reversed")) == ["Nothing was shown to matter."]


def test_a_finding_that_all_classes_share_is_stated_once() -> None:
    rows = [cell(**{**FOUND, "class": name}, concept="cup/spatial") for name in CLASSES]
    rows += [cell(**{**FOUND, "class": "lift"}, concept="ball/spatial")]
    rows += [cell(**{"class": name}, concept="ball/spatial") for name in CLASSES[1:]]
    cells = cells_of(*rows)
    assert texts(for_all_classes(cells)) == ["Every class alike: its logit is raised by cup/spatial (at late)."]
    first, second, *_ = verdicts(cells)
    assert "ball" in plain(first.sentences[0])
    assert "cup" not in plain(first.sentences[0])
    assert plain(second.sentences[0]) == "Nothing was shown to matter."
    lowered = [{**row, "effect": -0.4} for row in rows[: len(CLASSES)]]
    assert "is lowered by cup/spatial" in texts(for_all_classes(cells_of(*lowered)))[0]
    assert for_all_classes(cells_of(cell(**FOUND))) == [], "one class has nothing to share"


def test_absence_gives_the_largest_effect_that_the_intervals_allow() -> None:
    assert only(cell(concept="cup/spatial", layer="early"), cell(concept="cup/spatial")) == [
        "Nothing was shown to matter.",
        "No object is shown to matter (1 tested, each below 0.090 logits).",
    ]
    assert only(cell(concept="cup/spatial", p=None, q=None)) == ["Nothing was shown to matter."]


def test_planted_world_uses_each_class_its_own_motion() -> None:
    for verdict in verdicts(read_cells(table(world_rows()), factory.LAYERS)):
        own = factory.OWN[verdict.name]
        assert plain(verdict.sentences[0]).startswith(f"Uses an object that moves: {own}")
        assert f"Lowered by {factory.OPPOSITE[own]}" in plain(verdict.sentences[1])
        assert "No object is shown to matter (4 tested" in plain(verdict.sentences[-1])


def test_the_table_has_the_figures_of_the_clearest_comparison() -> None:
    rows = [cell(**FOUND, concept="cup/spatial"), cell(**{"class": "other"}, concept="cup/spatial")]
    first, second = verdict_table(cells_of(*rows)).to_pylist()
    assert (first["uses"], first["concept"], first["layer"], first["against"]) == (
        "object",
        "cup/spatial",
        "late",
        "random",
    )
    assert (first["effect"], first["z"], first["q"]) == (0.41, 9.0, 0.004)
    assert first["share_of_margin"] is None
    assert (second["uses"], second["concept"], second["effect"]) == ("", None, None)
    assert second["verdict"].startswith("Nothing was shown to matter.")
    assert verdict_table(cells_of()).num_rows == 0


def test_with_many_classes_the_surest_come_first() -> None:
    rows = [cell(**{**FOUND, "class": f"class {k}", "z": 3.0 + k}, concept="cup/spatial") for k in range(8)]
    rows.append(cell(**{"class": "class 8"}, concept="cup/spatial"))
    every = verdicts(cells_of(*rows))
    assert [one.name for one in clearest(every, 2)] == ["class 7", "class 6"]
    assert clearest(every, 9) == every


def test_places_of_a_layer_are_one_depth() -> None:
    rows = [
        cell(**FOUND, concept="cup/spatial", layer="early@moving"),
        cell(**FOUND, concept="cup/spatial", layer="early@still"),
        cell(**FOUND, concept="cup/spatial", layer="late"),
    ]
    (verdict,) = verdicts(cells_of(*rows, layers=("early@moving", "early@still", "late")))
    assert plain(verdict.sentences[0]).startswith("Uses an object: cup, at every depth (")


def test_the_depth_picture_shows_the_findings_at_every_layer() -> None:
    rows = [
        cell(**{**FOUND, "effect": 0.2}, concept="cup/spatial", layer="early"),
        cell(**{**FOUND, "effect": 0.8, "z": 20.0}, concept="cup/spatial", layer="late"),
        cell(**{**FOUND, "effect": -0.4}, concept="ball/spatial", against="rest of spatial", layer="late"),
        cell(concept="hand/spatial"),
    ]
    cells = cells_of(*rows, layers=("early", "middle", "late"))
    (verdict,) = verdicts(cells)
    found = depths(cells, verdict)
    assert list(found.layers) == ["early", "middle", "late"]
    (cup, _, first), (ball, against, second) = found.rows
    assert (cup, ball, against) == ("cup", "ball", "against the other concepts")
    assert [one.mark for one in first] == ["▲", "", "▲"]
    assert [one.strength for one in first] == [25, 0, 100]
    assert [one.effect for one in second] == ["", "", "−0.40"]
    assert second[2].status == "lowers the logit, q = 0.004"
    (nothing,) = verdicts(cells_of(cell()))
    assert depths(cells_of(cell()), nothing).rows == []


def answer(**values: object) -> dict:
    """Make a cell of the model's own answer."""
    names = ("score", "ci_low", "ci_high", "p", "q", "magnitude", "smooth", "null_mean", "null_sd", "effect")
    none = dict.fromkeys((*(f"tcav_{name}" for name in names), "learnable", "held_out_accuracy", "stability"))
    return cell(**{**none, "layer": "answer", "R": 0, "decided_by": "effect", **values})


WITH_ANSWER = ("early", "middle", "late", "head", "answer")


def answers_of(*rows: dict) -> list[str]:
    (verdict,) = verdicts(cells_of(*rows, layers=WITH_ANSWER), ("moving left", "moving right"))
    return texts(verdict.sentences)


def test_the_answer_is_no_depth() -> None:
    rows = [cell(concept="moving left/context", layer="early")]
    rows += [cell(**FOUND, concept="moving left/context", layer=layer) for layer in ("middle", "late", "head")]
    own = answer(**{**FOUND, "effect": 3.1, "z": 30.0}, concept="moving left/context")
    assert answers_of(*rows, own) == [
        "Uses movement: moving left, from middle on (+0.41 logits at middle, q = 0.004).",
    ]
    assert answers_of(*rows[:2], own)[0].startswith("Uses movement: moving left, at middle only (+0.41 logits at mid")
    assert answers_of(rows[0], own)[0] == (
        "Uses movement: moving left, in the answer only (+3.10 logits in the answer, q = 0.004)."
    )


def test_a_layer_and_an_answer_of_opposite_signs_are_named() -> None:
    layer = cell(**FOUND, concept="moving right/context", layer="early")
    lowered = answer(**{**FOUND, "effect": -1.2, "z": -12.0}, concept="moving right/context")
    sentence = (
        "A layer and the answer disagree: moving right raises the logit at early and lowers it in the answer "
        "(−1.20 logits, q = 0.004)."
    )
    assert sentence in answers_of(layer, lowered)
    alike = answer(**FOUND, concept="moving right/context")
    assert not any("disagree" in one for one in answers_of(layer, alike))
    not_shown = {**lowered, "significant": False, "q": 0.4}
    assert not any("disagree" in one for one in answers_of(layer, not_shown))
    elsewhere = {**lowered, "concept": "moving left/context"}
    assert not any("disagree" in one for one in answers_of(layer, elsewhere))


def test_an_answer_that_all_classes_share_is_stated_once() -> None:
    rows = [answer(**{**FOUND, "class": name}, concept="cup/spatial") for name in CLASSES]
    cells = cells_of(*rows, layers=WITH_ANSWER)
    assert texts(for_all_classes(cells)) == ["Every class alike: its logit is raised by cup/spatial (in the answer)."]
    rows += [cell(**{**FOUND, "class": name}, concept="cup/spatial") for name in CLASSES]
    assert "cup/spatial (at late and in the answer)" in texts(for_all_classes(cells_of(*rows, layers=WITH_ANSWER)))[0]


def test_absence_is_claimed_only_where_every_interval_is_inside_the_limits() -> None:
    none = {"negligible": True, "ci_low": -0.03, "ci_high": 0.04}
    rows = [cell(**none, concept="cup/spatial"), cell(**none, concept="ball/spatial")]
    assert only(*rows)[1] == "No object matters (2 tested, each within ±0.040 logits)."
    open_ = cell(concept="box/spatial", ci_low=-0.03, ci_high=0.2)
    assert only(*rows, open_)[1] == "No object is shown to matter (3 tested, each below 0.20 logits)."
    untested = cell(concept="box/spatial", p=None, q=None)
    assert only(*rows, untested)[1].startswith("No object matters (2 tested")


def test_a_concept_that_is_nearly_found_says_how_many_clips_would_decide() -> None:
    rows = [
        cell(concept="cup/spatial", n_concept=50, more_clips=37.0),
        cell(concept="ball/spatial", n_concept=50, more_clips=48.0),
        cell(concept="box/spatial", n_concept=50),
    ]
    assert only(*rows)[1] == (
        "No object is shown to matter (3 tested, each below 0.090 logits; about 40 more clips of cup would decide)."
    )
    far = [{**row, "n_concept": 20} for row in rows]
    assert "would decide" not in only(*far)[1]
    many = cell(concept="cup/spatial", n_concept=900, more_clips=401.0)
    assert "about 450 more clips of cup" in only(many)[1]


def test_the_answer_is_the_last_column_of_the_picture() -> None:
    rows = [cell(**FOUND, concept="moving left/context"), answer(**FOUND, concept="moving left/context")]
    cells = cells_of(*rows, layers=WITH_ANSWER)
    (verdict,) = verdicts(cells, ("moving left",))
    picture = depths(cells, verdict)
    assert picture.layers == list(WITH_ANSWER)
    ((name, _, line),) = picture.rows
    assert name == "moving left"
    assert [one.mark for one in line] == ["", "", "▲", "", "▲"]
