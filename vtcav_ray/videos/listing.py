"""List the videos of a folder, a glob, one file, or a CSV or Parquet manifest, on any fsspec URL.

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

An invalid name (not a URL, too long, not UTF-8, a scheme that is not allowed or whose package is not installed)
becomes a failure; the other rows are not affected.
"""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import fsspec
import pyarrow as pa

from vtcav_ray.config import VideosConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.rows import Failure
from vtcav_ray.store.access import AccessError, kind_of, patiently
from vtcav_ray.store.storage_errors import Trouble, reason, sort
from vtcav_ray.store.urls import (
    LOCAL,
    NO_CREDENTIALS,
    PRIVATE,
    READ_LIMITS,
    SCHEMES,
    check_scheme,
    holds_credentials,
    is_chain,
    is_url,
    names_private_host,
    scheme_of,
    shown,
)
from vtcav_ray.tables import VIDEOS
from vtcav_ray.video.listed import facts
from vtcav_ray.videos.labels import (
    ID_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    URI_COLUMNS,
    column,
    put_labels,
    read_table,
)
from vtcav_ray.videos.links import find_links, leads_out, why_outside
from vtcav_ray.videos.lookup import NO_STAT, full_url, look_up, open_listed

logger = logging.getLogger(__name__)

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
STAT_LIMIT = 1_000  # requests for a manifest: one per file, else one per folder, else none


def list_videos(config: VideosConfig) -> tuple[pa.Table, list[Failure]]:
    """Return the VIDEOS table, sorted by video_id, and a failure row for each manifest row that can't be used.

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
        return patiently(lambda: _list(config, str(config.uri)), config.uri)
    except PermissionError as error:  # from a local disk
        raise AccessError(f"{error.filename or config.uri}: {error.strerror}. Check who may read it.") from error


def _list(config: VideosConfig, uri: str) -> tuple[pa.Table, list[Failure]]:
    fs, path = open_listed(uri, config.read_options)
    kind = kind_of(fs, path)
    labels = _labels_file(config)
    rows: list[dict[str, Any]]
    failures: list[Failure] = []
    if _is_manifest(path) and kind == "file":
        rows, failures = _from_manifest(fs, path, config)
    elif kind == "directory" and kind_of(fs, manifest := f"{path.rstrip('/')}/videos.parquet") == "file":
        _check_side_file(fs, manifest, path, config)
        rows, failures = _from_manifest(fs, manifest, config, inside=path.rstrip("/"))
    else:
        rows, failures = _from_files(fs, path, kind, config, labels is None)
    if labels is not None:
        put_labels(rows, labels, config.labels or "the labels file")
    _check_ids(rows, uri)
    if config.limit is not None and len(rows) > config.limit:
        rows = sorted(rows, key=lambda r: hashlib.sha256(r["video_id"].encode()).digest())[: config.limit]
    rows.sort(key=lambda r: r["video_id"])
    if not rows and not failures:
        raise ConfigError(f"{uri} has no video in it.")
    return pa.Table.from_pylist(rows, schema=VIDEOS), failures


def _check_side_file(fs: fsspec.AbstractFileSystem, file: str, folder: str, config: VideosConfig) -> None:
    """Refuse a side file that links out of its folder: it could be any file of this machine."""
    if "file" in fs.protocol and not config.follow_links and leads_out(file, folder):
        raise ConfigError(
            f"{file} is a link out of {folder}. Remove it, or set `videos.follow_links: true` if you trust it."
        )


def _is_manifest(path: str) -> bool:
    return path.lower().endswith((".csv", ".parquet"))


def _from_files(
    fs: fsspec.AbstractFileSystem, path: str, kind: str | None, config: VideosConfig, look_for_labels: bool
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Return a row for each video of a folder, of a glob, or of one file, and the failures."""
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
            failures.append(_failure(shown(_as_utf8(full)), _as_utf8(name), "name", why))
        elif file in links.outside and not config.follow_links:
            message = f"{file} is a link out of the folder. Set `videos.follow_links: true` if you trust it."
            failures.append(_failure(file, name, "link", message))
        elif file not in links.aliases:
            # For a link, the listing gives the time at which the link was created.
            info = fs.info(file) if found[file].get("islink") else found[file]
            rows.append(_row(name, full, *_label_and_split(name), info))
    if not rows and not failures:
        raise ConfigError(
            f"{config.uri} has no video in it (looked for {', '.join(config.extensions)}). Check the path, or set "
            "`videos.extensions`."
        )
    if look_for_labels:
        _put_side_labels(fs, root, rows, config)
    return rows, failures


def _find(
    fs: fsspec.AbstractFileSystem, path: str, kind: str | None, uri: str
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the folder that ids are relative to, and what the file system reports about each file."""
    if kind == "file":
        return posixpath.dirname(path), {path: fs.info(path)}
    if kind == "directory":
        return path.rstrip("/"), fs.find(path, detail=True)
    wild = [path.index(c) for c in "*?[" if c in path]
    if kind is not None or not wild:
        raise ConfigError(f"{uri} does not exist. Give a folder, a glob, or a .csv or .parquet manifest.")
    found = {p: info for p, info in fs.glob(path, detail=True).items() if info["type"] == "file"}
    if not found:
        raise ConfigError(f"{uri} matches no file. Check the pattern, and that the part before the first * exists.")
    return posixpath.dirname(path[: min(wild)]), found


def _relative(file: str, root: str) -> str:
    return posixpath.relpath(file, root or "/") if root or file.startswith("/") else file


def _label_and_split(name: str) -> tuple[str | None, str | None]:
    """Return the label and the split that the sub-folders of a file give it."""
    folders = name.split("/")[:-1]
    split = folders[0] if folders and folders[0].lower() in SPLITS else None
    only_split = split is not None and len(folders) == 1
    return (folders[-1] if folders and not only_split else None), split


def _put_side_labels(
    fs: fsspec.AbstractFileSystem, root: str, rows: list[dict[str, Any]], config: VideosConfig
) -> None:
    """Set labels from the first labels file found in the folder or next to it."""
    folders = [root, parent] if (parent := posixpath.dirname(root)) else [root]
    for place in (f"{folder}/{name}" for folder in folders for name in ("videos.parquet", "labels.csv")):
        if _is_there(fs, place):
            _check_side_file(fs, place, posixpath.dirname(place), config)
            put_labels(rows, read_table(fs, place), place)
            return


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


def _from_manifest(
    fs: fsspec.AbstractFileSystem, path: str, config: VideosConfig, inside: str | None = None
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Return the rows of a manifest. With `inside`, it was found in that folder and may name only files in it."""
    table = read_table(fs, path)
    uris = column(table, URI_COLUMNS, path)
    if uris is None:
        raise ConfigError(f"{path} has no `uri` column (its columns: {', '.join(table.column_names)}).")
    ids = column(table, ID_COLUMNS, path) or [None] * len(uris)
    labels = column(table, LABEL_COLUMNS, path) or [None] * len(uris)
    splits = column(table, SPLIT_COLUMNS, path) or [None] * len(uris)
    base = posixpath.dirname(full_url(fs, path))
    # A remote manifest must not read this machine's files.
    schemes = [s for s in config.schemes if s in SCHEMES and ("file" in fs.protocol or s not in LOCAL)]
    options = config.read_options
    rows, failures = [], []
    for number, (uri, video_id, label, split) in enumerate(zip(uris, ids, labels, splits, strict=True), start=1):
        where = f"row {number} of {path}"
        if not uri:
            failures.append(_failure(None, video_id, "manifest", f"{where} has no uri."))
            continue
        if why := _why_not(uri, schemes, options[READ_LIMITS].private):
            failures.append(_failure(shown(uri), video_id, "manifest", f"{where}: {why}"))
            continue
        full = _absolute(uri, base)
        if inside is not None and (why := why_outside(uri, full, full_url(fs, inside), config.follow_links)):
            failures.append(_failure(shown(uri), video_id, "outside", f"{where}: {why}"))
            continue
        name = video_id or _id_of(full, base)
        if ".." in name.split("/") or name != name.strip() or not name.isprintable():
            failures.append(_failure(uri, video_id, "manifest", f"{where}: {name!r} can't be a video_id."))
            continue
        rows.append(_row(name, full, label, split, None))
    kept, missing = look_up(rows, options, STAT_LIMIT)
    return kept, [*failures, *missing]


def _why_not(uri: str, schemes: Sequence[str], private: tuple[str, ...]) -> str:
    """Return why a manifest's row may not be opened; empty if it may."""
    if not is_url(uri):
        return f"{shown(uri)} is not a URL."
    if holds_credentials(uri):
        return f"{shown(uri)} {NO_CREDENTIALS}"
    if ("://" in uri and scheme_of(uri) not in schemes) or is_chain(uri) or not uri.isprintable():
        return f"this kind of URL is not read here; allowed: {', '.join(schemes)} (videos.schemes)."
    if names_private_host(uri, private):
        return f"{shown(uri)} {PRIVATE}"
    return ""


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
        _failure(_as_utf8(e.filename), None, "permission", f"{_as_utf8(e.filename)} {what}: {e.strerror}.")
        for e in sorted(closed, key=lambda error: str(error.filename))
    ]


def _failure(uri: str | None, video_id: str | None, kind: str, message: str) -> Failure:
    """Return a failure with the message as it is, since the stage's key covers it. The commit removes credentials."""
    return Failure(uri=uri, video_id=video_id, error_kind=kind, message=message)


def _unusable(uri: str) -> str:
    """Return why an existing file can't be one of the videos; empty if it can."""
    if _as_utf8(uri) != uri:
        return f"{_as_utf8(uri)}: the name is not UTF-8, so no table can hold it. Rename it."
    try:
        check_scheme(uri, "video")
    except ConfigError as error:  # `::` in a name chains URLs, `?token=` makes it a credential
        return f"{error} Rename it."
    return ""


def _as_utf8(name: str) -> str:
    """Return a name as text. Bytes that are not UTF-8 (surrogates in Python) are written as `\\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _row(
    video_id: str, uri: str, label: str | None, split: str | None, info: Mapping[str, Any] | None
) -> dict[str, Any]:
    size, fingerprint = facts(info)
    return {
        "video_id": video_id,
        "uri": uri,
        "label": label or None,
        "split": split or None,
        "size_bytes": size,
        "fingerprint": fingerprint,
    }


def _absolute(uri: str, base: str) -> str:
    if "://" in uri:
        scheme, rest = uri.split("://", 1)
        return rest if scheme.lower() in ("file", "local") else uri
    joined = uri if uri.startswith("/") and "://" not in base else f"{base}/{uri}"
    if "://" not in joined:
        return posixpath.normpath(joined)
    scheme, rest = joined.split("://", 1)
    return f"{scheme}://{posixpath.normpath(rest)}"


def _id_of(full: str, base: str) -> str:
    if full.startswith(base.rstrip("/") + "/"):
        return full[len(base.rstrip("/")) + 1 :]
    return full.split("://", 1)[-1].lstrip("/")


def _labels_file(config: VideosConfig) -> pa.Table | None:
    if config.labels is None:
        return None
    fs, path = open_listed(config.labels, config.read_options)
    if kind_of(fs, path) != "file":
        raise ConfigError(f"`videos.labels`: {config.labels} does not exist.")
    return read_table(fs, path)


def _check_ids(rows: list[dict[str, Any]], uri: str) -> None:
    seen: set[str] = set()
    twice = sorted({r["video_id"] for r in rows if r["video_id"] in seen or seen.add(r["video_id"])})  # type: ignore[func-returns-value]
    if twice:
        raise ConfigError(
            f"{uri}: {len(twice)} video ids occur more than once, for example {twice[0]!r}. Give each row of the "
            "manifest a unique `video_id`."
        )
