"""Who works on what, agreed through the storage alone: no server, and no clock that two machines would have to share.

A lease is a numbered file that is written only if it does not exist (a hard link on a local disk, `If-None-Match: *` on
S3, a generation match on GCS), so of any number of watchers one gets it. The holder then writes a small file beside it
every so often. Where that stops, the holder is taken for dead, and the next number may be taken. Ages are differences
of two times that the STORAGE gave, of the heartbeat and of a file written just now.

A holder that was only asleep (a laptop's lid) may find its lease taken. Two then work on one checkpoint; since shards
are named by content and written whole, that costs time and nothing else, and the record of the checkpoint is written
once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vtcav_ray.access import STORAGE_ERRORS, patiently
from vtcav_ray.errors import ConfigError
from vtcav_ray.storage import Folder, modified_at

logger = logging.getLogger(__name__)

ATOMIC = ("file", "s3", "gs", "memory")  # storage that can write a file only if it is not there
# How an attempt ended. What was stopped from outside does not count as one.
COUNTED, NOT_COUNTED = ("done", "failed"), ("stopped",)


def create_once(folder: Folder, name: str, content: bytes) -> bool:
    """Write a file unless it exists; whole or not at all. True: what is there is this content.

    Raises:
        ConfigError: storage that can't promise that.
    """
    protocols = (folder.fs.protocol,) if isinstance(folder.fs.protocol, str) else folder.fs.protocol
    if not set(protocols) & set(ATOMIC):
        raise ConfigError(
            f"{folder.url}: watchers can't agree on {protocols[0]} storage, which has no conditional write. Put the "
            "run folder (--out) on a disk, S3 or GCS."
        )
    # A request that was repeated after its answer was lost meets its own file: hence the comparison.
    return folder.write_once(name, content) == content


@dataclass(frozen=True)
class State:
    """A lease as it is now.

    Attributes:
        number: of the newest attempt; 0: there was none.
        held: somebody works on it.
        attempts: those that count: done, failed, or died.
    """

    number: int
    held: bool
    attempts: int


@dataclass
class Lease:
    """Held by this process until `end`."""

    folder: Folder
    number: int
    beat_every_s: float
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        self._write_beat()  # the first at once, so that there is one to give way (`end`)
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self.beat_every_s):
            try:
                self._write_beat()
            except (
                STORAGE_ERRORS
            ) as error:  # the next beat may get through; if none does, the lease expires, as it should
                logger.warning("the lease at %s could not be renewed: %s", self.folder.url, error)

    def _write_beat(self) -> None:
        self.folder.write_bytes(f"{self.number:06d}.beat", uuid.uuid4().bytes)

    def end(self, outcome: str, **about: Any) -> None:
        """Write down how the attempt ended: `done`, `failed` or `stopped`. The lease is free from then on."""
        assert outcome in (*COUNTED, *NOT_COUNTED)
        try:
            self.folder.write_json(f"{self.number:06d}.end", {"outcome": outcome, **about})
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # A full disk must not look like a watcher that died: the heartbeat's block is enough for these few words.
            self.folder.remove(f"{self.number:06d}.beat")
            self.folder.write_json(f"{self.number:06d}.end", {"outcome": outcome})


class Leases:
    """All leases of a watch folder.

    Args:
        folder: where they are.
        expires_s: seconds without a heartbeat after which a holder is taken for dead.
    """

    def __init__(self, folder: Folder, expires_s: float) -> None:
        self.folder, self.expires_s = folder, expires_s

    def state(self, name: str) -> State:
        """Look at a lease."""
        names = set(self.folder.names(name))
        numbers = sorted(int(n.removesuffix(".json")) for n in names if n.endswith(".json"))
        if not numbers:
            return State(0, False, 0)
        newest = numbers[-1]
        held = f"{newest:06d}.end" not in names and not self._expired(name, newest, names)
        attempts = sum(self._counts(name, number, names) for number in numbers[: -1 if held else None])
        return State(newest, held, attempts)

    def take(self, name: str) -> Lease | None:
        """Take a lease; None: somebody holds it, or was quicker."""
        state = self.state(name)
        if state.held:
            return None
        number = state.number + 1
        owner = {"owner": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid()}
        if not create_once(self.folder, f"{name}/{number:06d}.json", json.dumps(owner).encode()):
            return None
        return Lease(self.folder.below(name), number, self.expires_s / 4)

    def _counts(self, name: str, number: int, names: set[str]) -> bool:
        if f"{number:06d}.end" not in names:
            return True  # died
        return self.folder.read_json(f"{name}/{number:06d}.end")["outcome"] in COUNTED

    def _expired(self, name: str, number: int, names: set[str]) -> bool:
        beat = f"{number:06d}.beat"
        seen = self._written(f"{name}/{beat if beat in names else f'{number:06d}.json'}")
        with self._file_of_now() as probe:
            now = self._written(probe)
        return seen is None or now is None or now - seen > self.expires_s

    def _written(self, name: str) -> float | None:
        self.folder.fs.invalidate_cache()
        return modified_at(patiently(lambda: self.folder.fs.info(self.folder.path(name)), f"{self.folder.url}/{name}"))

    @contextlib.contextmanager
    def _file_of_now(self) -> Iterator[str]:
        name = f"now-{uuid.uuid4().hex}"
        self.folder.write_bytes(name, b"now")
        try:
            yield name
        finally:
            self.folder.remove(name)
