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
from vtcav_ray.videos.annotations import Annotation, annotations_of, put
from vtcav_ray.videos.labels import plain_name
from vtcav_ray.videos.links import why_outside
from vtcav_ray.videos.lookup import full_url, look_up
from vtcav_ray.videos.tables import ID_COLUMNS, URI_COLUMNS, WHAT_A_MANIFEST_IS, Candidate, ListTable

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
    if uris is None and (listed.of_kinetics or listed.by_name):
        return _by_name(listed, listed.candidates() or [], files(posixpath.dirname(listed.where)), base)
    if uris is None:
        columns = ", ".join(listed.table.column_names)
        raise ConfigError(f"{listed.where} has no `uri` column (its columns: {columns}). {WHAT_A_MANIFEST_IS}")
    rows, failures = _rows(fs, listed, uris, config, base, inside)
    kept, missing = look_up(rows, config.read_options, most)
    if rows and not kept and listed.headless and inside is None and all(f.error_kind == "missing" for f in missing):
        # Its paths begin in another folder, as in MMAction2, whose config names that folder.
        names = [(Candidate(uri),) if uri else () for uri in uris]
        kept, missing = _by_name(listed, names, files(posixpath.dirname(listed.where)), base)
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
    ids = listed.column(ID_COLUMNS) or [None] * len(uris)
    # A remote manifest must not read this machine's files.
    schemes = [s for s in config.schemes if s in SCHEMES and ("file" in fs.protocol or s not in LOCAL)]
    private = config.read_options[READ_LIMITS].private
    kept: list[tuple[dict[str, Any], Annotation]] = []
    failures = []
    columns = zip(uris, ids, annotations_of(listed), strict=True)
    for number, (uri, video_id, line) in enumerate(columns, start=1):
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
        if line.fault:
            failures.append(failure(full, video_id, "manifest", f"{where}: {line.fault}"))
            continue
        kept.append((row_of(name, full, line.label, line.split, None), line))
    return _by_file(kept, base), failures


def _by_file(rows: Sequence[tuple[dict[str, Any], Annotation]], base: str) -> list[dict[str, Any]]:
    """Return one row per file, from those of its segments. Rows without a segment stay as they are.

    A file whose rows have different ids is named by its path, since each id names a segment.
    """
    timed = {row["uri"] for row, line in rows if line.segment is not None}
    found: list[dict[str, Any]] = []
    lines_of: dict[str, list[Annotation]] = {}
    ids_of: dict[str, set[str]] = {}
    for row, line in rows:
        uri = row["uri"]
        if uri not in timed:
            put(row, [line])
            found.append(row)
            continue
        if uri not in lines_of:
            found.append(row)
        lines_of.setdefault(uri, []).append(line)
        ids_of.setdefault(uri, set()).add(row["video_id"])
    for row in found:
        if (uri := row["uri"]) in lines_of:
            put(row, lines_of[uri])
            row["video_id"] = row["video_id"] if len(ids_of[uri]) == 1 else _id_of(uri, base)
    return found


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
    listed: ListTable, names: Sequence[tuple[Candidate, ...]], rows: list[dict[str, Any]], base: str
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Find the files of a list by the end of their paths: `a/b.mp4` and `b` both name `x/a/b.mp4`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        parts = plain_name(row["video_id"]).split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for key in {end, end.rsplit(".", 1)[0]}:
                found.setdefault(key, []).append(row)
    kept: dict[str, tuple[dict[str, Any], list[Annotation]]] = {}
    failures = []
    for number, (some, line) in enumerate(zip(names, annotations_of(listed), strict=True)):
        if not some:
            continue
        chosen = next((one for one in some if plain_name(one.name) in found), some[0])
        at = found.get(plain_name(chosen.name), [])
        where = f"{listed.place(number)} of {listed.where}"
        if len(at) != 1:
            why = f"{len(at)} files in {base} have that name" if at else f"no file in {base} has that name"
            failures.append(failure(shown(chosen.name), None, "missing", f"{where}: {chosen.name!r}: {why}."))
        elif line.fault:
            failures.append(failure(at[0]["uri"], at[0]["video_id"], "manifest", f"{where}: {line.fault}"))
        else:
            row, lines = kept.setdefault(at[0]["video_id"], ({**at[0]}, []))
            line = line.untimed() if chosen.cut else line
            if line.segment is None and lines and lines[0].segment is None:
                lines.clear()  # of several lines without times, the last counts
            lines.append(line)
    for row, lines in kept.values():
        put(row, lines)
    return [row for row, _ in kept.values()], failures


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
