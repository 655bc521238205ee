"""A run folder on any fsspec URL: shards that appear whole or not at all, commit records, manifests.

    RUN/run.json                                   the newest config and the key of each of its stages
    RUN/<stage>/<key>/<table>/<shard>.parquet      a table's part; `<table>/layer=<layer>/...` where d varies
    RUN/<stage>/<key>/failures/<shard>.parquet
    RUN/<stage>/<key>/_commits/<shard>.json        written LAST: only shards that have one exist
    RUN/<stage>/<key>/manifest.json                written when every shard is committed: the stage is complete

A key is a hash of all that determines the stage's output, so a folder is never overwritten with something else, and a
killed run goes on where it was. Ray's blocks play no part in any name.
"""

from __future__ import annotations

import contextvars
import datetime
import hashlib
import json
import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from vtcav_ray import tables
from vtcav_ray.access import kind_of, open_url, patiently
from vtcav_ray.url_text import cleaned
from vtcav_ray.vectors import concatenated, joined

logger = logging.getLogger(__name__)
T = TypeVar("T")

COMMITS = "_commits"
# Rows a row group: the CAV stage reads one layer's vectors in pieces of this size. 2**13 x 768 float32 are 25 MB.
ROW_GROUP_ROWS = 8192
CLIP_ROW_GROUP_ROWS = 4  # clips carry their frames, and a preview reads only one of them
FIRST_CONTACT_SECONDS = 15.0
# Of a table that is read shard by shard, at most so many files are being read or wait for their turn.
READ_AHEAD_FILES = 16
READ_AHEAD_BYTES = 1 << 25  # of files as they are stored; one file may be larger


def canonical_digest(value: Any) -> str:
    """Hex SHA-256 of a JSON-like value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class ShardOutput:
    """What a worker makes of one shard.

    Attributes:
        tables: table path below the stage's folder (`tracks`, `activations/layer=late`) -> its rows.
        failures: rows of `tables.FAILURES` without `stage`; a missing column is null, missing `attempts` is 1.
        metrics: numbers that add up over shards (counts, bytes, seconds).
        warnings: sentences for the user.
    """

    tables: Mapping[str, pa.Table]
    failures: Sequence[Mapping[str, Any]] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Folder:
    """A folder on an fsspec URL. Picklable: workers on other nodes open it anew."""

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if "://" not in self.url:  # workers have a working directory of their own
            object.__setattr__(self, "url", os.path.abspath(self.url))

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        return self._open()[0]

    @property
    def root(self) -> str:
        return self._open()[1]

    def _open(self) -> tuple[fsspec.AbstractFileSystem, str]:
        fs, root = open_url(self.url, self.storage_options)
        return fs, root.rstrip("/")

    def check(self) -> None:
        """Find out at once, and not after hours, that storage can't be reached or refuses.

        Raises:
            AccessError: a wrong key, no credentials, no such bucket.
            ConnectionError: nothing answers.
        """
        fs, root = self._open()
        try:
            patiently(lambda: fs.ls(root, detail=False), self.url, patience=FIRST_CONTACT_SECONDS)
        except (FileNotFoundError, NotADirectoryError):
            return  # nothing there yet; a file in the way is told by the first write

    def same_as(self, other: Folder) -> bool:
        """Whether both are one folder, however each is written (relative, with a slash at the end, by a link)."""
        (fs, root), (other_fs, other_root) = self._open(), other._open()
        if isinstance(fs, LocalFileSystem):
            root, other_root = os.path.realpath(root), os.path.realpath(other_root)
        return fs.protocol == other_fs.protocol and root == other_root

    def below(self, *parts: str) -> Folder:
        return Folder("/".join((self.url.rstrip("/"), *parts)), self.storage_options)

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    def exists(self, name: str) -> bool:
        fs, path = self.fs, self.path(name)
        return patiently(lambda: kind_of(fs, path), f"{self.url}/{name}") is not None

    def read_bytes(self, name: str) -> bytes:
        return bytes(patiently(lambda: self.fs.cat_file(self.path(name)), f"{self.url}/{name}"))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file so that readers see all of it or none of it."""
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
        """Write a file unless it is there, and return what is there: all who call this get the first one's bytes."""
        fs, path = self.fs, self.path(name)
        try:
            if isinstance(fs, LocalFileSystem):
                fs.makedirs(os.path.dirname(path), exist_ok=True)
                aside = f"{path}.{uuid.uuid4().hex}.tmp"
                try:
                    with open(aside, "wb") as file:
                        file.write(data)
                    os.link(aside, path)  # whole, and refused where the name is taken
                finally:
                    os.remove(aside)
            else:
                # Repeated after its answer was lost, it meets its own file, which is read below.
                patiently(lambda: fs.pipe_file(path, data, mode="create"), f"{self.url}/{name}")
        except ConnectionError:
            raise
        except OSError as error:
            # A local name that is taken, or an object store's refused condition, which s3fs tells as EINVAL.
            if isinstance(error, FileExistsError) or self.exists(name):
                return self.read_bytes(name)
            raise
        return data

    def reading(self, name: str, read: Callable[[IO[bytes]], T]) -> T:
        """What `read` makes of the opened file; called again, with the file opened anew, while storage falters."""

        def attempt() -> T:
            with self.fs.open(self.path(name), "rb") as file:
                return read(file)

        return patiently(attempt, f"{self.url}/{name}")

    def entries(self, name: str) -> list[dict[str, Any]]:
        """What fsspec says of each file directly below a sub-folder; empty when there is none."""
        try:
            return list(patiently(lambda: self.fs.ls(self.path(name), detail=True), f"{self.url}/{name}"))
        except FileNotFoundError:
            return []

    def remove(self, name: str = "") -> None:
        """Delete a file, or a sub-folder with all that is in it; nothing there is no error."""
        fs, path = self.fs, self.path(name) if name else self.root

        def attempt() -> None:
            if kind_of(fs, path) is not None:
                fs.rm(path, recursive=True)

        try:
            patiently(attempt, f"{self.url}/{name}")
        except FileNotFoundError:  # gone in the meantime: by a request whose answer was lost, or by a neighbour
            logger.info("%s was removed already", path)

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, json.dumps(value, indent=1, sort_keys=True, default=str).encode())

    def names(self, name: str) -> list[str]:
        """File names (not paths) directly below a sub-folder; empty when there is none."""
        try:
            entries = patiently(lambda: self.fs.ls(self.path(name), detail=False), f"{self.url}/{name}")
        except FileNotFoundError:
            return []
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)


@dataclass(frozen=True)
class StageFolder:
    """The output of one stage under one key."""

    stage: str
    key: str
    folder: Folder

    @property
    def run(self) -> Folder:
        """The run folder that this is in."""
        return Folder(self.folder.url.rsplit("/", 2)[0], self.folder.storage_options)

    def remove(self) -> None:
        """Delete all of it. The manifest goes first: what is half removed is not complete."""
        self.folder.remove("manifest.json")
        self.folder.remove()

    @property
    def complete(self) -> bool:
        return self.folder.exists("manifest.json")

    def manifest(self) -> dict[str, Any]:
        return dict(self.folder.read_json("manifest.json"))

    def committed(self) -> set[str]:
        """Names of the shards that are there, whole."""
        names = self.folder.names(COMMITS)
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def commit(self, shard: str, output: ShardOutput) -> dict[str, Any]:
        """Write a shard's files, then its commit record. Safe to repeat, and to do twice at once.

        Returns:
            The commit record: rows, bytes and SHA-256 of each file, failures, metrics.
        """
        files: dict[str, Any] = {}
        failures = failure_table(self.stage, output.failures)
        parts = {**output.tables, **({"failures": failures} if failures.num_rows else {})}
        for name, table in parts.items():
            data = parquet_bytes(table, CLIP_ROW_GROUP_ROWS if "encoded" in table.column_names else ROW_GROUP_ROWS)
            path = f"{name}/{shard}.parquet"
            self.folder.write_bytes(path, data)
            files[path] = {"rows": table.num_rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        record = {
            "shard": shard,
            "files": files,
            "failures": failures.num_rows,
            "metrics": dict(output.metrics),
            "warnings": list(output.warnings),
        }
        self.folder.write_json(f"{COMMITS}/{shard}.json", record)
        return record

    def records(self) -> list[dict[str, Any]]:
        """Every commit record, by shard name."""
        shards = sorted(self.committed())
        paths = [self.folder.path(COMMITS, f"{shard}.json") for shard in shards]
        if not paths:
            return []
        contents = patiently(
            lambda: self.folder.fs.cat(paths), self.folder.url
        )  # one round of concurrent requests on an object store
        if isinstance(contents, bytes):
            contents = {paths[0]: contents}
        return [json.loads(contents[path]) for path in sorted(contents)]

    def finish(self, ingredients: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
        """Write the manifest (what the key was made from, counts, `extra`). The stage is then complete."""
        records = self.records()
        rows: dict[str, int] = {}
        metrics: dict[str, float] = {}
        size = 0
        for record in records:
            for path, info in record["files"].items():
                table = path.split("/", 1)[0]
                rows[table] = rows.get(table, 0) + info["rows"]
                size += info["bytes"]
            for name, value in record["metrics"].items():
                metrics[name] = metrics.get(name, 0) + value
        manifest = {
            "stage": self.stage,
            "key": self.key,
            "ingredients": ingredients,
            "shards": {r["shard"]: r["files"] for r in records},
            "rows": rows,
            "bytes": size,
            "metrics": metrics,
            **extra,
            "warnings": list(dict.fromkeys([*extra.get("warnings", ()), *(w for r in records for w in r["warnings"])])),
        }
        self.folder.write_json("manifest.json", manifest)
        return manifest

    def files(self, table: str, **partition: str) -> list[str]:
        """Paths (below the folder) of a table's committed files, sorted; `layer="late"` keeps one partition."""
        return list(self._committed_files(table, **partition))

    def _committed_files(self, table: str, **partition: str) -> dict[str, dict[str, Any]]:
        """`rows` and `bytes` of each of a table's committed files, by path, in order."""
        prefix = "/".join([table, *(f"{key}={value}" for key, value in partition.items())]) + "/"
        files = {path: file for record in self.records() for path, file in record["files"].items()}
        return {path: files[path] for path in sorted(files) if path.startswith(prefix)}

    def iter_tables(
        self, table: str, *, columns: Sequence[str] | None = None, **partition: str
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yield (shard name, its rows) in order. A few shards are read ahead, so that an object store's answer is not
        waited for each time; they are bounded in number and bytes, so memory does not grow with the table. A layer's
        vectors are read one file at a time: they are large, and memory is what counts there.
        """
        sizes = {path: file["bytes"] for path, file in self._committed_files(table, **partition).items()}
        parts = self._one_by_one(sizes, columns) if partition else self._read_ahead(sizes, columns)
        for path, part in zip(sizes, parts, strict=True):
            yield path.rsplit("/", 1)[-1].removesuffix(".parquet"), part

    def _one_by_one(self, sizes: Mapping[str, int], columns: Sequence[str] | None) -> Iterator[pa.Table]:
        return (self.read_file(path, columns) for path in sizes)

    def _read_ahead(self, sizes: Mapping[str, int], columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """The files' rows, in the order of `sizes` (path -> bytes)."""
        if len(sizes) <= 1:  # most tables of a small run
            yield from self._one_by_one(sizes, columns)
            return
        waiting: deque[tuple[Future[pa.Table], int]] = deque()
        held = 0
        pool = ThreadPoolExecutor(READ_AHEAD_FILES, "read-ahead")
        try:
            for path, size in sizes.items():
                while waiting and (len(waiting) >= READ_AHEAD_FILES or held + size > READ_AHEAD_BYTES):
                    future, freed = waiting.popleft()
                    yield future.result()
                    held -= freed
                # Each in a context of its own, so that what it logs says which run and stage it is about.
                run_here = contextvars.copy_context().run
                waiting.append((pool.submit(run_here, self.read_file, path, columns), size))
                held += size
            while waiting:
                yield waiting.popleft()[0].result()
        finally:  # also where the caller has seen enough; what is being read is not waited for
            pool.shutdown(wait=False, cancel_futures=True)

    def read_file(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        wanted = list(columns) if columns is not None else None

        def read(file: IO[bytes]) -> pa.Table:
            # In this thread alone, without `pre_buffer`: a thread of Arrow's (`pq.read_table`) holds Python's file a
            # moment longer than the call, and a process that ends in that moment is aborted.
            found = pq.ParquetFile(file, pre_buffer=False).read(columns=wanted, use_threads=False)
            return found if wanted is None else found.select(wanted)

        return self.folder.reading(path, read)

    def read(self, table: str, *, columns: Sequence[str] | None = None, **partition: str) -> pa.Table | None:
        """A whole table, or one partition of it, in memory; None when it has no rows at all.

        Vectors of different layers have different lengths: without a partition they come as variable lists.
        """
        files = self._committed_files(table, **partition)
        sizes = {path: file["bytes"] for path, file in files.items()}
        if partition:
            found = (part for part in self._one_by_one(sizes, columns) if part.num_rows)
            return joined(found, sum(file["rows"] for file in files.values()))
        parts = [part for part in self._read_ahead(sizes, columns) if part.num_rows]
        if not parts:
            return None
        return concatenated(parts)


def modified_at(info: Mapping[str, Any]) -> float | None:
    """When a file was last written, seconds since the epoch, from what fsspec says of it; None: it does not say."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(name)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            return datetime.datetime.fromisoformat(value).timestamp()
    return None


def stage_folder(run: Folder, stage: str, key: str) -> StageFolder:
    return StageFolder(stage, key, run.below(stage, key))


def failure_table(stage: str, failures: Sequence[Mapping[str, Any]]) -> pa.Table:
    rows = [{"attempts": 1, **failure, "stage": stage} for failure in failures]
    for row in rows:  # messages quote libraries' errors, which quote URLs
        row["message"] = cleaned(str(row["message"])) if row.get("message") is not None else None
    return pa.Table.from_pylist(rows, schema=tables.FAILURES)


def parquet_bytes(table: pa.Table, row_group_rows: int = ROW_GROUP_ROWS) -> bytes:
    """A table as a Parquet file. The same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=row_group_rows,
        compression="zstd",
        use_dictionary=[f.name for f in table.schema if pa.types.is_string(f.type)],
    )
    return sink.getvalue().to_pybytes()
