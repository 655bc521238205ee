"""Class examples that are explained from tables alone, on a hand-made run whose gradients are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.score_world import KIND, D, World, answering, config, opened, usual
from vtcav_ray import tables
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.run import Run
from vtcav_ray.why.concepts import RunConcepts
from vtcav_ray.why.examples import AT_REFERENCE, ExplainedExamples, explain_examples
from vtcav_ray.why.run import NOT_OF_RUN, explain_videos
from vtcav_ray.why.run_mistakes import mistakes_of_run, read_examples
from vtcav_ray.why.subjects import FROM_TABLES

SETTINGS = config(random_sets=4, relative=[])
CLASSES = ("drop", "lift")
WRONG = ("lift-0", "lift-1", "lift-2")


def two_classes() -> World:
    """Both classes have a gradient at the first five videos of each; three videos of `lift` are answered `drop`."""
    world = answering(usual(), CLASSES)
    for name, other in zip(CLASSES, reversed(CLASSES), strict=True):
        for i in range(5):
            sign = 1.0 if other == "lift" else -1.0
            world.gradients.append((other, f"{name}-{i}", sign * np.eye(D)[0]))
    for i in range(10):
        world.logits_of[f"class/lift/lift-{i}"] = np.array([1.0, 2.0])
        world.logits_of[f"class/drop/drop-{i}"] = np.array([3.0, 2.0])
    for video in WRONG:
        world.logits_of[f"class/lift/{video}"] = np.array([4.0, 2.0])
        world.gain_of[video] = 2.0
    return world


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return opened(two_classes(), tmp_path_factory.mktemp("run"), SETTINGS)


@pytest.fixture(scope="module")
def found(run: Run) -> ExplainedExamples:
    return explain_examples(run)


@pytest.mark.slow
def test_every_example_is_explained_at_its_clip_where_the_tables_have_both_gradients(found: ExplainedExamples) -> None:
    at_clip = {one.explanation.video: one.at_clip for one in found.examples}
    assert at_clip == {f"{name}-{i}": i < 5 for name in CLASSES for i in range(10)}
    for one in found.examples:
        assert one.explanation.source == (FROM_TABLES if one.at_clip else AT_REFERENCE)
    assert {one.explanation.video for one in found.examples if one.mistaken} == set(WRONG)
    assert (found.left_out, found.rows_left_out) == (0, 0)


@pytest.mark.slow
def test_a_push_is_the_gain_times_the_gradient_along_the_concepts_direction(run: Run, found: ExplainedExamples) -> None:
    concepts = RunConcepts.of(run)
    pool = concepts.layer("late")
    direction = {clips.concept: v for clips, v in zip(concepts.concepts, pool.directions, strict=True)}
    shown = {one.explanation.video: one.explanation for one in found.examples}
    for row in shown["lift-0"].concepts:  # answered drop, with lift the runner-up
        own = next(z for name, video, z in two_classes().gradients if (name, video) == ("lift", "lift-0"))
        assert row.push == pytest.approx(2.0 * -direction[row.concept][0], rel=1e-4)
        assert row.push_runner_up == pytest.approx(2.0 * own @ direction[row.concept], rel=1e-4)
        assert row.ci_low <= row.ci_high
    mean = concepts.mean_gradients("late", ["lift"])[0]
    for row in shown["lift-9"].concepts:  # without a gradient of drop: the mean ones, at the median gain
        assert row.push == pytest.approx(mean @ direction[row.concept], rel=1e-4)
    weights = [abs(row.weight) for row in shown["lift-0"].concepts]
    assert weights == sorted(weights, reverse=True)
    assert shown["lift-0"].probabilities["drop"] == pytest.approx(1 / (1 + np.exp(-2.0)))


def test_the_given_ones_come_first_then_the_mistakes_and_then_the_largest_weights(run: Run) -> None:
    few = explain_examples(run, ["drop-9"], most_examples=3, most_rows=1)
    videos = {one.explanation.video for one in few.examples}
    assert "drop-9" in videos
    assert len(videos & set(WRONG)) == 2
    assert few.left_out == 17
    assert [len(one.explanation.concepts) for one in few.examples] == [3] * 3  # all there are, of at least five


def test_videos_of_the_tables_need_no_model_and_one_that_is_absent_is_named(run: Run, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.mp4")
    explained = explain_videos(run, run.config, ["lift-0", "/nowhere/drop-1.mp4", absent])
    assert [one.video for one in explained.explanations] == ["lift-0", "drop-1"]
    ((name, message),) = explained.failures
    assert name == absent
    assert "absent.mp4" in message
    assert NOT_OF_RUN not in message
    first = explained.explanations[0]
    assert (first.predicted, first.runner_up, first.label) == ("drop", "lift", "lift")
    one = next(one.explanation for one in explain_examples(run).examples if one.explanation.video == "lift-0")
    for row, other in zip(first.concepts, one.concepts, strict=True):
        assert row.concept == other.concept
        assert (row.push, row.ci_low, row.presence) == pytest.approx(
            (other.push, other.ci_low, other.presence), rel=1e-4
        )


def test_the_mistakes_are_ranked_with_a_test_of_each_concept(run: Run) -> None:
    examples = read_examples(run)
    assert [video for video, wrong in zip(examples.videos, examples.mistaken, strict=True) if wrong] == list(WRONG)
    rows = mistakes_of_run(run).to_pylist()
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert {row["concept"] for row in rows} == {f"{name}/{KIND}" for name in ("moving", "nearly the same", "nothing")}
    for row in rows:
        assert (row["n_mistakes"], row["n_correct"]) == (3, 17)
        assert row["p"] == max(row["p_examples"], row["p_direction"])
        assert row["p"] <= row["q"] <= 1
        assert not row["significant"] or (row["difference"] > 0 and row["q"] < 0.05)
    positive = [row["difference"] > 0 for row in rows]
    assert positive == sorted(positive, reverse=True)  # what pushes to the wrong class comes first
    present = {row["concept"]: row["presence"] for row in rows}
    shown = [one.explanation for one in explain_examples(run).examples if one.mistaken]
    for concept, presence in present.items():
        values = [row.presence for one in shown for row in one.concepts if row.concept == concept]
        assert presence == pytest.approx(np.mean(values), abs=1e-6)


@pytest.mark.slow
def test_without_a_mistake_the_table_is_empty_and_without_answers_there_is_none(tmp_path: Path) -> None:
    world = two_classes()
    for video in WRONG:
        world.logits_of[f"class/lift/{video}"] = np.array([1.0, 2.0])
    table = mistakes_of_run(opened(world, tmp_path / "right", SETTINGS))
    assert (table.num_rows, table.schema) == (0, tables.MISTAKES)
    with pytest.raises(ConfigError, match=r"has no table `answers`: an older version .* Run it again"):
        explain_examples(opened(usual(), tmp_path / "older", SETTINGS))
