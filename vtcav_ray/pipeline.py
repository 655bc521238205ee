"""Video-TCAV from videos to a report: start reading here.

    videos ──► tracks ──► clips ──► activations ──► cavs ──► scores ──► report

Each stage has its own room, whose `stage.py` defines its key, its shards and its worker. A stage reads the tables of
the stages before it and writes Parquet shards into `RUN/<stage>/<key>/`. The key is a hash of everything that
determines the output: config sections, the inputs' keys, and the digests of weights. So a complete stage is skipped, a
killed stage resumes with its missing shards, a new checkpoint reuses tracks and clips, and a change of the statistics
runs no model. `vtcav_ray/stages.py` lists the facts about each stage.

If every concept is a person's own clips (`clips.concepts`), there is no stage `tracks`, and no detector is needed.

With `scores.effect: patch`, the stage `responses` runs between `cavs` and `scores`, on the tables of `clips` and
`activations`. Its table takes the place of the gradients in the effects of `scores`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from vtcav_ray import engine
from vtcav_ray.activations.stage import STAGE as ACTIVATIONS
from vtcav_ray.cavs.stage import STAGE as CAVS
from vtcav_ray.clips.decisions import read_decisions
from vtcav_ray.clips.looked import SEARCHED, search_of, whole_corpus
from vtcav_ray.clips.looked import STAGE as VIDEOS
from vtcav_ray.clips.search import Search
from vtcav_ray.clips.stage import STAGE as CLIPS
from vtcav_ray.config import Config
from vtcav_ray.engine.completing import Completing, Progress, Silence
from vtcav_ray.engine.rounds import RunningRounds
from vtcav_ray.errors import ConfigError, StageError, VtcavError
from vtcav_ray.preflight.checks import Preflight
from vtcav_ray.preflight.run import preflight
from vtcav_ray.report.stage import STAGE as REPORT
from vtcav_ray.report.stage import publish_report
from vtcav_ray.responses.stage import STAGE as RESPONSES
from vtcav_ray.runs import logs
from vtcav_ray.runs.fresh import fresh_attempt
from vtcav_ray.runs.locate import locate
from vtcav_ray.runs.record import RunRecord, videos_processed
from vtcav_ray.runs.retry import retry_key, same_rows, supersede
from vtcav_ray.runs.run import Run
from vtcav_ray.runs.run_lease import writing
from vtcav_ray.runs.stage import Context, Stage
from vtcav_ray.scores.stage import STAGE as SCORES
from vtcav_ray.scores.stage import STAGE_OF_PATCHES as SCORES_OF_PATCHES
from vtcav_ray.store.access import report_storage_errors
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.tracks.stage import STAGE as TRACKS
from vtcav_ray.tracks.stage import imports_of, work_on
from vtcav_ray.videos.rendered import rendered_world
from vtcav_ray.videos.stage import given_of

STAGES: tuple[Stage, ...] = (VIDEOS, TRACKS, CLIPS, ACTIVATIONS, CAVS, SCORES, REPORT)


@report_storage_errors
def run(
    config: Config,
    progress: Progress | None = None,
    *,
    base: Run | None = None,
    until: str | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    verify: bool = True,
    take_over: bool = False,
) -> Run:
    """Run every stage that is not complete yet, and open the result.

    Args:
        config: from `vtcav_ray.config.loading.load_config` or `parse_config`.
        progress: receives every stage and shard event; None: only the log.
        base: a run whose videos, tracks and clips are used (and completed there where the config asks for others). Its
            list of videos is reused, so the source videos may be gone.
        until: the last stage to run, such as `clips`, to look at the clips first; None: all stages.
        fresh: recompute everything beside the existing output. See `vtcav_ray.runs.fresh`.
        retry_failed: retry the failures of complete stages. See `vtcav_ray.runs.retry`.
        verify: check every file of a complete stage before use, recompute what is damaged
            (`vtcav_ray.engine.heal`), and check each block that is read. False: trust the files.
        take_over: take the folder over from another run that writes into it. See `vtcav_ray.runs.run_lease`.

    Returns:
        The run, with `.table(name)` for each table and `.report_url`.

    Raises:
        ConfigError: the config names something that does not exist.
        StageError: a stage could not be completed; run again to resume. LeaseHeld: another run writes into the folder.
            LeaseLost: another run took the folder over.
    """
    stages = stages_until(until, config)
    folder = Folder(config.run_url, config.out_storage_options, verify)
    folder.check()
    config = layers_filled_in(config, stages)
    if base is not None and base.folder.verify != verify:
        base = Run(base.url, base.folder.storage_options, verify=verify)
    # Report mistakes in hand-edited files now, not after hours of model work.
    read_decisions(base.folder if base is not None else folder)
    with writing(folder, take_over=take_over) as writer:
        record = RunRecord.begin(folder, config, base, carry_over=not fresh, writer=writer)
        record.remove_retired()
        with engine.LazySession(config.resources) as session:
            completing = Completing(session, progress or Silence(), lambda look: writer.check(look=look), verify)
            work = _Running(config, folder, base, record, completing, fresh, retry_failed, stages)
            _run_stages(work, stages)
        record.write("done" if until is None else f"done until: {until}")
    return Run(config.run_url, config.out_storage_options, verify=verify)


@dataclass(frozen=True)
class _Running:
    """One call of `run`; its arguments have the same names there."""

    config: Config
    folder: Folder
    base: Run | None
    record: RunRecord
    completing: Completing
    fresh: bool
    retry_failed: bool
    stages: Sequence[Stage]
    spent: dict[str, float] = field(default_factory=dict)  # stage -> seconds of a search that has run its shards

    def stage(self, stage: Stage) -> None:
        """Complete a stage and add it to the record."""
        place = locate(stage, self.config, self.folder, self.record.inputs(), self.base)
        context, remake = place.context, self.fresh and not place.borrowed
        output = fresh_attempt(place.planned) if remake and stage.name not in self.spent else place.output
        self.record.reached(output)
        again = self.retry_failed and stage.facts.retried and output.complete
        # A borrowed stage is in another run's folder, which has a separate lease.
        own = functools.partial(writing, context.run) if place.borrowed else contextlib.nullcontext
        earlier = self.record.earlier(stage.name)
        if stage is VIDEOS:
            context.memo[SEARCHED] = functools.cache(functools.partial(self._search, context, output))
            if not output.complete and not place.borrowed and whole_corpus(context) is not None:
                context.memo[SEARCHED]()
                self.record.reached(output)
        with logs.context(run=self.folder.url, stage=stage.name):
            output, manifest = self.completing.complete(
                stage, context, output, earlier, spent=self.spent.get(stage.name, 0.0), writing=own
            )
            if again and manifest["rows"].get("failures"):
                with own():
                    output = self._retry(stage, context, output)
                manifest = output.manifest()
        if remake:
            self.record.retire(output, stage.all_ingredients(context))
        self.record.completed(output, manifest["warnings"], manifest.get("notes", {}).get("enough"))

    def _search(self, context: Context, output: StageFolder) -> Search:
        """Track in rounds until every set of clips is full. See `vtcav_ray.clips.enough`.

        Args:
            context, output: of the stage `videos`, which is not complete yet.
        """
        corpus, search = whole_corpus(context), search_of(context)
        assert corpus is not None, "the stage asks only if there is a search"
        assert search is not None, "it has a corpus"
        given = given_of(context)
        self.completing.session.start_early()
        self.check(corpus, given.table if given is not None else None, [stage.name for stage in self.stages])
        place = locate(TRACKS, self.config, self.folder, {VIDEOS.name: output}, self.base)
        self.record.reached(place.planned)
        started = time.time()
        work = work_on(place.context, corpus, ())
        earlier = self.completing.carrying(TRACKS, place.context, work, self.record.earlier(TRACKS.name))
        with logs.context(run=self.folder.url, stage=TRACKS.name):
            RunningRounds(self.completing, TRACKS, place.context, place.planned, work, earlier).run(search)
        self.spent[TRACKS.name] = time.time() - started
        return search

    def render(self) -> None:
        """Render the planted world, if the config asks for one, and report each video."""
        world = self.config.videos.world
        if world is not None and self.base is None:
            rendered_world(world, self.folder, getattr(self.completing.progress, "rendered", None))

    def check(self, videos: pa.Table | None, given: pa.Table | None, needed: Sequence[str]) -> None:
        """Check what the stages from `tracks` on need, before their hours. See `vtcav_ray.preflight`.

        Args:
            videos, given: tables of the stage `videos`.
            needed: names of the stages that have work.

        Raises:
            VtcavError: the run would fail, or could score no class.
        """
        imports = imports_of(self.config) if TRACKS.name in needed else None
        together = functools.partial(self.completing.session.together, imports=imports)
        found = preflight(self.config, videos, self.folder, needed, given=given, together=together)
        tell_checked(self.completing.progress, found)
        found.stop()
        if ACTIVATIONS.name in needed:
            threading.Thread(target=_import_for_later, name="import-for-later").start()

    def check_listed(self) -> None:
        """Check as `check` does, once the stage `videos` is complete; not again after a search."""
        if TRACKS.name in self.spent:
            return
        needed = [stage.name for stage in self.stages if stage is not TRACKS or not self._has_tracks()]
        if TRACKS.name in needed:
            self.completing.session.start_early()
        listed = self.record.inputs()[VIDEOS.name]
        self.check(listed.read("videos"), listed.read("given") if self.config.clips.has_given else None, needed)

    def _has_tracks(self) -> bool:
        """Return whether the tracks are complete, so that no detector is needed."""
        try:
            place = locate(TRACKS, self.config, self.folder, self.record.inputs(), self.base)
        except ConfigError:  # no such weights: the preflight says so
            return False
        return place.output.complete and (place.borrowed or not self.fresh)

    def _retry(self, stage: Stage, context: Context, output: StageFolder) -> StageFolder:
        """Retry the failures of a complete output, and supersede it if anything was recovered."""
        again = stage_folder(context.run, stage.name, retry_key(output.key))
        self.record.reached(again)
        again, _ = self.completing.complete(stage, context, again, output, retry_of=output.key)
        if same_rows(output, again):
            again.remove()  # so that the next retry tries again
            return output
        supersede(output, again)
        return again


def _run_stages(work: _Running, stages: Sequence[Stage]) -> None:
    """Run the stages in order. Record in run.json how they ended, unless another run took the folder over."""
    record = work.record
    stage_now = ""

    def stopped(error: str) -> None:
        # If storage failed, writing the record fails too, and the first error says more.
        with contextlib.suppress(StageError):
            record.write(f"stopped: {stage_now}", error=error)

    try:
        first = TRACKS if TRACKS in stages else CLIPS  # the first that decodes videos
        for stage in stages:
            stage_now = stage.name
            if stage is VIDEOS:
                work.render()
            if stage is first:
                work.check_listed()
            work.stage(stage)
        if stage_now == REPORT.name:
            publish_report(Run(work.folder.url, work.folder.storage_options, verify=work.folder.verify))
    except VtcavError as error:
        stopped(str(error))
        raise
    except KeyboardInterrupt:
        if (fault := work.completing.session.fault) is not None:  # Ray died; the user did not press Ctrl-C
            stopped(str(fault))
            raise fault from None
        stopped("Stopped by Ctrl-C or SIGTERM. Run again to resume.")
        raise


def _import_for_later() -> None:
    """Import what the driver needs after the first stage. It takes more than a second, in which shards can run."""
    for module in ("vtcav_ray.models", "scipy.spatial"):
        importlib.import_module(module)


def tell_checked(progress: Progress, found: Preflight) -> None:
    """Report a preflight to a receiver of events, if it has the method `checked`."""
    if (receive := getattr(progress, "checked", None)) is not None:
        receive(found)


def with_more_videos(config: Config, more: int, *, fresh: bool = False) -> Config:
    """Return the config with `videos.limit` raised to `more` above the videos of the folder's last complete run.

    A limit selects the videos with the lowest hashes (`vtcav_ray.videos.listing`), so it includes those of earlier
    runs, whose results are carried over. A stopped run resumes with the videos that it had.

    Args:
        config: its own `videos.limit` stays an upper bound.
        more: number of videos to add.
        fresh: count from zero.
    """
    there = 0 if fresh else videos_processed(Folder(config.run_url, config.out_storage_options))
    limit = min(there + more, config.videos.limit or there + more)
    # Asked for a number of videos, the run takes them, unless the config itself asks for no more than enough.
    enough = bool(config.videos.enough)
    return config.model_copy(update={"videos": config.videos.model_copy(update={"limit": limit, "enough": enough})})


def layers_filled_in(config: Config, stages: Sequence[Stage]) -> Config:
    """Return the config with the layers of the model's family, if it has `layers: auto` and a stage needs them.

    Raises:
        ConfigError: no such model config.
    """
    if ACTIVATIONS not in stages or not config.activations.layers_are_auto:
        return config
    from vtcav_ray.models import with_layers  # imports torch

    return with_layers(config)


def outputs_there(config: Config, result: Run, until: str) -> bool:
    """Return whether a run has every stage up to `until` complete, as this config defines it.

    Args:
        result: the run in the config's folder; it may be a rerun or contain retries.
        until: the last stage to check; a shared one.
    """
    done: dict[str, StageFolder] = {}
    base = result.base_run()
    for stage in stages_until(until, config):
        done[stage.name] = locate(stage, config, result.folder, done, base).output
        if result.keys.get(stage.name) != done[stage.name].key or not done[stage.name].complete:
            return False
    return True


@report_storage_errors
def run_branch(config: Config, stage: Stage, result: Run, progress: Progress | None = None) -> StageFolder:
    """Run an extra stage on the tables of an existing run, without changing run.json. Raises what `run` raises."""
    inputs = {name: result.stage(name) for name in stage.inputs_of(result.keys)}
    place = locate(stage, config, result.folder, inputs)
    with (
        writing(result.folder, f"vtcav {stage.name}") as writer,
        engine.LazySession(config.resources) as session,
    ):
        completing = Completing(session, progress or Silence(), lambda look: writer.check(look=look))
        try:
            return completing.complete(stage, place.context, place.output)[0]
        except KeyboardInterrupt:
            if session.fault is not None:
                raise session.fault from None
            raise


def stages_until(name: str | None, config: Config) -> tuple[Stage, ...]:
    """Return the stages of a run up to `name`; None: all.

    Raises:
        ConfigError: the run has no stage of this name.
    """
    stages = _stages_of(config)
    names = [stage.name for stage in stages]
    if name is not None and name not in names:
        raise ConfigError(f"No stage {name!r}. There are: {', '.join(names)}.")
    return stages if name is None else stages[: names.index(name) + 1]


def _stages_of(config: Config) -> tuple[Stage, ...]:
    """Return the stages of a run.

    If every concept is a person's own clips, nothing is tracked. With `scores.effect: patch`, the model's responses
    come before the scores that test them.
    """
    found = STAGES if config.clips.need_tracks else tuple(stage for stage in STAGES if stage is not TRACKS)
    if config.scores.effect == "first_order":
        return found
    place = found.index(SCORES)
    return (*found[:place], RESPONSES, SCORES_OF_PATCHES, *found[place + 1 :])


@dataclass(frozen=True)
class FailedInputs:
    """Number of source videos that failed in some stage."""

    failed: int
    total: int

    @property
    def fraction(self) -> float:
        return self.failed / self.total if self.total else 0.0


def failed_inputs(result: Run) -> FailedInputs:
    """Count the source videos with a row in `failures`. The total includes videos that could not be listed."""
    failures = result.table("failures")
    failed = {row["video_id"] or row["uri"] for row in failures.select(["video_id", "uri"]).to_pylist()}
    listed = set(result.table("videos", columns=["video_id"])["video_id"].to_pylist())
    return FailedInputs(len(failed), len(listed | failed))
