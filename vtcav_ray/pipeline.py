"""Video-TCAV from videos to a report: start reading here.

    videos ──► tracks ──► clips ──► activations ──► cavs ──► scores ──► report

Each stage has a room of its own (`stage.py` there says what determines its output, and what its shards are), reads the
tables of the stages before it, and writes Parquet shards into `RUN/<stage>/<key>/`. The key is a hash of all that
determines the output: the stage's config sections, its inputs' keys, and the digest of the weights that it uses. So a
stage whose folder is complete is skipped, one that was killed goes on with the shards that are missing, a new
checkpoint re-uses tracks and clips, and a change of the statistics alone touches no model.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import vtcav_ray
from vtcav_ray import engine
from vtcav_ray.activations.stage import STAGE as ACTIVATIONS
from vtcav_ray.cavs.stage import STAGE as CAVS
from vtcav_ray.concepts.decisions import read_decisions
from vtcav_ray.concepts.stage import CLIPS, TRACKS
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.report.stage import STAGE as REPORT
from vtcav_ray.results import Run
from vtcav_ray.stage import Context, Stage, Work
from vtcav_ray.storage import Folder, StageFolder, stage_folder
from vtcav_ray.tcav.stage import STAGE as SCORES
from vtcav_ray.video.stage import STAGE as VIDEOS

logger = logging.getLogger(__name__)

STAGES: tuple[Stage, ...] = (VIDEOS, TRACKS, CLIPS, ACTIVATIONS, CAVS, SCORES, REPORT)
VERSIONS_OF = ("ray", "torch", "mmaction2", "mmengine", "ultralytics", "numpy", "pyarrow", "scikit-learn", "av")


class Progress(Protocol):
    """Told what happens, as it happens. The command line draws it; a library user may ignore it."""

    def stage_started(self, stage: str, *, shards: int, done: int) -> None: ...
    def shard_done(self, stage: str, *, failures: int) -> None: ...
    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None: ...


class Silence:
    """Progress for those who want none."""

    def stage_started(self, stage: str, *, shards: int, done: int) -> None:
        logger.info("%s: %d shards, %d there already", stage, shards, done)

    def shard_done(self, stage: str, *, failures: int) -> None:
        logger.debug("%s: a shard is done, %d failures", stage, failures)

    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None:
        logger.info("%s: %s, %s", stage, "re-used" if reused else "done", manifest["rows"])


def run(config: Config, progress: Progress | None = None, *, until: str | None = None) -> Run:
    """Run every stage that is not complete yet, and open the result.

    Args:
        config: from `vtcav_ray.config.load_config` or `parse_config`.
        progress: told of every stage and shard; None: only the log.
        until: the last stage to run, such as `clips`, so that a person can look at them first; None: all.

    Returns:
        The run, with `.table(name)` for each table and `.report_url`.

    Raises:
        ConfigError: the config names something that is not there.
        StageError: a stage could not be completed; running again goes on from there.
    """
    progress = progress or Silence()
    stages = stages_until(until)
    folder = Folder(config.run_url, config.out_storage_options)
    read_decisions(folder)  # a slip in a file that was edited by hand is told now, and not after the model's work
    done: dict[str, StageFolder] = {}
    keys: dict[str, str] = {}
    warnings: list[str] = []
    with engine.LazySession(config.resources) as session:
        for stage in stages:
            context = Context(config, folder, dict(done))
            output = stage_folder(folder, stage.name, stage.key(context))
            keys[stage.name] = output.key
            _write_record(folder, config, keys, warnings, status=f"running: {stage.name}")
            manifest = _complete(stage, context, output, session, progress)
            warnings += manifest["warnings"]
            done[stage.name] = output
    _write_record(folder, config, keys, warnings, status="done" if until is None else f"done until: {until}")
    return Run(config.run_url, config.out_storage_options)


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
    stage: Stage, context: Context, output: StageFolder, session: engine.LazySession, progress: Progress
) -> dict[str, Any]:
    """Bring one stage to completion: all of it, what is missing, or nothing. Returns its manifest."""
    if output.complete:
        manifest = output.manifest()
        progress.stage_finished(stage.name, manifest, reused=True)
        return manifest
    started = time.time()
    work = stage.prepare(context)
    there = output.committed()
    missing = [shard for shard in work.shards if shard.name not in there]
    progress.stage_started(stage.name, shards=len(work.shards), done=len(work.shards) - len(missing))
    for record in _records(work, missing, output, session):
        progress.shard_done(stage.name, failures=record["failures"])
    if work.finish is not None:
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
        },
    )
    progress.stage_finished(stage.name, manifest, reused=False)
    return manifest


def _records(work: Work, missing: list[Any], output: StageFolder, session: engine.LazySession) -> Any:
    if work.resources is None:
        worker = work.make_worker()
        for shard in missing:
            yield output.commit(shard.name, worker(shard.rows))
    elif missing:
        session.start()
        yield from engine.run_shards(missing, work.make_worker, output, work.resources)


def _write_record(folder: Folder, config: Config, keys: Mapping[str, str], warnings: list[str], *, status: str) -> None:
    record = {
        "config": config.model_dump(
            mode="json",
            exclude={"out_storage_options": True, "videos": {"storage_options"}, "model": {"storage_options"}},
            exclude_none=True,
        ),
        "keys": dict(keys),
        "status": status,
        "warnings": warnings,
        "versions": versions(),
        "updated": time.time(),
    }
    try:
        folder.write_json("run.json", record)
    except (PermissionError, OSError) as error:
        raise StageError(
            f"The run folder {folder.url} can't be written: {error}. Choose another with --out."
        ) from error


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


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the parts that decide the figures."""
    found = {name: importlib.metadata.version(name) for name in VERSIONS_OF}
    return {"vtcav-ray": vtcav_ray.__version__, "python": platform.python_version(), **found}
