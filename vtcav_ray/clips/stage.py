"""Stage `clips`: concepts, class examples and random sets, cut from the tracked videos.

Modules that need torch, OpenCV, PyAV or SciPy are imported where they are used. The driver of a run that ends at
`videos` needs none of them, and workers that cut clips take half the start-up time and memory without torch.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray import stages, tables
from vtcav_ray.clips.classes import labels_of
from vtcav_ray.clips.select import ClipPlan, plan_clips
from vtcav_ray.clips.spans import with_times
from vtcav_ray.config import ClipsConfig, Config
from vtcav_ray.errors import StageError
from vtcav_ray.registry import CONCEPT_KINDS, MOTION_CONTROLS, added_code
from vtcav_ray.runs.stage import Context, Shard, Stage, Work, make_shards, shard_numbers, shard_size
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.tables import TRACKS
from vtcav_ray.text.counted import are
from vtcav_ray.text.name_lists import NameIndex, spoken
from vtcav_ray.video.listed import Listed, Seen
from vtcav_ray.video.neighbours import Neighbours, neighbours_of, with_neighbours

SEEN = pa.struct([("num_frames", pa.int64()), ("height", pa.int64()), ("width", pa.int64()), ("fps", pa.float64())])
PLANNING_COLUMNS = tuple(TRACKS.names)
LATER = ("random_labels", "concept_labels")  # of config.clips: later stages choose among the clips that are cut
SIGNED = "clip_signatures"  # a side table of runs with own clips: by it, copies are found
CONTENTS = "contents"  # a side table, one row per video: digests by which a later stage recognises clips


def _prepare_clips(context: Context) -> Work:
    copies = _copies(context)
    plan = _plan(context, copies)
    if not plan.rows.num_rows:
        raise StageError("No clip could be planned. " + " ".join(plan.warnings))
    config = context.config
    videos = sorted(set(plan.rows["video_id"].to_pylist()))
    # Includes what reveals a replaced file: otherwise its old clips would be carried over (vtcav_ray.runs.carry).
    listed = context.input("videos").read("videos")
    assert listed is not None, "the plan was made from it"
    tracks = context.inputs.get(stages.TRACKS.name)
    rows = _with_files(plan.rows, listed, tracks)
    if config.clips.mask and tracks is not None:
        from vtcav_ray.clips.masks import with_masks

        rows = with_masks(rows, tracks)
    return Work(
        shards=_by_video(rows, shard_size(len(videos), config.shard_videos)),
        make_worker=functools.partial(CutWorker, config, neighbours_of(_files(listed, given_of(context)))),
        resources=config.resources.cut,
        warnings=plan.warnings,
        notes={"plan": plan.counts},
        finish=functools.partial(
            _repeats, config.clips, copies, _sources(listed), context.inputs.get(stages.TRACKS.name)
        ),
    )


def given_of(context: Context) -> pa.Table | None:
    """Return the own clips of the run, as the stage `videos` listed them; None: there are none."""
    return context.input("videos").read("given") if context.config.clips.has_given else None


def _files(videos: pa.Table, given: pa.Table | None) -> pa.Table:
    """Return the files of the corpus and of own clips."""
    columns = ["uri", "size_bytes", "fingerprint"]
    parts = [videos.select(columns)] if given is None else [videos.select(columns), given.select(columns)]
    return pa.concat_tables(parts)


def _sources(videos: pa.Table) -> dict[str, str]:
    """Return the source video of each file that a manifest names one for."""
    if "source" not in videos.column_names:
        return {}
    pairs = zip(videos["video_id"].to_pylist(), videos["source"].to_pylist(), strict=True)
    return {file: source for file, source in pairs if source}


def _with_files(plan: pa.Table, videos: pa.Table, tracks: StageFolder | None) -> pa.Table:
    """Add to the plan's rows what reveals a replaced file: its `fingerprint` and `size_bytes` when listed.

    For a file that the listing could not identify (http), `seen` is what the stage `tracks` decoded. It is null for all
    other files, and if `tracks` found no track. The rows of own clips have their files' facts already.
    """
    columns = ["uri", "video_id", "size_bytes", "fingerprint"]
    used = videos.filter(pc.is_in(videos["uri"], plan["uri"].combine_chunks())).select(columns)
    listed = {row["uri"]: row for row in used.to_pylist()}
    files = [row if row.get("given") else listed[row["uri"]] for row in _facts(plan)]
    unknown = {file["video_id"] for file in files if not file.get("given") and file["fingerprint"] is None}
    seen = _seen(tracks, unknown) if unknown and tracks is not None else {}
    for name, kind in (("fingerprint", pa.string()), ("size_bytes", pa.int64())):
        plan = plan.drop_columns([name]) if name in plan.column_names else plan
        plan = plan.append_column(name, pa.array([file[name] for file in files], kind))
    found = [None if file.get("given") else seen.get(file["video_id"]) for file in files]
    return plan.append_column("seen", pa.array(found, SEEN))


def _facts(plan: pa.Table) -> list[dict[str, Any]]:
    """Return the columns by which the file of each row is known."""
    names = ("uri", "video_id", "given", "size_bytes", "fingerprint")
    rows: list[dict[str, Any]] = plan.select([name for name in names if name in plan.column_names]).to_pylist()
    return rows


def _seen(tracks: StageFolder, videos: set[str]) -> dict[str, dict[str, Any]]:
    """Map each video_id to the fields of `vtcav_ray.video.listed.Seen`."""
    found = {}
    for _, part in tracks.iter_tables("tracks", columns=["video_id", *(field.name for field in SEEN)]):
        for row in part.filter(pc.is_in(part["video_id"], pa.array(sorted(videos)))).to_pylist():
            found[row.pop("video_id")] = row
    return found


def _repeats(
    config: ClipsConfig,
    copies: dict[str, str],
    source_of: dict[str, str],
    tracks: StageFolder | None,
    clips: StageFolder,
) -> ShardOutput:
    """Return clips and videos that repeat another one, over all shards.

    `duplicates`: clips that repeat one of their set, or, among own clips, one of another; they stay in the table
    `clips`. `copies`: videos that repeat another one; no clips were planned from them.
    """
    from vtcav_ray.clips.duplicates import DUPLICATES, near_duplicates
    from vtcav_ray.tracks.copies import COPIES

    repeats = near_duplicates((part for _, part in clips.iter_tables("looks")), config.quality.duplicate_distance)
    warnings = []
    if config.has_given and config.quality.copy_distance is not None:
        from vtcav_ray.clips.signed import repeated_clips

        planned: dict[str, list[tuple[str, str]]] = {}
        for _, part in clips.iter_tables("clips", columns=["clip_id", "set", "video_id", "control_of"]):
            for row in part.filter(pc.is_null(part["control_of"])).to_pylist():
                planned.setdefault(row["video_id"], []).append((row["clip_id"], row["set"]))
        signed = (part for _, part in clips.iter_tables(SIGNED))
        corpus = () if tracks is None else (part for _, part in tracks.iter_tables("signatures"))
        of_others = repeated_clips(signed, corpus, planned, config.quality.copy_distance, source_of)
        if of_others:
            warnings.append(_copied(of_others))
        repeats = of_others | repeats
    found = {"duplicates": (DUPLICATES, repeats), "copies": (COPIES, copies)}
    tables = {name: _pairs(schema, pairs) for name, (schema, pairs) in found.items() if pairs}
    return ShardOutput(tables, [], {"near_duplicates": len(repeats), "copies": len(copies)}, warnings)


def _copied(pairs: dict[str, str]) -> str:
    shown = ", ".join(f"{clip} repeats {first}" for clip, first in sorted(pairs.items())[:3])
    more = ", ..." if len(pairs) > 3 else "."
    return (
        f"{are(len(pairs), 'clip')} left out for repeating another file (clips.quality.copy_distance): {shown}{more}"
        " If your clips are parts of corpus videos, name these in a manifest's column `source`: then other videos "
        "take their place."
    )


def _pairs(schema: pa.Schema, pairs: dict[str, str]) -> pa.Table:
    rows = sorted(pairs.items())
    return pa.table([[one for one, _ in rows], [other for _, other in rows]], schema=schema)


def _copies(context: Context) -> dict[str, str]:
    """Return the videos that are copies of another one. Holds a short vector per video in memory."""
    distance = context.config.clips.quality.copy_distance
    videos = context.input("videos").read("videos", columns=["video_id", "label"])
    if distance is None or videos is None or stages.TRACKS.name not in context.inputs:
        return {}
    from vtcav_ray.tracks.copies import copies_among

    return copies_among(videos, (part for _, part in context.input("tracks").iter_tables("signatures")), distance)


def _plan(context: Context, copies: dict[str, str]) -> ClipPlan:
    """Read the tracks shard by shard: except for the list of videos, memory does not grow with the corpus."""
    config = context.config
    videos = context.input("videos").read("videos")
    if videos is None:
        raise StageError("There is no video: every row of the manifest failed. See `vtcav table RUN failures`.")
    tracks = context.inputs.get(stages.TRACKS.name)
    failed = tracks.read("failures", columns=["video_id", "error_kind"]) if tracks is not None else None
    failed_ids = set()
    if failed is not None:  # a video without one of its segments has others
        failed_ids = set(failed.filter(pc.not_equal(failed["error_kind"], "segment"))["video_id"].to_pylist())

    def parts() -> Iterator[pa.Table]:
        if tracks is None:
            return
        varying = {path.rsplit("/", 1)[-1]: path for path in tracks.files("times")}
        for shard, part in tracks.iter_tables("tracks", columns=PLANNING_COLUMNS):
            times = varying.get(f"{shard}.parquet")
            yield part if times is None else with_times(part, tracks.read_file(times))

    return plan_clips(
        videos,
        parts(),
        failed_ids,
        config.clips,
        config.seed,
        class_names_of(config),
        copies=copies,
        given=given_of(context),
        segments=tracks.read("segments") if tracks is not None else None,
        corpus_videos=_corpus_videos(context.input("videos")),
    )


def _corpus_videos(videos: StageFolder) -> int | None:
    """Return the number of source videos of a corpus that was searched until every set was full; else None."""
    found = videos.manifest()["notes"].get("enough") if videos.complete else None
    return int(found["source_videos"]) if found is not None and found["ended"] == "full" else None


def class_names_of(config: Config) -> tuple[str, ...] | None:
    """Return the model's classes, the only ones that get class examples; None if only the checkpoint has them."""
    from vtcav_ray.models import describe

    return describe(config.model, seed=config.seed).class_names


def _by_video(plan: pa.Table, videos_a_shard: int) -> list[Shard]:
    """Make shards that hold all rows of their videos, so that each video is decoded once.

    Adding a video to the plan changes one shard and leaves the others, with everything computed from them, unchanged.
    """
    rows_of: dict[int, list[int]] = {}
    for row, number in enumerate(shard_numbers(plan["video_id"].to_pylist(), videos_a_shard)):
        rows_of.setdefault(number, []).append(row)
    shards = []
    for number, rows in sorted(rows_of.items()):
        part = make_shards(plan.take(pa.array(rows, pa.int64())), len(rows))[0]
        shards.append(Shard(f"{number:05d}-{part.name.split('-')[1]}", part.rows))
    return shards


def _respelled(context: Context, names: tuple[str, ...] | None) -> dict[str, str]:
    """Return the labels whose class is found by a looser comparison than by case, `_` and `-`."""
    if "respelled" not in context.memo:
        videos = context.input("videos").read("videos", columns=["label"]) if names else None
        labels = set(videos["label"].drop_null().to_pylist()) if videos is not None else set()
        found = labels_of({label: label for label in sorted(labels)}, NameIndex(names or ()), [])
        plain = {spoken(name): name for name in names or ()}
        context.memo["respelled"] = {k: v for k, v in found.items() if v != plain.get(spoken(k), k)}
    respelled: dict[str, str] = context.memo["respelled"]
    return respelled


def _clip_ingredients(context: Context) -> dict[str, Any]:
    config = context.config
    names = class_names_of(config)
    respelled = _respelled(context, names)
    return {
        # Only where there are some: other clips are as before.
        **({"respelled": respelled} if respelled else {}),
        # Earlier versions gave motion controls to proposed concepts that stand still.
        **({"proposals": 2} if config.clips.concepts == "auto" else {}),
        # Clips cut before there was a choice are as good.
        "clips": config.clips.model_dump(mode="json", exclude={*LATER, *(() if config.clips.mask else ("mask",))}),
        **added_code({CONCEPT_KINDS: config.clips.kind_names, MOTION_CONTROLS: config.clips.control_names}),
        "seed": config.seed,
        "classes": names,
        "limits": [config.tracks.max_frames, config.tracks.max_pixels],
        "shard_videos": config.shard_videos,
    }


class CutWorker:
    """The worker that cuts and encodes the planned clips of some videos. It decodes each once, as far as needed.

    Args:
        neighbours: as for `TrackWorker`.
    """

    def __init__(self, config: Config, neighbours: Neighbours = MappingProxyType({})) -> None:
        self.config, self.neighbours = config, dict(neighbours)
        self._options = config.videos.read_options
        if config.clips.has_given:
            from vtcav_ray.videos.given import reading_options

            self._options = reading_options(config)

    def __call__(self, rows: pa.Table) -> ShardOutput:
        from vtcav_ray.clips.cut import cut_files
        from vtcav_ray.clips.duplicates import looks_of
        from vtcav_ray.clips.masks import GREY

        uris, found = rows["uri"].to_pylist(), rows["seen"].to_pylist()
        seen = {uri: Seen(**facts) for uri, facts in zip(uris, found, strict=True) if facts is not None}
        clips, failures, signatures = cut_files(
            rows,
            with_neighbours(rows, self.neighbours, seen, by="uri"),
            self.config.clips,
            max_frames=self.config.tracks.max_frames,
            max_pixels=self.config.tracks.max_pixels,
            max_cpu_seconds=self.config.resources.decode.cpu_seconds,
            max_held_bytes=int(self.config.resources.decode.frames_gb * 1e9),
            threads=self.config.resources.cut.decode_threads or 2,
            storage_options=self._options,
            sign=self._sign if self.config.clips.has_given else None,
        )
        looks = looks_of(clips, background=GREY if self.config.clips.mask else 0)
        made = {"clips": clips, "looks": looks, CONTENTS: contents_of(clips)}
        if signatures.num_rows:
            made[SIGNED] = signatures
        return ShardOutput(made, failures, {"clips": clips.num_rows})

    def _sign(self, row: dict[str, Any]) -> bool:
        """Return whether a row's file gets a signature: own clips, and the corpus's videos if no detector saw them."""
        clips = self.config.clips
        return clips.quality.copy_distance is not None and (bool(row.get("given")) or not clips.need_tracks)

    def _sources(self, rows: pa.Table, seen: dict[str, Seen]) -> dict[str, Listed]:
        """Return the files of the videos by video_id, and those of own clips by URI."""
        if "given" not in rows.column_names:
            return with_neighbours(rows, self.neighbours, seen)
        own = pc.fill_null(rows["given"], False)
        of_corpus, given = rows.filter(pc.invert(own)), rows.filter(own)
        by_uri = given.set_column(given.schema.get_field_index("video_id"), "video_id", given["uri"])
        return with_neighbours(of_corpus, self.neighbours, seen) | with_neighbours(by_uri, self.neighbours)


STAGE = Stage(stages.CLIPS, version=6, ingredients=_clip_ingredients, prepare=_prepare_clips)


def contents_of(clips: pa.Table) -> pa.Table:
    """Return for each video the SHA-256 of its clips' rows, including frames, in the order of the table.

    Args:
        clips: CLIPS table; the rows of a video need not be consecutive.
    """
    rows = []
    for video_id in clips["video_id"].unique().to_pylist():
        digest = hashlib.sha256()
        for row in clips.filter(pc.equal(clips["video_id"], video_id)).to_pylist():
            encoded = row.pop("encoded")
            digest.update(repr(sorted(row.items())).encode() + b"\0" + (encoded or b"") + b"\0")
        rows.append({"video_id": video_id, "sha256": digest.hexdigest()})
    return pa.Table.from_pylist(rows, schema=tables.CONTENTS)
