"""A run folder on any fsspec URL: shards that appear whole or not at all, commit records, manifests.

    RUN/run.json                                   the newest config and the key of each of its stages
    RUN/<stage>/<key>/<table>/<shard>.parquet      a table's part; `<table>/layer=<layer>/...` where d varies
    RUN/<stage>/<key>/failures/<shard>.parquet
    RUN/<stage>/<key>/_commits/<shard>.json        written LAST: only shards that have one exist
    RUN/<stage>/<key>/manifest.json                written when every planned shard is committed: the stage is complete

A reader takes the list of files from the manifest, or from the commit records where there is no manifest yet, and
checks every byte that it uses against the SHA-256 there (`vtcav_ray.store.verified`).

A key is a hash of all that determines the stage's output, so a folder is never overwritten with something else, and a
killed run goes on where it was. Ray's blocks play no part in any name.
"""

from __future__ import annotations

import contextvars
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from vtcav_ray import tables
from vtcav_ray.errors import StageError
from vtcav_ray.store.access import patiently
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.folder import modified_at as modified_at
from vtcav_ray.store.records import (
    COMMITS,
    MANIFEST,
    BrokenFile,
    CommitRecord,
    FileEntry,
    commit_record,
    manifest_record,
    parse_sealed,
)
from vtcav_ray.store.records import canonical_digest as canonical_digest
from vtcav_ray.store.vectors import concatenated, joined
from vtcav_ray.store.verified import VerifiedFile, broken, digests_of
from vtcav_ray.text.url_text import cleaned

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Rows a row group: the CAV stage reads one layer's vectors in pieces of this size. 2**13 x 768 float32 are 25 MB.
ROW_GROUP_ROWS = 8192
CLIP_ROW_GROUP_ROWS = 4  # clips carry their frames, and a preview reads only one of them
# Of a table that is read shard by shard, at most so many files are being read or wait for their turn.
READ_AHEAD_FILES = 16
READ_AHEAD_BYTES = 1 << 25  # of files as they are stored; one file may be larger


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
class StageFolder:
    """The output of one stage under one key."""

    stage: str
    key: str
    folder: Folder
    # What the commit records say of the files that this object has met, by path: so that a record is read once.
    _known: dict[str, FileEntry] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}  # a worker on another node reads the few that it needs

    @property
    def run(self) -> Folder:
        """The run folder that this is in."""
        return Folder(self.folder.url.rsplit("/", 2)[0], self.folder.storage_options, self.folder.verify)

    def remove(self) -> None:
        """Delete all of it. The manifest goes first: what is half removed is not complete."""
        self.folder.remove(MANIFEST)
        self.folder.remove()

    @property
    def complete(self) -> bool:
        return self.folder.exists(MANIFEST)

    def manifest(self) -> dict[str, Any]:
        """What was written when the stage was completed.

        Raises:
            BrokenFile: it is not as it was written.
            FileNotFoundError: the stage is not complete.
        """
        return dict(manifest_record(self.folder.read_json(MANIFEST), self._url(MANIFEST), self.stage, self.key))

    def committed(self) -> set[str]:
        """Names of the shards that have a commit record."""
        names = self.folder.names(COMMITS)
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def _url(self, name: str) -> str:
        return f"{self.folder.url}/{name}"

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
            files[path] = {"rows": table.num_rows, "bytes": len(data), **digests_of(data)}
        record = {
            "shard": shard,
            "files": files,
            "failures": failures.num_rows,
            "metrics": dict(output.metrics),
            "warnings": list(output.warnings),
        }
        self.folder.write_json(f"{COMMITS}/{shard}.json", record)
        self._known.update(files)
        return record

    def record(self, shard: str) -> CommitRecord:
        """The commit record of a shard.

        Raises:
            BrokenFile: it is not as it was written.
            FileNotFoundError: the shard is not committed.
        """
        name = f"{COMMITS}/{shard}.json"
        return commit_record(self.folder.read_json(name), self._url(name))

    def records(self) -> list[CommitRecord]:
        """Every commit record, by shard name.

        Raises:
            BrokenFile: one of them is not as it was written.
        """
        good, bad = self.readable_records()
        for error in bad.values():
            raise error
        return list(good.values())

    def readable_records(self) -> tuple[dict[str, CommitRecord], dict[str, BrokenFile]]:
        """(shard -> its commit record, shard -> what is wrong with its commit record), each by shard name."""
        names = [f"{COMMITS}/{shard}.json" for shard in sorted(self.committed())]
        if not names:
            return {}, {}
        paths = [self.folder.path(name) for name in names]
        # One round of concurrent requests on an object store.
        contents = patiently(lambda: self.folder.fs.cat(paths), self.folder.url)
        if isinstance(contents, bytes):
            contents = {paths[0]: contents}
        good: dict[str, CommitRecord] = {}
        bad: dict[str, BrokenFile] = {}
        for name, path in zip(names, sorted(contents), strict=True):
            shard = name.rsplit("/", 1)[-1].removesuffix(".json")
            try:
                good[shard] = commit_record(parse_sealed(contents[path], self._url(name)), self._url(name))
            except BrokenFile as error:
                bad[shard] = error
        return good, bad

    def shards(self) -> Mapping[str, Mapping[str, FileEntry]]:
        """Shard -> its files: as the manifest has them, or the commit records where the stage is not complete.

        Raises:
            BrokenFile: the manifest, or a record, is not as it was written.
        """
        try:
            return dict(self.manifest()["shards"])
        except FileNotFoundError:
            return {record["shard"]: record["files"] for record in self.records()}

    def shards_by_record(self) -> dict[str, Mapping[str, FileEntry]]:
        """Shard -> its files, of every shard whose commit record can be read."""
        return {shard: record["files"] for shard, record in self.readable_records()[0].items()}

    def finish(
        self, ingredients: Mapping[str, Any], extra: Mapping[str, Any], planned: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Write the manifest (what the key was made from, counts, `extra`). The stage is then complete.

        Args:
            ingredients: what the key was made from.
            extra: what else the manifest says.
            planned: names of all shards that the stage has; None: those that are committed.

        Raises:
            StageError: the committed shards are not the planned ones. Nothing is written.
            BrokenFile: a commit record is not as it was written.
        """
        records = self.records()
        if planned is not None:
            self._check_plan({record["shard"] for record in records}, set(planned))
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
        self.folder.write_json(MANIFEST, manifest)
        return manifest

    def _check_plan(self, committed: set[str], planned: set[str]) -> None:
        if missing := sorted(planned - committed):
            raise StageError(
                f"The stage {self.stage} in {self.folder.url} has {len(planned) - len(missing)} of its {len(planned)} "
                f"shards; {missing[0]} is the first that is missing. Run again: what is missing is made."
            )
        if extra := sorted(committed - planned):
            raise StageError(
                f"{self._url(COMMITS)}/{extra[0]}.json is the record of a shard that is not in the plan of the stage "
                f"{self.stage} ({len(extra)} such records), so its rows may be there twice. Remove these "
                "records, or run with --fresh."
            )

    def files(self, table: str, **partition: str) -> list[str]:
        """Paths (below the folder) of a table's committed files, sorted; `layer="late"` keeps one partition."""
        return list(self._committed_files(table, **partition))

    def _committed_files(self, table: str, **partition: str) -> dict[str, FileEntry]:
        """What is known of each of a table's committed files, by path, in order."""
        prefix = "/".join([table, *(f"{key}={value}" for key, value in partition.items())]) + "/"
        files = {path: file for found in self.shards().values() for path, file in found.items()}
        wanted = {path: files[path] for path in sorted(files) if path.startswith(prefix)}
        self._known.update(wanted)
        return wanted

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
        """The rows of one file.

        Raises:
            BrokenFile: it is not what was committed.
        """
        wanted = list(columns) if columns is not None else None

        def read(file: IO[bytes]) -> pa.Table:
            # In this thread alone, without `pre_buffer`: a thread of Arrow's (`pq.read_table`) holds Python's file a
            # moment longer than the call, and a process that ends in that moment is aborted.
            found = pq.ParquetFile(file, pre_buffer=False).read(columns=wanted, use_threads=False)
            return found if wanted is None else found.select(wanted)

        return self.reading(path, read)

    def reading(self, path: str, read: Callable[[IO[bytes]], T]) -> T:
        """What `read` makes of an opened file, of which every byte is checked before `read` sees it.

        Args:
            path: of a committed file, below the folder.
            read: may be called again, with the file opened anew.

        Raises:
            BrokenFile: it is not what was committed, or not there.
        """
        entry = self._entry(path) if self.folder.verify else None
        try:
            return self._read_checked(path, entry, read)
        except BrokenFile:
            self._known.pop(path, None)  # it may have been written again since its record was read
            if entry is None or self._entry(path) == entry:
                raise
            return self._read_checked(path, self._entry(path), read)

    def _read_checked(self, path: str, entry: FileEntry | None, read: Callable[[IO[bytes]], T]) -> T:
        url = self._url(path)

        def attempt(file: IO[bytes]) -> T:
            return read(file if entry is None else VerifiedFile(file, entry, url))  # type: ignore[arg-type]

        try:
            return self.folder.reading(path, attempt)
        except FileNotFoundError as error:
            raise broken(url, "it is not there, though it was committed") from error
        except pa.ArrowInvalid as error:
            raise broken(url, f"it is no Parquet file that can be read ({str(error).splitlines()[0]})") from error

    def _entry(self, path: str) -> FileEntry:
        """What the commit record, or else the manifest, says of a file."""
        if path not in self._known:
            shard = path.rsplit("/", 1)[-1].removesuffix(".parquet")
            self._known.update(self.shard_files(shard))
        if path not in self._known:
            raise broken(self._url(path), "its shard's commit record does not name it")
        return self._known[path]

    def shard_files(self, shard: str) -> Mapping[str, FileEntry]:
        """The files of one shard: as its commit record has them, or the manifest where that is broken or lost.

        Raises:
            BrokenFile: neither has them.
        """
        try:
            return self.record(shard)["files"]
        except (BrokenFile, FileNotFoundError) as error:
            try:
                return self.manifest()["shards"][shard]
            except (FileNotFoundError, KeyError):
                if isinstance(error, BrokenFile):
                    raise error from None
                url = self._url(f"{COMMITS}/{shard}.json")
                raise BrokenFile(url, "the shard has no commit record", "Run again: it is made again.") from error

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
