"""Effects with shuffled weights, on clips of one colour: what they should be is computed from the colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.colour_squares import FRAMES, SIDE
from tests.helpers.one_colour_clips import REFERENCE, activations_of, config, pool, written_clips
from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.errors import InputError
from vtcav_ray.faithful.effects import read_clips
from vtcav_ray.faithful.plan import Chosen
from vtcav_ray.faithful.randomised import AFTER, WHOLE, EncodedClips, Randomised
from vtcav_ray.models import load_recogniser
from vtcav_ray.rows import RandomisedRow
from vtcav_ray.scores.layer_data import ScoreOptions
from vtcav_ray.store.folder import Folder

CHOSEN = Chosen(("early",), ("blue", "red"), ("warm/spatial",), 2, 4, {})


class Prepared:
    """The inputs of the check.

    Args:
        folder: of the run.
        broken: clips that can't be decoded.
    """

    def __init__(self, folder: Folder, broken: Sequence[str] = ()) -> None:
        self.clips = written_clips(folder, broken)
        self.activations = AcceptedRows.of(activations_of(folder), [])

    def frames(self, pool_too: bool = True) -> EncodedClips:
        return EncodedClips(self.clips, [*REFERENCE, *(pool() if pool_too else ())])

    def __call__(
        self, level: str, seed: int = 0, pool_too: bool = True
    ) -> tuple[dict[str, RandomisedRow], dict[str, InputError]]:
        """Return the rows of each class, and the clips that could not be used."""
        settings = config(seed)
        clips = read_clips(self.activations, {}, settings)
        options = ScoreOptions(bootstrap=50, permutations=500, seed=0)
        model = load_recogniser(settings.model, "cpu", seed=seed)
        again = Randomised(settings, model, self.activations, CHOSEN, clips, options)
        rows, bad = again(level, self.frames(pool_too), REFERENCE)
        return {row.class_: row for row in rows}, bad


def welch(values: dict[str, float]) -> float:
    """Return Welch's t of the concept against the random clips."""
    own, other = ([v for clip, v in values.items() if clip.startswith(name)] for name in ("warm", "random"))
    unit = np.sqrt(np.var(own, ddof=1) / len(own) + np.var(other, ddof=1) / len(other))
    return float((np.mean(own) - np.mean(other)) / unit)


def shuffled_colours(seed: int) -> np.ndarray:
    """Return the first layer's weights after shuffling, [3, 3]: out of red, green and blue."""
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    return torch.eye(3).flatten()[order].view(3, 3).numpy()


def test_after_the_layer_its_stored_activations_still_hold(tmp_path: Path) -> None:
    """The two weights after the layer are equal, so shuffling them changes nothing."""
    rows, bad = Prepared(Folder(str(tmp_path)))(f"{AFTER}early", pool_too=False)
    assert bad == {}
    assert set(rows) == {"blue", "red"}
    for name, channel in (("red", 0), ("blue", 2)):
        row = rows[name]
        assert (row.level, row.layer, row.concept) == ("after early", "early", "warm/spatial")
        assert row.z == pytest.approx(welch({clip: float(c[channel]) for clip, c in pool().items()}), rel=1e-4)
    assert rows["red"].z > 3
    assert rows["red"].p_adjusted < 0.05 < rows["blue"].p_adjusted


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_all_weights_shuffled_the_clips_run_again(tmp_path: Path, seed: int) -> None:
    weights = shuffled_colours(seed)
    rows, bad = Prepared(Folder(str(tmp_path)))(WHOLE, seed)
    assert bad == {}
    for name, channel in (("red", 0), ("blue", 2)):
        values = {clip: float(weights[channel] @ colour) for clip, colour in pool().items()}
        assert rows[name].z == pytest.approx(welch(values), rel=1e-3)
        assert rows[name].level == WHOLE


def test_clips_that_can_not_be_decoded_are_named_and_left_out(tmp_path: Path) -> None:
    broken = ["red/a", "warm/2", "random/5"]
    prepared = Prepared(Folder(str(tmp_path)), broken)
    rows, bad = prepared(WHOLE, seed=2)
    assert {clip: error.kind for clip, error in bad.items()} == dict.fromkeys(broken, "decode")
    weights = shuffled_colours(2)
    values = {clip: float(weights[0] @ colour) for clip, colour in pool().items() if clip not in broken}
    assert rows["red"].z == pytest.approx(welch(values), rel=1e-3)
    after, bad = prepared(f"{AFTER}early", pool_too=False)
    assert set(bad) == {"red/a"}
    # The stored activation of a clip that can't be decoded any more still counts.
    assert after["red"].z == pytest.approx(welch({clip: float(c[0]) for clip, c in pool().items()}), rel=1e-4)


def test_without_reference_clips_there_are_no_effects(tmp_path: Path) -> None:
    rows, bad = Prepared(Folder(str(tmp_path)), list(REFERENCE))(WHOLE)
    assert rows == {}
    assert set(bad) == set(REFERENCE)
    with pytest.raises(InputError):  # no clip shows which modules run after the layer
        Prepared(Folder(str(tmp_path / "after")), list(REFERENCE))(f"{AFTER}early", pool_too=False)


def test_nothing_is_shuffled_after_the_last_module(tmp_path: Path) -> None:
    assert Prepared(Folder(str(tmp_path)))(f"{AFTER}1", pool_too=False) == ({}, {})


def test_clips_are_decoded_on_access_in_the_given_order(tmp_path: Path) -> None:
    prepared = Prepared(Folder(str(tmp_path)), ["warm/1"])
    frames = EncodedClips(prepared.clips, ["warm/3", "red/b", "warm/1"])
    assert len(frames) == 3
    assert frames[0].shape == (FRAMES, SIDE, SIDE, 3)
    assert frames[0][2, 3, 4].tolist() == pool()["warm/3"].tolist()
    assert frames[1][0, 0, 0].tolist() == [90, 60, 30]
    with pytest.raises(InputError):
        frames[2]
