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
from vtcav_ray.store.saved_models import CONFIG, SUFFIX, is_whole_folder
from vtcav_ray.store.urls import check_url

logger = logging.getLogger(__name__)

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".download", ".temp", "~")
ZIP_MAGIC, PICKLE_MAGIC = b"PK", b"\x80"


@dataclass(frozen=True, order=True)
class FoundCheckpoint:
    """One checkpoint: a file, or a folder that `save_pretrained` wrote. They sort in the order of training.

    Attributes:
        order: (0, step), or (1, 0) if the name has no number.
        name: name of the file or folder.
        url: its URL.
        fingerprint: ETag, or size and modification time; of a folder, a digest over its weights and config. A rewritten
            file is another checkpoint.
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
    """List all matching checkpoints in the order of training, without hidden, empty and temporary ones.

    A folder counts if it holds a `config.json` and safetensors, as `save_pretrained` writes them.

    Raises:
        ConfigError: a URL that is not allowed or can't be opened.
        OSError: no permission, or the network failed.
    """
    check_url(pattern, "--checkpoints")
    fs, path = open_url(pattern, storage_options)
    found = []
    for place, info in patiently(lambda: fs.glob(path, detail=True), pattern).items():
        name = place.rstrip("/").rsplit("/", 1)[-1]
        if name.startswith((".", "tmp-")) or name.lower().endswith(UNFINISHED):
            continue
        url = str(fs.unstrip_protocol(place.rstrip("/")))
        if info["type"] == "directory":
            found += _folder(url, name, _files_of(fs, place, pattern))
        elif info["type"] == "file" and info.get("size"):
            found.append(_checkpoint(url, name, info))
    return sorted(found)


def _files_of(fs: Any, place: str, pattern: str) -> dict[str, Mapping[str, Any]]:
    """Return the files of a folder that belong to its model, by name; empty: it was deleted meanwhile."""
    try:
        listed = patiently(lambda: fs.ls(place, detail=True), pattern)
    except FileNotFoundError:
        return {}
    named = {str(info["name"]).rsplit("/", 1)[-1]: info for info in listed if info["type"] == "file"}
    return {name: named[name] for name in sorted(named) if name == CONFIG or name.startswith("model")}


def _folder(url: str, name: str, files: Mapping[str, Mapping[str, Any]]) -> list[FoundCheckpoint]:
    if CONFIG not in files or not any(file.endswith(SUFFIX) for file in files):
        return []
    parts = [_checkpoint(f"{url}/{file}", file, info) for file, info in files.items()]
    times = [part.modified for part in parts if part.modified is not None]
    fingerprint = canonical_digest([[part.name, part.fingerprint] for part in parts])[:32]
    size, modified = sum(part.size for part in parts), max(times) if len(times) == len(parts) else None
    return [FoundCheckpoint(_order(name), name, url.removeprefix("file://"), fingerprint, size, modified)]


def _checkpoint(url: str, name: str, info: Mapping[str, Any]) -> FoundCheckpoint:
    tag = next((str(info[key]).strip('"') for key in ("ETag", "etag", "md5Hash", "content_md5") if info.get(key)), None)
    modified, size = modified_at(info), int(info.get("size") or 0)
    fingerprint = tag or f"{size}-{modified}"
    return FoundCheckpoint(_order(name), name, url.removeprefix("file://"), fingerprint, size, modified)


def _order(name: str) -> tuple[int, int]:
    numbers = re.findall(r"\d+", name.rsplit(".", 1)[0])
    return (0, int(numbers[-1])) if numbers else (1, 0)


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
    """Return whether the checkpoint looks complete: a PyTorch file, or a folder with all its safetensors.

    An interrupted copy of a PyTorch file (a zip, or the older pickle) lacks the zip's directory, which is at the end.
    The header of a safetensors file states its length. A checkpoint that was deleted after it was listed (a training
    may keep only its newest), or that may not be read, counts as incomplete, so the others need not wait for it. Reads
    a few kilobytes and executes nothing.

    Raises:
        OSError: the network failed.
    """
    fs, path = open_url(checkpoint.url, storage_options if "://" in checkpoint.url else None)
    try:
        return patiently(lambda: is_whole_folder(fs, path) if fs.isdir(path) else _whole_file(fs, path), checkpoint.url)
    except (FileNotFoundError, PermissionError) as error:
        logger.warning("skipping %s: %s", checkpoint.url, error)
        return False


def _whole_file(fs: Any, path: str) -> bool:
    with fs.open(path, "rb") as file:
        head = file.read(2)
        return zipfile.is_zipfile(file) if head == ZIP_MAGIC else bool(head[:1] == PICKLE_MAGIC)
