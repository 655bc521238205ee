"""The stages `cavs` and `scores` on hand-made tables, without Ray: blocks, marks, and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.score_world import World, cells, config, prepared, run, usual
from vtcav_ray import tables
from vtcav_ray.cavs import layer_cavs
from vtcav_ray.cavs import stage as cavs_stage
from vtcav_ray.cavs.train import NO_DIFFERENCE
from vtcav_ray.errors import StageError
from vtcav_ray.scores import correction as correction_module
from vtcav_ray.scores import layer as scores_layer
from vtcav_ray.scores import stage as scores_stage
from vtcav_ray.scores.correction import correct
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.tcav import adjust, holm_over_families
from vtcav_ray.tcav.diagnostics import Learnable, entanglement

D, N, KIND = 8, 8, "spatial"
NO_REST = config(relative=[])  # random clips are the only other side


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageFolder, StageFolder]:
    return run(usual(), tmp_path_factory.mktemp("run"))


@pytest.mark.slow
def test_the_planted_cell_is_found_and_no_other(finished: tuple[StageFolder, StageFolder]) -> None:
    found = cells(finished[1])
    assert found["lift", "moving"]["significant"]
    assert found["lift", "moving"]["effect"] == pytest.approx(3.0, abs=1.2)
    assert found["drop", "moving"]["effect"] == pytest.approx(-3.0, abs=1.2)
    assert not found["lift", "nothing"]["significant"]


@pytest.mark.slow
def test_blocks_give_what_one_shard_gives(
    finished: tuple[StageFolder, StageFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cavs_stage, "BLOCK_CAVS", 13)
    monkeypatch.setattr(scores_stage, "BLOCK_CLASSES", 1)
    monkeypatch.setattr(scores_stage, "BLOCK_TESTS", 1)
    cavs, scores = run(usual(), tmp_path)
    assert len(cavs.files("cavs")) > 5
    assert len(scores.files("cells")) == 2
    assert len(scores.files("effect_tests")) == 6  # 3 concepts, against random and against the rest
    whole, parts = (folder.read("cavs") for folder in (finished[0], cavs))
    assert parts.drop(["vector", "bias"]) == whole.drop(["vector", "bias"])
    vectors = [np.stack(t["vector"].to_numpy(zero_copy_only=False)) for t in (whole, parts)]
    assert np.allclose(*vectors, atol=1e-5)
    one, two = cells(finished[1]), cells(scores)
    assert one.keys() == two.keys()
    for key, row in one.items():
        for name in ("tcav_score", "effect", "p", "q", "tcav_ci_low", "ci_high"):
            assert two[key][name] == pytest.approx(row[name], abs=1e-5), (key, name)


@pytest.mark.slow
def test_entanglement_and_curves_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With few random sets and subsets, the draw decides whether a cosine or an accuracy is within the bounds.
    monkeypatch.setattr(layer_cavs, "CURVE_REPEATS", 200)
    stage = prepared(usual(), tmp_path, config(solver="pattern", random_sets=40, relative=[]))["cavs"]
    table, cavs = stage.read("entanglement"), stage.read("cavs")
    assert table is not None
    assert cavs is not None
    cosine = {(r["concept"].split("/")[0], r["other"].split("/")[0]): r["cosine"] for r in table.to_pylist()}
    assert len(cosine) == 9
    for (a, b), value in cosine.items():
        assert value == pytest.approx(cosine[b, a])
        assert a != b or value == pytest.approx(1.0)
    own = [r for r in cavs.to_pylist() if r["against"] == "random" and not r["is_null"]]
    names = ["moving", "nearly the same", "nothing"]
    vectors = [r["vector"] for name in names for r in own if r["concept"] == f"{name}/{KIND}"]
    assert [[cosine[a, b] for b in names] for a in names] == pytest.approx(entanglement(vectors, runs=40), abs=1e-6)
    # In this sample "nothing" happens to lie against axis 0 (cosine -0.6), so compare with the sample's own cosines.
    shift = usual().shifts()
    for a, b in (("moving", "nearly the same"), ("moving", "nothing")):
        planted = shift[a] @ shift[b] / np.linalg.norm(shift[a]) / np.linalg.norm(shift[b])
        assert cosine[a, b] == pytest.approx(planted, abs=0.15)
    assert cosine["moving", "nearly the same"] > 0.6
    curves = stage.read("curves")
    assert curves is not None
    of = [r for r in curves.to_pylist() if r["concept"] == f"moving/{KIND}"]
    assert [r["n"] for r in of] == [3, 4, 6, 7, 8]
    assert of[-1]["accuracy"] > 0.85
    nothing = [r["accuracy"] for r in curves.to_pylist() if r["concept"] == f"nothing/{KIND}"]
    assert np.mean(nothing) == pytest.approx(0.5, abs=0.2)


def test_sensitivities_say_which_videos(finished: tuple[StageFolder, StageFolder]) -> None:
    table = finished[1].read("sensitivities")
    assert table is not None
    rows = [r for r in table.to_pylist() if r["class"] == "lift" and r["concept"] == f"moving/{KIND}"]
    assert sorted(r["video_id"] for r in rows) == sorted(f"lift-{i}" for i in range(10))
    assert all(r["positive"] > 0.8 for r in rows)


@pytest.mark.slow
def test_a_concept_of_one_clip_is_left_out_with_a_warning(tmp_path: Path) -> None:
    world = usual()
    world.clips("concept", "once", 1, 3.0)
    cavs, scores = run(world, tmp_path, NO_REST)
    assert any("once/spatial: 1 source videos" in w for w in cavs.manifest()["warnings"])
    assert ("lift", "once") not in cells(scores)
    assert cells(scores)["lift", "moving"]["significant"]


@pytest.mark.slow
def test_equal_activations_are_marked_and_never_significant(tmp_path: Path) -> None:
    world = World()
    world.clips("random", f"random/{KIND}", 80, like=np.ones(D))
    world.clips("concept", "same", N, like=np.ones(D))
    world.of_class("lift", 10, 1.0)
    cavs, scores = run(world, tmp_path, NO_REST)
    trained = cavs.read("cavs")
    assert trained is not None
    assert np.isnan(trained["bias"].to_numpy()).all()
    assert set(trained["reason"].to_pylist()) == {NO_DIFFERENCE}
    row = cells(scores)["lift", "same"]
    assert not row["significant"]
    assert not row["learnable"]
    for name in ("tcav_score", "tcav_ci_low", "tcav_p", "p", "z", "ci_low"):
        assert np.isnan(row[name]), name
    assert f"8 of its 8 CAVs could not be trained, so it has no score: {NO_DIFFERENCE}." in row["note"]
    assert row["decided_by"] == "none"


@pytest.mark.slow
def test_a_class_without_clips_or_gradients_is_reported(tmp_path: Path) -> None:
    world = usual()
    world.gradients = []
    with pytest.raises(StageError, match="nothing to score: no class example has a gradient"):
        run(world, tmp_path, NO_REST)


@pytest.mark.slow
def test_a_class_may_be_spelled_as_people_spell_it(tmp_path: Path) -> None:
    """If only the checkpoint has the names, clips keep the folder's spelling and gradients have the model's."""
    world = usual()
    world.clips("class", "arm_wrestling", 10)
    for i in range(10):
        gradient = np.eye(D)[0] + 0.3 * world.rng.normal(size=D)
        world.gradients.append(("arm_wrestling", f"arm_wrestling-{i}", gradient))
    world.name_in_model["arm_wrestling"] = "Arm wrestling"
    rows = cells(run(world, tmp_path, NO_REST)[1])
    assert ("Arm wrestling", "moving") in rows


@pytest.mark.slow
def test_a_class_of_one_video_has_no_interval(tmp_path: Path) -> None:
    world = usual()
    world.of_class("rare", 1, 1.0)
    row = cells(run(world, tmp_path, NO_REST)[1])["rare", "moving"]
    assert row["n"] == 1
    assert np.isnan(row["tcav_ci_low"])
    assert np.isnan(row["ci_low"])
    assert "single source video" in row["note"]


@pytest.mark.slow
def test_one_random_set_gives_no_p_of_the_score_and_says_so(tmp_path: Path) -> None:
    cavs, scores = run(usual(), tmp_path, config(random_sets=1))
    row = cells(scores)["lift", "moving"]
    assert row["R"] == 1
    assert np.isnan(row["tcav_p"])
    assert np.isnan(row["tcav_ci_low"])
    assert row["learnable"]  # by the rank among stand-ins, which does not need R
    assert row["significant"]  # by the effect, which needs no CAV
    assert np.isfinite(row["p"])  # the effect needs no R
    assert cavs.read("cavs").num_rows == 6


@pytest.mark.parametrize(
    ("correction", "enough", "of_what"), [("step_down", 240, "6 families"), ("holm", 480, "12 comparisons")]
)
def test_a_warning_never_asks_for_more_permutations_than_can_be_had(
    finished: tuple[StageFolder, StageFolder],
    monkeypatch: pytest.MonkeyPatch,
    correction: str,
    enough: int,
    of_what: str,
) -> None:
    settings = config({"permutations": 100, "correction": correction})
    (warning,) = [w for w in correct(settings, finished[1]).warnings if "permutations can't" in w]
    assert f"set scores.permutations to {enough} or more, or scores.correction to bh" in warning
    assert f"below 0.02, and the strictest of {of_what}" in warning
    monkeypatch.setattr(correction_module, "MOST_PERMUTATIONS", enough - 1)
    (warning,) = [w for w in correct(settings, finished[1]).warnings if "permutations can't" in w]
    assert f"set scores.correction to bh ({enough} permutations" in warning
    assert "scores.permutations" not in warning
    plenty = config({"permutations": enough, "correction": correction})
    assert not [w for w in correct(plenty, finished[1]).warnings if "permutations can't" in w]


@pytest.mark.slow
def test_a_concept_of_too_few_videos_is_named_and_not_called_enough(tmp_path: Path) -> None:
    """Two videos among 30 random ones have 496 arrangements, so p is at least 0.004."""
    world = World()
    world.clips("random", f"random/{KIND}", 30)
    world.clips("concept", "few", 2, 30.0)
    world.clips("concept", "many", N, 3.0)
    world.clips("concept", "nothing", N)
    world.of_class("lift", 10, 1.0)
    settings = {"alpha": 0.005, "permutations": 20_000, "min_effect": 0.0}
    scores = run(world, tmp_path, config(settings, relative=[]))[1]
    few, many = (cells(scores)["lift", name] for name in ("few", "many"))
    assert few["p"] == pytest.approx(2 / 496)
    assert few["more_clips"] is None
    assert "No p that this test can give passes" in few["note"]
    assert "enough" not in few["note"]
    assert many["significant"]
    warnings = [line for record in scores.records() for line in record.get("warnings", ())]
    (warning,) = [line for line in warnings if "too few source videos" in line]
    assert warning.startswith("1 of 3 families")
    other = correct(config({**settings, "correction": "bh"}, relative=[]), scores)
    assert not [line for line in other.warnings if "too few source videos" in line]
    assert not [row for row in other.tables["scores"].to_pylist() if "No p that" in row["note"]]


@pytest.mark.slow
def test_too_few_permutations_for_the_cells_of_a_family_are_said_and_the_number_named_is_enough(tmp_path: Path) -> None:
    """Of 150 permutations a 25th has a smallest p in one of six classes, and a 60th is accepted per family."""
    world = World()
    world.clips("random", f"random/{KIND}", 30)
    for name in ("one", "other", "third"):
        world.clips("concept", name, N)
    for name in "abcdef":
        world.of_class(name, 10, 0.0)
    settings = {"permutations": 150, "min_effect": 0.0}

    def warnings_of(permutations: int, place: Path) -> list[str]:
        scores = run(world, place, config({**settings, "permutations": permutations}, relative=[]))[1]
        lines = [line for record in scores.records() for line in record.get("warnings", ())]
        assert not [line for line in lines if "too few source videos" in line or "permutations can't" in line]
        return [line for line in lines if "too few permutations" in line]

    (warning,) = warnings_of(150, tmp_path / "few")
    assert warning.startswith("3 of 3 families")
    assert "set scores.permutations to 720 " in warning.lower()  # 2 x 6 cells x 3 families / 0.05
    assert warnings_of(720, tmp_path / "enough") == []


@pytest.mark.parametrize("correction", ["step_down", "holm", "bh", "none"])
def test_every_correction_is_that_of_its_name(finished: tuple[StageFolder, StageFolder], correction: str) -> None:
    found = correct(config({"correction": correction}), finished[1]).tables["scores"]
    p, q = (np.asarray(found[name], np.float64) for name in ("p", "q"))
    assert found["significant"].to_pylist() == (q < 0.05).tolist()
    if correction != "step_down":
        assert q == pytest.approx(adjust(p, correction))  # type: ignore[arg-type]
        assert np.asarray(found["tcav_q"], np.float64) == pytest.approx(adjust(np.asarray(found["tcav_p"]), correction))  # type: ignore[arg-type]
        return
    assert np.asarray(found["tcav_q"], np.float64) == pytest.approx(adjust(np.asarray(found["tcav_p"])))
    tests = finished[1].read("effect_tests")
    assert tests is not None
    families: dict[tuple[str, str], dict[str, float]] = {}
    for row in tests.to_pylist():
        families.setdefault((row["concept"], row["against"]), {})[row["class"]] = row["p_adjusted"]
    by_hand = holm_over_families([list(one.values()) for one in families.values()])
    expected = {
        (*family, name): value
        for (family, one), values in zip(families.items(), by_hand, strict=True)
        for name, value in zip(one, values, strict=True)
    }
    for row in found.to_pylist():
        assert row["q"] == pytest.approx(expected[row["concept"], row["against"], row["class"]])
    assert (q >= p).all()


@pytest.mark.slow
def test_what_is_not_learnable_can_be_significant(
    finished: tuple[StageFolder, StageFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a classifier finds the concept is a note: the effect's own test decides."""
    never = Learnable(False, 0.5, 0.6, 0.4, "held-out accuracy 0.50: random sets reach 0.60 by chance")
    monkeypatch.setattr(scores_layer, "learnability", lambda *_: never)
    found, before = cells(run(usual(), tmp_path)[1]), cells(finished[1])
    assert {key: row["significant"] for key, row in found.items()} == {
        key: row["significant"] for key, row in before.items()
    }
    assert found["lift", "moving"]["significant"]
    assert not found["lift", "moving"]["learnable"]
    assert found["lift", "moving"]["note"] == "Held-out accuracy 0.50: random sets reach 0.60 by chance."
    assert "by chance. An effect of" in found["lift", "nothing"]["note"]


@pytest.mark.slow
def test_the_class_itself_is_taken_out(tmp_path: Path) -> None:
    """The concept `moving` is there in videos of a class that raises the logit anyway; `nearly the same` is not."""
    world = usual()
    world.clips("random", f"random/{KIND}", 20, 3.0)  # the class itself, without the concept
    of_class = {f"moving-{i}": "lifting" for i in range(N)} | {f"random/{KIND}-{i}": "lifting" for i in range(80, 100)}
    world.label_of = {v: of_class.get(v, "other") for _, _, v, _ in world.rows}
    scores = run(world, tmp_path)[1]
    found = cells(scores)
    moving, same = found["lift", "moving"], found["lift", "nearly the same"]
    assert moving["p"] < 0.01
    assert moving["p_within"] > 0.05
    assert moving["between_share"] == pytest.approx(1, abs=0.3)
    assert same["p_within"] < 0.01
    assert same["between_share"] < 0.1
    for row in (moving, same):
        assert row["p"] <= row["q"]
        assert row["p_within"] <= row["q_within"]
    table = scores.read("composition")
    assert table is not None
    rows = {(r["concept"].split("/")[0], r["label"]): r for r in table.to_pylist()}
    assert (rows["moving", "lifting"]["n_concept"], rows["moving", "lifting"]["n_random"]) == (N, 20)
    assert ("moving", "other") in rows
    assert not any(row["no_contrast"] for row in rows.values())


def test_nulls_hold_both_tests(finished: tuple[StageFolder, StageFolder]) -> None:
    scores, nulls = (finished[1].read(name) for name in ("scores", "nulls"))
    assert scores is not None
    assert nulls is not None
    keys = list(tables.CELL_KEY)
    assert sorted(map(str, scores.select(keys).to_pylist())) == sorted(map(str, nulls.select(keys).to_pylist()))
    for row in nulls.to_pylist():
        assert sum(row["effect_counts"]) == 2000
        assert row["effect_unit"] > 0
        assert sum(row["score_counts"]) == 28


@pytest.mark.slow
def test_relative_cells_are_decided_by_their_own_smallest_p(tmp_path: Path) -> None:
    """30 random sets are 30 draws against random, and 15 disjoint pairs for a relative cell."""
    settings = config(random_sets=30)
    settings = settings.model_copy(update={"scores": settings.scores.model_copy(update={"alpha": 0.5})})
    table = run(usual(), tmp_path, settings)[1].read("scores")
    assert table is not None
    rows = table.to_pylist()
    assert sum(np.isfinite(row["tcav_p"]) for row in rows) == 12  # 12 / 31 is below 0.5, and 12 / 16 is not
    decided = {(row["against"], row["decided_by"]) for row in rows}
    assert decided == {("random", "effect and score"), (f"rest of {KIND}", "effect")}


@pytest.mark.slow
@pytest.mark.parametrize("where", ["activations", "gradients"])
def test_nan_in_the_tables_is_an_error_that_names_the_clip(tmp_path: Path, where: str) -> None:
    world = usual()
    if where == "activations":
        world.rows[3][3][2] = np.nan
        name = "random/random/spatial/random/spatial-3"
    else:
        world.gradients[4][2][0] = np.nan
        name = "class/lift/lift-4"
    with pytest.raises(StageError, match=f"late.*{name}"):
        run(world, tmp_path, NO_REST)


def test_no_concept_at_all_is_an_error(tmp_path: Path) -> None:
    world = World()
    world.clips("random", f"random/{KIND}", 80)
    world.of_class("lift", 10, 1.0)
    with pytest.raises(StageError, match="No concept has enough clips"):
        run(world, tmp_path, NO_REST)


@pytest.mark.slow
def test_the_gain_scales_sizes_and_nothing_else(finished: tuple[StageFolder, StageFolder], tmp_path: Path) -> None:
    world = usual()
    world.gain_of = {f"{name}-{i}": 3.0 for name in ("lift", "drop") for i in range(10)}
    world.margin_of = {f"lift-{i}": 0.5 + i for i in range(10)} | {f"drop-{i}": -1.0 for i in range(10)}
    scores = run(world, tmp_path)[1]
    one, two = cells(finished[1]), cells(scores)
    assert one.keys() == two.keys()
    for key, row in two.items():
        for name in ("effect", "ci_low", "ci_high", "null_sd", "effect_within"):
            assert row[name] == pytest.approx(3 * one[key][name], nan_ok=True), (key, name)
        for name in (
            "z",
            "p",
            "p_symmetric",
            "q",
            "p_within",
            "q_within",
            "between_share",
            "tcav_score",
            "significant",
        ):
            assert row[name] == pytest.approx(one[key][name], rel=0, abs=0, nan_ok=True), (key, name)
        assert (row["gain"], one[key]["gain"]) == (3.0, 1.0)
        assert one[key]["share_of_margin"] == pytest.approx(one[key]["effect"] / 2)
        expected = row["effect"] / 5 if key[0] == "lift" else np.nan  # most examples of `drop` are misclassified
        assert row["share_of_margin"] == pytest.approx(expected, nan_ok=True)
    nulls = [folder.read("nulls") for folder in (finished[1], scores)]
    units = [np.asarray(table["effect_unit"]) for table in nulls if table is not None]
    assert units[1] == pytest.approx(3 * units[0], nan_ok=True)
