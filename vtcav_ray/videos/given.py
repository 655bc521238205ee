"""List a person's own clips: for each concept, a folder, a glob or a manifest of videos or images.

Source videos. The unit of the statistics is the source video, not the clip. It is the column `source` of a manifest,
or else the file. A `source`, or a file, that is a video of the corpus is that video: then it is no class example and no
random clip. Any other id begins with `given/`, so that it can't be one of the corpus by accident.

Parts. A manifest may have `start` and `end`, in seconds or as hh:mm:ss, for clips that are parts of a longer file.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from vtcav_ray.config import ConceptConfig, ConceptFolders, Config, VideosConfig
from vtcav_ray.config.clips import GIVEN, OF_WORLD, STILL
from vtcav_ray.errors import ConfigError
from vtcav_ray.rows import Failure
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.urls import ANY_ADDRESS, READ_LIMITS, ReadLimits, origin_of
from vtcav_ray.tables import GIVEN as GIVEN_TABLE
from vtcav_ray.text.counted import are
from vtcav_ray.text.label_sets import join_labels, split_labels
from vtcav_ray.video.images import IMAGE_EXTENSIONS, is_image
from vtcav_ray.videos.annotations import annotations_of
from vtcav_ray.videos.listing import files_of_manifest, list_files
from vtcav_ray.videos.lookup import open_listed
from vtcav_ray.videos.manifests import decoded_path, failure
from vtcav_ray.videos.pairs import NAME, paired_by_name, plain_name
from vtcav_ray.videos.reading import read_table
from vtcav_ray.videos.rendered import rendered_concepts
from vtcav_ray.videos.tables import ID_COLUMNS, MANIFESTS, URI_COLUMNS, ListTable

PREFIX = "given/"
_RANDOM = re.compile(r"(random|negatives?)[ _-]?(discovery|images?|clips?|videos?|sets?)?[ _-]?\d*([ _-]\d+)*", re.I)


@dataclass
class Given:
    """The own clips of a run.

    Attributes:
        rows: of the table `given`.
        failures: of files and manifest rows that can't be used.
        warnings: sentences for the user.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def table(self) -> pa.Table:
        """The table `given`, sorted by concept and clip."""
        order = sorted(self.rows, key=lambda r: (r["concept"] or "", r["negative"], r["clip"]))
        return pa.Table.from_pylist(order, schema=GIVEN_TABLE)


@dataclass(frozen=True)
class _Set:
    """One URL of own clips: those of a concept, or its random clips."""

    concept: str | None
    negative: bool
    url: str
    key: str


def reading_options(config: Config) -> dict[str, Any]:
    """Return the options for opening own clips: those of `videos`, which also allow the hosts that the config names."""
    options = dict(config.videos.read_options)
    limits: ReadLimits = options[READ_LIMITS]
    if limits.private != (ANY_ADDRESS,):
        named = tuple(origin for url, _ in config.clips.given_urls if (origin := origin_of(url)))
        options[READ_LIMITS] = dataclasses.replace(limits, private=(*limits.private, *named))
    return options


def list_given(config: Config, videos: pa.Table, run: Folder) -> Given:
    """List the own clips of a config.

    Args:
        config: with at least one concept of own clips.
        videos: VIDEOS table of the corpus.
        run: the run folder, for concept folders that are rendered with the planted world.

    Raises:
        ConfigError: a URL does not exist or has no clip in it, or a manifest can't be read. The message names the key.
        AccessError: storage refuses to read anything there.
        OSError: the network failed.
    """
    found = Given()
    corpus = _Corpus(videos)
    concepts = config.clips.concepts
    if isinstance(concepts, ConceptFolders):
        _from_folders(found, concepts, config, corpus, run)
    failed: dict[int, list[Failure]] = {}
    for number, concept in enumerate(config.clips.listed):
        before = len(found.failures)
        for url, name in ((concept.clips, "clips"), (concept.negatives, "negatives")):
            if url is not None:
                one = _Set(concept.name, name == "negatives", url, f"clips.concepts.{number}.{name}")
                found.rows += _rows_of(one, config, corpus, found)
        failed[number] = found.failures[before:]
    _check_ids(found.rows, corpus)
    for number, concept in enumerate(config.clips.listed):
        if concept.pairs is not None:
            _put_pairs(found, concept, failed[number], f"clips.concepts.{number}")
    return found


def _put_pairs(found: Given, concept: ConceptConfig, failures: list[Failure], key: str) -> None:
    """Pair the clips of a concept with its negatives, after both have their ids."""
    own, negatives = (
        [row for row in found.rows if row["concept"] == concept.name and row["negative"] == side]
        for side in (False, True)
    )
    pairs, warnings = paired_by_name(own, negatives, failures, concept, key)
    found.rows = [row for row in found.rows if row["concept"] != concept.name] + pairs
    found.warnings += warnings


class _Corpus:
    """The source videos of the corpus.

    Attributes:
        label_of: source video -> all its labels.
        unit_at: URI of a file -> its source video.
        unit_of: id of a file -> its source video.
    """

    def __init__(self, videos: pa.Table) -> None:
        self.unit_at: dict[str, str] = {}
        self.unit_of: dict[str, str] = {}
        texts: dict[str, list[str | None]] = {}
        for row in videos.to_pylist():
            unit = row.get("source") or row["video_id"]
            self.unit_at[row["uri"]] = self.unit_of[row["video_id"]] = unit
            texts.setdefault(unit, []).append(row["label"])
        self.label_of = {
            unit: some[0] if len(some) == 1 else join_labels(label for text in some for label in split_labels(text))
            for unit, some in texts.items()
        }


def _settings(config: Config, url: str, options: Mapping[str, Any] | None = None) -> VideosConfig:
    """Return the section `videos` for listing a URL of own clips."""
    own = config.videos
    return VideosConfig(
        uri=url,
        extensions=(*own.extensions, *(e for e in IMAGE_EXTENSIONS if e not in own.extensions)),
        follow_links=own.follow_links,
        schemes=own.schemes,
        private_addresses=own.private_addresses,
        storage_options=dict(own.storage_options if options is None else options),
    )


def _from_folders(found: Given, folders: ConceptFolders, config: Config, corpus: _Corpus, run: Folder) -> None:
    """Add the clips of a folder of folders."""
    url, options = folders.from_, None
    if url == OF_WORLD:
        place = rendered_concepts(config.videos, run)
        url, options = place.url, dict(place.storage_options)
    key = "clips.concepts.from"
    settings = _settings(config, url, options)
    listed = _listed(settings, key)
    found.failures += listed.failures
    found.warnings += [f"`{key}`: {warning}" for warning in listed.warnings]
    root, beside = _root_of(settings), 0
    for row in listed.videos.to_pylist():
        name, _, rest = row["video_id"].partition("/")
        if not rest:
            beside += 1
            continue
        random = _RANDOM.fullmatch(name) is not None
        concept = None if random else name
        found.rows.append(_row(_Set(concept, random, url, key), row, f"{root}/{row['video_id']}", corpus))
    if beside:
        found.warnings.append(
            f"`{key}`: {are(beside, 'file')} in no folder, and left out, since a concept is a folder: {url}"
        )
    names = sorted({row["concept"] for row in found.rows if row["concept"] is not None})
    if not names:
        raise ConfigError(
            f"`{key}`: {url} has no folder with clips or images whose name is not that of random clips. Put the clips "
            "of each concept in a folder with its name."
        )
    if long := [name for name in names if len(name) > 80 or not name.isprintable()]:
        raise ConfigError(f"`{key}`: the folder {long[0]!r} can't be a concept's name: rename it (80 characters).")
    if folders.negatives is not None:
        found.rows += _rows_of(_Set(None, True, folders.negatives, "clips.concepts.negatives"), config, corpus, found)


def _rows_of(one: _Set, config: Config, corpus: _Corpus, found: Given) -> list[dict[str, Any]]:
    """Return the rows of a URL, with each clip's `name`. Add its failures and warnings to `found`."""
    settings = _settings(config, one.url)
    extensions = settings.extensions
    if decoded_path(one.url).lower().endswith(MANIFESTS):
        rows = list(_rows_of_manifest(one, settings, corpus, found))
    else:
        listed = _listed(settings, one.key)
        found.failures += listed.failures
        found.warnings += [f"`{one.key}`: {warning}" for warning in listed.warnings]
        root = _root_of(settings)
        rows = [
            _row(one, row, f"{root}/{row['video_id']}", corpus) | {NAME: plain_name(row["video_id"], extensions)}
            for row in listed.videos.to_pylist()
        ]
    if not rows and not found.failures:
        raise ConfigError(f"`{one.key}`: {one.url} has no clip in it.")
    return rows


def _listed(settings: VideosConfig, key: str) -> Any:
    try:
        return list_files(settings)
    except ConfigError as error:
        raise ConfigError(f"`{key}`: {error}") from error


def _root_of(settings: VideosConfig) -> str:
    """Return the last name of the folder that ids are relative to: part of each id, so that folders don't clash."""
    path = decoded_path(str(settings.uri)).rstrip("/")
    while any(c in path for c in "*?[") or posixpath.splitext(path)[1].lower().lstrip(".") in settings.extensions:
        path = posixpath.dirname(path)
    return posixpath.basename(path) or "files"


def _rows_of_manifest(one: _Set, settings: VideosConfig, corpus: _Corpus, found: Given) -> Iterator[dict[str, Any]]:
    try:
        fs, path = open_listed(decoded_path(one.url), settings.read_options)
        listed = read_table(fs, path)
        uris = listed.column(URI_COLUMNS)
        if uris is None:
            columns = ", ".join(listed.table.column_names)
            raise ConfigError(f"{path} has no column `uri`; its columns: {columns}.")
        # Several rows may name one file, so each row is listed under its number.
        numbers = [str(number) for number in range(len(uris))]
        plain = pa.table({"uri": pa.array(uris, pa.string()), "video_id": numbers})
        rows, failures = files_of_manifest(settings, ListTable(plain, listed.where, listed.first_line))
    except FileNotFoundError as error:
        raise ConfigError(f"`{one.key}`: {one.url} does not exist.") from error
    except ConfigError as error:
        raise ConfigError(f"`{one.key}`: {error}") from error
    found.failures += [dataclasses.replace(one_failure, video_id=None) for one_failure in failures]
    lines = annotations_of(listed)
    ids = listed.column(ID_COLUMNS) or [None] * len(uris)
    base = posixpath.basename(posixpath.dirname(path)) or "files"
    for row in rows:
        number = int(row["video_id"])
        where = f"{listed.place(number)} of {listed.where}"
        line, name = lines[number], ids[number]
        fault = line.fault
        if not fault and name is not None and (not name.isprintable() or ".." in name.split("/")):
            fault = f"{name!r} can't be a video_id."
        if fault:
            found.failures.append(failure(row["uri"], None, "manifest", f"{where}: {fault}"))
            continue
        row |= {"own_label": line.label, "segment": line.segment, "source": line.source}
        file = posixpath.basename(row["uri"])
        own_name = {NAME: plain_name(name or file, settings.extensions)}
        yield _row(one, row, name or f"{base}/{file}", corpus) | own_name


def _row(one: _Set, row: Mapping[str, Any], name: str, corpus: _Corpus) -> dict[str, Any]:
    """Return a row of the table `given`.

    Args:
        row: of VIDEOS, with `source`, `segment` and `own_label` if it comes from a manifest.
        name: of the file, if it is no video of the corpus.
    """
    source, segment = row.get("source"), row.get("segment")
    video = corpus.unit_of.get(source, source) if source else corpus.unit_at.get(row["uri"]) or PREFIX + name
    part = "" if segment is None else f"@{segment.name}"
    return {
        "clip": f"{video}{f'#{name}' if source else ''}{part}",
        "concept": one.concept,
        "negative": one.negative,
        "kind": STILL if is_image(row["uri"]) else GIVEN,
        "video_id": video,
        "uri": row["uri"],
        "label": corpus.label_of.get(video) or row.get("own_label"),  # a folder's name is no class
        "start": None if segment is None else segment.start,
        "end": None if segment is None else segment.end,
        "size_bytes": row["size_bytes"],
        "fingerprint": row["fingerprint"],
    }


def _check_ids(rows: list[dict[str, Any]], corpus: _Corpus) -> None:
    """Give files that share an id, but are different files, their whole address as id."""
    places: dict[str, set[str]] = {}
    for row in rows:
        if row["video_id"].startswith(PREFIX) and row["clip"].partition("@")[0] == row["video_id"]:
            places.setdefault(row["video_id"], set()).add(row["uri"])
    clash = {video for video, uris in places.items() if len(uris) > 1 or video in corpus.label_of}
    for row in rows:
        if row["video_id"] in clash and row["uri"] in places[row["video_id"]]:
            own = PREFIX + row["uri"].split("://", 1)[-1].lstrip("/")
            row["clip"] = own + row["clip"][len(row["video_id"]) :]
            row["video_id"] = own
    twice = Counter((row["concept"], row["negative"], row["clip"]) for row in rows)
    for row in rows:  # the same part of the same file, listed twice for one concept
        if (count := twice[row["concept"], row["negative"], row["clip"]]) > 1:
            raise ConfigError(
                f"`clips.concepts`: {row['uri']} is listed {count} times for {row['concept'] or 'the random clips'}, "
                "as the same part. List it once, or give `start` and `end`."
            )
