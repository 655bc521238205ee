"""The row `answer` of the scores: the class's own logit, tested as the layers' effects are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.score_world import KIND, World, answering, config, run, usual
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.scores.answers import Answers
from vtcav_ray.scores.stage import BLOCK_CLASSES
from vtcav_ray.stages import ANSWER
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.tcav import class_margin, concept_effect, effect_family

Rows = dict[tuple[str, str, str, str], dict[str, Any]]


def rows_of(scores: StageFolder) -> Rows:
    table = scores.read("scores")
    assert table is not None
    return {tuple(row[name] for name in ("class", "layer", "concept", "against")): row for row in table.to_pylist()}


def logits_of(world: World, role: str, name: str, k: int) -> np.ndarray:
    return np.array([world.logits_of[f"{s}/{n}/{v}"][k] for s, n, v, _ in world.rows if (s, n) == (role, name)])


@pytest.fixture(scope="module")
def world() -> World:
    return answering(usual())


@pytest.fixture(scope="module")
def scores(world: World, tmp_path_factory: pytest.TempPathFactory) -> StageFolder:
    return run(world, tmp_path_factory.mktemp("run"))[1]


@pytest.mark.slow
def test_every_cell_of_a_layer_has_one_of_the_answer_after_it(scores: StageFolder) -> None:
    rows = rows_of(scores)
    of = {layer: [key[:1] + key[2:] for key in rows if key[1] == layer] for layer in ("late", ANSWER)}
    assert of["late"] == of[ANSWER]
    assert len(of[ANSWER]) == 12  # 2 classes, 3 concepts, against random and against the rest
    assert [key[1] for key in rows] == ["late"] * 12 + [ANSWER] * 12


@pytest.mark.slow
def test_the_effect_is_the_difference_of_the_logits_and_of_the_probabilities(world: World, scores: StageFolder) -> None:
    row = rows_of(scores)["lift", ANSWER, f"moving/{KIND}", "random"]
    own, other = (logits_of(world, *of, 1) for of in (("concept", "moving"), ("random", f"random/{KIND}")))
    assert row["effect"] == pytest.approx(own.mean() - other.mean(), abs=1e-6)
    assert row["effect"] > 2
    assert row["significant"]
    assert (row["gain"], row["n"], row["R"], row["n_concept"], row["n_random"]) == (1.0, 10, 0, 8, 80)
    assert row["decided_by"] == "effect"

    def probability(role: str, name: str) -> float:
        every = np.exp([logits_of(world, role, name, k) for k in range(3)])
        return float((every[1] / every.sum(axis=0)).mean())

    change = probability("concept", "moving") - probability("random", f"random/{KIND}")
    assert row["probability_change"] == pytest.approx(change, abs=1e-6)
    assert 0.1 < row["probability_change"] < 1


def test_test_and_interval_are_those_of_the_layers(world: World, scores: StageFolder) -> None:
    row = rows_of(scores)["lift", ANSWER, f"nothing/{KIND}", "random"]
    own, other = (logits_of(world, *of, 1)[:, None] for of in (("concept", "nothing"), ("random", f"random/{KIND}")))
    videos = [f"nothing-{i}" for i in range(8)] + [f"random/{KIND}-{i}" for i in range(80)]
    order = np.argsort(videos[8:])  # as the pool lists them
    other, videos[8:] = other[order], sorted(videos[8:])
    alone = effect_family(own, other, groups=videos, permutations=2000)
    assert row["p"] == pytest.approx(alone.p[0], abs=1e-9)
    effect = concept_effect(np.ones((2, 1)), own, other, groups=videos, bootstrap=200, permutations=100)
    assert row["ci_low"] == pytest.approx(effect.ci_low, abs=1e-5)
    assert row["ci_high"] == pytest.approx(effect.ci_high, abs=1e-5)
    assert row["z"] == pytest.approx(effect.z, abs=1e-5)
    assert row["ci_low"] < row["effect"] < row["ci_high"]


def test_margins_are_those_of_the_class_clips(world: World, scores: StageFolder) -> None:
    row = rows_of(scores)["lift", ANSWER, f"moving/{KIND}", "random"]
    lift, drop = (logits_of(world, "class", name, 1) for name in ("lift", "drop"))
    labels = ["lift"] * 10 + ["drop"] * 10
    assert row["class_margin"] == pytest.approx(class_margin(np.r_[lift, drop], labels, "lift"), abs=1e-5)
    assert row["min_effect"] == pytest.approx(0.05 * row["class_margin"])
    leads = [one[1] - max(one[0], one[2]) for clip, one in world.logits_of.items() if clip.startswith("class/lift/")]
    assert row["share_of_margin"] == pytest.approx(row["effect"] / np.median(leads), rel=1e-5)


def test_it_has_no_cav_and_no_tcav_score(scores: StageFolder) -> None:
    rows = rows_of(scores)
    for key, row in rows.items():
        without = [name for name in row if row[name] is None]
        if key[1] != ANSWER:
            assert {"probability_change"} <= set(without) <= {"probability_change", "more_clips"}
            continue
        expected = {name for name in row if name.startswith("tcav_")}
        expected |= {"learnable", "held_out_accuracy", "null_accuracy", "stability", "collinearity"}
        assert set(without) - {"more_clips"} == expected
        assert "random sets" not in row["note"]
    nulls = scores.read("nulls")
    assert nulls is not None
    of = [row for row in nulls.to_pylist() if row["layer"] == ANSWER]
    assert len(of) == 12
    assert all(sum(row["effect_counts"]) > 0 and not row["score_counts"] for row in of)
    sensitivities = scores.read("sensitivities")
    assert sensitivities is not None
    assert set(sensitivities["layer"].to_pylist()) == {"late"}


def test_it_joins_the_family_of_its_concept(scores: StageFolder) -> None:
    tests = scores.read("effect_tests")
    assert tests is not None
    family = [row for row in tests.to_pylist() if row["concept"] == f"nothing/{KIND}" and row["against"] == "random"]
    assert {(row["class_"] if "class_" in row else row["class"], row["layer"]) for row in family} == {
        (name, layer) for name in ("drop", "lift") for layer in ("late", ANSWER)
    }
    assert all(row["p_adjusted"] >= row["p"] for row in family)
    assert len({row["p_needed"] for row in family}) == 1


@pytest.mark.slow
def test_without_answers_there_are_only_layers(tmp_path: Path) -> None:
    assert {key[1] for key in rows_of(run(usual(), tmp_path)[1])} == {"late"}


@pytest.mark.slow
def test_labels_split_it_and_concept_labels_choose_its_clips(tmp_path: Path) -> None:
    world = answering(usual())
    for role, name, video, _ in world.rows:
        world.label_of[video] = name if role == "class" else ("lift" if int(video.rsplit("-", 1)[1]) % 2 else "drop")
    for_all = rows_of(run(world, tmp_path / "any")[1])["lift", ANSWER, f"moving/{KIND}", "random"]
    assert np.isfinite([for_all["effect_within"], for_all["p_within"], for_all["q_within"]]).all()
    settings = config()
    other = settings.model_copy(update={"clips": settings.clips.model_copy(update={"concept_labels": "other"})})
    row = rows_of(run(world, tmp_path / "other", other)[1])["lift", ANSWER, f"moving/{KIND}", "random"]
    own, random = (
        np.array(
            [
                world.logits_of[f"{s}/{n}/{v}"][1]
                for s, n, v, _ in world.rows
                if s == role and world.label_of[v] == "drop"
            ]
        )
        for role in ("concept", "random")
    )
    own = own[:4]  # of the first concept, `moving`
    assert (row["n_concept"], row["n_random"]) == (4, 40)
    assert row["effect"] == pytest.approx(own.mean() - random.mean(), abs=1e-6)
    assert np.isfinite(row["probability_change"])


@pytest.mark.slow
def test_targets_are_those_of_the_run(world: World, tmp_path: Path) -> None:
    settings = config()
    log_odds = settings.model_copy(
        update={"activations": settings.activations.model_copy(update={"target": "log_odds"})}
    )
    row = rows_of(run(world, tmp_path, log_odds)[1])["lift", ANSWER, f"moving/{KIND}", "random"]

    def odds(role: str, name: str) -> float:
        every = np.exp([logits_of(world, role, name, k) for k in range(3)])
        return float(np.log(every[1] / (every.sum(axis=0) - every[1])).mean())

    assert row["effect"] == pytest.approx(odds("concept", "moving") - odds("random", f"random/{KIND}"), abs=1e-5)


@pytest.mark.slow
def test_classes_come_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: StageFolder) -> None:
    assert BLOCK_CLASSES > 1
    monkeypatch.setattr("vtcav_ray.scores.stage.BLOCK_CLASSES", 1)
    found = run(answering(usual()), tmp_path)[1]
    assert len(found.files("cells")) == 4
    one, two = rows_of(scores), rows_of(found)
    assert one.keys() == two.keys()
    for key in one:
        assert two[key]["effect"] == pytest.approx(one[key]["effect"], abs=1e-5)
        assert two[key]["q"] == pytest.approx(one[key]["q"], abs=1e-5)


def test_a_clip_without_an_answer_and_an_unknown_class_are_errors(world: World) -> None:
    from vtcav_ray.cavs.plan import Pool

    ids = ["concept/moving/moving-0", "class/lift/lift-0"]
    pool = Pool(["concept", "class"], ["moving", "lift"], [KIND, "full"], ["moving-0", "lift-0"])
    with pytest.raises(StageError, match=r"class/lift/lift-0 has activations and no answer"):
        Answers.of(world.answers(ids[:1]), ["lift"], model="m", pool=pool, clip_ids=ids)
    with pytest.raises(StageError, match="no class 'jump'"):
        Answers.of(world.answers(ids), ["jump"], model="m", pool=pool, clip_ids=ids)
    bad = World()
    bad.classes, bad.logits_of = world.classes, dict.fromkeys(ids, np.array([0.0, np.nan, 0.0]))
    with pytest.raises(StageError, match="moving-0 are NaN or infinite"):
        Answers.of(bad.answers(ids), ["lift"], model="m", pool=pool, clip_ids=ids)


@pytest.mark.parametrize("name", ["answer", "answer@moving"])
def test_no_layer_may_have_its_name(name: str) -> None:
    with pytest.raises(ConfigError, match="model's own answer"):
        parse_config({"videos": {"uri": "unused"}, "activations": {"layers": ["late", name]}})
