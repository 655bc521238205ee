"""One pass of a watcher: list the checkpoints, run each complete and new one once, and record the result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vtcav_ray.config import Config
from vtcav_ray.errors import EnvironmentFault, StageError, VtcavError
from vtcav_ray.runs import logs
from vtcav_ray.store.access import storage_errors
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.lease import Leases
from vtcav_ray.watch.find import FoundCheckpoint, list_checkpoints, looks_whole, settled
from vtcav_ray.watch.registry import CheckpointRecord, CheckpointRecords

logger = logging.getLogger(__name__)

WATCH = "watch"
# Runs a checkpoint and returns the fields of its record. A VtcavError means that the checkpoint failed, except for an
# EnvironmentFault.
RunOne = Callable[[Config, FoundCheckpoint], dict[str, object]]


class NotTheCheckpoint(Exception):
    """A failure that every checkpoint would have (no videos, no such config). It ends the pass.

    An EnvironmentFault and storage errors end the pass too, without this wrapper.

    Args:
        error: what failed.
    """

    def __init__(self, error: VtcavError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class WatchOptions:
    """The options of a watcher.

    Attributes:
        pattern: glob of checkpoints, on any URL.
        settle_s: seconds; a file that was written longer ago, or stays unchanged for this long, is finished.
        expires_s: seconds; a watcher that shows no sign of life for this long is dead, and its checkpoint is free.
        attempts: a checkpoint is recorded as failed after this many attempts that failed or died.
        limit: maximum number of checkpoints per pass; None: all. Incomplete checkpoints and those of another watcher
            don't count.
    """

    pattern: str
    settle_s: float = 30.0
    expires_s: float = 900.0
    attempts: int = 3
    limit: int | None = None


@dataclass
class Pass:
    """The results of one pass, by checkpoint name."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)  # another watcher works on it
    unfinished: list[str] = field(default_factory=list)  # still being written, or truncated
    no_match: str = ""  # the pattern, if no file matches it

    @property
    def sentence(self) -> str:
        parts = [
            f"{len(names)} {word} ({', '.join(names)})"
            for word, names in (
                ("done", self.done),
                ("failed", list(self.failed)),
                ("with another watcher", self.busy),
                ("not complete yet", self.unfinished),
            )
            if names
        ]
        if self.no_match:
            return (
                f"No checkpoint matches {self.no_match}. Check the folder. Put the pattern in quotes, so that the "
                "shell does not expand it. `**/*.pth` also matches sub-folders."
            )
        return ", ".join(parts) + "." if parts else "Nothing new."


def watch_once(
    config: Config, options: WatchOptions, run_one: RunOne, update_report: Callable[[Folder], object]
) -> Pass:
    """Bring the watch folder up to date with the existing checkpoints.

    Args:
        config: its `run_url` is the folder that all checkpoints share.
        run_one: called at most once per checkpoint and pass, while the checkpoint's lease is held.
        update_report: called with the watch folder after a record is added.

    Raises:
        ConfigError: the pattern is not allowed.
        VtcavError: a failure that every checkpoint would have.
        OSError: storage can't be reached.
    """
    folder = Folder(config.run_url, config.out_storage_options).below(WATCH)
    registry, leases = CheckpointRecords(folder), Leases(folder.below("leases"), options.expires_s)
    storage_options = config.model.storage_options
    result = Pass()

    def look() -> list[FoundCheckpoint]:
        return list_checkpoints(options.pattern, storage_options)

    finished = registry.ids()
    there = look()
    new = [c for c in there if c.id not in finished]
    if not new:
        result.no_match = "" if there else options.pattern
        return result
    ready = settled(new, look, options.settle_s)
    result.unfinished = [c.name for c in new if c not in ready]
    begun = 0

    def counted(config: Config, checkpoint: FoundCheckpoint) -> dict[str, object]:
        nonlocal begun
        begun += 1
        return run_one(config, checkpoint)

    for checkpoint in ready:
        if begun == options.limit:
            break
        with logs.context(checkpoint=checkpoint.url):
            if not looks_whole(checkpoint, storage_options):
                result.unfinished.append(checkpoint.name)
            elif _run_leased(config, checkpoint, options, registry, leases, counted, result):
                update_report(folder)
    return result


def _run_leased(
    config: Config,
    checkpoint: FoundCheckpoint,
    options: WatchOptions,
    registry: CheckpointRecords,
    leases: Leases,
    run_one: RunOne,
    result: Pass,
) -> bool:
    """Run one checkpoint unless another watcher has it or had it. Return whether a record was added."""
    lease = leases.take(checkpoint.id)
    if lease is None:
        result.busy.append(checkpoint.name)
        return False
    started = time.monotonic()
    with lease:
        # The record is written before the lease is released, so the next holder of the lease sees it.
        if checkpoint.id in registry.ids():
            lease.end("stopped")
            return False
        died = leases.state(checkpoint.id).attempts
        if died >= options.attempts:  # a failure in the last attempt would have been recorded
            message = f"{died} watchers died while they ran this checkpoint: is there enough memory for it?"
            result.failed[checkpoint.name] = message
            added = registry.add(CheckpointRecord.of(checkpoint, "failed", error=message))
            lease.end("failed", error=message, seconds=0.0)
            return added
        try:
            about = run_one(config, checkpoint)
        except NotTheCheckpoint as error:
            lease.end("stopped", error=str(error))
            raise error.error from error
        except storage_errors(EnvironmentFault) as error:  # not the checkpoint's fault: the attempt does not count
            lease.end("stopped", error=str(error))
            raise
        except Exception as error:
            message = str(error) if isinstance(error, VtcavError) else f"{type(error).__name__}: {error}"
            logger.error("checkpoint failed: %s", message, exc_info=not isinstance(error, VtcavError))
            result.failed[checkpoint.name] = message
            last = leases.state(checkpoint.id).attempts + 1 >= options.attempts
            added = last and registry.add(CheckpointRecord.of(checkpoint, "failed", error=message))
            lease.end("failed", error=message, seconds=time.monotonic() - started)
            return added
        except BaseException:  # Ctrl-C: the next watcher may take the checkpoint at once
            lease.end("stopped")
            raise
        added = registry.add(CheckpointRecord.of(checkpoint, "done", **about))
        lease.end("done", seconds=time.monotonic() - started)
        result.done.append(checkpoint.name)
        return added


def watch_for_ever(one_pass: Callable[[], Pass], every_s: float, report: Callable[[Pass], None]) -> None:
    """Run pass after pass. Log an error that ends a pass (no storage, no cluster, no video yet), and continue.

    Args:
        one_pass: runs one pass.
        every_s: seconds from the end of a pass to the start of the next.
        report: called with the result of each pass.

    Raises:
        ConfigError: an error that only the user can fix.
    """
    while True:
        try:
            report(one_pass())
        except storage_errors(StageError) as error:
            logger.warning("this pass failed, the next may succeed: %s", error)
        time.sleep(every_s)
