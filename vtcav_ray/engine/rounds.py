"""Run the rounds of `videos.enough`: track until every set of clips is full, without a pause between rounds.

    choose 1, 2 ─► track 1 ─► track 2 ───────► track 3 ...
                      └ all of 1 committed: count the sets, choose 3

The next round is in the pool's queue before the last shard of a round ends. Every decision is made from the committed
shards of whole rounds, in the order of the rounds. So a killed search that is started again makes the same decisions,
whatever was committed. When the sets are full, the shards of later rounds are skipped, or removed if they are done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vtcav_ray import engine
from vtcav_ray.engine.completing import Completing, Earlier, broken_of, committed_of
from vtcav_ray.engine.feed import Feed
from vtcav_ray.runs.record import PLAN
from vtcav_ray.runs.stage import Context, Shard, Stage, Work
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.records import COMMITS

logger = logging.getLogger(__name__)

AHEAD = 2  # rounds that are chosen before the first one ends: one runs, one waits


class Rounds(Protocol):
    """A search (`vtcav_ray.clips.search.Search`)."""

    size: int  # items per shard
    most: int  # maximum number of items

    def choose(self) -> list[Shard]:
        """Choose the next round; empty: nothing is left."""

    def look(self, output: StageFolder, shard: Shard) -> None:
        """Note the content of a committed shard."""

    def end_round(self, output: StageFolder) -> bool:
        """Decide after a round whose shards were all looked at. Return whether the search has ended."""


@dataclass
class RunningRounds:
    """One search on a stage's folder.

    Args:
        completing: settings of the run.
        stage, context, output: the stage `tracks`, its inputs, and the folder to write to.
        work: of the stage; its shards do not count.
        earlier: a complete output to carry videos over from; None: there is none.
    """

    completing: Completing
    stage: Stage
    context: Context
    output: StageFolder
    work: Work
    earlier: Earlier | None = None
    _there: set[str] = field(default_factory=set)
    _rounds: list[list[Shard]] = field(default_factory=list)
    _ended: int = 0

    def run(self, search: Rounds) -> None:
        """Run rounds until the search ends.

        Raises:
            StageError: a shard could not be completed; run again to resume.
        """
        started = time.time()
        self._there = committed_of(self.output, self.output.committed())  # those with a readable record
        if self.completing.verify:
            self._there -= broken_of(self.output, self._there)
        feed = Feed(-(-search.most // search.size))
        for _ in range(AHEAD):
            self._choose(search, feed)
        self._tell_plan(started)
        done = len(self._known())
        self.completing.progress.stage_started(self.stage.name, shards=sum(map(len, self._rounds)), done=done)
        self._decide(search, feed, started)
        if not feed.closed:
            for record in self._run(feed):
                self._there.add(record["shard"])
                self.completing.tell_done(self.stage, record)
                self._decide(search, feed, started)
        self._remove_surplus()

    def _decide(self, search: Rounds, feed: Feed, started: float) -> None:
        """End every round whose shards are all committed, and choose another one for each."""
        while not feed.closed and all(shard.name in self._there for shard in self._rounds[self._ended]):
            for shard in self._rounds[self._ended]:
                search.look(self.output, shard)
            self._ended += 1
            if search.end_round(self.output):
                feed.stop([shard.name for shards in self._rounds[: self._ended] for shard in shards])
                return
            self._choose(search, feed)
            self._tell_plan(started)

    def _choose(self, search: Rounds, feed: Feed) -> None:
        """Choose a round, and feed what of it is not committed."""
        shards = search.choose()
        if not shards:
            return
        self._rounds.append(shards)
        missing = [shard for shard in shards if shard.name not in self._there]
        if self.earlier is not None and missing:
            missing = self.earlier.carry(missing).shards
        feed.add(missing)
        if (receive := getattr(self.completing.progress, "shards_added", None)) is not None and self._ended:
            receive(self.stage.name, shards=len(shards), done=len(shards) - len(missing))

    def _run(self, feed: Feed) -> Iterator[Mapping[str, Any]]:
        work = self.work
        assert work.resources is not None, "tracking runs in actors"
        self.completing.session.start()
        make = work.make_worker if self.earlier is None else self.earlier.worker(work)
        rehearsal = engine.Rehearsal.of(self.context.config)
        yield from engine.run_shards(feed, make, self.output, work.resources, rehearsal)

    def _known(self) -> set[str]:
        """Return the committed shards of the rounds so far."""
        return {shard.name for shards in self._rounds for shard in shards} & self._there

    def _tell_plan(self, started: float) -> None:
        """Write the number of shards so far, for `vtcav status`."""
        plan = {"shards": sum(map(len, self._rounds)), "done": len(self._known()), "started": started}
        self.output.folder.write_json(PLAN, plan)

    def _remove_surplus(self) -> None:
        """Remove the shards of rounds that were begun and not needed: first their records, so that none counts."""
        kept = {shard.name for shards in self._rounds[: self._ended] for shard in shards}
        for name in sorted(self.output.committed() - kept):
            files = self.output.shard_files(name)
            self.output.folder.remove(f"{COMMITS}/{name}.json")
            for path in files:
                self.output.folder.remove(path)
            logger.info("shard %s is of a round that was not needed, and is removed", name)
