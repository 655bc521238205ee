"""Comparison of runs whose tables are written by hand: each change is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.compared_runs import LAYER, SHIFT, write_run
from vtcav_ray import tables
from vtcav_ray.compare import compare_runs
from vtcav_ray.compare.runs import comparison_warning
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import ShardOutput

PATCH = {"effect": "patch"}


def changes(*runs: Run) -> dict[tuple[str, str], dict[str, Any]]:
    """Return (class, layer) -> row."""
    return {(row["class"], row["layer"]): row for row in compare_runs(runs).to_pylist()}


def test_the_change_is_that_of_the_gradients_on_the_same_clips(tmp_path: Path) -> None:
    before, after = write_run(tmp_path / "a", 1.0), write_run(tmp_path / "b", 2.5, gain=8.0)
    found = changes(before, after)
    lift, drop = found["lift", LAYER], found["drop", LAYER]
    assert lift["paired"]
    assert (lift["run_a"], lift["run_b"]) == (before.url, after.url)
    assert (lift["model_a"], lift["model_b"]) == ("model@1", "model@2.5")
    assert (lift["effect_a"], lift["effect_b"]) == (SHIFT, 2.5 * SHIFT)
    assert lift["change"] == pytest.approx(1.5 * SHIFT, abs=1e-5)
    assert lift["ci_low"] < lift["change"] < lift["ci_high"]
    assert drop["change"] == pytest.approx(0, abs=1e-5)
    assert (lift["moved"], drop["moved"]) == (True, False)
    assert not lift["learnable"]


@pytest.mark.slow
def test_q_is_holms_over_all_cells_of_all_steps(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(weight), weight) for weight in (1.0, 2.5, 4.0)]
    rows = compare_runs(runs).to_pylist()
    assert [row["run_a"] for row in rows] == [runs[0].url] * 2 + [runs[1].url] * 2
    p = np.array([row["p"] for row in rows])
    known = p[np.isfinite(p)]
    steps = np.sort(known) * np.arange(len(known), 0, -1)
    expected = np.minimum(1, np.maximum.accumulate(steps))[np.argsort(np.argsort(known, kind="stable"))]
    found = np.array([row["q"] for row in rows])[np.isfinite(p)]
    assert len(known) >= 2
    assert np.sort(found) == pytest.approx(np.sort(expected))


def test_the_models_own_answer_is_compared_as_two_estimates(tmp_path: Path) -> None:
    cells = {("lift", "answer"): (1.0, 0.7, 1.3)}
    before = write_run(tmp_path / "a", 1.0, effects=cells)
    after = write_run(tmp_path / "b", 1.0, effects={("lift", "answer"): (2.0, 1.6, 2.4)})
    row = changes(before, after)["lift", "answer"]
    assert not row["paired"]
    assert (row["change"], row["ci_low"], row["ci_high"]) == pytest.approx((1.0, 0.5, 1.5))  # 0.3² + 0.4² = 0.5²
    assert row["moved"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "other", [{"videos": "w"}, {"left_out": ["cup-3"]}, {"references": 2}, {"clips": {"concept_labels": "other"}}]
)
def test_runs_on_other_clips_are_two_estimates(tmp_path: Path, other: dict[str, Any]) -> None:
    row = changes(write_run(tmp_path / "a", 1.0), write_run(tmp_path / "b", 2.0, **other))["lift", LAYER]
    assert not row["paired"]
    assert row["change"] == SHIFT
    assert row["ci_high"] - row["ci_low"] == pytest.approx(np.sqrt(2))  # two intervals of length 1


def test_clips_that_both_runs_left_out_do_not_count(tmp_path: Path) -> None:
    pair = [write_run(tmp_path / name, weight, left_out=["cup-3"]) for name, weight in (("a", 1.0), ("b", 2.0))]
    row = changes(*pair)["lift", LAYER]
    assert row["paired"]
    assert row["change"] == pytest.approx((3 + 4 + 3) / 3 - 1, abs=1e-5)


def test_the_classs_own_videos_are_left_out_where_the_effects_leave_them_out(tmp_path: Path) -> None:
    labels = {"concept_labels": "other"}
    pair = [write_run(tmp_path / name, weight, clips=labels) for name, weight in (("a", 1.0), ("b", 2.0))]
    found = changes(*pair)
    # Without the cup at 6 and the random clip at 0. All others are of `drop`, so it has none left: its two estimates.
    assert found["lift", LAYER]["change"] == pytest.approx(10 / 3 - 8 / 7, abs=1e-5)
    assert found["lift", LAYER]["paired"]


@pytest.mark.parametrize(("taken_at", "mean"), [("reference", 1.0), ("own", 4 / 3), ("all", 4 / 3)])
def test_gradients_are_those_of_the_runs_effects(tmp_path: Path, taken_at: str, mean: float) -> None:
    """Of each class, two of three examples are in the reference set. At the third, gradients are doubled."""
    settings = {"scores": {"gradients_at": taken_at}, "activations": {"classes": "listed"}}
    pair = [write_run(tmp_path / n, weight, references=2, **settings) for n, weight in (("a", 1.0), ("b", 2.0))]
    row = changes(*pair)["lift", LAYER]
    assert row["paired"]
    assert row["change"] == pytest.approx(mean * SHIFT, abs=1e-5)


def test_tcav_scores_are_compared_by_video(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", 1.0, positive={"x": 0.25, "y": 0.5, "only here": 1.0})
    after = write_run(tmp_path / "b", 1.0, positive={"x": 0.5, "y": 0.75})
    found = changes(before, after)
    assert found["lift", LAYER]["tcav_score_a"] == 0.75
    assert found["lift", LAYER]["tcav_score_change"] == 0.25
    assert (found["lift", LAYER]["tcav_ci_low"], found["lift", LAYER]["tcav_ci_high"]) == (0.25, 0.25)
    assert np.isnan(found["drop", LAYER]["tcav_score_change"])


def test_patch_effects_are_compared_by_their_responses(tmp_path: Path) -> None:
    before, after = (
        write_run(tmp_path / name, weight, scores=PATCH, left_out=["random-0"])
        for name, weight in (("a", 1.0), ("b", 2.0))
    )
    found = changes(before, after)
    assert found["lift", LAYER]["paired"]
    assert found["lift", LAYER]["change"] == pytest.approx(4 - 8 / 7, abs=1e-5)  # without the random clip at 0
    assert found["drop", LAYER]["change"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("other", [{"videos": "w"}, {"references": 2}])
def test_patch_effects_of_other_clips_are_two_estimates(tmp_path: Path, other: dict[str, Any]) -> None:
    before = write_run(tmp_path / "a", 1.0, scores=PATCH)
    row = changes(before, write_run(tmp_path / "b", 2.0, scores=PATCH, **other))["lift", LAYER]
    assert not row["paired"]
    assert row["change"] == SHIFT


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 1.0)
    with pytest.raises(ConfigError, match="name two runs or more"):
        compare_runs([run])
    with pytest.raises(ConfigError, match=r"are first_order.*are patch.*other units"):
        compare_runs([run, write_run(tmp_path / "patch", 1.0, scores=PATCH)])
    with pytest.raises(ConfigError, match="share no comparison"):
        compare_runs([run, write_run(tmp_path / "else", 1.0, effects={("throw", LAYER): (1.0, 0.5, 1.5)})])


def test_a_run_without_scores_is_refused(tmp_path: Path) -> None:
    run, empty = write_run(tmp_path / "a", 1.0), write_run(tmp_path / "b", 1.0)
    scores = empty.stage("scores")
    scores.commit("0", ShardOutput({"scores": tables.SCORES.empty_table()}))
    scores.finish({}, {"notes": {}, "warnings": []})
    with pytest.raises(ConfigError, match=rf"{empty.url} has no scores to compare"):
        compare_runs([run, Run(empty.url)])


def test_too_few_permutations_are_warned_of(tmp_path: Path) -> None:
    pair = [write_run(tmp_path / n, w, scores={"permutations": 100}) for n, w in (("a", 1.0), ("b", 2.0))]
    lift = compare_runs(pair).slice(0, 1)  # the smallest p is 2 / 101
    assert comparison_warning(pair, pa.concat_tables([lift] * 2)) is None
    warning = comparison_warning(pair, pa.concat_tables([lift] * 3))
    assert warning is not None
    assert warning.startswith(f"In {pair[0].url}, 100 permutations")
    assert "set scores.permutations to 120 or more" in warning  # 2 * 3 / 0.05
    rates = [write_run(tmp_path / "bh", 1.0, scores={"permutations": 100, "correction": "bh"}), pair[1]]
    assert comparison_warning(rates, pa.concat_tables([lift] * 3)) is None


def test_a_layer_without_activations_has_two_estimates(tmp_path: Path) -> None:
    effects = {("lift", "early"): (1.0, 0.5, 1.5)}
    row = changes(*(write_run(tmp_path / name, 1.0, effects=effects) for name in "ab"))["lift", "early"]
    assert (row["paired"], row["change"], row["moved"]) == (False, 0.0, False)


def test_responses_of_fewer_reference_clips_are_not_paired(tmp_path: Path) -> None:
    """A reference clip could not be decoded: its responses are NaN, in one run only."""
    pair = [write_run(tmp_path / n, w, scores=PATCH) for n, w in (("a", 1.0), ("b", 2.0))]
    output = pair[1].stage("responses")
    found = output.read("responses", layer=LAYER)
    assert found is not None
    rows = [{**row, "responses": [float("nan"), *row["responses"][1:]]} for row in found.to_pylist()]
    output.commit("0", ShardOutput({f"responses/layer={LAYER}": pa.Table.from_pylist(rows, schema=tables.RESPONSES)}))
    output.finish({}, {"notes": {}, "warnings": []})
    assert not changes(pair[0], Run(pair[1].url))["lift", LAYER]["paired"]
