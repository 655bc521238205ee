"""List the videos of a folder, a glob, one file, or a manifest (`vtcav_ray.videos.tables`), on any fsspec URL.

One row per file. A manifest or a list of labels may have several rows per file, each for a segment of it
(`vtcav_ray.videos.annotations`).

Ids. A video's id is its path below the folder (or below the glob's fixed part, or the manifest's folder), with its
extension. So `a.mp4` and `a.mkv` differ, and ids stay the same when the folder moves. A manifest may give its own ids.

Labels. The first of these that exists: the manifest; `videos.labels`; `videos.parquet` or `labels.csv` in the folder
or next to it; the name of the sub-folder that holds the file. Otherwise there is no label. A sub-folder named like a
split (`train`, `val`, `test`) sets the split.

Missing files. The listing of a folder shows which files exist. Rows of a small manifest (up to 1,000) are looked up
one by one; for a large manifest, each folder that it names is listed once. A row becomes a failure if its file does not
exist, or if it may not be read while others may. So does a local sub-folder that may not be listed. If a large manifest
names more than 1,000 folders, or uses http(s), nothing is looked up: a missing file is found when it is decoded, and
`size_bytes` and `fingerprint` are null.

Side files. A `videos.parquet` or labels file that is FOUND in a folder of videos or next to it was written by the
person who filled the folder, not by the person who starts the run. It may only name videos inside that folder, not
through a link that leaves the folder, and must not be such a link itself (`videos.follow_links` allows links). A
manifest named in the config may name files elsewhere.

Nothing is lost without a word: files that are left out by their extension are counted in a warning, and so are lines
of a list of labels that match no video.

An invalid name (not a URL, too long, not UTF-8, a scheme that is not allowed or whose package is not installed)
becomes a failure; the other rows are not affected.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import posixpath
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa

from vtcav_ray.config import VideosConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.rows import Failure
from vtcav_ray.store.access import AccessError, kind_of, patiently
from vtcav_ray.store.storage_errors import Trouble, reason, sort
from vtcav_ray.store.urls import check_scheme, scheme_of, shown
from vtcav_ray.text.counted import are
from vtcav_ray.videos.annotations import videos_table
from vtcav_ray.videos.labels import put_labels
from vtcav_ray.videos.links import find_links, leads_out
from vtcav_ray.videos.lookup import NO_STAT, full_url, open_listed
from vtcav_ray.videos.manifests import as_utf8, decoded_path, failure, row_of, rows_of_manifest
from vtcav_ray.videos.objects import find_files
from vtcav_ray.videos.reading import read_table
from vtcav_ray.videos.tables import MANIFESTS, WHAT_A_MANIFEST_IS, ListTable

logger = logging.getLogger(__name__)

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
STAT_LIMIT = 1_000  # requests for a manifest: one per file, else one per folder, else none
SIDE_FILES = ("videos.parquet", "labels.csv")
_MOST_EXTENSIONS = 12  # named in a warning


@dataclass(frozen=True)
class Listing:
    """The videos of a run.

    Attributes:
        videos: the VIDEOS table, sorted by video_id.
        failures: of manifest rows and files that can't be used.
        warnings: sentences for the user, such as the number of files that are left out by their extension.
    """

    videos: pa.Table
    failures: list[Failure]
    warnings: list[str]


def list_videos(config: VideosConfig) -> tuple[pa.Table, list[Failure]]:
    """Return the videos and the failures of `list_all`."""
    found = list_all(config)
    return found.videos, found.failures


def list_all(config: VideosConfig) -> Listing:
    """List the videos, with a failure for each manifest row that can't be used.

    With `config.limit`, keep the videos whose ids have the lowest hashes: a sample over all folders and classes that
    changes little when videos are added.

    Raises:
        ConfigError: a URL scheme is not allowed, the URL does not exist, no video was found, the manifest lacks a
            required column, or two videos have the same id. The message names the URL and how to fix it.
        AccessError: storage refuses to read anything in the folder, or any row of the manifest.
        OSError: the network failed.
    """
    if config.uri is None:
        raise ConfigError("`videos.uri` is not set: render the world first, then list what was rendered.")
    try:
        found = patiently(lambda: _list(config, decoded_path(str(config.uri))), config.uri)
    except PermissionError as error:  # from a local disk
        raise AccessError(f"{error.filename or config.uri}: {error.strerror}. Check who may read it.") from error
    for warning in found.warnings:
        logger.warning(warning)
    return found


def list_files(config: VideosConfig) -> Listing:
    """List a folder, a glob or one file without labels files: videos are its files, whatever else lies there.

    Raises what `list_all` raises.
    """
    uri = decoded_path(str(config.uri))

    def attempt() -> Listing:
        fs, path = open_listed(uri, config.read_options)
        rows, failures, warnings = _from_files(fs, path, kind_of(fs, path), config, look_for_labels=False)
        return Listing(videos_table(rows), failures, warnings)

    try:
        return patiently(attempt, uri)
    except PermissionError as error:  # from a local disk
        raise AccessError(f"{error.filename or uri}: {error.strerror}. Check who may read it.") from error


def files_of_manifest(config: VideosConfig, listed: ListTable) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Return a row of VIDEOS for each usable row of a manifest that the config names, and the failures.

    Args:
        listed: what was read at `config.uri`, possibly with other ids.
    """
    fs, _ = open_listed(decoded_path(str(config.uri)), config.read_options)

    def files(folder: str) -> list[dict[str, Any]]:
        return _from_files(fs, folder, "directory", config, look_for_labels=False)[0]

    return rows_of_manifest(fs, listed, config, files, STAT_LIMIT, None)


def _list(config: VideosConfig, uri: str) -> Listing:
    fs, path = open_listed(uri, config.read_options)
    kind = kind_of(fs, path)
    labels = _labels_file(config)
    warnings: list[str] = []
    if kind == "file" and path.lower().endswith(MANIFESTS):
        rows, failures = _from_manifest(fs, path, config)
    elif kind == "directory" and kind_of(fs, manifest := f"{path.rstrip('/')}/videos.parquet") == "file":
        _check_side_file(fs, manifest, path, config)
        rows, failures = _from_manifest(fs, manifest, config, inside=path.rstrip("/"))
    else:
        rows, failures, warnings = _from_files(fs, path, kind, config, labels is None)
    if labels is not None:
        warnings += put_labels(rows, labels)
    _check_ids(rows, uri)
    if config.limit is not None and len(rows) > config.limit:
        rows = sorted(rows, key=lambda r: hashlib.sha256(r["video_id"].encode()).digest())[: config.limit]
    rows.sort(key=lambda r: r["video_id"])
    if not rows and not failures:
        raise ConfigError(f"{uri} has no video in it.")
    return Listing(videos_table(rows), failures, warnings)


def _from_manifest(
    fs: fsspec.AbstractFileSystem, path: str, config: VideosConfig, inside: str | None = None
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Return the rows of a manifest. With `inside`, it was found in that folder and may name only files in it."""

    def files(folder: str) -> list[dict[str, Any]]:
        return _from_files(fs, folder, "directory", config, look_for_labels=False)[0]

    return rows_of_manifest(fs, read_table(fs, path), config, files, STAT_LIMIT, inside)


def _check_side_file(fs: fsspec.AbstractFileSystem, file: str, folder: str, config: VideosConfig) -> None:
    """Refuse a side file that links out of its folder: it could be any file of this machine."""
    if "file" in fs.protocol and not config.follow_links and leads_out(file, folder):
        raise ConfigError(
            f"{file} is a link out of {folder}. Remove it, or set `videos.follow_links: true` if you trust it."
        )


def _from_files(
    fs: fsspec.AbstractFileSystem, path: str, kind: str | None, config: VideosConfig, look_for_labels: bool
) -> tuple[list[dict[str, Any]], list[Failure], list[str]]:
    """Return a row for each video of a folder, of a glob, or of one file, the failures and the warnings."""
    root, found = _find(fs, path, kind, str(config.uri))
    local = "file" in fs.protocol
    failures = _closed_folders(root) if local and kind == "directory" else []
    # A file named explicitly may have any extension, and be a link.
    suffixes = ("",) if kind == "file" else tuple(f".{e.lower().lstrip('.')}" for e in config.extensions)
    relatives = {f: _relative(f, root) for f in found if f.lower().endswith(suffixes)}
    videos = {f: name for f, name in relatives.items() if not any(p.startswith(".") for p in name.split("/"))}
    links = find_links(root, videos if local and kind != "file" else ())
    rows: list[dict[str, Any]] = []
    for file, name in videos.items():
        full = full_url(fs, file)
        if why := _unusable(full):
            failures.append(failure(shown(as_utf8(full)), as_utf8(name), "name", why))
        elif file in links.outside and not config.follow_links:
            message = f"{file} is a link out of the folder. Set `videos.follow_links: true` if you trust it."
            failures.append(failure(file, name, "link", message))
        elif file not in links.aliases:
            # For a link, the listing gives the time at which the link was created.
            info = fs.info(file) if found[file].get("islink") else found[file]
            found[file] = {}  # read; two sets of rows of a large corpus would be held otherwise
            rows.append(row_of(name, full, *_label_and_split(posixpath.dirname(name)), info))
    left_out = _left_out(name for name in (_relative(f, root) for f in found if f not in relatives))
    if not rows and not failures:
        raise ConfigError(
            f"{config.uri} has no video in it (searched for {', '.join(config.extensions)}). "
            f"{' '.join([*left_out, ''])}Check the path, or set `videos.extensions`."
        )
    warnings = left_out
    if look_for_labels:
        warnings = warnings + _put_side_labels(fs, root, rows, config)
    return rows, failures, warnings


def _left_out(names: Iterable[str]) -> list[str]:
    """Return a warning that counts files by extension; hidden files and side files are expected."""
    shown_names = (n for n in names if not any(part.startswith(".") for part in n.split("/")))
    files = (posixpath.basename(name) for name in shown_names)
    counts = Counter(os.path.splitext(file)[1].lower() or "no extension" for file in files if file not in SIDE_FILES)
    if not counts:
        return []
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{count} {as_utf8(ending)}" for ending, count in ordered[:_MOST_EXTENSIONS])
    more = f" and {len(ordered) - _MOST_EXTENSIONS} more extensions" if len(ordered) > _MOST_EXTENSIONS else ""
    return [
        f"{are(counts.total(), 'file')} left out by extension: {named}{more}. To read files of other extensions, set "
        "`videos.extensions`."
    ]


def _find(
    fs: fsspec.AbstractFileSystem, path: str, kind: str | None, uri: str
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the folder that ids are relative to, and what the file system reports about each file."""
    if kind == "file":
        return posixpath.dirname(path), {path: fs.info(path)}
    if kind == "directory":
        return path.rstrip("/"), find_files(fs, path)
    wild = [path.index(c) for c in "*?[" if c in path]
    if kind is not None or not wild:
        raise ConfigError(f"{uri} does not exist. Give a folder, a glob, or a manifest. {WHAT_A_MANIFEST_IS}")
    found = {p: info for p, info in fs.glob(path, detail=True).items() if info["type"] == "file"}
    if not found:
        raise ConfigError(f"{uri} matches no file. Check the pattern, and that the part before the first * exists.")
    return posixpath.dirname(path[: min(wild)]), found


def _relative(file: str, root: str) -> str:
    return posixpath.relpath(file, root or "/") if root or file.startswith("/") else file


@functools.lru_cache(maxsize=1024)  # files of one folder come one after the other, and share these objects
def _label_and_split(folder: str) -> tuple[str | None, str | None]:
    """Return the label and the split that a sub-folder gives its files."""
    folders = folder.split("/") if folder else []
    split = folders[0] if folders and folders[0].lower() in SPLITS else None
    only_split = split is not None and len(folders) == 1
    return (folders[-1] if folders and not only_split else None), split


def _put_side_labels(
    fs: fsspec.AbstractFileSystem, root: str, rows: list[dict[str, Any]], config: VideosConfig
) -> list[str]:
    """Set labels from the first labels file found in the folder or next to it. Return the warnings."""
    folders = [root, parent] if (parent := posixpath.dirname(root)) else [root]
    for place in (f"{folder}/{name}" for folder in folders for name in SIDE_FILES):
        if _is_there(fs, place):
            _check_side_file(fs, place, posixpath.dirname(place), config)
            return put_labels(rows, read_table(fs, place))
    return []


def _is_there(fs: fsspec.AbstractFileSystem, place: str) -> bool:
    """Return whether a labels file exists that the config does not name."""
    try:
        return kind_of(fs, place) == "file"
    except FileNotFoundError as error:
        # Many servers answer 403 for a file that does not exist.
        if scheme_of(place) in NO_STAT and sort(error) is Trouble.REFUSED:
            logger.warning("%s is refused (%s): labels are taken from elsewhere.", place, reason(error))
            return False
        raise


def _closed_folders(root: str) -> list[Failure]:
    """Return a failure for each sub-folder that may not be listed: fsspec silently skips those.

    Raises:
        AccessError: the folder itself may not be listed.
    """
    closed: list[OSError] = []
    for _ in os.walk(root, onerror=closed.append):
        pass
    for error in closed:
        if error.filename == root:
            raise AccessError(f"{root}: {error.strerror}. Check who may list it.") from error
    what = "may not be listed, so no video in it is seen"
    return [
        failure(as_utf8(e.filename), None, "permission", f"{as_utf8(e.filename)} {what}: {e.strerror}.")
        for e in sorted(closed, key=lambda error: str(error.filename))
    ]


def _unusable(uri: str) -> str:
    """Return why an existing file can't be one of the videos; empty if it can."""
    if as_utf8(uri) != uri:
        return f"{as_utf8(uri)}: the name is not UTF-8, so no table can hold it. Rename it."
    try:
        check_scheme(uri, "video")
    except ConfigError as error:  # `::` in a name chains URLs, `?token=` makes it a credential
        return f"{error} Rename it."
    return ""


def _labels_file(config: VideosConfig) -> ListTable | None:
    if config.labels is None:
        return None
    fs, path = open_listed(decoded_path(config.labels), config.read_options)
    if kind_of(fs, path) != "file":
        raise ConfigError(f"`videos.labels`: {config.labels} does not exist.")
    return read_table(fs, path)


def _check_ids(rows: list[dict[str, Any]], uri: str) -> None:
    seen: set[str] = set()
    ids = {row["video_id"] for row in rows}
    if both := sorted(ids & {row.get("source") for row in rows}):
        raise ConfigError(
            f"{uri}: {both[0]!r} is the `source` of a file, and the `video_id` of another. Give both files the same "
            "`source`, under another name."
        )
    twice = sorted({r["video_id"] for r in rows if r["video_id"] in seen or seen.add(r["video_id"])})  # type: ignore[func-returns-value]
    if twice:
        raise ConfigError(
            f"{uri}: {len(twice)} video ids occur more than once, for example {twice[0]!r}. Give each row of the "
            "manifest a unique `video_id`. Several rows of one file need `start` and `end`; several labels of one "
            "video belong in one row, in the column `labels`, with `;` between them."
        )
