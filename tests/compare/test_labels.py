"""Comparisons and interventions use the clips that a run's effects use (`clips.random_labels`, `concept_labels`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.run_factory import LAYER, make_run
from vtcav_ray.compare import compare_runs
from vtcav_ray.intervene.run import _Layer
from vtcav_ray.runs.run import Run

pytestmark = pytest.mark.slow  # makes runs
CHOSEN = {"random_labels": "matched", "concept_labels": "other"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder: Path = tmp_path_factory.mktemp("labels")
    return {
        "before": make_run(folder / "before", weight=1.0, labels=CHOSEN),
        "after": make_run(folder / "after", weight=1.4, seed=1, labels=CHOSEN),
        "any": make_run(folder / "any", weight=1.4, seed=1),
    }


def test_pairs_are_made_of_the_clips_of_the_effects(runs: dict[str, Run]) -> None:
    rows = compare_runs([runs["before"], runs["after"]]).to_pylist()
    assert rows
    for row in rows:
        assert row["paired"]
        assert row["change"] == pytest.approx(row["effect_b"] - row["effect_a"], abs=1e-5)
    effects = {(r["class"], r["concept"]): r for r in runs["after"].table("scores").to_pylist()}
    assert effects["lift", "cup/spatial"]["n_concept"] == 15
    assert effects["drop", "cup/spatial"]["n_concept"] == 20


def test_runs_with_other_clips_are_not_paired(runs: dict[str, Run]) -> None:
    assert not any(row["paired"] for row in compare_runs([runs["any"], runs["after"]]).to_pylist())


def test_the_shift_of_an_intervention_leaves_the_class_out(runs: dict[str, Run]) -> None:
    layer = _Layer(runs["after"], LAYER)
    for row in runs["after"].table("scores").to_pylist():
        if row["against"] != "random":
            continue
        _, _, gradients = layer.class_clips(row["class"], 100)
        shift = layer.shift(row["concept"], row["against"], row["class"])
        assert np.mean(gradients, axis=0) @ shift == pytest.approx(row["effect"], abs=1e-4)
