"""Four stages without models, with the names and structure of the real ones, for tests of damaged run folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.helpers.small_runs import facts
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.stage import Context, Shard, Stage, Work, make_shards
from vtcav_ray.store.commits import ShardOutput

STAGES = ("videos", "tracks", "clips", "scores")


class SmallHouse:
    """The stages. `salt` is added to each row of the tracks. Another one gives other bytes, as another machine may."""

    def __init__(self, videos: int = 16) -> None:
        self.videos = [f"v{i:02d}" for i in range(videos)]
        self.salt = ""
        self.worked: dict[str, list[str]] = {}
        self.before_shard: Callable[[str], None] = lambda stage: None  # called before each shard

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage(facts("videos", ()), 1, lambda c: {"videos": self.videos}, self._videos),
            Stage(facts("tracks", ("videos",)), 1, lambda c: {}, self._tracks),
            Stage(facts("clips", ("tracks",)), 1, lambda c: {}, self._clips),
            Stage(facts("scores", ("clips",)), 1, lambda c: {}, self._scores),
        )

    def _worker(self, stage: str, work: Callable[[list[str]], ShardOutput]) -> Callable[[], Any]:
        def run(rows: pa.Table) -> ShardOutput:
            self.before_shard(stage)
            self.worked.setdefault(stage, []).extend(rows["video_id"].to_pylist())
            return work(rows["video_id"].to_pylist())

        return lambda: run

    def _videos(self, context: Context) -> Work:
        table = pa.table({"video_id": self.videos})
        return Work([Shard("all", table)], lambda: lambda rows: ShardOutput({"videos": rows}))

    def _tracks(self, context: Context) -> Work:
        videos = context.input("videos").read("videos")
        assert videos is not None

        def work(ids: list[str]) -> ShardOutput:
            frames = [hashlib.sha256(f"{v}{self.salt}".encode()).digest() * 40 for v in ids]
            table = pa.table({"video_id": ids, "track": [f"t-{v}{self.salt}" for v in ids], "frames": frames})
            return ShardOutput({"tracks": table}, metrics={"videos": len(ids)})

        resources = context.config.resources.detect
        return Work(make_shards(videos, 3), self._worker("tracks", work), resources, finish=_count("tracks"))

    def _clips(self, context: Context) -> Work:
        tracks = context.input("tracks")
        found = tracks.read("tracks", columns=["video_id", "track"])
        assert found is not None
        name_of = dict(zip(found["video_id"].to_pylist(), found["track"].to_pylist(), strict=True))

        def work(ids: list[str]) -> ShardOutput:
            return ShardOutput({"clips": pa.table({"video_id": ids, "clip": [f"c-{name_of[v]}" for v in ids]})})

        return Work(make_shards(found, 4), self._worker("clips", work), context.config.resources.cut)

    def _scores(self, context: Context) -> Work:
        def work(rows: pa.Table) -> ShardOutput:
            self.worked.setdefault("scores", []).append("all")
            clips = context.input("clips").read("clips")
            assert clips is not None
            return ShardOutput({"scores": clips.sort_by("video_id")})

        return Work([Shard("all", pa.table({"shard": ["all"]}))], lambda: work)


def _count(table: str) -> Callable[[Any], ShardOutput]:
    def finish(output: Any) -> ShardOutput:
        found = output.read(table, columns=["video_id"])
        return ShardOutput({"counts": pa.table({"n": [found.num_rows]})})

    return finish


def scores_of(run: Run) -> pa.Table:
    """Return what the stand-in of the stage `scores` made. `run.table` refuses its columns."""
    found = run.stage("scores").read("scores")
    assert found is not None
    return found


def contents(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Return every table of a run, row by row, in order."""
    # The stand-ins have other columns than the tables that `run.table` checks.
    found = {name: read.to_pylist() for name in STAGES if (read := run.stage(name).read(name)) is not None}
    counts = run.stage("tracks").read("counts")
    assert counts is not None
    return {**found, "counts": counts.to_pylist()}


def data_files(run: Run) -> list[Path]:
    """Return every table file of a run."""
    return [Path(run.stage(s).folder.url, p) for s in STAGES for fs in run.manifest(s)["shards"].values() for p in fs]


def records(run: Run) -> list[Path]:
    """Return every commit record of a run."""
    return [path for s in STAGES for path in sorted(Path(run.stage(s).folder.url, "_commits").iterdir())]


def manifests(run: Run) -> list[Path]:
    """Return every manifest of a run."""
    return [Path(run.stage(s).folder.url, "manifest.json") for s in STAGES]


def unseal(path: Path, **changes: Any) -> None:
    """Write a JSON file with changes, as a version without seals did."""
    value = json.loads(path.read_text())
    value.pop("sealed", None)
    value.pop("file_format", None)
    path.write_text(json.dumps({**value, **changes}))
