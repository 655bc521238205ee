"""Checkpoints that are there, whole, and no longer being written."""

from __future__ import annotations

import logging
import re
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtcav_ray.store.access import open_url, patiently
from vtcav_ray.store.folder import modified_at
from vtcav_ray.store.records import canonical_digest
from vtcav_ray.store.urls import check_url

logger = logging.getLogger(__name__)

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".download", ".temp", "~")
ZIP_MAGIC, PICKLE_MAGIC = b"PK", b"\x80"


@dataclass(frozen=True, order=True)
class Checkpoint:
    """One file as a listing shows it, in the order of training.

    Attributes:
        order: (0, step) or (1, 0) where the name has no number.
        name: file name.
        url: where it is.
        fingerprint: ETag, or size and time of change: a file that was written again is another checkpoint.
        size: bytes.
        modified: seconds since the epoch; None: the storage does not say.
    """

    order: tuple[int, int]
    name: str
    url: str
    fingerprint: str
    size: int
    modified: float | None

    @property
    def step(self) -> int | None:
        """The last number in the name: `epoch_12.pth` is 12."""
        return self.order[1] if self.order[0] == 0 else None

    @property
    def id(self) -> str:
        """Name of its lease and its record."""
        return canonical_digest([self.url, self.fingerprint])[:16]


def list_checkpoints(pattern: str, storage_options: Mapping[str, Any] | None = None) -> list[Checkpoint]:
    """Every file that matches, in the order of training; hidden, empty and temporary ones are left out.

    Raises:
        ConfigError: a URL that is not allowed or can't be opened.
        OSError: no permission, or the network failed.
    """
    check_url(pattern, "--checkpoints")
    fs, path = open_url(pattern, storage_options)
    found = []
    for file, info in patiently(lambda: fs.glob(path, detail=True), pattern).items():
        name = file.rsplit("/", 1)[-1]
        if info["type"] != "file" or not info.get("size") or name.startswith(".") or name.lower().endswith(UNFINISHED):
            continue
        found.append(_checkpoint(str(fs.unstrip_protocol(file)), name, info))
    return sorted(found)


def _checkpoint(url: str, name: str, info: Mapping[str, Any]) -> Checkpoint:
    tag = next((str(info[key]).strip('"') for key in ("ETag", "etag", "md5Hash", "content_md5") if info.get(key)), None)
    modified = modified_at(info)
    numbers = re.findall(r"\d+", name.rsplit(".", 1)[0])
    order = (0, int(numbers[-1])) if numbers else (1, 0)
    return Checkpoint(
        order, name, url.removeprefix("file://"), tag or f"{info['size']}-{modified}", info["size"], modified
    )


def settled(
    candidates: Sequence[Checkpoint],
    look_again: Callable[[], Sequence[Checkpoint]],
    settle_s: float,
    *,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Checkpoint]:
    """Those that are not being written: old enough, or the same in a second look `settle_s` seconds later.

    Args:
        candidates: of the first look.
        look_again: lists once more; called only where one of them is too young to tell.
        settle_s: how long a finished file stays the same.
    """
    old = {c for c in candidates if c.modified is not None and now() - c.modified > settle_s}
    if len(old) < len(candidates):
        sleep(settle_s)
        old |= set(candidates) & set(look_again())
    return [c for c in candidates if c in old]


def looks_whole(checkpoint: Checkpoint, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Whether the file's ends are those of a PyTorch file: a zip with its directory, or the older kind of pickle.

    A copy that broke off lacks the zip's directory, which is at the end. One that was deleted since it was listed (a
    training may keep only its newest), or that is not ours to read, is not whole either: the others need not wait for
    it. Reads a few kilobytes, and runs nothing.

    Raises:
        OSError: the network failed.
    """
    fs, path = open_url(checkpoint.url, storage_options if "://" in checkpoint.url else None)

    def look() -> bool:
        with fs.open(path, "rb") as file:
            head = file.read(2)
            return zipfile.is_zipfile(file) if head == ZIP_MAGIC else bool(head[:1] == PICKLE_MAGIC)

    try:
        return patiently(look, checkpoint.url)
    except (FileNotFoundError, PermissionError) as error:
        logger.warning("%s is passed over: %s", checkpoint.url, error)
        return False
