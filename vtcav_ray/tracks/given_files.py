"""The files that `tracks.source` names: listed, told apart by their fingerprints, and opened."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from vtcav_ray.config import TracksConfig
from vtcav_ray.errors import ConfigError, RefusedURL
from vtcav_ray.registry import TRACK_FORMATS
from vtcav_ray.store.access import kind_of, open_url, patiently
from vtcav_ray.store.reading import read_named
from vtcav_ray.store.records import canonical_digest
from vtcav_ray.tracks.detector_files import read_names
from vtcav_ray.tracks.formats.base import MOST_FILE_BYTES, BadFile, TrackFile, TrackFormat
from vtcav_ray.video.listed import facts
from vtcav_ray.videos.lookup import full_url

_PARTS_OF_ONE_FILE = 3  # of the path of a file that is the whole source: `SEQUENCE/gt/gt.txt`


@dataclass(frozen=True)
class SourceFile(TrackFile):
    """A file of tracks on any fsspec URL."""

    name: str
    path: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def open(self) -> IO[bytes]:
        fs, path = open_url(self.name, self.storage_options)
        if getattr(fs, "keeps_read_limits", False):  # http: not all servers support range requests
            return io.BytesIO(read_named(self.name, self.storage_options, MOST_FILE_BYTES))
        opened: IO[bytes] = fs.open(path, "rb")
        return opened

    def beside(self, path: str, most: int) -> bytes | None:
        scheme, separator, rest = self.name.rpartition("://")
        url = scheme + separator + posixpath.normpath(posixpath.join(posixpath.dirname(rest), path))
        try:
            return read_named(url, self.storage_options, most)
        except FileNotFoundError:
            return None
        except RefusedURL as error:
            raise BadFile(f"{path} beside it: {error}") from error


@dataclass(frozen=True)
class SourceFiles:
    """The files of a source.

    Attributes:
        source: as the config names it.
        files: those with tracks, by their paths below the source.
        digest: of the names and fingerprints of all files that belong to them.
    """

    source: str
    files: Mapping[str, SourceFile]
    digest: str

    def video_of(self, form: TrackFormat, path: str) -> str:
        """Return the name of the video of a file, with `TrackFormat.one_video`."""
        name = form.video_of(path)
        assert name is not None, "only files of the format are listed"
        return name or posixpath.basename(self.source.rstrip("/"))


def path_of_file(url: str) -> str:
    """Return the end of a file's URL that says which kind of file it is, such as `SEQUENCE/gt/gt.txt`."""
    return "/".join(url.rpartition("://")[2].split("/")[-_PARTS_OF_ONE_FILE:]).lstrip("/")


def _below(root: str, found: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Map the paths below a folder to the whole paths and what the file system reports."""
    return {posixpath.relpath(name, root or "/"): (name, info) for name, info in found.items()}


def reader_of(config: TracksConfig) -> TrackFormat:
    """Create the reader of `tracks.format`, with the class names of `tracks.names`.

    Raises:
        ConfigError: the names can't be read.
    """
    names = read_names(config.names, config.storage_options) if config.names is not None else None
    reader: TrackFormat = TRACK_FORMATS[config.format or ""](names)
    return reader


def list_files(config: TracksConfig, form: TrackFormat) -> SourceFiles:
    """List the files of `tracks.source`: a file, a folder with sub-folders, or a glob.

    Raises:
        ConfigError: it does not exist, or has no file of this format.
        AccessError, OSError: the storage refuses, or can't be reached.
    """
    source = str(config.source)
    fs, path = open_url(source, config.storage_options)
    kind = patiently(lambda: kind_of(fs, path), source)
    if kind == "file":
        found = {path: patiently(lambda: fs.info(path), source)}
        relative = {path_of_file(path): (path, found[path])}
    elif kind == "directory":
        found = patiently(lambda: fs.find(path, detail=True), source)
        relative = _below(path.rstrip("/"), found)
    else:
        wild = [path.index(sign) for sign in "*?[" if sign in path]
        found = patiently(lambda: fs.glob(path, detail=True), source) if wild else {}
        found = {name: info for name, info in found.items() if info["type"] == "file"}
        if not found:
            raise ConfigError(
                f"`tracks.source`: {source} does not exist. Give a file, a folder, or a glob with files of the format "
                f"`{config.format}`."
            )
        relative = _below(posixpath.dirname(path[: min(wild)]), found)
    files = {
        below: SourceFile(full_url(fs, name), below, config.storage_options)
        for below, (name, _) in sorted(relative.items())
        if form.video_of(below) is not None and not any(part.startswith(".") for part in below.split("/"))
    }
    if not files:
        raise ConfigError(
            f"`tracks.source`: {source} has no file of the format `{config.format}` in it. Check the path and "
            "`tracks.format` (docs/howto/own_tracks.md)."
        )
    # Also of files that only go with those, such as seqinfo.ini. The name of one file plays no part.
    known = [(below if kind != "file" else "", facts(info)) for below, (_, info) in sorted(relative.items())]
    return SourceFiles(source, files, canonical_digest([list(pair) for pair in known]))
