"""Look up the files of manifest rows: their sizes and fingerprints, and which rows have no file that can be read."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa

from vtcav_ray.errors import ConfigError, InputError
from vtcav_ray.rows import Failure
from vtcav_ray.store.access import AccessError, names_nothing, open_url, patiently, storage_errors
from vtcav_ray.store.urls import check_url, scheme_of
from vtcav_ray.tables import VIDEOS
from vtcav_ray.video.listed import facts
from vtcav_ray.video.neighbours import Neighbours, blame, listed_with_neighbours, neighbours_of

NO_STAT = ("http", "https")
_THREADS = 16

Found = dict[str, Any] | InputError  # what a file system reports about a file, or why the file can't be used


def look_up(
    rows: list[dict[str, Any]], storage_options: Mapping[str, Any], most: int
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Add sizes and fingerprints to manifest rows; rows whose file can't be used become failures.

    Args:
        rows: of the VIDEOS table.
        storage_options: for fsspec.
        most: maximum number of requests. Up to `most` files are looked up one by one, files in up to `most` folders
            by one listing per folder, and others not at all; nor is anything on http(s). A file that is not looked
            up gets no size and no fingerprint.

    Returns:
        (rows of the files that can be used, or were not looked up; failure rows).
    """
    openable, failures = _openable(rows, storage_options)
    found = _find(openable, storage_options, most)
    kept = []
    for row in openable:
        info = found.get(row["uri"])
        if isinstance(info, InputError):
            failures.append(Failure.of_video(row, info))
        else:
            row["size_bytes"], row["fingerprint"] = facts(info)
            kept.append(row)
    return kept, failures


def open_listed(uri: str, storage_options: Mapping[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
    """Open the URL of a video, a folder of videos, a manifest or a labels file: (file system, path on it).

    Raises:
        ConfigError: the URL is not allowed, or its file system is not installed or refuses the options.
    """
    check_url(uri, "videos")
    return open_url(uri, storage_options)


def full_url(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """Return the path on a file system as a URL, or unchanged for the local disk."""
    if "file" in fs.protocol:
        return path
    scheme, rest = str(fs.unstrip_protocol(path)).split("://", 1)
    return f"{scheme}://{rest.lstrip('/')}"


def _openable(
    rows: list[dict[str, Any]], storage_options: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Return the rows whose kind of storage can be opened here, and a failure for each other row."""
    why_not: dict[str, str] = {}
    for scheme, uri in {scheme_of(r["uri"]): r["uri"] for r in rows}.items():
        try:
            open_listed(uri, storage_options)
        except ConfigError as error:  # the package is not installed, or refuses the options
            why_not[scheme] = str(error)
    kept, failures = [], []
    for row in rows:
        if why := why_not.get(scheme_of(row["uri"])):
            failures.append(Failure.of_video(row, InputError("manifest", why)))
        else:
            kept.append(row)
    return kept, failures


def _find(rows: list[dict[str, Any]], storage_options: Mapping[str, Any], most: int) -> dict[str, Found]:
    """Map URIs to what was found there; URIs that are not looked up are absent."""
    files = _Files(storage_options, neighbours_of(pa.Table.from_pylist(rows, schema=VIDEOS)))
    uris = [row["uri"] for row in rows if scheme_of(row["uri"]) not in NO_STAT]
    if len(uris) <= most:
        return files.one_by_one(uris)
    folders: dict[str, list[str]] = {}
    for uri in uris:
        folders.setdefault(posixpath.dirname(uri), []).append(uri)
    if len(folders) <= most:
        return files.by_folder(folders)
    return {}


@dataclass(frozen=True)
class _Files:
    """The files of a manifest. Its other videos show whether one file or its storage is to blame for an error."""

    storage_options: Mapping[str, Any]
    neighbours: Neighbours

    def one_by_one(self, uris: list[str]) -> dict[str, Found]:
        with ThreadPoolExecutor(_THREADS) as pool:
            answers = list(pool.map(self._info, uris))
        return {
            uri: self._blamed(answer, uri) if isinstance(answer, Exception) else answer
            for uri, answer in zip(uris, answers, strict=True)
        }

    def by_folder(self, folders: Mapping[str, list[str]]) -> dict[str, Found]:
        known: dict[str, Found] = {uri: _missing(uri) for uris in folders.values() for uri in uris}
        for folder, uris in sorted(folders.items()):
            try:
                known |= {uri: info for uri, info in self._listing(folder) if uri in known}
            except storage_errors(ValueError, AccessError) as error:
                first = self._blamed(error, uris[0])
                known |= {uri: _missing(uri) if names_nothing(error) else first for uri in uris}
        return known

    def _info(self, uri: str) -> Found | Exception:
        fs, path = open_listed(uri, self.storage_options)
        try:
            info: dict[str, Any] = patiently(lambda: fs.info(path), uri)
        except storage_errors(ValueError, AccessError) as error:
            return error
        return info if info["type"] == "file" else _missing(uri)

    def _listing(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        """Return (URI, what the file system reports) for each file directly in a folder."""
        fs, path = open_listed(folder, self.storage_options)
        entries = patiently(lambda: fs.ls(path, detail=True), folder)
        return [(full_url(fs, entry["name"]), entry) for entry in entries if entry["type"] == "file"]

    def _blamed(self, error: Exception, uri: str) -> InputError:
        """Return the error of this one file, or raise if the storage is to blame."""
        if isinstance(error, InputError):
            return error
        if names_nothing(error):
            return _missing(uri)
        return blame(error, listed_with_neighbours(uri, self.neighbours), self.storage_options)


def _missing(uri: str) -> InputError:
    return InputError("missing", f"{uri} does not exist.")
