"""Which shard a process died over, and which of its videos is to blame.

A video may crash its decoder (and with it the actor), hang it, or fill the memory. Ray then starts another actor and
gives it the same shard, for ever. So each start of a shard is written down BEFORE it begins, in a small object beside
the commit records, and a start that finds one knows that the last did not end:

1. First start: the shard runs in the actor, all its videos together. That is the fast path, and nearly every shard's.
2. After a death: each video is decoded in a process of its own (`vtcav_ray.video.rehearse`). What crashes, hangs or
   takes too much memory there is quarantined; the rest runs together, as it would have.
3. After another: each video goes through the worker alone, its name written down first, and the result is thrown away.
   If the process dies, the name tells which. Then the rest runs together.
4. Deaths that no video explains end the stage, with a sentence.

A video is quarantined after `attempts` processes that it cost: a row of `failures`, and nothing else of the run.

Only deaths within one run and on a node that is still there count: of a driver that was killed, or of a machine that
went away, no video is guilty. And since steps 2 and 3 keep nothing, an innocent shard's output is byte for byte what it
would have been.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.config import Config
from vtcav_ray.errors import StageError
from vtcav_ray.runs.stage import Worker
from vtcav_ray.stages import facts_of
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.records import BrokenFile
from vtcav_ray.video.rehearse import Limits, rehearse

logger = logging.getLogger(__name__)

ATTEMPTS = "_attempts"
_STEPS = 3  # deaths that it takes to go through all the steps


@dataclass
class History:
    """What is known of a shard that was begun: the content of `_attempts/<shard>.json`.

    Attributes:
        run: names the run that began it last; a run is one call of `run_shards`.
        node: where.
        deaths: processes that died over it in this run, since the last quarantine.
        interrupted: starts that did not end, of which no video is guilty (a driver or a node went away).
        trying: video_id that is alone in the worker now; None: all together, or none.
        rehearsed, tried_alone: steps 2 and 3 found nothing more.
        failures: rows of the table for the quarantined videos.
    """

    run: str
    node: str
    deaths: int = 0
    interrupted: int = 0
    trying: str | None = None
    rehearsed: bool = False
    tried_alone: bool = False
    failures: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Rehearsal:
    """How the videos of a shard are looked at in step 2.

    Attributes:
        limits: what one video may cost.
        storage_options: for fsspec.
    """

    limits: Limits
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(config: Config) -> Rehearsal:
        """With the limits of a config."""
        decode = config.resources.decode
        limits = Limits(
            config.tracks.max_frames,
            config.tracks.max_pixels,
            decode.cpu_seconds,
            decode.stall_seconds,
            int(decode.memory_gb * 1e9),
            int(decode.frames_gb * 1e9),
        )
        return Rehearsal(limits, config.videos.read_options)


class Attempts:
    """Begins the shards of one actor.

    Args:
        output: the stage's folder.
        attempts: processes that a video may cost.
        run, node: names of this run and of this actor's node.
        node_is_there: whether a node, by name, is still part of the cluster.
        rehearsal: None: the shards hold no videos.
    """

    def __init__(
        self,
        output: StageFolder,
        attempts: int,
        run: str,
        node: str,
        node_is_there: Callable[[str], bool],
        rehearsal: Rehearsal | None,
    ) -> None:
        self.output, self.attempts, self.run, self.node = output, attempts, run, node
        self._node_is_there, self.rehearsal = node_is_there, rehearsal

    def begin(self, shard: str, rows: pa.Table, worker: Worker) -> tuple[pa.Table, list[dict[str, Any]]]:
        """Write down that a shard begins, after whatever its history asks for.

        Returns:
            (the rows to work on, failure rows of those that are quarantined).

        Raises:
            StageError: processes die over this shard, and no video of it is to blame.
        """
        history = self._look(shard)
        if history is None:
            history = History(self.run, self.node)
            self._write(shard, history)
            return rows, []
        try:
            self._settle(shard, history, rows)
            if history.deaths >= 1 or history.interrupted >= 2:
                self._rehearse(shard, history, rows)
            if history.deaths >= 2:
                self._try_alone(shard, history, rows, worker)
        finally:
            self._write(shard, history)
        return _without(rows, history), history.failures

    def end(self, shard: str) -> None:
        """Take back that a shard began: it ended in an orderly way, though without a commit."""
        history = self._read(shard)
        if history is not None:
            self._write(shard, _replaced(history, run="", interrupted=0))

    def _look(self, shard: str) -> History | None:
        """The history, with the start that did not end counted; None: the shard was never begun."""
        found = self._read(shard)
        if found is None:
            return None
        same_run, there = found.run == self.run, self._node_is_there(found.node)
        if same_run and there:
            found.deaths += 1
        elif found.run:
            found.interrupted += 1
        if not same_run:
            found.deaths = 0
        if not (same_run and there):
            found.trying = None
        found.run, found.node = self.run, self.node
        logger.warning("shard %s of %s was begun before and did not end: %s", shard, self.output.stage, found)
        return found

    def _read(self, shard: str) -> History | None:
        """The history as it was written; None: there is none, or it is broken, which costs a few tries and no row."""
        try:
            return History(**self.output.folder.read_json(f"{ATTEMPTS}/{shard}.json"))
        except FileNotFoundError:
            return None
        except (BrokenFile, TypeError) as error:  # TypeError: JSON, but no history
            logger.warning("the history of shard %s is forgotten: %s", shard, error)
            return None

    def _settle(self, shard: str, history: History, rows: pa.Table) -> None:
        """Quarantine the video that was alone when the process died; or see that none explains the deaths."""
        left = _video_ids(_without(rows, history))
        suspect = history.trying or (left[0] if len(left) == 1 else None)
        if history.deaths < self.attempts:
            return
        if suspect is not None:
            message = f"The process that worked on it died {history.deaths} times, the last time on this video alone."
            self._quarantine(history, rows, suspect, "crashed", message, history.deaths)
        elif history.deaths > max(self.attempts, _STEPS) or not left:
            section = facts_of(self.output.stage).resources or "statistics"
            raise StageError(
                f"The worker's process died {history.deaths} times over shard {shard} of stage {self.output.stage}, "
                "and no single video is to blame. Most likely it had too little memory: give "
                f"`resources.{section}` fewer actors a machine (memory_gb, max_actors) or a "
                "smaller batch, and run again."
            )

    def _rehearse(self, shard: str, history: History, rows: pa.Table) -> None:
        if self.rehearsal is None or history.rehearsed or "uri" not in rows.column_names:
            return
        self._write(shard, history)
        left = _without(rows, history)
        by_uri = dict(zip(left["uri"].to_pylist(), left["video_id"].to_pylist(), strict=True))
        deaths = history.deaths
        more = max(1, self.attempts - deaths)
        bad = rehearse(list(by_uri), self.rehearsal.limits, more, self.rehearsal.storage_options)
        for uri, what in bad.items():
            self._quarantine(history, rows, by_uri[uri], what.error_kind, what.message, deaths + what.attempts)
        history.rehearsed = True

    def _try_alone(self, shard: str, history: History, rows: pa.Table, worker: Worker) -> None:
        if history.tried_alone:
            return
        for video_id in _video_ids(_without(rows, history)):
            history.trying = video_id
            self._write(shard, history)
            worker(rows.filter(pc.equal(rows["video_id"], video_id)))
        history.trying, history.tried_alone = None, True

    def _quarantine(
        self, history: History, rows: pa.Table, video_id: str, kind: str, message: str, attempts: int
    ) -> None:
        row = rows.filter(pc.equal(rows["video_id"], video_id))
        uri = row["uri"][0].as_py() if "uri" in rows.column_names else None
        history.failures.append(
            {"uri": uri, "video_id": video_id, "error_kind": kind, "message": message, "attempts": attempts}
        )
        # What is left starts with a clean slate: another of its videos may be poison, too.
        history.deaths, history.trying, history.tried_alone = 0, None, False

    def _write(self, shard: str, history: History) -> None:
        self.output.folder.write_json(f"{ATTEMPTS}/{shard}.json", asdict(history))


def _without(rows: pa.Table, history: History) -> pa.Table:
    bad = pa.array([row["video_id"] for row in history.failures], pa.string())
    return rows.filter(pc.invert(pc.is_in(rows["video_id"], bad))) if len(bad) else rows


def _video_ids(rows: pa.Table) -> list[str]:
    return list(dict.fromkeys(rows["video_id"].to_pylist())) if "video_id" in rows.column_names else []


def _replaced(history: History, **changes: Any) -> History:
    return History(**{**asdict(history), **changes})
