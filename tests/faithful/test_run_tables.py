"""What `vtcav faithful` reads from a run: the effects are those of `scores`, and the directions those of the clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.helpers.score_world import KIND, D, N, World, cells, config, done, prepared, usual
from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.faithful.effects import effects, names_of, read_clips, read_layer, stored_gradients
from vtcav_ray.faithful.plan import Chosen, layer_directions
from vtcav_ray.runs.stage import Context
from vtcav_ray.scores.layer_data import ScoreOptions
from vtcav_ray.scores.sides import accepted
from vtcav_ray.scores.stage import STAGE
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.folder import Folder

SETTINGS = config(random_sets=4, relative=[])
MOVING, NOTHING = f"moving/{KIND}", f"nothing/{KIND}"


@dataclass(frozen=True)
class Finished:
    """A world, its stages' tables, and its scores by class and concept."""

    world: World
    activations: AcceptedRows
    cavs: StageFolder
    scores: dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder, world = tmp_path_factory.mktemp("run"), usual()
    inputs = prepared(world, folder, SETTINGS)
    scores = done(STAGE, Context(SETTINGS, Folder(str(folder)), inputs))
    return Finished(world, accepted(inputs["activations"], inputs["cavs"]), inputs["cavs"], cells(scores))


def effects_of(run: Finished, taken_at: str) -> dict[tuple[str, str], Any]:
    name_of = names_of(run.activations, "late")
    gradients = stored_gradients(run.activations, "late", ["lift", "drop"], taken_at, name_of)
    layer = read_layer(run.activations, "late", gradients)
    options = ScoreOptions(SETTINGS.scores.bootstrap, SETTINGS.scores.permutations, SETTINGS.seed)
    found = effects([layer], read_clips(run.activations, {}, SETTINGS), options)
    return {(one.class_, one.concept.removesuffix(f"/{KIND}")): one for one in found}


@pytest.mark.slow
def test_unchanged_gradients_give_the_effects_and_the_p_of_the_scores(finished: Finished) -> None:
    found = effects_of(finished, SETTINGS.scores.gradients_at)
    assert found.keys() == finished.scores.keys()
    for key, one in found.items():
        row = finished.scores[key]
        assert one.effect == pytest.approx(row["effect"], rel=1e-4), key
        assert one.p == pytest.approx(row["p"], abs=1e-9), key
        assert np.sign(one.z) == np.sign(row["z"]), key
        assert one.p <= one.p_adjusted


@pytest.mark.slow
def test_gradients_are_those_of_the_clips_that_the_scores_name(finished: Finished) -> None:
    name_of = names_of(finished.activations, "late")
    for taken_at in ("own", "reference", "all"):
        lift, drop = stored_gradients(finished.activations, "late", ["lift", "drop"], taken_at, name_of)
        assert (lift.name, len(lift.videos), len(drop.videos)) == ("lift", 10, 10)
        mean = np.mean([z for name, _, z in finished.world.gradients if name == "lift"], axis=0)
        np.testing.assert_allclose(lift.vectors.mean(axis=0), mean, atol=1e-5)
    elsewhere = dict.fromkeys(name_of, "another class")
    assert stored_gradients(finished.activations, "late", ["lift"], "own", elsewhere) == []
    assert stored_gradients(finished.activations, "late", ["unknown"], "all", name_of) == []


def test_directions_are_differences_of_means_beside_those_of_random_clips(finished: Finished) -> None:
    chosen = Chosen(("late",), ("lift",), (MOVING, NOTHING), 8, 25, {})
    found, warnings = layer_directions(chosen, "late", finished.activations, finished.cavs, SETTINGS)
    assert warnings == []
    assert found.kind_of == {MOVING: KIND, NOTHING: KIND}
    shift = finished.world.shifts()
    for concept in (MOVING, NOTHING):
        wanted = shift[concept.removesuffix(f"/{KIND}")]
        np.testing.assert_allclose(found.shift[concept], wanted, atol=1e-4)
        np.testing.assert_allclose(found.pattern[concept], wanted / np.linalg.norm(wanted), atol=1e-4)
    random = [z for role, _, _, z in finished.world.rows if role == "random"]
    np.testing.assert_allclose(found.base[KIND], np.mean(random, axis=0), atol=1e-4)
    assert found.random[KIND].shape == (25, D)
    np.testing.assert_allclose(np.linalg.norm(found.random[KIND], axis=1), 1, atol=1e-5)
    assert found.filters[MOVING] @ found.pattern[MOVING] > 0.6
    assert np.linalg.norm(found.filters[MOVING]) == pytest.approx(1, abs=1e-5)


def test_a_concept_without_a_direction_is_a_warning(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    from vtcav_ray.faithful import plan

    inner = plan.directions

    def refuses_the_first(own: np.ndarray, *rest: Any, **options: Any) -> Any:
        if len(own) == N and own[:, 0].mean() > 1.5:
            raise ValueError("all clips are equal")
        return inner(own, *rest, **options)

    monkeypatch.setattr(plan, "directions", refuses_the_first)
    chosen = Chosen(("late",), ("lift",), (MOVING, NOTHING), 8, 20, {})
    found, warnings = layer_directions(chosen, "late", finished.activations, finished.cavs, SETTINGS)
    assert warnings == [f"{MOVING} has no direction at late: all clips are equal."]
    assert set(found.pattern) == {NOTHING}
    assert MOVING not in found.filters
