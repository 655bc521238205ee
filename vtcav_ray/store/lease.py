"""Leases: processes agree on who works on what through storage alone, without a server or synchronised clocks.

A lease is a numbered file that is written only if it does not exist (a hard link on a local disk, `If-None-Match: *` on
S3, a generation match on GCS), so exactly one of any number of processes gets it. The holder then writes a small
heartbeat file beside it at regular intervals. When the heartbeat stops, the holder counts as dead and another process
may take the next number; a holder on this machine whose process is gone counts as dead at once. An age is the
difference of two times that the STORAGE reports: of the heartbeat, and of a file written just now.

A holder that was only suspended (a closed laptop) may lose its lease, and so does one that another process replaces
(`Leases.take_over`). It notices at its next heartbeat. `vtcav watch` leases checkpoints, and
`vtcav_ray.runs.run_lease` leases a whole run.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtcav_ray.errors import ConfigError
from vtcav_ray.store.access import patiently, storage_errors
from vtcav_ray.store.folder import Folder, modified_at
from vtcav_ray.store.records import BrokenFile

logger = logging.getLogger(__name__)

ATOMIC = ("file", "s3", "gs", "memory")  # storage that can write a file only if it does not exist
# How an attempt ended. An attempt that was stopped from outside does not count.
COUNTED, NOT_COUNTED = ("done", "failed"), ("stopped",)
POLL_S = 0.5


def can_lease(folder: Folder) -> bool:
    """Return whether the folder's storage can write a file only if it does not exist."""
    return bool(set(_protocols(folder)) & set(ATOMIC))


def _protocols(folder: Folder) -> tuple[str, ...]:
    protocol = folder.fs.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def create_once(folder: Folder, name: str, content: bytes) -> bool:
    """Write a file atomically unless it exists. Return whether the file now has this content.

    Raises:
        ConfigError: the storage has no conditional write.
    """
    if not can_lease(folder):
        raise ConfigError(
            f"{folder.url}: watchers can't agree on {_protocols(folder)[0]} storage, which has no conditional write. "
            "Put the run folder (--out) on a disk, S3 or GCS."
        )
    # A request that was repeated after a lost answer finds its own file, hence the comparison.
    return folder.write_once(name, content) == content


@dataclass(frozen=True)
class State:
    """The current state of a lease.

    Attributes:
        number: of the newest attempt; 0: none yet.
        held: a process works on it.
        attempts: number of attempts that count: done, failed, or died.
    """

    number: int
    held: bool
    attempts: int


@dataclass(frozen=True)
class Owner:
    """The process that took a lease: the content of the lease's file. Unknown fields are empty.

    Attributes:
        id: distinguishes two attempts of one process.
        host, pid, user, command: for people.
        since: seconds since the epoch, by the holder's clock.
        machine: id of the machine's current boot and of its pid namespace; empty: unknown.
        started: start time of the process, in the machine's clock ticks; empty: unknown.
    """

    id: str = ""
    host: str = ""
    pid: int = 0
    user: str = ""
    command: str = ""
    since: float = 0.0
    machine: str = ""
    started: str = ""

    @classmethod
    def here(cls, command: str) -> Owner:
        """Return the owner record of this process."""
        pid = os.getpid()
        started = _started(pid)
        now = time.time()
        return cls(uuid.uuid4().hex, socket.gethostname(), pid, _user(), command, now, _machine(), started or "")

    @classmethod
    def parse(cls, data: bytes) -> Owner:
        """Parse the lease's file. Missing or invalid fields stay empty: the lease still counts."""
        try:
            found = json.loads(data)
        except ValueError:
            return cls()
        found = found if isinstance(found, dict) else {}
        default = cls()
        known = {n: v for n, v in found.items() if n in vars(default) and type(v) is type(getattr(default, n))}
        return cls(**known)

    @property
    def gone(self) -> bool:
        """Whether the process certainly ended: it ran on this machine and is gone."""
        here = _machine()
        return bool(here and self.machine == here and self.started and _started(self.pid) != self.started)

    @property
    def sentence(self) -> str:
        """The owner in words: `vtcav run` of user ann on host box (process 7), since 2026-01-01 12:00:00 UTC."""
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since)) if self.since else "an unknown time"
        if not self.host:
            return f"an unknown process, since {since}"
        who = f" of user {self.user}" if self.user else ""
        return f"`{self.command or 'vtcav'}`{who} on host {self.host} (process {self.pid}), since {since}"


@dataclass(frozen=True)
class Sign:
    """The last sign of life of a holder.

    Attributes:
        at: when it was written, seconds since the epoch by the storage's clock; None: the storage keeps no times.
        ended: the holder has ended the lease, or its process on this machine is gone.
    """

    at: float | None
    ended: bool


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: a process can't be distinguished from a later one with the same pid
        return ""


def _started(pid: int) -> str | None:
    """Return the start time of a running process, in clock ticks; None if no process with this pid runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in ("Z", "X") else rest[18]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        return str(os.getuid())


@dataclass
class Lease:
    """A lease that this process holds until `end`, or until another process takes it over.

    Attributes:
        on_lost: called once, in the heartbeat's thread, when a later number exists, so another process holds the lease.
            None: do not check.
    """

    folder: Folder
    number: int
    beat_every_s: float
    on_lost: Callable[[], None] | None = None
    lost: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        self._stop.clear()
        self._write_beat()  # write the first at once: on a full disk, `end` deletes it to make room
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.pause()

    def pause(self) -> None:
        """Stop the heartbeat until the lease is entered again."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _beat(self) -> None:
        while not self._stop.wait(self.beat_every_s):
            try:
                if self.on_lost is not None and self.look():
                    self.on_lost()
                    return
                self._write_beat()
            except (
                storage_errors()
            ) as error:  # the next beat may succeed; if none does, the lease expires, as it should
                logger.warning("could not renew the lease at %s: %s", self.folder.url, error)

    def look(self) -> bool:
        """Check storage for a later number. Return whether another process has taken the lease."""
        self.lost = self.lost or any(number > self.number for number in _numbers(self.folder.names("")))
        return self.lost

    def _write_beat(self) -> None:
        self.folder.write_bytes(f"{self.number:06d}.beat", uuid.uuid4().bytes)

    def end(self, outcome: str, **about: Any) -> None:
        """Record how the attempt ended (`done`, `failed` or `stopped`) and free the lease."""
        assert outcome in (*COUNTED, *NOT_COUNTED)
        self._stop.set()  # a heartbeat after the end would be a useless file
        try:
            self.folder.write_json(f"{self.number:06d}.end", {"outcome": outcome, **about})
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # A full disk must not look like a dead watcher: the heartbeat's block has room for this short record.
            self.folder.remove(f"{self.number:06d}.beat")
            self.folder.write_json(f"{self.number:06d}.end", {"outcome": outcome})


def _numbers(names: list[str] | set[str]) -> list[int]:
    """Return the numbers of the attempts, from the names of a lease's files."""
    found = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return sorted(int(number) for number in found if number.isdecimal())


class Leases:
    """All leases in a folder.

    Args:
        folder: with the leases.
        expires_s: seconds without a heartbeat after which a holder counts as dead.
        command: what this process does, for people who read the lease.
    """

    def __init__(self, folder: Folder, expires_s: float, command: str = "vtcav watch") -> None:
        self.folder, self.expires_s, self.command = folder, expires_s, command

    def state(self, name: str) -> State:
        """Return the current state of a lease."""
        names = set(self.folder.names(name))
        numbers = _numbers(names)
        if not numbers:
            return State(0, False, 0)
        newest = numbers[-1]
        held = self._held(name, newest, names)
        attempts = sum(self._counts(name, number, names) for number in numbers[: -1 if held else None])
        return State(newest, held, attempts)

    def take(self, name: str) -> Lease | None:
        """Take a lease; return None if another process holds it or was faster."""
        state = self.state(name)
        return None if state.held else self._take(name, state.number + 1)

    def take_over(self, name: str) -> Lease | None:
        """Take a lease that another process may hold, and wait until the holder has noticed and ended, or is dead.

        Return None if a third process was faster.
        """
        before = self.state(name)
        lease = self._take(name, before.number + 1)
        if lease is None or not before.held:
            return lease
        with lease:  # send heartbeats while waiting
            while self._held(name, before.number, set(self.folder.names(name))):
                time.sleep(POLL_S)
        return lease

    def owner(self, name: str) -> Owner:
        """Return the owner of the newest attempt."""
        number = self.state(name).number
        return self._owner(name, number) if number else Owner()

    def last_sign(self, name: str) -> Sign | None:
        """Return the last sign of life of the newest holder, without writing; None: the lease was never taken."""
        names = set(self.folder.names(name))
        numbers = _numbers(names)
        if not numbers:
            return None
        stem = f"{numbers[-1]:06d}"
        ended = f"{stem}.end" in names
        newest = next(f"{stem}{kind}" for kind in (".end", ".beat", ".json") if f"{stem}{kind}" in names)
        return Sign(self._written(f"{name}/{newest}"), ended or self._owner(name, numbers[-1]).gone)

    def forget(self, name: str, before: int) -> None:
        """Delete the files of attempts before a number."""
        for file in self.folder.names(name):
            number = file.partition(".")[0]
            if number.isdecimal() and int(number) < before:
                self.folder.remove(f"{name}/{file}")

    def _take(self, name: str, number: int) -> Lease | None:
        owner = json.dumps(vars(Owner.here(self.command))).encode()
        if not create_once(self.folder, f"{name}/{number:06d}.json", owner):
            return None
        return Lease(self.folder.below(name), number, self.expires_s / 4)

    def _owner(self, name: str, number: int) -> Owner:
        return Owner.parse(self.folder.read_bytes(f"{name}/{number:06d}.json"))

    def _held(self, name: str, number: int, names: set[str]) -> bool:
        if f"{number:06d}.end" in names or f"{number:06d}.json" not in names:
            return False
        return not self._owner(name, number).gone and not self._expired(name, number, names)

    def _counts(self, name: str, number: int, names: set[str]) -> bool:
        if f"{number:06d}.end" not in names:
            return True  # died
        try:
            end = self.folder.read_json(f"{name}/{number:06d}.end")
        except BrokenFile:
            return True  # counts as died
        return not isinstance(end, dict) or end.get("outcome") in COUNTED

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
