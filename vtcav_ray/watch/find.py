"""Find checkpoints that are complete and no longer being written."""

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
class FoundCheckpoint:
    """One checkpoint file as listed. Checkpoints sort in the order of training.

    Attributes:
        order: (0, step), or (1, 0) if the name has no number.
        name: file name.
        url: URL of the file.
        fingerprint: ETag, or size and modification time. A rewritten file is another checkpoint.
        size: bytes.
        modified: seconds since the epoch; None: the storage does not report it.
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
        """Name of the checkpoint's lease and record."""
        return canonical_digest([self.url, self.fingerprint])[:16]


def list_checkpoints(pattern: str, storage_options: Mapping[str, Any] | None = None) -> list[FoundCheckpoint]:
    """List all matching files in the order of training, without hidden, empty and temporary ones.

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


def _checkpoint(url: str, name: str, info: Mapping[str, Any]) -> FoundCheckpoint:
    tag = next((str(info[key]).strip('"') for key in ("ETag", "etag", "md5Hash", "content_md5") if info.get(key)), None)
    modified = modified_at(info)
    numbers = re.findall(r"\d+", name.rsplit(".", 1)[0])
    order = (0, int(numbers[-1])) if numbers else (1, 0)
    return FoundCheckpoint(
        order, name, url.removeprefix("file://"), tag or f"{info['size']}-{modified}", info["size"], modified
    )


def settled(
    candidates: Sequence[FoundCheckpoint],
    look_again: Callable[[], Sequence[FoundCheckpoint]],
    settle_s: float,
    *,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> list[FoundCheckpoint]:
    """Return the checkpoints that are not being written: old enough, or unchanged `settle_s` seconds later.

    Args:
        candidates: the first listing.
        look_again: lists again; called only if a candidate is too young to decide.
        settle_s: a file that stays unchanged for this long is finished.
    """
    old = {c for c in candidates if c.modified is not None and now() - c.modified > settle_s}
    if len(old) < len(candidates):
        sleep(settle_s)
        old |= set(candidates) & set(look_again())
    return [c for c in candidates if c in old]


def looks_whole(checkpoint: FoundCheckpoint, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Return whether the file looks like a complete PyTorch file: a zip with its directory, or the older pickle.

    An interrupted copy lacks the zip's directory, which is at the end. A file that was deleted after it was listed (a
    training may keep only its newest), or that may not be read, counts as incomplete, so the others need not wait for
    it. Reads a few kilobytes and executes nothing.

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
        logger.warning("skipping %s: %s", checkpoint.url, error)
        return False
