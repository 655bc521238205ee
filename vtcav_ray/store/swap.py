"""Compare and swap: change a small file that other processes may change too, on a local disk or an object store."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tenacity
from fsspec.implementations.local import LocalFileSystem

from vtcav_ray.store.access import patiently
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.storage_errors import answer_of

ROUNDS = 100
LONGEST_WAIT_SECONDS = 0.5
LOCK_SECONDS = 60.0
_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_here = threading.Lock()  # within this process, for file systems with neither locks nor conditional writes

Change = Callable[[bytes | None], bytes]


def swap(folder: Folder, name: str, change: Change) -> None:
    """Replace a file by `change(bytes)` (None: there is no such file) without losing another writer's change.

    Local disks and S3 guarantee this between processes and machines (a local folder shared by several machines needs
    shared locks). On other object stores it holds within one process only.

    Args:
        change: called again, with the newer bytes, if another writer was faster; must be safe to repeat.

    Raises:
        ConnectionError: other writers were faster ROUNDS times, or the storage does not answer.
        TimeoutError: a local lock was not free for LOCK_SECONDS.
    """
    fs = folder.fs
    if isinstance(fs, LocalFileSystem):
        with _locked(folder.path(f".{name}.lock")):
            folder.write_bytes(name, change(_read(folder, name)))
    elif "s3" in fs.protocol:
        _swap_on_s3(folder, name, change)
    else:
        with _here:
            folder.write_bytes(name, change(_read(folder, name)))


def _read(folder: Folder, name: str) -> bytes | None:
    try:
        return folder.read_bytes(name)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold a lock that the system releases when this process ends, however it ends. The file stays."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(BlockingIOError),
        wait=tenacity.wait_random(0.001, 0.02),
        stop=tenacity.stop_after_delay(LOCK_SECONDS),
        reraise=True,
    )
    with open(path, "ab") as file:
        try:
            tries(fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TimeoutError(f"{path} was locked by another process for {LOCK_SECONDS:.0f} s") from error
        yield  # closing the file frees the lock


def _swap_on_s3(folder: Folder, name: str, change: Change) -> None:
    fs, path, where = folder.fs, folder.path(name), f"{folder.url.rstrip('/')}/{name}"

    def attempt() -> None:
        condition, data = _read_with_tag(folder, name)
        new = change(data)
        try:
            patiently(lambda: fs.pipe_file(path, new, **condition), where)
        except ConnectionError:
            raise
        except OSError as error:
            if not _is_refused(error):
                raise
            raise tenacity.TryAgain from error

    tries = tenacity.Retrying(
        retry=tenacity.retry_never,  # only on TryAgain
        wait=tenacity.wait_random_exponential(multiplier=0.02, max=LONGEST_WAIT_SECONDS),
        stop=tenacity.stop_after_attempt(ROUNDS),
    )
    try:
        tries(attempt)
    except tenacity.RetryError as error:
        message = f"{where} was changed by another process {ROUNDS} times before it could be written"
        raise ConnectionError(message) from error


def _read_with_tag(folder: Folder, name: str) -> tuple[dict[str, Any], bytes | None]:
    """Return (condition for the next put, bytes). Read the tag first: if the file changes after that, the put fails."""
    fs, path, where = folder.fs, folder.path(name), f"{folder.url.rstrip('/')}/{name}"
    try:
        tag = patiently(lambda: fs.info(path, refresh=True), where)["ETag"]
        return {"IfMatch": tag}, bytes(patiently(lambda: fs.cat_file(path), where))
    except FileNotFoundError:
        return {"IfNoneMatch": "*"}, None


def _is_refused(error: BaseException) -> bool:
    """Return whether S3 reported that the condition does not hold. s3fs raises that with an arbitrary errno."""
    answer = answer_of(error)
    return answer is not None and (answer.code in _REFUSED or answer.status in (409, 412))
