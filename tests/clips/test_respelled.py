"""The key of the clips covers labels whose class is found by their letters alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from vtcav_ray.clips.stage import STAGE as CLIPS
from vtcav_ray.config.loading import parse_config
from vtcav_ray.runs.stage import Context
from vtcav_ray.store.commits import ShardOutput, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tables import VIDEOS


def test_labels_in_another_spelling_give_other_clips_and_so_another_key(tmp_path: Path) -> None:
    def key(*labels: str) -> str:
        run = Folder(str(tmp_path / "-".join(labels).replace(" ", "_")))
        rows = [{"video_id": label, "uri": label, "label": label} for label in labels]
        videos = stage_folder(run, "videos", "k")
        videos.commit("all", ShardOutput({"videos": pa.Table.from_pylist(rows, schema=VIDEOS)}))
        config = parse_config({"videos": {"uri": "v"}})
        return CLIPS.key(Context(config, run, {"videos": videos, "tracks": stage_folder(run, "tracks", "k")}))

    assert key("push_left", "lift") == key("Push-Left", "other")
    assert key("PushLeft") != key("push_left")
    assert key("0", "1") != key("lift")
