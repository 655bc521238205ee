"""The stage of Grad-CAM: its shards, what its key depends on, and clips that a person rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.colour_squares import clip_row, clips_of, config_of, square_clip, square_track, tracks_of
from vtcav_ray.errors import StageError
from vtcav_ray.gradcam.stage import STAGE
from vtcav_ray.runs.stage import Context
from vtcav_ray.store.folder import Folder

CLIPS = {"red/a": 0, "red/b": 2, "red/c": 4, "blue/d": 1}  # clip -> left edge of its square


def context(path: Path, **gradcam: Any) -> Context:
    folder = Folder(str(path))
    rows = [clip_row(clip, clip[-1], clip.partition("/")[0], square_clip(start)) for clip, start in CLIPS.items()]
    rows.append(clip_row("cup/e", "e", "cup", square_clip(3), "concept"))
    inputs = {"clips": clips_of(folder, rows), "tracks": tracks_of(folder, [square_track("a", 0)])}
    return Context(config_of(gradcam={"layers": ["early"], **gradcam}), folder, inputs)


def chosen(given: Context) -> dict[str, bool]:
    """Return clip id -> whether it is drawn."""
    rows = [row for shard in STAGE.prepare(given).shards for row in shard.rows.to_pylist()]
    return {row["clip_id"]: row["draw"] for row in rows}


def test_shards_hold_the_class_examples(tmp_path: Path) -> None:
    given = context(tmp_path, overlays=1, modes=["clip"])
    work = STAGE.prepare(given)
    assert set(chosen(given)) == set(CLIPS)
    assert sum(chosen(given).values()) == 2, "one clip of each class is drawn"
    assert work.warnings == []
    assert work.notes["untrained"] is False
    output = work.make_worker()(work.shards[0].rows)
    assert output.failures == []
    assert set(output.tables["gradcam"]["mode"].to_pylist()) == {"clip"}


def test_a_maximum_takes_turns_over_the_classes(tmp_path: Path) -> None:
    two = chosen(context(tmp_path, max_clips=2))
    assert sorted(clip.partition("/")[0] for clip in two) == ["blue", "red"]


def test_the_key_depends_on_what_changes_the_maps(tmp_path: Path) -> None:
    plain = STAGE.key(context(tmp_path))
    assert STAGE.key(context(tmp_path, modes=["clip", "window", "frame"])) == plain, "their order changes nothing"
    compare = [{"classes": ["red", "blue"], "concepts": ["a/spatial", "b/spatial"]}]
    assert STAGE.key(context(tmp_path, compare=compare)) == plain
    for change in ({"modes": ["clip"]}, {"place": [0, 0, 0.5, 1]}, {"window": 4}, {"max_clips": 2}):
        assert STAGE.key(context(tmp_path, **change)) != plain


def test_rejected_examples_are_left_out(tmp_path: Path) -> None:
    before = STAGE.key(context(tmp_path))
    head = "set,name,clip_id,decision,note\n"
    review = tmp_path / "review.csv"
    review.write_text(f"{head}concept,cup,cup/e,reject,\n")
    assert STAGE.key(context(tmp_path)) == before, "it has no map"
    review.write_text(f"{head}class,,red/b,reject,a hand in view\n")
    assert set(chosen(context(tmp_path))) == set(CLIPS) - {"red/b"}
    assert STAGE.key(context(tmp_path)) != before
    review.write_text(head + "".join(f"class,,{clip},reject,\n" for clip in CLIPS))
    with pytest.raises(StageError, match=r"review\.csv rejects them all"):
        STAGE.prepare(context(tmp_path))


def test_a_run_without_class_examples_is_refused(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    clips = clips_of(folder, [clip_row("cup/e", "e", "cup", square_clip(3), "concept")])
    with pytest.raises(StageError, match="no class examples"):
        STAGE.prepare(Context(config_of(), folder, {"clips": clips}))
