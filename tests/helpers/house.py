"""Small stages that need no model, with the names and the shape of the real ones: for tests of the pipeline itself.

`tracks` works on videos, `clips` on what the tracks gave, `activations` on shards of clips, `scores` on all of it. What
each of them is asked to do is written down.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tests.helpers.small_runs import facts
from vtcav_ray.clips.stage import _by_video
from vtcav_ray.errors import StageError
from vtcav_ray.rows import Failure
from vtcav_ray.runs.stage import Context, Shard, Stage, Work, make_shards
from vtcav_ray.store.commits import ShardOutput

TRACKS = pa.schema([("video_id", pa.string()), ("track", pa.string())])


class House:
    """The corpus (videos, and those that can't be read at present), and a record of the work."""

    def __init__(self) -> None:
        self.videos = [f"v{i:02d}" for i in range(16)]
        self.broken: set[str] = set()
        self.dead_after: str | None = None  # the stage that stops at its second shard
        self.worked: dict[str, list[str]] = {}
        self.tracks_planned = 0

    def note(self, stage: str, *what: str) -> None:
        self.worked.setdefault(stage, []).extend(what)

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage(facts("videos", ()), 1, self._listing, self._videos),
            Stage(facts("tracks", ("videos",)), 1, lambda c: {}, self._tracks),
            Stage(facts("clips", ("videos", "tracks")), 1, lambda c: {}, self._clips),
            Stage(
                facts("activations", ("clips",)), 1, lambda c: {"model": c.config.model.checkpoint}, self._activations
            ),
            Stage(facts("scores", ("activations",)), 1, lambda c: {}, self._scores),
        )

    @staticmethod
    def _model(context: Context) -> dict[str, Any]:
        return {"model": context.config.model.checkpoint}

    def _listing(self, context: Context) -> dict[str, Any]:
        return {"videos": self.videos[: context.config.videos.limit]}

    def _videos(self, context: Context) -> Work:
        table = pa.table({"video_id": self.videos[: context.config.videos.limit]})
        return Work([Shard("all", table)], lambda: lambda rows: ShardOutput({"videos": rows}))

    def _tracks(self, context: Context) -> Work:
        videos = context.input("videos").read("videos")
        assert videos is not None
        self.tracks_planned += 1

        def work(rows: pa.Table) -> ShardOutput:
            ids = rows["video_id"].to_pylist()
            self.note("tracks", *ids)
            bad = [Failure(video_id=v, error_kind="missing", message="gone") for v in ids if v in self.broken]
            good = [v for v in ids if v not in self.broken]
            table = pa.table({"video_id": good, "track": [f"t-{v}" for v in good]}, schema=TRACKS)
            return ShardOutput({"tracks": table}, bad)

        return Work(make_shards(videos, 3), lambda: work, context.config.resources.detect)

    def _clips(self, context: Context) -> Work:
        tracks = context.input("tracks").read("tracks")
        assert tracks is not None

        def work(rows: pa.Table) -> ShardOutput:
            self.note("clips", *rows["video_id"].to_pylist())
            return ShardOutput({"clips": rows.select(["video_id", "track"])})

        return Work(_by_video(tracks.sort_by("video_id"), 2), lambda: work, context.config.resources.cut)

    def _activations(self, context: Context) -> Work:
        clips = context.input("clips")
        digests = {p: i["sha256"] for files in clips.manifest()["shards"].values() for p, i in files.items()}
        shards = [Shard(p[6:-8], pa.table({"shard": [p[6:-8]], "sha256": [d]})) for p, d in sorted(digests.items())]

        def work(rows: pa.Table) -> ShardOutput:
            name = rows["shard"][0].as_py()
            if self.dead_after == "activations" and len(self.worked.get("activations", [])) == 1:
                raise StageError("no room")
            self.note("activations", name)
            return ShardOutput({"activations": clips.read_file(f"clips/{name}.parquet")})

        return Work(shards, lambda: work, context.config.resources.extract)

    def _scores(self, context: Context) -> Work:
        def work(rows: pa.Table) -> ShardOutput:
            self.note("scores", "all")
            seen = context.input("activations").read("activations")
            assert seen is not None
            return ShardOutput({"scores": pa.table({"video_id": sorted(seen["video_id"].to_pylist())})})

        return Work([Shard("all", pa.table({"shard": ["all"]}))], lambda: work)
