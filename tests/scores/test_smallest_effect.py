"""`scores.min_effect` in the stage `scores`, and the clips that the correction asks for."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from tests.helpers.score_world import KIND, World, cells, config, done, prepared, run
from vtcav_ray.config.loading import parse_config
from vtcav_ray.config.statistics import ScoresConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.stage import Context
from vtcav_ray.scores.correction import p_needed
from vtcav_ray.scores.stage import STAGE
from vtcav_ray.store.folder import Folder
from vtcav_ray.tcav import class_margin


def world() -> World:
    """A large effect, a small and sure one, and none; the classes are 6 apart along the gradient."""
    made = World()
    made.clips("random", f"random/{KIND}", 100)
    for name, shift in (("large", 3.0), ("small", 0.8), ("none", 0.0)):
        made.clips("concept", name, 75, shift)
    for name, sign in (("lift", 1.0), ("drop", -1.0)):
        made.clips("class", name, 20, 3 * sign)
        rows = [(name, f"{name}-{i}", np.eye(8)[0] * sign + 0.01 * made.rng.normal(size=8)) for i in range(20)]
        made.gradients += rows
    return made


Scored = Callable[[float], dict[tuple[str, str], dict[str, Any]]]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """The cells of the world under a smallest effect."""
    inputs = prepared(world(), tmp_path_factory.mktemp("inputs"), config(random_sets=2))

    @functools.cache
    def of(min_effect: float) -> dict[tuple[str, str], dict[str, Any]]:
        place = Folder(str(tmp_path_factory.mktemp("scores")))
        return cells(done(STAGE, Context(config({"min_effect": min_effect}, random_sets=2), place, inputs)))

    return of


@pytest.mark.slow
def test_the_unit_is_the_margin_of_the_class_along_its_mean_gradient(scored: Scored) -> None:
    made = world()
    of_lift = np.mean([g for name, _, g in made.gradients if name == "lift"], axis=0)
    clips = [(name, z) for role, name, _, z in made.rows if role == "class"]
    expected = class_margin([z @ of_lift for _, z in clips], [name for name, _ in clips], "lift")
    row = scored(0.2)["lift", "large"]
    assert row["class_margin"] == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(6, rel=0.1)
    assert row["min_effect"] == pytest.approx(0.2 * row["class_margin"])


@pytest.mark.slow
def test_a_small_and_sure_effect_is_not_called_and_no_effect_is_said_only_of_a_narrow_interval(
    scored: Scored,
) -> None:
    found = scored(0.2)
    large, small, none = (found["lift", name] for name in ("large", "small", "none"))
    assert (large["significant"], large["negligible"]) == (True, False)
    assert (small["significant"], small["negligible"]) == (False, True)
    assert small["q"] < 0.05
    assert "No effect of interest: the interval lies within ±" in small["note"]
    assert (none["significant"], none["negligible"]) == (False, True)
    off = scored(0.0)
    assert [off["lift", name]["significant"] for name in ("large", "small", "none")] == [True, True, False]
    assert not any(row["negligible"] for row in off.values())
    between = scored(0.13)["lift", "small"]
    assert between["ci_low"] < between["min_effect"] < between["ci_high"]
    assert (between["significant"], between["negligible"]) == (False, False)
    assert "differs from 0" in between["note"]


@pytest.mark.slow
def test_a_class_alone_is_called_by_q_and_a_warning_says_so(tmp_path: Path) -> None:
    made = World()
    made.clips("random", f"random/{KIND}", 80)
    made.clips("concept", "moving", 10, 3.0)
    made.of_class("lift", 10, 1.0)
    scores = run(made, tmp_path)[1]
    row = cells(scores)["lift", "moving"]
    assert row["significant"]
    assert np.isnan([row["class_margin"], row["min_effect"]]).all()
    warnings = [line for record in scores.records() for line in record.get("warnings", ())]
    assert any("scores.min_effect is not applied to 1 of 1 comparisons" in line for line in warnings)


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        ("step_down", [0.01, 0.05 / 4, 0.05 / 4, 0.05 / 4, 0.05 / 4]),
        ("holm", [0.05 / 3] * 5),
        ("bh", [0.05 * 2 / 4] * 5),
        ("none", [0.05] * 5),
    ],
)
def test_the_p_that_each_correction_asks_for(correction: str, expected: list[float]) -> None:
    """Four cells are tested, and one of them is rejected."""
    q = np.array([0.04, 0.2, 0.3, 1.0, np.nan])
    of_family = np.array([0.01, 0.0, 0.0, 0.0, np.nan])  # 0: too few permutations
    found = p_needed(ScoresConfig(correction=correction), of_family, q)  # type: ignore[arg-type]
    assert found == pytest.approx(expected)


@pytest.mark.slow
def test_the_clips_of_a_note_are_those_of_the_familys_strictest_step(tmp_path: Path) -> None:
    """The two classes' cells are nearly copies, so they cost less than two cells of Bonferroni."""
    made = World()
    made.clips("random", f"random/{KIND}", 40)
    for name in ("weak", "other"):
        made.clips("concept", name, 8, 0.5)
    made.of_class("lift", 10, 1.0)
    made.of_class("drop", 10, -1.0)
    settings = config({"min_effect": 0.0, "permutations": 20_000}, relative=[])
    scores = run(made, tmp_path, settings)[1]
    tests = scores.read("effect_tests")
    assert tests is not None
    asked = dict(zip(tests["concept"].to_pylist(), tests["p_needed"].to_pylist(), strict=True))
    m, families = tests.num_rows, len(asked)
    assert (m, families) == (4, 2)
    for one in asked.values():
        assert 0.05 / m < one <= 0.05 / families
    row = cells(scores)["lift", "weak"]
    assert not row["significant"]
    clips = int(re.search(r"with (\d+) clips a side", row["note"]).group(1))  # type: ignore[union-attr]
    reach = scipy.stats.norm.ppf(0.8) - scipy.stats.norm.ppf(asked[f"weak/{KIND}"] / 2)
    assert clips == int(np.ceil(row["n_concept"] * (reach * row["null_sd"] / row["effect"]) ** 2))


def test_a_patch_effect_needs_a_reference_set() -> None:
    scores = {"effect": "patch", "gradients_at": "own"}
    with pytest.raises(ConfigError, match=r"scores\.effect: patch.*reference set"):
        parse_config({"videos": {"uri": "x"}, "activations": {"reference": 0}, "scores": scores})
    with pytest.raises(ConfigError, match="min_effect"):
        parse_config({"videos": {"uri": "x"}, "scores": {"min_effect": -0.1}})
