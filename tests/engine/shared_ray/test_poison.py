"""Poison videos in a real pool of actors: each is lost alone, the pool stays complete, and the run finishes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.helpers.drawn import encode, numbered_frames
from tests.helpers.poison import LIMITS, SOURCE, Counter, decoding_source
from vtcav_ray import cli
from vtcav_ray.config import StageResources
from vtcav_ray.engine import Rehearsal, run_shards
from vtcav_ray.errors import StageError
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import make_shards
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.world import write_world

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_ray")]
QUICKSTART = str(Path(__file__).parents[3] / "configs" / "quickstart.yaml")


def gif(width: int, height: int) -> bytes:
    """Make one frame of any size in few bytes: a "zip bomb" of a picture."""
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"GIF89a" + size + b"\xf0\0\0\0\0\0\xff\xff\xff,\0\0\0\0" + size + b"\0\x02\x02\x44\x01\0;"


def run(tmp_path: Path, names: list[str], dies: str = "", attempts: int = 2) -> StageFolder:
    rows = pa.table({"video_id": names, "uri": [str(tmp_path / f"{name}.mp4") for name in names]})
    output = StageFolder("tracks", "k", Folder(str(tmp_path / "run")))
    resources = StageResources(memory_gb=1.0, attempts=attempts)  # with a limit, stages have actors
    worker = Counter(dies_in_the_worker=dies)
    list(run_shards(make_shards(rows, 4), lambda: worker, output, resources, Rehearsal(LIMITS)))
    return output


@pytest.mark.full
def test_each_poison_costs_itself_alone(tmp_path: Path) -> None:
    good = encode(numbered_frames(8))
    names = ["a", "segv", "b", "huge", "c", "hang", "million", "d", "e", "eats", "f", "g"]
    for name in names:
        (tmp_path / f"{name}.mp4").write_bytes(good)
    (tmp_path / "huge.mp4").write_bytes(gif(16_000, 16_000))
    # A raw stream with very many frames of the smallest size: only the first frames up to the limit are decoded.
    (tmp_path / "million.mp4").write_bytes(encode(numbered_frames(1, 16, 16), container="h264") * 20_000)
    output = run(tmp_path, names)
    table, failures = output.read("tracks"), output.read("failures")
    assert table is not None
    assert failures is not None
    counts = dict(zip(table["video_id"].to_pylist(), table["n"].to_pylist(), strict=True))
    assert counts == dict.fromkeys("abcdefg", 8) | {"million": LIMITS.max_frames}
    found = {row["video_id"]: (row["error_kind"], row["attempts"]) for row in failures.to_pylist()}
    assert found == {"segv": ("crashed", 2), "hang": ("timeout", 2), "eats": ("memory", 2), "huge": ("too_large", 1)}


def test_the_command_line_counts_them(tmp_path: Path) -> None:
    """A video that kills its decoding process gives a row of `failures` and the requested exit status."""
    videos = tmp_path / "videos"
    write_world(str(tmp_path / "world"), videos=8, seed=5)
    videos.mkdir()
    for path in sorted((tmp_path / "world" / "videos").iterdir())[:4]:
        shutil.copy(path, videos)
    shutil.copy(path, videos / "segv.mp4")

    def run_until_tracks(allowed: float) -> tuple[int, str]:
        settings = [
            f"videos={{uri: '{videos}'}}",
            f"tracks={{source: {SOURCE}}}",
            f"max_failed_fraction={allowed}",
            "resources.detect.attempts=2",
        ]
        options = [part for setting in settings for part in ("--set", setting)]
        command = ["run", QUICKSTART, "--until", "tracks", "--out", str(tmp_path / "run"), *options]
        with decoding_source():
            result = CliRunner().invoke(cli.app, command)
        return result.exit_code, " ".join(result.output.split())

    status, said = run_until_tracks(0.1)
    assert status == 4, said
    assert "1 of 5 videos failed somewhere" in said
    assert "more than max_failed_fraction = 0.1" in said
    (row,) = Run(str(tmp_path / "run")).table("failures").to_pylist()
    assert (row["stage"], row["video_id"], row["error_kind"], row["attempts"]) == ("tracks", "segv.mp4", "crashed", 2)
    assert len(set(Run(str(tmp_path / "run")).table("tracks")["video_id"].to_pylist())) == 4
    status, said = run_until_tracks(0.5)
    assert status == 0, said


@pytest.mark.full
def test_a_video_that_only_the_worker_dies_of_is_found(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_bytes(encode(numbered_frames(4)))
    output = run(tmp_path, ["a", "b", "c"], dies="b", attempts=3)
    table, failures = output.read("tracks"), output.read("failures")
    assert table is not None
    assert failures is not None
    assert table["video_id"].to_pylist() == ["a", "c"]
    assert [(r["video_id"], r["error_kind"], r["attempts"]) for r in failures.to_pylist()] == [("b", "crashed", 3)]


def test_more_than_the_machine_has_is_reported_and_not_waited_for(tmp_path: Path) -> None:
    rows = make_shards(pa.table({"video_id": ["a"], "uri": ["a"]}), 1)
    output = StageFolder("tracks", "k", Folder(str(tmp_path)))
    with pytest.raises(StageError, match=r"tracks asks for 1 CPUs and 4 GPUs; the largest node has 2 and 0"):
        list(run_shards(rows, Counter, output, StageResources(gpus=4)))
