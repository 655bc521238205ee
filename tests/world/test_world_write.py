"""The folder that `write_world` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from vtcav_ray.world import WorldSummary, asset, write_world
from vtcav_ray.world.write import MANIFEST_SCHEMA, TRUTH_SCHEMA

VIDEOS = 32


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, WorldSummary]:
    out = tmp_path_factory.mktemp("world")
    return out, write_world(str(out), VIDEOS, seed=7)


@pytest.mark.slow
def test_tables_have_their_schemas_and_agree(world: tuple[Path, WorldSummary]) -> None:
    out, summary = world
    videos, truth = pq.read_table(out / "videos.parquet"), pq.read_table(out / "truth.parquet")
    assert videos.schema.equals(MANIFEST_SCHEMA)
    assert truth.schema.equals(TRUTH_SCHEMA)
    rows = videos.to_pylist()
    assert [row["uri"] for row in rows] == [f"videos/{i:06d}.mp4" for i in range(VIDEOS)]
    assert summary.labels == {"lift": 8, "put_down": 8, "push_left": 8, "push_right": 8}
    assert summary.splits == {"train": 16, "val": 8, "test": 8}
    assert summary.objects == truth.num_rows
    assert summary.bytes == sum(path.stat().st_size for path in (out / "videos").iterdir())
    moving = {row["video_id"]: row["motion"] for row in truth.to_pylist() if row["moving"]}
    words = {"lift": "up", "put_down": "down", "push_left": "left", "push_right": "right"}
    assert moving == {row["video_id"]: words[row["label"]] for row in rows}


@pytest.mark.slow
def test_files_are_h264_as_the_truth_says(world: tuple[Path, WorldSummary]) -> None:
    out, summary = world
    truth = {row["video_id"]: row for row in pq.read_table(out / "truth.parquet").to_pylist()}
    total = 0
    for row in pq.read_table(out / "videos.parquet").to_pylist():
        with av.open(str(out / row["uri"])) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.pix_fmt == "yuv420p"
            reported = truth[row["video_id"]]
            assert (stream.height, stream.width) == (reported["height"], reported["width"])
            assert float(stream.average_rate) == reported["fps"]
            assert stream.frames == len(frames)
            assert 16 <= len(frames) <= 32
            assert max(reported["frames"]) < len(frames)
            assert all(np.isfinite(box).all() and len(box) == 4 for box in reported["boxes"])
            total += len(frames)
    assert total == summary.frames


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_whatever_the_count(world: tuple[Path, WorldSummary], tmp_path: Path) -> None:
    out, _ = world
    write_world(str(tmp_path / "short"), 5, seed=7, workers=1)
    write_world(str(tmp_path / "other"), 5, seed=8, workers=2)
    for index in range(5):
        name = f"videos/{index:06d}.mp4"
        assert (tmp_path / "short" / name).read_bytes() == (out / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (out / name).read_bytes()
    few = pq.read_table(tmp_path / "short" / "videos.parquet")
    assert few.equals(pq.read_table(out / "videos.parquet").slice(0, 5))


@pytest.mark.slow
def test_a_second_call_leaves_the_world_as_it_is(world: tuple[Path, WorldSummary]) -> None:
    out, summary = world
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = write_world(str(out), VIDEOS, seed=7)
    assert again.reused
    assert (again.videos, again.frames, again.labels) == (summary.videos, summary.frames, summary.labels)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.slow
def test_another_world_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    out = str(tmp_path / "w")
    write_world(out, 6, seed=0)
    with pytest.raises(FileExistsError, match="another world"):
        write_world(out, 6, seed=1)
    write_world(out, 2, seed=1, overwrite=True)
    assert len(list((tmp_path / "w" / "videos").iterdir())) == 2


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "w"
    (out / "videos").mkdir(parents=True)
    (out / "videos" / "000009.mp4").write_bytes(b"half")
    (out / "videos" / "000000.mp4").write_bytes(b"half")
    summary = write_world(str(out), 2, seed=0, overwrite=True, storage_options={"auto_mkdir": True})
    assert not summary.reused
    assert sorted(path.name for path in (out / "videos").iterdir()) == ["000000.mp4", "000001.mp4"]
    assert (out / "videos" / "000000.mp4").read_bytes() != b"half"


def test_a_foreign_manifest_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "videos.parquet").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="manifest"):
        write_world(str(tmp_path), 2)
    assert (tmp_path / "videos.parquet").read_bytes() == b"mine"


@pytest.mark.slow
def test_any_fsspec_url(tmp_path: Path) -> None:
    write_world("memory://planted/world", 2, seed=4)
    write_world(str(tmp_path), 2, seed=4)
    memory = fsspec.filesystem("memory")
    name = "videos/000001.mp4"
    assert memory.cat_file(f"/planted/world/{name}") == (tmp_path / name).read_bytes()
    assert memory.exists("/planted/world/truth.parquet")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"videos": 0}, "videos"),
        ({"videos": 2.5}, "videos"),
        ({"videos": True}, "videos"),
        ({"seed": -1}, "seed"),
        ({"workers": 0}, "workers"),
        ({"frames": (4, 8)}, "frames"),
        ({"size": (64, 111)}, "even"),
        ({"distractors": (0, 99)}, "distractors"),
    ],
)
def test_odd_parameters_are_refused_before_anything_is_written(
    tmp_path: Path, arguments: dict[str, Any], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        write_world(str(tmp_path / "w"), **({"videos": 1} | arguments))
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_missing_asset_names_those_that_are_there() -> None:
    with pytest.raises(FileNotFoundError, match=r"recogniser_labels\.txt"):
        asset("nothing.pt")
    with pytest.raises(FileNotFoundError):
        asset("../rules.py")
    assert asset("recogniser_labels.txt").read_text().split() == ["lift", "put_down", "push_left", "push_right"]
