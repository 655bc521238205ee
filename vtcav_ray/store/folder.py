"""A folder on any fsspec URL, with atomic writes and with JSON that is checked when it is read."""

from __future__ import annotations

import datetime
import errno
import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vtcav_ray.store.access import kind_of, open_url, patiently
from vtcav_ray.store.records import parse_sealed, sealed_bytes

logger = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_CONTACT_SECONDS = 15.0
PIECE_BYTES = 8 << 20  # read at a time from a file that is hashed
# Errors of local file systems without hard links (FAT, some network and FUSE file systems).
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True)
class Folder:
    """A folder on an fsspec URL. Picklable: workers on other nodes reopen it.

    Attributes:
        url: on any file system; a relative path is made absolute.
        storage_options: for fsspec.
        verify: check the files of a stage against their commit records while they are read.
    """

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    verify: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        if "://" not in self.url:  # workers have a different working directory
            object.__setattr__(self, "url", os.path.abspath(self.url))

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        return self._open()[0]

    @property
    def root(self) -> str:
        return self._open()[1]

    def _open(self) -> tuple[fsspec.AbstractFileSystem, str]:
        opened: tuple[fsspec.AbstractFileSystem, str] | None = self.__dict__.get("_opened")
        if opened is None:
            fs, root = open_url(self.url, self.storage_options)
            opened = fs, root.rstrip("/")
            if isinstance(fs, LocalFileSystem):  # others hold connections, which fsspec renews in another process
                object.__setattr__(self, "_opened", opened)
        return opened

    def check(self) -> None:
        """Check now, rather than after hours, that storage can be reached and allows access.

        Raises:
            AccessError: a wrong key, no credentials, no such bucket.
            ConnectionError: the storage does not answer.
        """
        fs, root = self._open()
        try:
            patiently(lambda: fs.ls(root, detail=False), self.url, patience=FIRST_CONTACT_SECONDS)
        except (FileNotFoundError, NotADirectoryError):
            return  # does not exist yet; if a file has its name, the first write reports that

    def same_as(self, other: Folder) -> bool:
        """Return whether both are the same folder, also if spelled differently (relative, trailing slash, a link)."""
        (fs, root), (other_fs, other_root) = self._open(), other._open()
        if isinstance(fs, LocalFileSystem):
            root, other_root = os.path.realpath(root), os.path.realpath(other_root)
        return fs.protocol == other_fs.protocol and root == other_root

    def below(self, *parts: str) -> Folder:
        return Folder("/".join((self.url.rstrip("/"), *parts)), self.storage_options, self.verify)

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    def exists(self, name: str) -> bool:
        fs, path = self.fs, self.path(name)
        return patiently(lambda: kind_of(fs, path), f"{self.url}/{name}") is not None

    def read_bytes(self, name: str) -> bytes:
        fs, path = self.fs, self.path(name)
        return bytes(patiently(lambda: fs.cat_file(path), f"{self.url}/{name}"))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file atomically: readers see all of it or none of it."""
        fs, path = self.fs, self.path(name)
        if isinstance(fs, LocalFileSystem):
            fs.makedirs(os.path.dirname(path), exist_ok=True)
            aside = f"{path}.{uuid.uuid4().hex}.tmp"
            try:
                with open(aside, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(aside, path)
            finally:
                if os.path.exists(aside):
                    os.remove(aside)
        else:  # an object appears when its upload is complete
            patiently(lambda: fs.pipe_file(path, data), f"{self.url}/{name}")

    def write_once(self, name: str, data: bytes) -> bytes:
        """Write a file unless it exists, and return its content. All callers get the bytes of the first one."""
        fs, path = self.fs, self.path(name)
        try:
            if isinstance(fs, LocalFileSystem):
                fs.makedirs(os.path.dirname(path), exist_ok=True)
                aside = f"{path}.{uuid.uuid4().hex}.tmp"
                try:
                    with open(aside, "wb") as file:
                        file.write(data)
                    _link(aside, path, data)
                finally:
                    os.remove(aside)
            else:
                # A request repeated after a lost answer finds its own file, which is read below.
                patiently(lambda: fs.pipe_file(path, data, mode="create"), f"{self.url}/{name}")
        except ConnectionError:
            raise
        except OSError as error:
            # The local name is taken, or the object store refused the condition, which s3fs reports as EINVAL.
            if isinstance(error, FileExistsError) or self.exists(name):
                return self.read_bytes(name)
            raise
        return data

    def reading(self, name: str, read: Callable[[IO[bytes]], T]) -> T:
        """Open a file and return `read(file)`. On transient storage errors, reopen the file and call `read` again."""

        def attempt() -> T:
            with self.fs.open(self.path(name), "rb") as file:
                return read(file)

        return patiently(attempt, f"{self.url}/{name}")

    def entries(self, name: str) -> list[dict[str, Any]]:
        """Return fsspec's details of each file directly below a sub-folder; empty if there is no such folder."""
        try:
            return list(patiently(lambda: self.fs.ls(self.path(name), detail=True), f"{self.url}/{name}"))
        except FileNotFoundError:
            return []

    def remove(self, name: str = "") -> None:
        """Delete a file, or a sub-folder with its content; a missing one is no error."""
        fs, path = self.fs, self.path(name) if name else self.root

        def attempt() -> None:
            if kind_of(fs, path) is not None:
                fs.rm(path, recursive=True)

        try:
            patiently(attempt, f"{self.url}/{name}")
        except FileNotFoundError:  # already deleted, by a request whose answer was lost or by another process
            logger.info("%s was removed already", path)

    def read_json(self, name: str) -> Any:
        """Return the value in a JSON file, without its seal (see `vtcav_ray.store.records`).

        Raises:
            BrokenFile: the file is not JSON, or not what was written.
            FileNotFoundError: there is no such file.
        """
        return parse_sealed(self.read_bytes(name), f"{self.url}/{name}")

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as JSON, sealed."""
        self.write_bytes(name, sealed_bytes(value))

    def size_and_digest(self, name: str) -> tuple[int, str]:
        """Return (bytes, hex SHA-256) of a file, read in pieces.

        Raises:
            FileNotFoundError: there is no such file.
        """
        fs, path, where = self.fs, self.path(name), f"{self.url}/{name}"
        if isinstance(fs, LocalFileSystem):
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256")
                return file.tell(), digest.hexdigest()
        size = int(patiently(lambda: fs.info(path), where)["size"])
        found = hashlib.sha256()
        for start in range(0, size, PIECE_BYTES):
            end = min(size, start + PIECE_BYTES)
            found.update(patiently(lambda a=start, b=end: fs.cat_file(path, start=a, end=b), where))  # type: ignore[misc]
        return size, found.hexdigest()

    def names(self, name: str) -> list[str]:
        """Return the file names (not paths) directly below a sub-folder; empty if there is no such folder."""
        try:
            entries = patiently(lambda: self.fs.ls(self.path(name), detail=False), f"{self.url}/{name}")
        except FileNotFoundError:
            return []
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)


def _link(aside: str, path: str, data: bytes) -> None:
    """Give a written file its name. Fail if the name is taken."""
    try:
        os.link(aside, path)  # atomic
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with open(path, "xb") as file:  # second best: a reader may see a partial file
            file.write(data)


def modified_at(info: Mapping[str, Any]) -> float | None:
    """Return when a file was last written, in seconds since the epoch, from fsspec's `info`; None if not given."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(name)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            return datetime.datetime.fromisoformat(value).timestamp()
    return None
