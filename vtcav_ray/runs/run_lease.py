"""One writer per run folder: a command that writes into a run holds its lease from start to end.

A second command fails with a message that says who writes, where and since when. With `--take-over` it takes the lease
over. The first command notices at its next heartbeat or before its next shard is counted, stops cleanly, and no longer
writes `run.json`. The second command begins when the first has ended.

Storage without conditional writes can't keep two writers apart. On such storage a warning is logged and the run
continues: shards are named by their content and written whole, so two drivers of one config write the same files.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
from collections.abc import Iterator, Mapping

from vtcav_ray.errors import EnvironmentFault, StageError
from vtcav_ray.runs.interrupt import interrupter
from vtcav_ray.store.access import storage_errors
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.lease import Lease, Leases, can_lease

logger = logging.getLogger(__name__)

LEASES = "leases"
NAME = "run"
# A holder sends four heartbeats in this time. A killed holder on another machine blocks the folder for this time.
EXPIRES_S = 60.0
CLOCKS_APART_S = 30.0  # how far the clocks of a reader and of the storage may differ


class LeaseHeld(EnvironmentFault):
    """Another process writes into the run folder."""


class LeaseLost(StageError):
    """Another process took the run folder over, so this one must not write any more."""


class Writer:
    """The right to write into a run folder.

    Args:
        folder: the run folder.
        lease: the lease that this process holds; None: the storage can't keep writers apart.
    """

    def __init__(self, folder: Folder, lease: Lease | None) -> None:
        self.folder, self._lease = folder, lease

    @property
    def lost(self) -> bool:
        """Whether the heartbeat has found that another process took over."""
        return self._lease is not None and self._lease.lost

    def check(self, *, look: bool = False) -> None:
        """Raise an error unless this process is still the writer.

        Args:
            look: ask storage; otherwise use the result of the last heartbeat.

        Raises:
            LeaseLost: another process took over.
        """
        if self._lease is not None and (self._lease.look() if look else self._lease.lost):
            raise self.error()

    def error(self) -> LeaseLost:
        """Return the error for a writer whose folder was taken over."""
        by = Leases(self.folder.below(LEASES), EXPIRES_S).owner(NAME)
        return LeaseLost(
            f"This run was ended: {self.folder.url} was taken over by {by.sentence}. Finished shards are kept, and "
            "that run continues with them."
        )


_HELD: contextvars.ContextVar[Mapping[str, Writer]] = contextvars.ContextVar("held")


@contextlib.contextmanager
def writing(folder: Folder, command: str = "vtcav run", *, take_over: bool = False) -> Iterator[Writer]:
    """Hold the right to write into a run folder for the block. Inside another block for the same folder, do nothing.

    Args:
        folder: the run folder.
        command: shown to other commands.
        take_over: end another writer, and wait until it has ended.

    Raises:
        LeaseHeld: another process writes into it.
        LeaseLost: (at the end of the block) the main thread was interrupted because another process took over.
        StageError: the folder can't be written.
    """
    held = _HELD.get({})
    name = os.path.realpath(folder.url) if "://" not in folder.url else folder.url.rstrip("/")
    if name in held:
        yield held[name]
        return
    if not can_lease(folder):
        logger.warning(
            "%s: this storage has no conditional write. Make sure that no second run writes here.", folder.url
        )
        yield Writer(folder, None)
        return
    lease = _taken(folder, command, take_over)
    writer = Writer(folder, lease)
    lease.on_lost = interrupter()  # the main thread may wait for a shard that takes an hour
    token = _HELD.set({**held, name: writer})
    try:
        with lease:
            yield writer
    except KeyboardInterrupt:
        if writer.lost:
            raise writer.error() from None
        raise
    finally:
        _HELD.reset(token)
        try:
            lease.end("done")
        except storage_errors() as error:  # the lease expires on its own, and an earlier error says more
            logger.warning("the lease of %s could not be released: %s", folder.url, error)


def silent_since(folder: Folder, now: float) -> float | None:
    """Return when the last writer gave its last sign of life, if it no longer runs. Writes nothing.

    Args:
        folder: the run folder.
        now: seconds since the epoch, by this machine's clock, which may differ from the storage's by half a minute.

    Returns:
        Seconds since the epoch; None: the writer runs, or nothing is known about it.
    """
    seen = Leases(folder.below(LEASES), EXPIRES_S).last_sign(NAME)
    if seen is None or seen.at is None:
        return None
    return seen.at if seen.ended or now - seen.at > EXPIRES_S + CLOCKS_APART_S else None


def _taken(folder: Folder, command: str, take_over: bool) -> Lease:
    leases = Leases(folder.below(LEASES), EXPIRES_S, command)
    try:
        if take_over and leases.state(NAME).held:
            logger.warning("taking %s over from %s; waiting for it to end", folder.url, leases.owner(NAME).sentence)
        lease = leases.take_over(NAME) if take_over else leases.take(NAME)
        if lease is None:
            raise LeaseHeld(
                f"{folder.url} is being written by {leases.owner(NAME).sentence}. Wait until it has ended, or end it "
                "and continue from there with --take-over."
            )
        leases.forget(NAME, before=lease.number)
    except PermissionError as error:
        raise StageError(
            f"The run folder {folder.url} can't be written: {error}. Choose another with --out."
        ) from error
    return lease
