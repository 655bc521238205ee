"""A video's numbers from a forward and backward pass, of a network whose gradients are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.colour_squares import (
    CLASSES,
    FRAMES,
    SIDE,
    SQUARE,
    WEIGHT,
    clip_row,
    clips_of,
    config_of,
    square_clip,
)
from vtcav_ray.errors import ConfigError, InputError
from vtcav_ray.models import describe
from vtcav_ray.runs.run import Run
from vtcav_ray.store.commits import stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.why.subjects import Model, likeliest, stored_frames

SHARE = SQUARE**2 / SIDE**2
CONFIG = config_of()


def run_of(path: Path, tag: str | None = None) -> Run:
    """Write a run with clips, and activations of this model; None: of the config's own."""
    folder = Folder(str(path))
    rows = [clip_row(f"red/{i}", f"v{i}", "red", square_clip(i)) for i in range(3)]
    rows.append(clip_row("red/broken", "v3", "red", b"no clip at all, but long enough"))
    clips_of(folder, rows)
    activations = stage_folder(folder, "activations", "k")
    notes = {"model": describe(CONFIG.model, seed=CONFIG.seed).tag if tag is None else tag}
    activations.finish({}, {"notes": notes, "warnings": []})
    keys = {"clips": "k", "activations": "k"}
    folder.write_json("run.json", {"config": CONFIG.model_dump(mode="json", exclude_none=True), "keys": keys})
    return Run(str(path))


def blue_clip() -> np.ndarray:
    clip = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    clip[..., 2] = 51
    return clip


def test_one_clip_is_differentiated_for_its_two_likeliest_classes(tmp_path: Path) -> None:
    clip = square_clip(fading=30)
    found = Model(run_of(tmp_path), CONFIG).subject("new.mp4", "red", [clip], "a file")
    mean = clip.mean((0, 1, 2)) / 255
    fades = 4 * 30 / 255 * SHARE
    np.testing.assert_allclose(found.logits, [WEIGHT * mean[0], WEIGHT * mean[2], fades], rtol=1e-5, atol=1e-7)
    assert tuple(found.classes) == CLASSES
    assert found.likeliest == ("red", "fades")
    np.testing.assert_allclose(found.activations["early"], mean, rtol=1e-5)
    assert set(found.gradients["early"]) == {"red", "fades"}
    gain = found.gains["early"]
    assert gain == FRAMES * SIDE * SIDE  # the layer's positions
    np.testing.assert_allclose(gain * found.gradients["early"]["red"], [WEIGHT, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(gain * found.gradients["early"]["fades"], 0, atol=1e-5)  # a shift of all frames
    assert (found.video, found.label) == ("new.mp4", "red")
    assert found.source == "a forward and backward pass: a file"


def test_several_clips_are_averaged_and_share_their_classes(tmp_path: Path) -> None:
    """Alone, the runner-up of the first clip is `fades`."""
    clips = [square_clip(fading=30), blue_clip()]
    red, green, _ = clips[0].mean((0, 1, 2)) / 255
    model = Model(run_of(tmp_path), CONFIG)
    found = model.subject("v", None, clips, "two clips")
    np.testing.assert_allclose(found.logits, [WEIGHT * red / 2, WEIGHT * 0.2 / 2, 60 / 255 * SHARE], rtol=1e-5)
    assert found.likeliest == ("blue", "red")
    assert set(found.gradients["early"]) == {"blue", "red"}
    np.testing.assert_allclose(found.activations["early"], [red / 2, green / 2, 0.1], rtol=1e-5)
    for name, axis in (("red", 0), ("blue", 2)):
        wanted = WEIGHT * np.eye(3)[axis]
        np.testing.assert_allclose(found.gains["early"] * found.gradients["early"][name], wanted, rtol=1e-5, atol=1e-6)
    assert model.subject("w", None, clips[:1], "again").likeliest == ("red", "fades")


def test_other_weights_than_the_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"made with the model other@0.*Restore the old weights"):
        Model(run_of(tmp_path, "other@0"), CONFIG).subject("v", None, [square_clip()], "")


def test_stored_clips_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    found = stored_frames(run, ["red/2", "red/0"])
    assert len(found) == 2
    for frames, start in zip(found, (2, 0), strict=True):
        np.testing.assert_array_equal(frames, square_clip(start))
    assert stored_frames(run, []) == []
    with pytest.raises(InputError):
        stored_frames(run, ["red/0", "red/broken"])


def test_a_tie_is_decided_by_the_order_of_the_classes() -> None:
    assert likeliest(np.array([1.0, 3.0, 3.0]), ["a", "b", "c"]) == ("b", "c")
    assert likeliest(np.array([-2.0, -1.0]), ["a", "b"]) == ("b", "a")
    with pytest.raises(ValueError, match="compares two"):
        likeliest(np.array([1.0]), ["alone"])
