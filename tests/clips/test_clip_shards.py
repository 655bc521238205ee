"""What a shard of clips depends on, and how a change of it is noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.helpers.tracked_things import track_row, tracks_table, videos_table
from vtcav_ray import tables
from vtcav_ray.clips.stage import STAGE as CLIPS
from vtcav_ray.clips.stage import contents_of
from vtcav_ray.config.loading import parse_config
from vtcav_ray.runs.carry import FROM, carry
from vtcav_ray.runs.stage import Context, Shard
from vtcav_ray.store.commits import ShardOutput, StageFolder, stage_folder
from vtcav_ray.store.folder import Folder

IDS = [f"{i:02d}.mp4" for i in range(24)]
CONFIG = parse_config(
    {
        "videos": {"uri": "none"},
        "clips": {
            "frames": 8,
            "interval": 1,
            "size": 32,
            "per_class": 3,
            "min_per_class": 2,
            "per_concept": 4,
            "min_per_concept": 2,
            "random_pool": 6,
            "concepts": [{"name": "cup", "object": "cup"}],
        },
    }
)


def shards(folder: Path, fingerprints: dict[str, str]) -> list[Shard]:
    """Return the shards of the stage `clips` for videos with these fingerprints."""
    run = Folder(str(folder))
    videos = videos_table({name: ("lift", "push_left")[i % 2] for i, name in enumerate(IDS)})
    place = videos.schema.get_field_index("fingerprint")
    column = pa.array([fingerprints.get(v, "as it was") for v in videos["video_id"].to_pylist()], pa.string())
    given = {
        "videos": videos.set_column(place, videos.schema.field(place), column),
        "tracks": tracks_table([track_row(name, 1) for name in IDS]),
    }
    inputs = {}
    for name, table in given.items():
        inputs[name] = stage_folder(run, name, "k")
        inputs[name].commit("all", ShardOutput({name: table}))
    return list(CLIPS.prepare(Context(CONFIG, run, inputs)).shards)


def test_the_clips_of_a_file_that_was_replaced_are_not_carried_over(tmp_path: Path) -> None:
    """This includes a class example, whose plan contains only the video's name."""
    before = shards(tmp_path / "a", {})
    old = StageFolder("clips", "k", Folder(str(tmp_path / "clips")))
    for shard in before:
        old.commit(shard.name, ShardOutput({}))
    rows = pa.concat_tables([shard.rows for shard in before])
    example = next(r["video_id"] for r in rows.to_pylist() if r["set"] == "class")
    after = carry(shards(tmp_path / "b", {example: "another file"}), before, old)
    assert after.kept == after.units - 1
    again = pa.concat_tables([shard.rows for shard in after.shards]).to_pylist()
    assert {r["video_id"] for r in again if r[FROM] is None} == {example}


def test_contents_tell_a_videos_clips_apart() -> None:
    rows = [
        dict.fromkeys(tables.CLIPS.names) | {"clip_id": f"{v}{i}", "video_id": v, "encoded": bytes([i])}
        for v in "ba"
        for i in range(2)
    ]
    table = pa.Table.from_pylist(rows, schema=tables.CLIPS)
    before = contents_of(table).to_pylist()
    assert [r["video_id"] for r in before] == ["b", "a"]
    rows[0]["encoded"] = b"x"
    after = contents_of(pa.Table.from_pylist(rows, schema=tables.CLIPS)).to_pylist()
    assert before[0] != after[0]
    assert before[1] == after[1]
    rows[3]["label"] = "lift"  # the label counts, too, not only the frames
    assert contents_of(pa.Table.from_pylist(rows, schema=tables.CLIPS)).to_pylist()[1] != before[1]


@pytest.mark.slow
def test_a_worker_that_cuts_clips_gets_by_without_torch() -> None:
    """Torch would double the start time and the memory of its actors."""
    code = """
import sys
import vtcav_ray.engine
from vtcav_ray.clips.stage import CutWorker
from vtcav_ray.config.loading import parse_config
CutWorker(parse_config({"videos": {"uri": "none"}}))
assert "torch" not in sys.modules, [name for name in sys.modules if name.startswith("vtcav_ray")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
