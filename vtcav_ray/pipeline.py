"""Video-TCAV from videos to a report: start reading here.

    videos ──► tracks ──► clips ──► activations ──► cavs ──► scores ──► report

Each stage has a room of its own (`stage.py` there says what determines its output, and what its shards are), reads the
tables of the stages before it, and writes Parquet shards into `RUN/<stage>/<key>/`. The key is a hash of all that
determines the output: the stage's config sections, its inputs' keys, and the digest of the weights that it uses. So a
stage whose folder is complete is skipped, one that was killed goes on with the shards that are missing, a new
checkpoint re-uses tracks and clips, and a change of the statistics alone touches no model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vtcav_ray import engine, logs
from vtcav_ray.access import tells_storage_errors
from vtcav_ray.activations.stage import STAGE as ACTIVATIONS
from vtcav_ray.carry import CarryingWorker, carry, comparable
from vtcav_ray.cavs.stage import STAGE as CAVS
from vtcav_ray.concepts.decisions import read_decisions
from vtcav_ray.concepts.stage import CLIPS, TRACKS
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError, StageError, VtcavError
from vtcav_ray.report.stage import STAGE as REPORT
from vtcav_ray.results import SHARED_STAGES, Run
from vtcav_ray.retry import RETRIED, newest, retry_key, same_rows, supersede
from vtcav_ray.run_record import PLAN, RunRecord, versions, videos_processed
from vtcav_ray.stage import Context, Stage, Work
from vtcav_ray.storage import Folder, StageFolder, stage_folder
from vtcav_ray.tcav.stage import STAGE as SCORES
from vtcav_ray.video.stage import STAGE as VIDEOS

logger = logging.getLogger(__name__)

STAGES: tuple[Stage, ...] = (VIDEOS, TRACKS, CLIPS, ACTIVATIONS, CAVS, SCORES, REPORT)


class Progress(Protocol):
    """Told what happens, as it happens. The command line draws it; a library user may ignore it."""

    def stage_started(self, stage: str, *, shards: int, done: int) -> None: ...
    def shard_done(self, stage: str, *, failures: int) -> None: ...
    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None: ...


class Silence:
    """Progress for those who want none: what happens is in the log."""

    def stage_started(self, stage: str, *, shards: int, done: int) -> None: ...
    def shard_done(self, stage: str, *, failures: int) -> None: ...
    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None: ...


@tells_storage_errors
def run(
    config: Config,
    progress: Progress | None = None,
    *,
    base: Run | None = None,
    until: str | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
) -> Run:
    """Run every stage that is not complete yet, and open the result.

    Args:
        config: from `vtcav_ray.config_file.load_config` or `parse_config`.
        progress: told of every stage and shard; None: only the log.
        base: a run whose videos, tracks and clips are used (and completed there where the config asks for others). Its
            list of videos is taken as it is: the source videos need not be there any more.
        until: the last stage to run, such as `clips`, so that a person can look at them first; None: all.
        fresh: what is there is removed, stage by stage, and made anew.
        retry_failed: in stages that are complete, try again what failed. See `vtcav_ray.retry`.

    Returns:
        The run, with `.table(name)` for each table and `.report_url`.

    Raises:
        ConfigError: the config names something that is not there.
        StageError: a stage could not be completed; running again goes on from there.
    """
    progress = progress or Silence()
    stages = stages_until(until)
    folder = Folder(config.run_url, config.out_storage_options)
    folder.check()
    # A slip in a file that was edited by hand is told now, and not after the model's work.
    read_decisions(base.folder if base is not None else folder)
    record = RunRecord.begin(folder, config, base, carry_over=not fresh)
    stage_now = ""
    with engine.LazySession(config.resources) as session:
        try:
            for stage in stages:
                stage_now = stage.name
                home = base.folder if base is not None and stage.name in SHARED_STAGES else folder
                context = Context(config, home, record.inputs())
                pinned = base is not None and stage.name == "videos"
                key = base.keys["videos"] if base is not None and pinned else stage.key(context)
                output = newest(stage_folder(home, stage.name, key))
                if fresh and not (base is not None and stage.name in SHARED_STAGES):
                    output = stage_folder(home, stage.name, key)
                    output.remove()
                record.reached(output)
                again = retry_failed and stage.name in RETRIED and output.complete
                with logs.context(run=folder.url, stage=stage.name):
                    manifest = _complete(stage, context, output, record.earlier(stage.name), session, progress)
                    if again and manifest["rows"].get("failures"):
                        output = _retry(stage, context, output, record, session, progress)
                        manifest = output.manifest()
                record.completed(output, manifest["warnings"])
        except VtcavError as error:
            # If storage is what failed, the record can't be written either, and the first error says more.
            with contextlib.suppress(StageError):
                record.write(f"stopped: {stage_now}", error=str(error))
            raise
    record.write("done" if until is None else f"done until: {until}")
    return Run(config.run_url, config.out_storage_options)


def with_more_videos(config: Config, more: int, *, fresh: bool = False) -> Config:
    """The config with a limit of `more` videos above what the folder's last complete run has.

    The limit takes the videos of the lowest hashes (`vtcav_ray.video.listing`), so those of earlier runs stay in, and
    what was found in them is carried over. A run that was stopped goes on with the videos that it had.

    Args:
        config: `videos.limit` stays an upper bound.
        more: videos that are not processed yet.
        fresh: start with none.
    """
    there = 0 if fresh else videos_processed(Folder(config.run_url, config.out_storage_options))
    limit = min(there + more, config.videos.limit or there + more)
    return config.model_copy(update={"videos": config.videos.model_copy(update={"limit": limit})})


@tells_storage_errors
def run_branch(config: Config, stage: Stage, result: Run, progress: Progress | None = None) -> StageFolder:
    """Run a stage that is none of the seven, on the tables that a run has. run.json stays as it is.

    Raises: as `run`.
    """
    inputs = {name: result.stage(name) for name in stage.inputs}
    context = Context(config, result.folder, inputs)
    output = stage_folder(result.folder, stage.name, stage.key(context))
    with engine.LazySession(config.resources) as session:
        _complete(stage, context, output, None, session, progress or Silence())
    return output


def stages_until(name: str | None) -> tuple[Stage, ...]:
    """The stages up to this one; None: all.

    Raises:
        ConfigError: there is no such stage.
    """
    names = [stage.name for stage in STAGES]
    if name is not None and name not in names:
        raise ConfigError(f"No stage {name!r}. There are: {', '.join(names)}.")
    return STAGES if name is None else STAGES[: names.index(name) + 1]


def _complete(
    stage: Stage,
    context: Context,
    output: StageFolder,
    earlier: StageFolder | None,
    session: engine.LazySession,
    progress: Progress,
    *,
    retry_of: str | None = None,
) -> dict[str, Any]:
    """Bring one stage to completion: all of it, what is missing, or nothing. Returns its manifest."""
    if output.complete:
        manifest = output.manifest()
        logger.info("%s is there already", stage.name)
        progress.stage_finished(stage.name, manifest, reused=True)
        return manifest
    started = time.time()
    work = stage.prepare(context)
    work, kept = _with_carried(stage, context, work, earlier)
    there = output.committed()
    missing = [shard for shard in work.shards if shard.name not in there]
    plan = {"shards": len(work.shards), "done": len(there), "started": started, **kept}
    output.folder.write_json(PLAN, plan)  # for `vtcav status`
    progress.stage_started(stage.name, shards=len(work.shards), done=len(work.shards) - len(missing))
    logger.info("%s begins: %d shards, %d there", stage.name, len(work.shards), len(work.shards) - len(missing))
    for record in _records(work, missing, output, session, context.config):
        logger.info("shard done", extra={"shard": record["shard"], "failures": record["failures"]})
        progress.shard_done(stage.name, failures=record["failures"])
    if work.finish is not None and "final" not in there:
        output.commit("final", work.finish(output))
    manifest = output.finish(
        stage.all_ingredients(context),
        {
            "warnings": list(work.warnings),
            "notes": dict(work.notes),
            "started": started,
            "seconds": time.time() - started,
            "resumed": bool(there),
            "versions": versions(),
            **kept,
            **({"retry_of": retry_of} if retry_of else {}),
        },
    )
    logger.info("%s is complete", stage.name, extra={"seconds": round(manifest["seconds"], 3)})
    progress.stage_finished(stage.name, manifest, reused=False)
    return manifest


def _with_carried(
    stage: Stage, context: Context, work: Work, earlier: StageFolder | None
) -> tuple[Work, dict[str, Any]]:
    """The work, less what an earlier, complete output of this stage has already; and a note of how much that is."""
    if stage.name not in RETRIED or earlier is None or not earlier.complete:
        return work, {}
    manifest = earlier.manifest()
    if not comparable(manifest["ingredients"], stage.all_ingredients(context)):
        return work, {}
    before = {
        name: stage_folder(context.input(name).run, name, key)
        for name, key in manifest["ingredients"]["inputs"].items()
    }
    # Of the same inputs (a retry) come the same shards. To plan them again reads every table of the inputs.
    shards = work.shards
    if any(folder.key != context.input(name).key for name, folder in before.items()):
        if not all(folder.complete for folder in before.values()):
            return work, {}
        # With what this stage has found for its key already: the digests of weights.
        shards = stage.prepare(Context(context.config, context.run, before, context.memo)).shards
    carried = carry(work.shards, shards, earlier)
    if not carried.kept:
        return work, {}
    worker = functools.partial(CarryingWorker, work.make_worker, earlier)
    note = {"carried": {"from": earlier.key, "units": carried.units, "kept": carried.kept}}
    return dataclasses.replace(work, shards=carried.shards, make_worker=worker), note


def _retry(
    stage: Stage,
    context: Context,
    output: StageFolder,
    record: RunRecord,
    session: engine.LazySession,
    progress: Progress,
) -> StageFolder:
    """Work on what failed in a complete output, and take the result in its place if anything was recovered."""
    again = stage_folder(context.run, stage.name, retry_key(output.key))
    record.reached(again)
    _complete(stage, context, again, output, session, progress, retry_of=output.key)
    if same_rows(output, again):
        again.remove()  # so that the next retry tries again
        return output
    supersede(output, again)
    return again


def _records(work: Work, missing: list[Any], output: StageFolder, session: engine.LazySession, config: Config) -> Any:
    if work.resources is None:
        worker = work.make_worker()
        for shard in missing:
            yield output.commit(shard.name, worker(shard.rows))
    elif missing:
        session.start()
        rehearsal = engine.Rehearsal.of(config)
        yield from engine.run_shards(missing, work.make_worker, output, work.resources, rehearsal)


@dataclass(frozen=True)
class FailedInputs:
    """How many of the source videos could not be used somewhere on the way."""

    failed: int
    total: int

    @property
    def fraction(self) -> float:
        return self.failed / self.total if self.total else 0.0


def failed_inputs(result: Run) -> FailedInputs:
    """Count source videos with a row in `failures`, of all that were listed (those that could not be, included)."""
    failures = result.table("failures")
    failed = {row["video_id"] or row["uri"] for row in failures.select(["video_id", "uri"]).to_pylist()}
    listed = set(result.table("videos", columns=["video_id"])["video_id"].to_pylist())
    return FailedInputs(len(failed), len(listed | failed))
