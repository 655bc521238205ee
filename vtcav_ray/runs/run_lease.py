"""One writer a run folder: a command that writes into a run holds its lease from start to end.

A second command gets a sentence that says who writes, where and since when. With `--take-over` it takes the lease all
the same: the first notices at its next heartbeat or before its next shard is counted, stops in an orderly way, and
writes no `run.json` any more; the second begins when the first has ended.

Storage without conditional writes can't keep two writers apart. There a warning is logged, and the run goes on: since
shards are named by their content and written whole, two drivers of one config write the same files.
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
# A holder beats four times in that time. A killed one on another machine blocks the folder for so long.
EXPIRES_S = 60.0


class LeaseHeld(EnvironmentFault):
    """Somebody else writes into the run folder."""


class LeaseLost(StageError):
    """Somebody else took the run folder over. What this process would still write is not wanted any more."""


class Writer:
    """The right to write into a run folder.

    Args:
        folder: the run folder.
        lease: None: the storage can't keep writers apart.
    """

    def __init__(self, folder: Folder, lease: Lease | None) -> None:
        self.folder, self._lease = folder, lease

    @property
    def lost(self) -> bool:
        """Whether the heartbeat has found that somebody else took over."""
        return self._lease is not None and self._lease.lost

    def check(self, *, look: bool = False) -> None:
        """Go on only while this process is the writer.

        Args:
            look: ask storage; otherwise, what the last heartbeat found.

        Raises:
            LeaseLost: somebody else took over.
        """
        if self._lease is not None and (self._lease.look() if look else self._lease.lost):
            raise self.error()

    def error(self) -> LeaseLost:
        """The sentence for a writer that was ended."""
        by = Leases(self.folder.below(LEASES), EXPIRES_S).owner(NAME)
        return LeaseLost(
            f"This run was ended: {self.folder.url} was taken over by {by.sentence}. Finished shards are kept, and "
            "that run goes on with them."
        )


_HELD: contextvars.ContextVar[Mapping[str, Writer]] = contextvars.ContextVar("held")


@contextlib.contextmanager
def writing(folder: Folder, command: str = "vtcav run", *, take_over: bool = False) -> Iterator[Writer]:
    """Be the one writer of a run folder for as long as the block lasts. Within such a block, free.

    Args:
        folder: the run folder.
        command: for others to read.
        take_over: end another writer, and wait until it has ended.

    Raises:
        LeaseHeld: somebody else writes into it.
        LeaseLost: (at the end of the block) the main thread was interrupted since somebody took over.
        StageError: the folder can't be written.
    """
    held = _HELD.get({})
    name = os.path.realpath(folder.url) if "://" not in folder.url else folder.url.rstrip("/")
    if name in held:
        yield held[name]
        return
    if not can_lease(folder):
        logger.warning("%s: this storage has no conditional write. See that no second run writes here.", folder.url)
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
        except storage_errors() as error:  # it expires by itself, and the first error says more
            logger.warning("the lease of %s could not be given back: %s", folder.url, error)


def _taken(folder: Folder, command: str, take_over: bool) -> Lease:
    leases = Leases(folder.below(LEASES), EXPIRES_S, command)
    try:
        if take_over and leases.state(NAME).held:
            logger.warning("taking %s over from %s; waiting for it to end", folder.url, leases.owner(NAME).sentence)
        lease = leases.take_over(NAME) if take_over else leases.take(NAME)
        if lease is None:
            raise LeaseHeld(
                f"{folder.url} is being written by {leases.owner(NAME).sentence}. Wait until it has ended, or end it "
                "and go on from there with --take-over."
            )
        leases.forget(NAME, before=lease.number)
    except PermissionError as error:
        raise StageError(
            f"The run folder {folder.url} can't be written: {error}. Choose another with --out."
        ) from error
    return lease
