"""Effects without a class's own videos (`clips.concept_labels: other`), and random clips that match labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from tests.helpers.score_world import KIND, N, World, cells, config, run, usual
from vtcav_ray.cavs import stage as cavs_stage
from vtcav_ray.cavs.plan import Pool
from vtcav_ray.clips import stage as clips_stage
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.patch.run import _chosen
from vtcav_ray.runs.stage import Context, Stage
from vtcav_ray.scores import stage as scores_stage
from vtcav_ray.scores.cells import Cell, without_class
from vtcav_ray.scores.choose import Wanted
from vtcav_ray.scores.families import Labels, Projections, family_tests
from vtcav_ray.scores.layer_data import ScoreOptions
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tcav import holm_over_families


def with_labels(**clips: str) -> Config:
    return config().model_copy(update={"clips": config().clips.model_copy(update=clips)})


def labelled() -> World:
    """Make the usual world; two concept videos and a quarter of the random ones are of the class `lift`.

    All videos of the concept `own` are.
    """
    world = usual()
    world.clips("concept", "own", N, 3.0)
    of = {f"moving-{i}": "lift" for i in range(2)} | {f"own-{i}": "Lift" for i in range(N)}
    of |= {f"random/{KIND}-{i}": "lift" for i in range(20)}
    world.label_of = {v: of.get(v, "other") for _, _, v, _ in world.rows}
    return world


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, StageFolder]:
    world = labelled()
    return world, run(world, tmp_path_factory.mktemp("other"), with_labels(concept_labels="other"))[1]


@pytest.fixture(scope="module")
def usual_cells(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return cells(run(labelled(), tmp_path_factory.mktemp("any"))[1])


@pytest.mark.slow
def test_a_class_is_left_out_of_its_own_effects_on_both_sides(
    other: tuple[World, StageFolder], usual_cells: dict
) -> None:
    world, scores = other
    found = cells(scores)
    lift, drop = found["lift", "moving"], found["drop", "moving"]
    assert (lift["n_concept"], lift["n_random"]) == (N - 2, 60)
    assert (drop["n_concept"], drop["n_random"]) == (N, 80)
    for name in ("effect", "ci_low", "p", "p_within"):
        assert drop[name] == pytest.approx(usual_cells["drop", "moving"][name], rel=1e-5), name
    gradient = np.mean([g for name, _, g in world.gradients if name == "lift"], axis=0)
    used = [(role, name, z) for role, name, v, z in world.rows if world.label_of[v] == "other"]
    sides = [[z for role, name, z in used if name == wanted] for wanted in ("moving", f"random/{KIND}")]
    expected = gradient @ (np.mean(sides[0], axis=0) - np.mean(sides[1], axis=0))
    assert lift["effect"] == pytest.approx(expected, abs=1e-4)
    assert lift["p"] < 0.01
    # The CAVs are the same for all classes.
    for name in ("tcav_score", "tcav_p", "held_out_accuracy", "learnable"):
        assert lift[name] == usual_cells["lift", "moving"][name], name


@pytest.mark.slow
def test_a_concept_of_the_class_alone_has_no_effect_and_says_why(other: tuple[World, StageFolder]) -> None:
    row = cells(other[1])["lift", "own"]
    assert np.isnan(row["effect"])
    assert np.isnan(row["p"])
    assert not row["significant"]
    assert row["decided_by"] == "none"
    assert "All videos of the concept or of its other side are of the class lift" in row["note"]
    assert cells(other[1])["drop", "own"]["significant"]


def test_each_class_is_a_family_of_its_own(other: tuple[World, StageFolder]) -> None:
    tests, scores = other[1].read("effect_tests"), other[1].read("scores")
    assert tests is not None
    assert scores is not None
    rows = [row for row in tests.to_pylist() if np.isfinite(row["p"])]
    keys = [tuple(row[name] for name in ("class", "concept", "against")) for row in rows]
    assert len(set(keys)) == len(keys)
    assert [row["p_adjusted"] for row in rows] == [row["p"] for row in rows]  # a single layer
    q = dict(zip(keys, holm_over_families([[row["p_adjusted"]] for row in rows]), strict=True))
    for row in scores.to_pylist():
        key = row["class"], row["concept"], row["against"]
        if key in q:
            assert row["q"] == pytest.approx(float(q[key][0]))


def test_twins_lose_the_same_videos() -> None:
    cell = Cell("a/x", "a/y", "x", np.array([]), np.array([]), np.array([0, 1, 2]), np.array([3, 4, 5]), True)
    left = without_class(cell, np.array(["b", "arm wrestling", "b", "b", "arm wrestling", "b"]), "Arm_wrestling")
    assert left.concept_rows.tolist() == [0, 2]
    assert left.other_rows.tolist() == [3, 5]


CLASSES, LAYERS = ("lift", "push", "drop", "pull"), ("early", "late")


def null_cells(rng: np.random.Generator, counts: tuple[int, ...]) -> tuple[Cell, Projections, Pool, np.ndarray]:
    """Make a concept that is nothing but its labels; a class's own videos have a much higher value for the class."""
    n, each = sum(counts), 15
    of = np.repeat(np.arange(4), counts).tolist() + np.repeat(np.arange(4), each).tolist()
    values = rng.gamma(2, size=(len(of), 1, 2)) + 0.5 * rng.normal(size=(len(of), 4, 2))
    values += 6 * (np.array(of)[:, None] == np.arange(4))[:, :, None]
    columns = [(name, layer) for name in CLASSES for layer in LAYERS]
    pool = Pool(
        ["concept"] * n + ["random"] * 4 * each,
        ["a/x"] * n + ["random/x"] * 4 * each,
        ["x"] * len(of),
        [str(i) for i in range(len(of))],
    )
    cell = Cell("a/x", "random", "x", np.array([]), np.array([]), np.arange(n), np.arange(n, len(of)), False)
    projected = Projections(columns, values.reshape(len(of), 8).astype(np.float32), np.full(8, 1e-9), np.ones(8))
    return cell, projected, pool, np.array([CLASSES[label] for label in of])


def at_zero_weight(values: np.ndarray, kept: np.ndarray, n: int, permutations: int, rng: np.random.Generator) -> float:
    """Return the p of a cell whose arrangements are of ALL videos, with those left out at a weight of 0."""
    marks = np.array([rng.permutation(len(kept)) < n for _ in range(permutations)])
    marks = np.concatenate(((np.arange(len(kept)) < n)[None], marks))[:, kept]
    left, right = marks.sum(axis=1), (~marks).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = [(m * values).sum(axis=1) / size for m, size in ((marks, left), (~marks, right))]
        spreads = [
            (m * (values - mean[:, None]) ** 2).sum(axis=1) / (size - 1) / size
            for m, size, mean in ((marks, left, means[0]), (~marks, right, means[1]))
        ]
        t = (means[0] - means[1]) / np.sqrt(spreads[0] + spreads[1])
    t = t[np.isfinite(t)]
    return min(1.0, 2 * min((t >= t[0]).mean(), (t <= t[0]).mean()))


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(16, 2, 1, 1), pytest.param((8, 4, 4, 4), marks=pytest.mark.full)])
def test_the_level_holds_without_the_class_and_not_at_zero_weight(counts: tuple[int, ...]) -> None:
    """16 of 20 concept videos are of the class `lift`: 4 are left. Any wrong cell of the family counts as an error."""
    worlds, rng = 400, np.random.default_rng(0)
    wrong_cells, wrong_families, wrong_runs, at_zero = 0, 0, 0, 0
    for world in range(worlds):
        cell, projected, pool, labels_N = null_cells(rng, counts)
        options = ScoreOptions(bootstrap=2, permutations=199, seed=world, labels_N=labels_N)
        rows = family_tests(cell, projected, pool, Labels.of(pool, {}), options)
        assert [(row.class_, row.layer) for row in rows] == list(projected.cells)
        wrong_cells += rows[0].p <= 0.05
        of_lift = [row.p_adjusted for row in rows if row.class_ == "lift"]
        wrong_families += min(of_lift) <= 0.05
        families = [[row.p_adjusted for row in rows if row.class_ == name] for name in CLASSES]
        wrong_runs += min(float(q.min()) for q in holm_over_families(families)) <= 0.05
        values = projected.values_NC[:, 0].astype(float)[labels_N != "lift"]
        at_zero += at_zero_weight(values, labels_N != "lift", sum(counts), 199, rng) <= 0.05
    low, high = binom.ppf([0.0005, 0.9995], worlds, 0.05)
    assert low <= wrong_cells <= high
    assert wrong_families <= high
    assert wrong_runs <= high
    if counts[0] == 16:
        assert at_zero > high


@pytest.mark.slow
def test_matched_random_clips_reach_every_figure(tmp_path: Path, usual_cells: dict) -> None:
    world = labelled()
    cavs, scores = run(world, tmp_path, with_labels(random_labels="matched"))
    found = cells(scores)
    moving, nothing = found["lift", "moving"], found["lift", "nothing"]
    assert (moving["n_concept"], moving["n_random"]) == (N, 80)  # 2 and 6, as 20 and 60
    assert nothing["n_random"] == 60  # all of them are `other`
    assert moving["p"] < 0.01
    assert moving["effect"] == pytest.approx(usual_cells["lift", "moving"]["effect"], rel=1e-4)
    composition = scores.read("composition")
    assert composition is not None
    counts = {(r["concept"], r["label"]): r["n_random"] for r in composition.to_pylist()}
    assert counts[f"nothing/{KIND}", "other"] == 60
    assert (f"nothing/{KIND}", "lift") not in counts
    trained = cavs.read("cavs")
    assert trained is not None
    assert set(trained["n_positives"].to_pylist()) == {N}


def test_a_value_that_is_not_allowed_is_named() -> None:
    for key, values in (("random_labels", ("any", "matched")), ("concept_labels", ("any", "other"))):
        for value in values:
            data = {"videos": {"uri": "unused"}, "clips": {key: value}}
            assert getattr(parse_config(data).clips, key) == value
        with pytest.raises(ConfigError, match=f"clips.{key}.*'none'.*{values[1]}"):
            parse_config({"videos": {"uri": "unused"}, "clips": {key: "none"}})


@pytest.mark.parametrize("key", [{"random_labels": "matched"}, {"concept_labels": "other"}])
def test_only_the_stages_that_choose_clips_get_another_key(tmp_path: Path, key: dict[str, str]) -> None:
    """The clips that are cut are the same, and so are the keys of runs without these options."""
    place = Folder(str(tmp_path))
    clips = usual().heads(place)

    def ingredients(stage: Stage, **labels: str) -> dict:
        context = Context(with_labels(**labels), place, {"clips": clips})
        context.memo["respelled"] = {}  # it is read from the listing, which this world has not
        return stage.ingredients(context)

    for stage in (clips_stage.STAGE, cavs_stage.STAGE, scores_stage.STAGE):
        usual_ones, found = ingredients(stage), ingredients(stage, **key)
        assert "random_labels" not in str(usual_ones)
        assert "concept_labels" not in str(usual_ones)
        chooses = {"cavs": "random_labels", "scores": "concept_labels"}.get(stage.name)
        assert found == (usual_ones | key if chooses in key else usual_ones), stage.name


@pytest.mark.parametrize("key", [{"random_labels": "matched"}, {"concept_labels": "other"}])
def test_patch_effects_need_clips_of_any_label(key: dict[str, str]) -> None:
    class Stored:
        config = with_labels(**key)

    with pytest.raises(ConfigError, match="this command compares clips of any label"):
        _chosen(Stored(), Stored.config, Wanted(), None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"`scores\.effect: patch` compares clips of any label"):
        parse_config({"videos": {"uri": "unused"}, "clips": key, "scores": {"effect": "patch"}})
