"""Complete one stage: compute all of it, only what is missing or broken, or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from vtcav_ray import engine
from vtcav_ray.engine.caught import NoteShard
from vtcav_ray.engine.heal import FINAL, Healing
from vtcav_ray.runs.carry import Carried, CarryingWorker, carry, comparable
from vtcav_ray.runs.damage import Damage, broken_files, examine
from vtcav_ray.runs.fresh import fresh_attempt
from vtcav_ray.runs.record import PLAN, versions
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.stages import facts_of
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.records import COMMITS, MANIFEST, BrokenFile

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """A receiver of events while a run proceeds. The command line displays them; library users may ignore them."""

    def stage_started(self, stage: str, *, shards: int, done: int) -> None: ...
    def shard_done(self, stage: str, *, failures: int) -> None: ...
    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None: ...


class Silence:
    """Progress that ignores all events. The log still has them."""

    def stage_started(self, stage: str, *, shards: int, done: int) -> None: ...
    def shard_done(self, stage: str, *, failures: int) -> None: ...
    def stage_finished(self, stage: str, manifest: Mapping[str, Any], *, reused: bool) -> None: ...


@dataclass(frozen=True)
class Completing:
    """The settings with which stages are completed in one run.

    Args:
        session: the Ray session that heavy stages run on.
        progress: receives every stage and shard event.
        check: raises if this process may no longer write; with True, it checks storage first.
        verify: read every file of a complete stage before it is used, and recompute broken ones.
    """

    session: engine.LazySession
    progress: Progress
    check: Callable[[bool], None] = lambda look: None
    verify: bool = True

    def complete(
        self,
        stage: Stage,
        context: Context,
        output: StageFolder,
        earlier: StageFolder | None = None,
        *,
        retry_of: str | None = None,
        spent: float = 0.0,
        writing: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> tuple[StageFolder, dict[str, Any]]:
        """Complete a stage.

        Args:
            stage, context: the stage and its inputs.
            output: folder to write to.
            earlier: a complete output of the stage for other inputs, to carry shards over from.
            retry_of: key of the output that this one retries, for the manifest.
            spent: seconds that this run has worked on it before (`vtcav_ray.engine.rounds`), for the manifest.
            writing: context that is entered while something is written, for a folder shared with other writers.

        Returns:
            (the output that counts, its manifest). The output differs from `output` if broken shards could not be
            reproduced byte for byte (`vtcav_ray.engine.heal`).

        Raises:
            StageError: the stage could not be completed.
        """
        manifest = _manifest(output)
        if manifest is not None:
            damage = examine(output).damage if self.verify else ()
            if not damage:
                logger.info("%s is already complete", stage.name)
                self.progress.stage_finished(stage.name, manifest, reused=True)
                return output, manifest
            with writing():
                return self._heal(stage, context, output, manifest, damage)
        with writing():
            return self._make(stage, context, output, earlier, retry_of, spent)

    def _make(
        self,
        stage: Stage,
        context: Context,
        output: StageFolder,
        earlier: StageFolder | None,
        retry_of: str | None,
        spent: float = 0.0,
    ) -> tuple[StageFolder, dict[str, Any]]:
        """Compute the missing shards of a stage without a manifest."""
        started = time.time() - spent
        work = stage.prepare(context)
        work, kept = self._with_carried(stage, context, work, earlier)
        planned = _planned(work)
        there = committed_of(output, planned)
        lost_manifest = there == planned  # only the manifest is missing, and other outputs may depend on it
        if self.verify and not lost_manifest:
            there -= broken_of(output, there)
        missing = [shard for shard in work.shards if shard.name not in there]
        plan = {"shards": len(work.shards), "done": len(there), "started": started, **kept}
        output.folder.write_json(PLAN, plan)  # for `vtcav status`
        self.progress.stage_started(stage.name, shards=len(work.shards), done=len(work.shards) - len(missing))
        logger.info("%s starts: %d shards, %d done", stage.name, len(work.shards), len(work.shards) - len(missing))
        for _ in self._run(stage, work, missing, output, context):
            pass
        if work.finish is not None and (missing or FINAL not in there):
            output.commit(FINAL, work.finish(output))
        self.check(True)
        facts = {
            "warnings": list(work.warnings),
            "notes": dict(work.notes),
            "started": started,
            "seconds": time.time() - started,
            "resumed": bool(there),
            "versions": versions(),
            **kept,
            **({"retry_of": retry_of} if retry_of else {}),
        }
        manifest = output.finish(stage.all_ingredients(context), facts, planned)
        if lost_manifest and self.verify and (damage := examine(output).damage):
            return self._heal(stage, context, output, output.manifest(), damage)
        logger.info("%s is complete", stage.name, extra={"seconds": round(manifest["seconds"], 3)})
        self.progress.stage_finished(stage.name, manifest, reused=False)
        return output, manifest

    def _heal(
        self,
        stage: Stage,
        context: Context,
        output: StageFolder,
        manifest: dict[str, Any],
        damage: tuple[Damage, ...],
    ) -> tuple[StageFolder, dict[str, Any]]:
        """Recompute the broken shards of a complete stage."""
        first = damage[0]
        logger.warning(
            "%s/%s: %s. Recomputing %d shards of the stage %s.",
            output.folder.url, first.file, first.what, len({d.shard for d in damage}), stage.name,
        )  # fmt: skip
        healing = Healing(output, stage.prepare(context), manifest["shards"], damage)
        if not healing.possible:  # another version planned other shards
            return self._make(stage, context, fresh_attempt(output), None, None)
        total = len(healing.work.shards)
        broken = [shard for shard in healing.broken if shard != FINAL]
        self.progress.stage_started(stage.name, shards=total, done=total - len(broken))
        healed = healing.run(lambda shards, folder: self._run(stage, healing.work, shards, folder, context), manifest)
        self.check(True)
        manifest = healed.manifest()
        self.progress.stage_finished(stage.name, manifest, reused=False)
        return healed, manifest

    def _run(
        self, stage: Stage, work: Work, shards: list[Shard], output: StageFolder, context: Context
    ) -> Iterator[Mapping[str, Any]]:
        """Run shards into a folder, and report each one."""
        for record in self._records(work, shards, output, context):
            self.tell_done(stage, record)
            yield record

    def tell_done(self, stage: Stage, record: Mapping[str, Any]) -> None:
        """Report a shard that is done. Raises what `check` raises."""
        self.check(False)
        logger.info("shard done", extra={"shard": record["shard"], "failures": record["failures"]})
        self._tell_items(stage, record)
        self.progress.shard_done(stage.name, failures=record["failures"])

    def _tell_items(self, stage: Stage, record: Mapping[str, Any]) -> None:
        """Report the number of items (videos, clips) in a shard, to a receiver that has the method `items_done`."""
        receive = getattr(self.progress, "items_done", None)
        if receive is not None and stage.facts.items:
            receive(stage.name, items=record["items"], unit=stage.facts.items)

    def _records(
        self, work: Work, missing: list[Shard], output: StageFolder, context: Context
    ) -> Iterator[Mapping[str, Any]]:
        if work.resources is None:
            worker = work.make_worker()
            for shard in missing:
                with NoteShard(output.stage, shard.name):
                    made = worker(shard.rows)
                record = output.commit(shard.name, made)
                yield {**record, "items": made.metrics.get(facts_of(output.stage).unit or "", 0.0)}
        elif missing:
            self.session.start()
            rehearsal = engine.Rehearsal.of(context.config)
            yield from engine.run_shards(missing, work.make_worker, output, work.resources, rehearsal)

    def _with_carried(
        self, stage: Stage, context: Context, work: Work, earlier: StageFolder | None
    ) -> tuple[Work, dict[str, Any]]:
        """Return the work without the part that an earlier, complete output has, and a note of how much that is."""
        before = self.carrying(stage, context, work, earlier)
        if before is None:
            return work, {}
        try:
            carried = before.carry(work.shards)
        except FileNotFoundError:  # the earlier output is not complete
            return work, {}
        except BrokenFile as error:
            _report_nothing_carried(before.output, error)
            return work, {}
        if not carried.kept:
            return work, {}
        note = {"carried": {"from": before.output.key, "units": carried.units, "kept": carried.kept}}
        return dataclasses.replace(work, shards=carried.shards, make_worker=before.worker(work)), note

    def carrying(self, stage: Stage, context: Context, work: Work, earlier: StageFolder | None) -> Earlier | None:
        """Return what of an earlier, complete output could be carried over; None: nothing."""
        if not stage.facts.retried or earlier is None:
            return None
        try:
            manifest = earlier.manifest()
            if not comparable(manifest["ingredients"], stage.all_ingredients(context)):
                return None
            shards = _earlier_shards(stage, context, work, manifest)
            if shards is None:
                return None
            bad = {d.shard for d in examine(earlier).damage if d.shard} if self.verify else set()
            return Earlier(earlier, list(shards), frozenset(bad))
        except FileNotFoundError:  # the earlier output is not complete
            return None
        except BrokenFile as error:  # carried shards must be intact; otherwise compute everything
            _report_nothing_carried(earlier, error)
            return None


@dataclass(frozen=True)
class Earlier:
    """An earlier, complete output of a stage, to carry over from.

    Attributes:
        output: its folder.
        shards: its shards, with their rows.
        broken: the shards whose files are damaged.
    """

    output: StageFolder
    shards: list[Shard]
    broken: frozenset[str]

    def carry(self, shards: Sequence[Shard]) -> Carried:
        """Find what of these shards it has."""
        return carry(shards, self.shards, self.output, self.broken)

    def worker(self, work: Work) -> Callable[[], CarryingWorker]:
        """Return what creates the worker that copies carried videos."""
        return functools.partial(CarryingWorker, work.make_worker, self.output)


def _report_nothing_carried(earlier: StageFolder, error: BrokenFile) -> None:
    logger.warning("nothing is carried over from %s: %s", earlier.folder.url, error)


def _earlier_shards(
    stage: Stage, context: Context, work: Work, manifest: Mapping[str, Any]
) -> list[Shard] | tuple[Shard, ...] | None:
    """Return the shards of an earlier output, with their rows; None if some of its inputs no longer exist."""
    before = {
        name: stage_folder(context.input(name).run, name, key)
        for name, key in manifest["ingredients"]["inputs"].items()
    }
    # The same inputs (a retry) give the same shards. Planning them again would read every table of the inputs.
    if all(folder.key == context.input(name).key for name, folder in before.items()):
        return list(work.shards)
    if not all(folder.complete for folder in before.values()):
        return None
    # Pass on what this stage has already found for its key: the digests of weights.
    return list(stage.prepare(Context(context.config, context.run, before, context.memo)).shards)


def _manifest(output: StageFolder) -> dict[str, Any] | None:
    """Return the manifest; None if the stage is not complete. Delete a broken manifest so that it is rewritten."""
    try:
        return output.manifest()
    except FileNotFoundError:
        return None
    except BrokenFile as error:
        logger.warning("%s It will be rewritten.", error)
        output.folder.remove(MANIFEST)
        return None


def _planned(work: Work) -> set[str]:
    return {shard.name for shard in work.shards} | ({FINAL} if work.finish is not None else set())


def committed_of(output: StageFolder, planned: set[str]) -> set[str]:
    """Return the planned shards with a readable commit record. Delete records of other shards."""
    good, bad = output.readable_records()
    for error in bad.values():
        logger.warning("%s The shard will be recomputed.", error)
    for shard in {*good, *bad} - planned:
        logger.warning("%s: the stage has no shard %s; deleting its record", output.folder.url, shard)
        output.folder.remove(f"{COMMITS}/{shard}.json")
    return set(good) & planned


def broken_of(output: StageFolder, there: set[str]) -> set[str]:
    """Return the committed shards whose files are damaged."""
    files = {shard: found for shard, found in output.shards_by_record().items() if shard in there}
    damage = broken_files(output, files)
    for found in damage:
        logger.warning("%s/%s: %s. The shard will be recomputed.", output.folder.url, found.file, found.what)
    return {found.shard for found in damage if found.shard is not None}
