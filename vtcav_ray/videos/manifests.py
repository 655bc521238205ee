"""The rows of a manifest, and of a list of file names: which may be opened, and where the files are."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import fsspec

from vtcav_ray.config import VideosConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.rows import Failure
from vtcav_ray.store.urls import (
    LOCAL,
    NO_CREDENTIALS,
    PRIVATE,
    READ_LIMITS,
    SCHEMES,
    holds_credentials,
    is_chain,
    is_url,
    names_private_host,
    scheme_of,
    shown,
)
from vtcav_ray.video.listed import facts
from vtcav_ray.videos.labels import plain_name
from vtcav_ray.videos.links import why_outside
from vtcav_ray.videos.lookup import full_url, look_up
from vtcav_ray.videos.tables import ID_COLUMNS, SPLIT_COLUMNS, URI_COLUMNS, WHAT_A_MANIFEST_IS, ListTable

Files = Callable[[str], list[dict[str, Any]]]  # lists the videos below a folder, as rows


def rows_of_manifest(
    fs: fsspec.AbstractFileSystem, listed: ListTable, config: VideosConfig, files: Files, most: int, inside: str | None
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Return the rows of a manifest, and a failure for each row that can't be used.

    Args:
        files: lists a folder, for lists that name files without their place.
        most: requests for looking up files.
        inside: the folder in which the manifest was found; it may name only files in it. None: the config names it.

    Raises:
        ConfigError: the manifest names no files.
    """
    uris = listed.column(URI_COLUMNS)
    base = posixpath.dirname(full_url(fs, listed.where))
    if uris is None and (names := listed.clip_names()) is not None:
        return _by_name(listed, names, files(posixpath.dirname(listed.where)), base)
    if uris is None:
        columns = ", ".join(listed.table.column_names)
        raise ConfigError(f"{listed.where} has no `uri` column (its columns: {columns}). {WHAT_A_MANIFEST_IS}")
    rows, failures = _rows(fs, listed, uris, config, base, inside)
    kept, missing = look_up(rows, config.read_options, most)
    if rows and not kept and listed.headless and inside is None and all(f.error_kind == "missing" for f in missing):
        # Its paths begin in another folder, as in MMAction2, whose config names that folder.
        kept, missing = _by_name(listed, uris, files(posixpath.dirname(listed.where)), base)
    return kept, [*failures, *missing]


def _rows(
    fs: fsspec.AbstractFileSystem,
    listed: ListTable,
    uris: Sequence[str | None],
    config: VideosConfig,
    base: str,
    inside: str | None,
) -> tuple[list[dict[str, Any]], list[Failure]]:
    path = listed.where
    nothing: list[str | None] = [None] * len(uris)
    ids, labels, splits = listed.column(ID_COLUMNS), listed.labels(), listed.column(SPLIT_COLUMNS)
    # A remote manifest must not read this machine's files.
    schemes = [s for s in config.schemes if s in SCHEMES and ("file" in fs.protocol or s not in LOCAL)]
    private = config.read_options[READ_LIMITS].private
    rows, failures = [], []
    columns = zip(uris, ids or nothing, labels or nothing, splits or nothing, strict=True)
    for number, (uri, video_id, label, split) in enumerate(columns, start=1):
        where = f"row {number} of {path}"
        if not uri and listed.headless:
            continue  # an empty line
        if not uri:
            failures.append(failure(None, video_id, "manifest", f"{where} has no uri."))
            continue
        uri = decoded_path(uri)
        if why := _why_not(uri, schemes, private):
            failures.append(failure(shown(uri), video_id, "manifest", f"{where}: {why}"))
            continue
        full = _as_on_disk(_absolute(uri, base))
        if inside is not None and (why := why_outside(uri, full, full_url(fs, inside), config.follow_links)):
            failures.append(failure(shown(uri), video_id, "outside", f"{where}: {why}"))
            continue
        name = video_id or _id_of(full, base)
        if ".." in name.split("/") or name != name.strip() or not name.isprintable():
            failures.append(failure(uri, video_id, "manifest", f"{where}: {name!r} can't be a video_id."))
            continue
        rows.append(row_of(name, full, label, split, None))
    return rows, failures


def _as_on_disk(path: str) -> str:
    """Return a local path in the Unicode form in which the disk has it; macOS decomposes names."""
    if "://" in path or path.isascii() or os.path.lexists(path):
        return path
    forms = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next((form for form in forms if os.path.lexists(form)), path)


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


def _by_name(
    listed: ListTable, names: Sequence[str | None], rows: list[dict[str, Any]], base: str
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Find the files of a list by the end of their paths: `a/b.mp4` and `b` both name `x/a/b.mp4`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        parts = plain_name(row["video_id"]).split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for key in {end, end.rsplit(".", 1)[0]}:
                found.setdefault(key, []).append(row)
    nothing: list[str | None] = [None] * len(names)
    labels, splits = listed.labels() or nothing, listed.column(SPLIT_COLUMNS) or nothing
    kept: dict[str, dict[str, Any]] = {}
    failures = []
    for number, (name, label, split) in enumerate(zip(names, labels, splits, strict=True)):
        if not name:
            continue
        at = found.get(plain_name(name), [])
        if len(at) == 1:
            kept[at[0]["video_id"]] = {**at[0], "label": label or None, "split": split or at[0]["split"]}
            continue
        why = f"{len(at)} files in {base} have that name" if at else f"no file in {base} has that name"
        where = f"{listed.place(number)} of {listed.where}"
        failures.append(failure(shown(name), None, "missing", f"{where}: {name!r}: {why}."))
    return list(kept.values()), failures


def decoded_path(uri: str) -> str:
    """Return a `file:` URL without escapes such as `%20`, unless a file has the escape in its name."""
    if not uri.lower().startswith("file:") or ("%" not in uri and "//localhost/" not in uri):
        return uri
    path = uri.split(":", 1)[1]
    path = path.removeprefix("//localhost") if path.startswith("//localhost/") else path.removeprefix("//")
    return f"file://{path if os.path.lexists(path) else unquote(path)}"


def failure(uri: str | None, video_id: str | None, kind: str, message: str) -> Failure:
    """Return a failure with the message as it is, since the stage's key covers it. The commit removes credentials."""
    return Failure(uri=uri, video_id=video_id, error_kind=kind, message=message)


def as_utf8(name: str) -> str:
    """Return a name as text. Bytes that are not UTF-8 (surrogates in Python) are written as `\\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def row_of(
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
