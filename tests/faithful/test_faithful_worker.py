"""The worker of `vtcav faithful` on clips of one colour: which check a shard runs, and what it can't use."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.colour_squares import WEIGHT
from tests.helpers.one_colour_clips import REFERENCE, activations_of, config, pool, written_clips
from vtcav_ray import tables
from vtcav_ray.clips.usable import AcceptedRows
from vtcav_ray.errors import StageError
from vtcav_ray.faithful.plan import Chosen, LayerDirections
from vtcav_ray.faithful.randomised import WHOLE
from vtcav_ray.faithful.worker import FaithfulWorker
from vtcav_ray.store.folder import Folder

CLASSES = ("blue", "red")
CHOSEN = Chosen(("early",), CLASSES, ("warm/spatial",), 2, 2, {(name, "early"): ("warm/spatial",) for name in CLASSES})
GRADIENTS = {"blue": [0.0, 0.0, WEIGHT], "red": [WEIGHT, 0.0, 0.0]}


def directions() -> LayerDirections:
    """Return the directions of red, beside chance directions of green and blue; black is the base."""
    red, green, blue = np.eye(3, dtype=np.float32)
    return LayerDirections(
        pattern={"warm/spatial": red},
        shift={"warm/spatial": 0.1 * red},
        filters={},
        random={"spatial": np.stack([green, blue])},
        base={"spatial": np.zeros(3, np.float32)},
        kind_of={"warm/spatial": "spatial"},
    )


def worker_of(path: Path, broken: Collection[str] = (), chosen: Chosen = CHOSEN) -> FaithfulWorker:
    folder = Folder(str(path))
    clips = written_clips(folder, broken)
    activations = AcceptedRows.of(activations_of(folder, GRADIENTS), [])
    settings = config(scores={"permutations": 200, "bootstrap": 100})
    return FaithfulWorker(settings, clips, activations, chosen, {"early": directions()}, {})


def erase_rows() -> pa.Table:
    rows = [
        {"check": "erase", "layer": "early", "clip_id": clip, "video_id": video, "class": clip.partition("/")[0]}
        for clip, video in REFERENCE.items()
    ]
    return pa.Table.from_pylist(rows)


def test_erasing_red_takes_the_logit_of_red(tmp_path: Path) -> None:
    output = worker_of(tmp_path, broken=["red/b"])(erase_rows())
    assert [(failure.clip_id, failure.error_kind) for failure in output.failures] == [("red/b", "decode")]
    assert output.metrics == {"clips": 2}
    assert output.tables["erasures"].schema == tables.ERASURES
    rows = output.tables["erasures"].to_pylist()
    single = {(row["clip_id"], row["what"], row["name"]): row for row in rows if len(row["changes"]) == 1}
    lost = -WEIGHT * 90 / 255  # the example is brown: red is 90 of 255
    assert single["red/a", "pattern", "warm/spatial"]["changes"] == pytest.approx([lost], rel=1e-4)
    assert single["blue/c", "pattern", "warm/spatial"]["changes"] == pytest.approx([0], abs=1e-6)
    for number in (0, 1):  # green and blue
        assert single["red/a", "random", f"spatial#{number}"]["changes"] == pytest.approx([0], abs=1e-6)
    assert single["blue/c", "random", "spatial#1"]["changes"] == pytest.approx([-WEIGHT * 30 / 255], rel=1e-4)
    finite = output.tables["finite_changes"].to_pylist()
    assert {row["clip_id"] for row in finite} == {"red/a", "blue/c"}
    for row in finite:  # the network is linear: a shift of 0.1 along red
        change = 0.1 * WEIGHT if row["class"] == "red" else 0.0
        assert row["predicted"] == pytest.approx(change, abs=1e-5)
        assert row["real"] == pytest.approx(change, abs=1e-5)


def test_effects_with_shuffled_weights_come_with_their_failures(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "check": "randomised",
        "layer": WHOLE,
        "reference": list(REFERENCE),
        "reference_videos": list(REFERENCE.values()),
        "clip_id": list(pool()),
        "videos": [f"video of {clip}" for clip in pool()],
    }
    output = worker_of(tmp_path, broken=["warm/2"])(pa.Table.from_pylist([row]))
    assert {(r["level"], r["class"]) for r in output.tables["randomised"].to_pylist()} == {
        (WHOLE, name) for name in CLASSES
    }
    assert [(f.clip_id, f.video_id, f.error_kind) for f in output.failures] == [("warm/2", "video of warm/2", "decode")]
    assert output.metrics == {"clips": len(REFERENCE) + len(pool()) - 1}


def test_a_class_that_the_model_lacks_stops_the_stage(tmp_path: Path) -> None:
    chosen = Chosen(("early",), ("juggle",), ("warm/spatial",), 2, 2, {})
    with pytest.raises(StageError, match="no class 'juggle'"):
        worker_of(tmp_path, chosen=chosen)(erase_rows())


def test_a_shard_of_broken_clips_has_only_failures(tmp_path: Path) -> None:
    output = worker_of(tmp_path, broken=list(REFERENCE))(erase_rows())
    assert output.tables == {}
    assert {failure.clip_id for failure in output.failures} == set(REFERENCE)


def test_both_halves_of_the_videos_show_the_effect(tmp_path: Path) -> None:
    rows = worker_of(tmp_path)(pa.Table.from_pylist([{"check": "halves"}])).tables["halves"].to_pylist()
    means = [np.mean([c for n, c in pool().items() if n.startswith(name)], axis=0) for name in ("warm", "random")]
    effects = WEIGHT * (means[0] - means[1]) / 255
    for name, axis in (("red", 0), ("blue", 2)):
        found = [(row["first"], row["second"]) for row in rows if row["class"] == name]
        assert len({row["split"] for row in rows}) == len(found) > 4
        assert np.mean(found) == pytest.approx(effects[axis], abs=0.3)
    red = [row for row in rows if row["class"] == "red"]
    assert all(row["first"] > 1 and row["second"] > 1 for row in red)
    assert {row["first_called"] for row in red} <= {0, 1}
