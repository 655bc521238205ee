"""Find the shard over which a worker process died, and the video that caused it.

A video may crash its decoder (and with it the actor), hang it, or fill the memory. Ray then starts another actor and
gives it the same shard, without end. So each start of a shard is recorded BEFORE it begins, in a small object beside
the commit records. A start that finds such a record knows that the last start did not end:

1. First start: the shard runs in the actor, all its videos together. This is the fast path, and nearly every shard's.
2. After one death: each video is decoded in a separate process (`vtcav_ray.video.rehearse`). Videos that crash, hang or
   take too much memory there are quarantined; the rest run together as usual.
3. After another death: each video goes through the worker alone, and the result is discarded. The video's name is
   recorded first, so if the process dies, the record names the cause. Then the rest run together.
4. Deaths that no video explains end the stage with an error.

A video is quarantined after it cost `attempts` processes: it becomes a row of `failures`, and the run continues.

Only deaths within one run and on a node that is still in the cluster count: no video is to blame for a driver that was
killed or a machine that left. Since steps 2 and 3 keep nothing, the output of a shard without bad videos is byte for
byte the same as without any death.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.config import Config
from vtcav_ray.errors import InputError, StageError
from vtcav_ray.rows import Failure
from vtcav_ray.runs.stage import Worker
from vtcav_ray.stages import facts_of
from vtcav_ray.store.commits import StageFolder
from vtcav_ray.store.records import BrokenFile
from vtcav_ray.video.rehearse import Limits, rehearse

logger = logging.getLogger(__name__)

ATTEMPTS = "_attempts"
_STEPS = 3  # number of deaths after which all steps were tried


@dataclass
class History:
    """The history of a shard that was started: the content of `_attempts/<shard>.json`.

    Attributes:
        run: id of the run that started it last; a run is one call of `run_shards`.
        node: of the last start.
        deaths: processes that died over the shard in this run, since the last quarantine.
        interrupted: starts that did not end but that no video caused (a driver or a node went away).
        trying: video_id that is alone in the worker now; None: all together, or none.
        rehearsed, tried_alone: steps 2 and 3 found nothing more.
        failures: of the quarantined videos.
    """

    run: str
    node: str
    deaths: int = 0
    interrupted: int = 0
    trying: str | None = None
    rehearsed: bool = False
    tried_alone: bool = False
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Rehearsal:
    """The check of a shard's videos in step 2.

    Attributes:
        limits: maximum cost of one video.
        storage_options: for fsspec.
    """

    limits: Limits
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(config: Config) -> Rehearsal:
        """Create a Rehearsal with the limits of a config."""
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
    """The bookkeeping of one actor: it records each start of a shard.

    Args:
        output: the stage's folder.
        attempts: number of processes that a video may cost.
        run, node: ids of this run and of this actor's node.
        node_is_there: returns whether a node, by id, is still part of the cluster.
        rehearsal: None: the shards contain no videos.
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

    def begin(self, shard: str, rows: pa.Table, worker: Worker) -> tuple[pa.Table, list[Failure]]:
        """Record that a shard starts, after the steps that its history requires.

        Returns:
            (the rows to work on, failures of the quarantined videos).

        Raises:
            StageError: processes die over this shard, and none of its videos is to blame.
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
        """Undo the record of a start: the shard ended in an orderly way, though without a commit."""
        history = self._read(shard)
        if history is not None:
            self._write(shard, replace(history, run="", interrupted=0))

    def _look(self, shard: str) -> History | None:
        """Return the history, including the start that did not end; None if the shard was never started."""
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
        logger.warning("shard %s of %s was started before and did not end: %s", shard, self.output.stage, found)
        return found

    def _read(self, shard: str) -> History | None:
        """Read the history; return None if there is none or it is broken, which costs a few tries but no row."""
        try:
            found = self.output.folder.read_json(f"{ATTEMPTS}/{shard}.json")
            return History(**{**found, "failures": [Failure(**row) for row in found.get("failures", ())]})
        except FileNotFoundError:
            return None
        except (BrokenFile, TypeError) as error:  # TypeError: JSON, but not a history
            logger.warning("the history of shard %s is ignored: %s", shard, error)
            return None

    def _settle(self, shard: str, history: History, rows: pa.Table) -> None:
        """Quarantine the video that was alone when the process died, or raise if no video explains the deaths."""
        left = _video_ids(_without(rows, history))
        suspect = history.trying or (left[0] if len(left) == 1 else None)
        if history.deaths < self.attempts:
            return
        if suspect is not None:
            message = f"The process that worked on it died {history.deaths} times, the last time on this video alone."
            self._quarantine(history, rows, suspect, InputError("crashed", message), history.deaths)
        elif history.deaths > max(self.attempts, _STEPS) or not left:
            section = facts_of(self.output.stage).resources or "statistics"
            raise StageError(
                f"The worker's process died {history.deaths} times over shard {shard} of stage {self.output.stage}, "
                "and no single video is to blame. Most likely it had too little memory: give "
                f"`resources.{section}` fewer actors per machine (memory_gb, max_actors) or a "
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
            error = InputError(what.error_kind, what.message)
            self._quarantine(history, rows, by_uri[uri], error, deaths + what.attempts)
        history.rehearsed = True

    def _try_alone(self, shard: str, history: History, rows: pa.Table, worker: Worker) -> None:
        if history.tried_alone:
            return
        for video_id in _video_ids(_without(rows, history)):
            history.trying = video_id
            self._write(shard, history)
            worker(rows.filter(pc.equal(rows["video_id"], video_id)))
        history.trying, history.tried_alone = None, True

    def _quarantine(self, history: History, rows: pa.Table, video_id: str, error: InputError, attempts: int) -> None:
        row = rows.filter(pc.equal(rows["video_id"], video_id)).slice(0, 1).to_pylist()[0]
        history.failures.append(Failure.of_video(row, error, attempts=attempts))
        # Reset the counters for the remaining videos: another of them may be bad, too.
        history.deaths, history.trying, history.tried_alone = 0, None, False

    def _write(self, shard: str, history: History) -> None:
        self.output.folder.write_json(f"{ATTEMPTS}/{shard}.json", asdict(history))


def _without(rows: pa.Table, history: History) -> pa.Table:
    bad = pa.array([failure.video_id for failure in history.failures], pa.string())
    return rows.filter(pc.invert(pc.is_in(rows["video_id"], bad))) if len(bad) else rows


def _video_ids(rows: pa.Table) -> list[str]:
    return list(dict.fromkeys(rows["video_id"].to_pylist())) if "video_id" in rows.column_names else []
