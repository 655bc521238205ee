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
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
import pyarrow as pa

from vtcav_ray.config import VideosConfig
from vtcav_ray.errors import ConfigError, InputError
from vtcav_ray.store.access import AccessError, kind_of, names_nothing, open_url, patiently, storage_errors
from vtcav_ray.store.storage_errors import Trouble, reason, sort
from vtcav_ray.store.urls import (
    LOCAL,
    NO_CREDENTIALS,
    PRIVATE,
    READ_LIMITS,
    SCHEMES,
    check_scheme,
    check_url,
    holds_credentials,
    is_chain,
    is_url,
    names_private_host,
    scheme_of,
    shown,
)
from vtcav_ray.tables import VIDEOS
from vtcav_ray.video.listed import facts
from vtcav_ray.video.neighbours import beside, blame, neighbours_of
from vtcav_ray.videos.labels import (
    ID_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    URI_COLUMNS,
    column,
    put_labels,
    read_table,
)
from vtcav_ray.videos.links import find_links, leads_out
from vtcav_ray.videos.side_files import why_outside

logger = logging.getLogger(__name__)

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
STAT_LIMIT = 1_000
_NO_STAT = ("http", "https")

Failure = dict[str, Any]
Found = dict[str, Any] | InputError  # what a file system reports about a file, or why the file can't be used


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
    fs, path = _open(uri, config.read_options)
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


def _open(uri: str, storage_options: Mapping[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
    check_url(uri, "videos")
    return open_url(uri, storage_options)


def _check_side_file(fs: fsspec.AbstractFileSystem, file: str, folder: str, config: VideosConfig) -> None:
    """Refuse a side file that links out of its folder: it could be any file of this machine."""
    if "file" in fs.protocol and not config.follow_links and leads_out(file, folder):
        raise ConfigError(
            f"{file} is a link out of {folder}. Remove it, or set `videos.follow_links: true` if you trust it."
        )


def _is_manifest(path: str) -> bool:
    return path.lower().endswith((".csv", ".parquet"))


def _full(fs: fsspec.AbstractFileSystem, path: str) -> str:
    if "file" in fs.protocol:
        return path
    scheme, rest = str(fs.unstrip_protocol(path)).split("://", 1)
    return f"{scheme}://{rest.lstrip('/')}"


def _from_files(
    fs: fsspec.AbstractFileSystem, path: str, kind: str | None, config: VideosConfig, look_for_labels: bool
) -> tuple[list[dict[str, Any]], list[Failure]]:
    uri = str(config.uri)
    suffixes = tuple(f".{e.lower().lstrip('.')}" for e in config.extensions)
    failures: list[Failure] = []
    if any(c in path for c in "*?[") and kind is None:
        root = posixpath.dirname(path[: min(path.index(c) for c in "*?[" if c in path)])
        found = {p: i for p, i in fs.glob(path, detail=True).items() if i["type"] == "file"}
        if not found:
            raise ConfigError(f"{uri} matches no file. Check the pattern, and that the part before the first * exists.")
    elif kind == "file":
        root, found = posixpath.dirname(path), {path: fs.info(path)}
        suffixes = ("",)  # a file named explicitly may have any extension
    elif kind == "directory":
        root, found = path.rstrip("/"), fs.find(path, detail=True)
        failures += _closed_folders(root) if "file" in fs.protocol else []
    else:
        raise ConfigError(f"{uri} does not exist. Give a folder, a glob, or a .csv or .parquet manifest.")
    rows: list[dict[str, Any]] = []
    named_outright = list(found) == [path]
    relatives = {f: posixpath.relpath(f, root or "/") if root or f.startswith("/") else f for f in found}
    hidden = {f for f, relative in relatives.items() if any(p.startswith(".") for p in relative.split("/"))}
    videos = [f for f in found if f.lower().endswith(suffixes) and f not in hidden]
    links = find_links(root, videos if "file" in fs.protocol and not named_outright else ())
    for file in videos:
        relative, info = relatives[file], found[file]
        if why := _unusable(full := _full(fs, file)):
            failures.append(_failure(shown(_as_utf8(full)), _as_utf8(relative), "name", why))
            continue
        parts = relative.split("/")
        if file in links.aliases:
            continue
        if file in links.outside and not config.follow_links:
            message = f"{file} is a link out of the folder. Set `videos.follow_links: true` if you trust it."
            failures.append(_failure(file, relative, "link", message))
            continue
        folder = parts[-2] if len(parts) > 1 else None
        split = parts[0] if len(parts) > 1 and parts[0].lower() in SPLITS else None
        label = None if folder is None or (len(parts) == 2 and split) else folder
        # For a link, the listing gives the time at which the link was created.
        rows.append(_row(relative, full, label, split, fs.info(file) if info.get("islink") else info))
    if not rows and not failures:
        raise ConfigError(
            f"{uri} has no video in it (looked for {', '.join(config.extensions)}). Check the path, or set "
            "`videos.extensions`."
        )
    if look_for_labels:
        places = [f"{root}/videos.parquet", f"{root}/labels.csv"]
        parent = posixpath.dirname(root)
        places += [f"{parent}/videos.parquet", f"{parent}/labels.csv"] if parent else []
        for place in places:
            if _is_there(fs, place):
                _check_side_file(fs, place, posixpath.dirname(place), config)
                put_labels(rows, read_table(fs, place), place)
                break
    return rows, failures


def _is_there(fs: fsspec.AbstractFileSystem, place: str) -> bool:
    """Return whether a labels file exists that the config does not name."""
    try:
        return kind_of(fs, place) == "file"
    except FileNotFoundError as error:
        # Many servers answer 403 for a file that does not exist.
        if scheme_of(place) in _NO_STAT and sort(error) is Trouble.REFUSED:
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
    base = posixpath.dirname(_full(fs, path))
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
        if inside is not None and (why := why_outside(uri, full, _full(fs, inside), config.follow_links)):
            failures.append(_failure(shown(uri), video_id, "outside", f"{where}: {why}"))
            continue
        name = video_id or _id_of(full, base)
        if ".." in name.split("/") or name != name.strip() or not name.isprintable():
            failures.append(_failure(uri, video_id, "manifest", f"{where}: {name!r} can't be a video_id."))
            continue
        rows.append(_row(name, full, label, split, None))
    return _look_up(rows, failures, options)


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


def _look_up(
    rows: list[dict[str, Any]], failures: list[Failure], storage_options: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Add sizes and fingerprints to manifest rows; rows without a file become failures (see the module docstring)."""

    rows, refused = _openable(rows, storage_options)
    failures = [*failures, *refused]
    neighbours = neighbours_of(pa.Table.from_pylist(rows, schema=VIDEOS))

    def to_blame(error: Exception, uri: str) -> InputError:
        if isinstance(error, InputError):
            return error
        if names_nothing(error):
            return _missing(uri)
        return blame(error, beside(uri, neighbours), storage_options)

    def info(uri: str) -> Found | Exception:
        fs, path = _open(uri, storage_options)
        try:
            found: dict[str, Any] = patiently(lambda: fs.info(path), uri)
        except storage_errors(ValueError, AccessError) as error:
            return error
        return found if found["type"] == "file" else _missing(uri)

    known: dict[str, Found] = {}
    asked = [r["uri"] for r in rows if scheme_of(r["uri"]) not in _NO_STAT]
    folders: dict[str, list[str]] = {}
    for uri in asked:
        folders.setdefault(posixpath.dirname(uri), []).append(uri)
    if len(asked) <= STAT_LIMIT:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(info, asked))
        for uri, answer in zip(asked, answers, strict=True):
            known[uri] = to_blame(answer, uri) if isinstance(answer, Exception) else answer
    elif len(folders) <= STAT_LIMIT:
        known = {uri: _missing(uri) for uri in asked}
        for folder, uris in sorted(folders.items()):
            try:
                known |= {uri: entry for uri, entry in _files_in(folder, storage_options) if uri in known}
            except storage_errors(ValueError, AccessError) as error:
                first = to_blame(error, uris[0])
                known |= {uri: _missing(uri) if names_nothing(error) else first for uri in uris}
    kept = []
    for row in rows:
        found = known.get(row["uri"])
        if isinstance(found, InputError):
            failures.append(_failure(row["uri"], row["video_id"], found.kind, found.message))
            continue
        row["size_bytes"], row["fingerprint"] = facts(found)
        kept.append(row)
    return kept, failures


def _missing(uri: str) -> InputError:
    return InputError("missing", f"{uri} does not exist.")


def _files_in(folder: str, storage_options: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return (URI, what the file system reports) for each file directly in a folder."""
    fs, path = _open(folder, storage_options)
    entries = patiently(lambda: fs.ls(path, detail=True), folder)
    return [(_full(fs, entry["name"]), entry) for entry in entries if entry["type"] == "file"]


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


def _openable(
    rows: list[dict[str, Any]], storage_options: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Return the rows whose kind of storage can be opened here, and a failure for each other row."""
    why_not: dict[str, str] = {}
    for scheme, uri in {scheme_of(r["uri"]): r["uri"] for r in rows}.items():
        try:
            _open(uri, storage_options)
        except ConfigError as error:  # the package is not installed, or refuses the options
            why_not[scheme] = str(error)
    kept, failures = [], []
    for row in rows:
        if why := why_not.get(scheme_of(row["uri"])):
            failures.append(_failure(row["uri"], row["video_id"], "manifest", why))
        else:
            kept.append(row)
    return kept, failures


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
    fs, path = _open(config.labels, config.read_options)
    if kind_of(fs, path) != "file":
        raise ConfigError(f"`videos.labels`: {config.labels} does not exist.")
    return read_table(fs, path)


def _check_ids(rows: list[dict[str, Any]], uri: str) -> None:
    seen: set[str] = set()
    twice = sorted({r["video_id"] for r in rows if r["video_id"] in seen or seen.add(r["video_id"])})  # type: ignore[func-returns-value]
    if twice:
        raise ConfigError(
            f"{uri}: {len(twice)} video ids occur more than once, for example {twice[0]!r}. Give each row of the "
            "manifest a `video_id` of its own."
        )


def _failure(uri: str | None, video_id: str | None, kind: str, message: str) -> Failure:
    return {"uri": uri, "video_id": video_id, "clip_id": None, "error_kind": kind, "message": message}
