"""`vtcav patch` on Ray."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.planted_run import opened
from vtcav_ray.patch.run import patch_run
from vtcav_ray.scores.choose import Wanted
from vtcav_ray.scores.sides import accepted, comparisons
from vtcav_ray.tcav import concept_effect

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_ray")]


def test_it_runs_on_ray(planted_copy: str) -> None:
    result = patch_run(*opened(planted_copy), Wanted(("lift",), ("head",), ("cup/spatial",)))
    assert result.manifest("patch")["metrics"]["seconds"] > 0  # an actor's
    (row,) = result.table("patch_effects").to_pylist()
    gradients = [
        r for r in result.table("gradients", layer="head").to_pylist() if r["reference"] and r["class"] == "lift"
    ]
    pool = {row["clip_id"]: row["vector"] for row in result.table("activations", layer="head").to_pylist()}
    activations = accepted(result.stage("activations"), result.stage("cavs"))
    sides = comparisons(activations, "head", result.config)["cup/spatial", "random"]
    own, other = (np.array([pool[clip] for clip in side.clips]) for side in (sides.concept, sides.other))
    expected = concept_effect(
        [r["vector"] for r in gradients], own, other, groups=sides.concept.videos + sides.other.videos
    )
    assert row["effect"] == pytest.approx(expected.effect, rel=1e-3)  # the gain after the head is 1
    assert row["z"] == pytest.approx(expected.z, rel=1e-2)
