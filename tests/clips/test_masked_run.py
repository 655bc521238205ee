"""A run on the planted world with `clips.mask`, by a stand-in for segmentation weights that draws ellipses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vtcav_ray
from tests.helpers.planted_run import QUICKSTART
from tests.helpers.small_runs import without_ray
from vtcav_ray.clips.masks import GREY
from vtcav_ray.config.loading import load_config
from vtcav_ray.runs.run import Run
from vtcav_ray.tracks import detect
from vtcav_ray.tracks.detect import Detections, Detector
from vtcav_ray.tracks.masks import Mask
from vtcav_ray.video.codec import decode_clip

pytestmark = pytest.mark.slow


class EllipseDetector(Detector):
    """The packaged detector; the mask of a box is its ellipse."""

    def __init__(self, *given: Any, masks: bool = False, **named: Any) -> None:
        super().__init__(*given, **named)
        self._drawn = masks

    def detect(self, inputs: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        found = super().detect(inputs, sizes)
        return [replace(f, masks=tuple(map(ellipse, f.boxes))) for f in found] if self._drawn else found


def ellipse(box: np.ndarray) -> Mask | None:
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    y, x = np.mgrid[top:bottom, left:right] + 0.5
    centre, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, 0.5)
    return Mask.of_bits(((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 < 1, left, top)


def clips_of(run: Run) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
    rows = run.table("clips").to_pylist()
    return {row["clip_id"]: (row, decode_clip(row["encoding"], row["encoded"])) for row in rows}


@pytest.mark.full
def test_concept_and_random_clips_are_masked_alike_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [
        "videos.world.videos=24", "tracks.frame_stride=2", "clips.per_class=2", "clips.min_per_class=2",
        "clips.per_concept=4",
        "clips.min_per_concept=3", "clips.random_pool=8",
        "clips.concepts=[{name: thing, kinds: [spatial, spatiotemporal, tracked, context], controls: [padding]}]",
    ]  # fmt: skip
    monkeypatch.setattr(detect, "Detector", EllipseDetector)
    found = []
    with without_ray():
        for mask in ("false", "true"):
            config = load_config(QUICKSTART, [*overrides, f"clips.mask={mask}"], out=str(tmp_path / "run"))
            run = vtcav_ray.run(config, until="clips")
            found.append((dict(run.record["keys"]), clips_of(run)))
    (plain_keys, plain), (masked_keys, masked) = found
    assert plain_keys["videos"] == masked_keys["videos"]
    assert plain_keys["tracks"] != masked_keys["tracks"]
    assert plain.keys() == masked.keys()
    seen = set()
    for clip_id, (row, clip) in masked.items():
        seen.add((row["set"], row["kind"]))
        same = {key: value for key, value in row.items() if key not in ("encoded", "encoding")}
        assert same == {key: value for key, value in plain[clip_id][0].items() if key in same}
        if row["kind"] in ("full", "context"):
            assert np.array_equal(clip, plain[clip_id][1])
        else:
            grey = (np.abs(clip.astype(int) - GREY) <= 1).all(3)
            corners = grey[:, [0, 0, -1, -1], [0, -1, 0, -1]]
            assert corners.mean() > 0.95, "a box at the frame's edge may cut through its ellipse"
            assert 0.02 < (~grey).mean() < 0.9
            assert not (clip == 0).all(3).any() or (plain[clip_id][1] == 0).any()
    kinds = ("spatial", "spatiotemporal", "tracked", "padding", "context")
    assert seen == {(set_, kind) for set_ in ("concept", "random") for kind in kinds} | {("class", "full")}
