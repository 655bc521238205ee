"""List the files below a folder of an object store with many requests at once.

A bucket answers a listing in pages of 1,000 names, one after the other: 650,000 objects take 650 requests. Different
prefixes can be listed at the same time, so the folder's own sub-folders (its classes, or its splits and their classes)
are listed in parallel, each in pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec

STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
AT_ONCE = 16  # requests; S3 allows 5,500 a second for each prefix
ENOUGH = 32  # prefixes: with fewer, the sub-folders of these are looked up as well
LEVELS = 2  # SPLIT/CLASS/FILE
MOST = 5_000  # prefixes: with more (a folder for each video), one listing of all names takes fewer requests
# What a listing says about an object and nobody here reads: half of the memory of a long listing.
_UNREAD = frozenset(
    {"Key", "Bucket", "Size", "StorageClass", "VersionId", "ChecksumAlgorithm", "ChecksumType", "Owner"}
)

Files = dict[str, dict[str, Any]]


def find_files(fs: fsspec.AbstractFileSystem, folder: str) -> Files:
    """Return what the file system reports about each file below a folder, as `fs.find(folder, detail=True)` does.

    Raises what the file system raises.
    """
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    if STORES.isdisjoint(protocols):
        found: Files = fs.find(folder, detail=True)
        return found
    return find_in_parallel(fs, folder)


def find_in_parallel(fs: fsspec.AbstractFileSystem, folder: str) -> Files:
    """Do what `find_files` does, with `AT_ONCE` requests at a time."""
    with ThreadPoolExecutor(AT_ONCE, "listing") as pool:
        found: Files = {}
        prefixes = [folder]
        for _ in range(LEVELS):
            below: list[str] = []
            for entries in pool.map(lambda prefix: fs.ls(prefix, detail=True, refresh=True), prefixes):
                found |= _files(entries)
                below += [entry["name"] for entry in entries if entry["type"] == "directory"]
            prefixes = [name for name in below if name.rstrip("/") != folder.rstrip("/")]
            if not prefixes or len(prefixes) >= ENOUGH:
                break
        fs.invalidate_cache()  # the listings, which it would keep
        if len(prefixes) > MOST:
            return _sorted(_files(fs.find(folder, detail=True).values()))
        for part in pool.map(lambda prefix: _files(fs.find(prefix, detail=True).values()), prefixes):
            found |= part
    return _sorted(found)


def _files(entries: Iterable[dict[str, Any]]) -> Files:
    """Return the files among entries, without the objects that stand for folders."""
    return {
        entry["name"]: {name: value for name, value in entry.items() if name not in _UNREAD}
        for entry in entries
        if entry["type"] == "file" and not entry["name"].endswith("/")
    }


def _sorted(files: Files) -> Files:
    return dict(sorted(files.items()))
