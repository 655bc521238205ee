"""The class examples of a run, explained together for the report: the same figures as `vtcav explain`."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.planted_run import PlantedRun
from vtcav_ray.runs.run import Run
from vtcav_ray.why import explain_videos
from vtcav_ray.why.concepts import RunConcepts
from vtcav_ray.why.examples import AT_REFERENCE, ExplainedExamples, explain_examples
from vtcav_ray.why.pushes import ConceptClips, direction, interval
from vtcav_ray.why.subjects import FROM_TABLES, read_answers

pytestmark = pytest.mark.slow

FIGURES = ("presence", "push", "ci_low", "ci_high", "push_runner_up", "runner_up_ci_low", "runner_up_ci_high")


@pytest.fixture(scope="module")
def run(planted: PlantedRun) -> Run:
    return planted.run


@pytest.fixture(scope="module")
def found(run: Run) -> ExplainedExamples:
    return explain_examples(run)


def test_every_class_example_is_there_once(run: Run, found: ExplainedExamples) -> None:
    assert sorted(one.explanation.video for one in found.examples) == sorted(read_answers(run))
    assert (found.left_out, found.rows_left_out) == (0, 0)
    assert {one.explanation.source for one in found.examples} == {FROM_TABLES, AT_REFERENCE}


def test_at_its_own_clip_the_figures_are_those_of_the_command(run: Run, found: ExplainedExamples) -> None:
    own = [one.explanation for one in found.examples if one.at_clip][:3]
    assert own
    for one, other in zip(own, explain_videos(run, run.config, [x.video for x in own]).explanations, strict=True):
        assert (one.label, one.predicted, one.runner_up) == (other.label, other.predicted, other.runner_up)
        assert one.probabilities == other.probabilities
        rows = {(row.concept, row.layer): row for row in one.concepts}
        assert len(rows) == len(other.concepts)
        for row in other.concepts:
            for name in FIGURES:
                mine = getattr(rows[row.concept, row.layer], name)
                assert mine == pytest.approx(getattr(row, name), rel=1e-4, abs=1e-5)


def test_elsewhere_the_push_is_that_of_the_mean_gradient(run: Run, found: ExplainedExamples) -> None:
    one = next(one.explanation for one in found.examples if not one.at_clip)
    concepts = RunConcepts.of(run)
    pool = concepts.layer("late")
    gain = np.median([answers.gains[concepts.layers.index("late")] for answers in read_answers(run).values()])
    gradient = gain * concepts.mean_gradients("late", [one.predicted])[0]
    for clips, v in zip(concepts.concepts, pool.directions, strict=True):
        row = next(row for row in one.concepts if (row.concept, row.layer) == (clips.concept, "late"))
        assert row.push == pytest.approx(gradient @ v, rel=1e-4, abs=1e-6)
        runs = [
            gradient @ direction(pool.vectors, concepts.videos, ConceptClips(clips.concept, own, random, ()))
            for own, random in clips.runs
        ]
        assert (row.ci_low, row.ci_high) == pytest.approx(np.quantile(runs, (0.025, 0.975)), rel=1e-4, abs=1e-6)


def test_the_given_ones_and_the_largest_weights_have_precedence(run: Run, found: ExplainedExamples) -> None:
    last = found.examples[-1].explanation.video
    few = explain_examples(run, [last], most_examples=3, most_rows=18)
    assert len(few.examples) == 3
    assert last in [one.explanation.video for one in few.examples]
    assert few.left_out == len(found.examples) - 3
    whole = {one.explanation.video: one.explanation for one in found.examples}
    for one in few.examples:
        shown, every = one.explanation.concepts, whole[one.explanation.video].concepts
        assert len(shown) == 6
        assert len(every) == 6 + few.rows_left_out
        assert [(row.concept, row.layer) for row in shown] == [(row.concept, row.layer) for row in every[:6]]


def test_an_interval_without_runs_is_not_known() -> None:
    low, high = interval(np.zeros((4, 2, 0)))
    assert low.shape == high.shape == (4, 2)
    assert np.isnan(low).all()
    low, high = interval([[0.0, 1.0, 2.0, 3.0, 4.0]])
    assert (low[0], high[0]) == pytest.approx((0.1, 3.9))
