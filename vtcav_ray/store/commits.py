"""A run folder on any fsspec URL: atomic shards, commit records, manifests.

    RUN/run.json                                   the newest config and the key of each of its stages
    RUN/<stage>/<key>/<table>/<shard>.parquet      a table's part; `<table>/layer=<layer>/...` where d varies
    RUN/<stage>/<key>/failures/<shard>.parquet
    RUN/<stage>/<key>/_commits/<shard>.json        written LAST: a shard without one does not count
    RUN/<stage>/<key>/manifest.json                written when every planned shard is committed: the stage is complete

A reader takes the list of files from the manifest, or from the commit records if there is no manifest yet. It checks
every byte that it uses against the SHA-256 in that list (`vtcav_ray.store.verified`).

A key is a hash of everything that determines the stage's output, so a folder is never overwritten with other output,
and a killed run resumes. Names do not depend on Ray's blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from vtcav_ray.errors import StageError
from vtcav_ray.rows import Failure, table_of
from vtcav_ray.store.access import patiently
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.folder import modified_at as modified_at
from vtcav_ray.store.read_ahead import read_ahead
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

T = TypeVar("T")

# Rows per row group: the CAV stage reads one layer's vectors in pieces of this size. 2**13 x 768 float32 are 25 MB.
ROW_GROUP_ROWS = 8192
CLIP_ROW_GROUP_ROWS = 4  # clips hold their frames, and a preview reads only one clip


@dataclass(frozen=True)
class ShardOutput:
    """The output of a worker for one shard.

    Attributes:
        tables: table path below the stage's folder (`tracks`, `activations/layer=late`) -> its rows.
        failures: rows of `failures`; `stage` is filled in by the commit.
        metrics: numbers that add up over shards (counts, bytes, seconds).
        warnings: sentences for the user.
    """

    tables: Mapping[str, pa.Table]
    failures: Sequence[Failure] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class StageFolder:
    """The output of one stage under one key."""

    stage: str
    key: str
    folder: Folder
    # Commit record entries of the files that this object has seen, by path, so that a record is read only once.
    _known: dict[str, FileEntry] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}  # a worker on another node reads the few entries that it needs

    @property
    def run(self) -> Folder:
        """The run folder that contains this folder."""
        return Folder(self.folder.url.rsplit("/", 2)[0], self.folder.storage_options, self.folder.verify)

    def remove(self) -> None:
        """Delete the folder. Delete the manifest first, so that a half-deleted stage is not taken for complete."""
        self.folder.remove(MANIFEST)
        self.folder.remove()

    @property
    def complete(self) -> bool:
        return self.folder.exists(MANIFEST)

    def manifest(self) -> dict[str, Any]:
        """Return the manifest that was written when the stage was completed.

        Raises:
            BrokenFile: the manifest is damaged.
            FileNotFoundError: the stage is not complete.
        """
        return dict(manifest_record(self.folder.read_json(MANIFEST), self._url(MANIFEST), self.stage, self.key))

    def committed(self) -> set[str]:
        """Return the names of the shards that have a commit record."""
        names = self.folder.names(COMMITS)
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def _url(self, name: str) -> str:
        return f"{self.folder.url}/{name}"

    def commit(self, shard: str, output: ShardOutput) -> dict[str, Any]:
        """Write a shard's files, then its commit record. Safe to repeat, and to run twice at the same time.

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
        """Return the commit record of a shard.

        Raises:
            BrokenFile: the record is damaged.
            FileNotFoundError: the shard is not committed.
        """
        name = f"{COMMITS}/{shard}.json"
        return commit_record(self.folder.read_json(name), self._url(name))

    def records(self) -> list[CommitRecord]:
        """Return all commit records, sorted by shard name.

        Raises:
            BrokenFile: a record is damaged.
        """
        good, bad = self.readable_records()
        for error in bad.values():
            raise error
        return list(good.values())

    def readable_records(self) -> tuple[dict[str, CommitRecord], dict[str, BrokenFile]]:
        """Return (shard -> commit record, shard -> what is wrong with its record), each sorted by shard name."""
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
        """Return shard -> its files, from the manifest, or from the commit records if the stage is not complete.

        Raises:
            BrokenFile: the manifest or a record is damaged.
        """
        try:
            return dict(self.manifest()["shards"])
        except FileNotFoundError:
            return {record["shard"]: record["files"] for record in self.records()}

    def shards_by_record(self) -> dict[str, Mapping[str, FileEntry]]:
        """Return shard -> its files, for every shard whose commit record can be read."""
        return {shard: record["files"] for shard, record in self.readable_records()[0].items()}

    def finish(
        self, ingredients: Mapping[str, Any], extra: Mapping[str, Any], planned: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Write the manifest (the key's ingredients, counts, `extra`). The stage is then complete.

        Args:
            ingredients: the values that the key is a hash of.
            extra: further entries of the manifest.
            planned: names of all shards of the stage; None: the committed ones.

        Raises:
            StageError: the committed shards are not the planned ones. Nothing is written.
            BrokenFile: a commit record is damaged.
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
                f"shards; the first missing one is {missing[0]}. Run again to compute the missing shards."
            )
        if extra := sorted(committed - planned):
            raise StageError(
                f"{self._url(COMMITS)}/{extra[0]}.json is the record of a shard that is not in the plan of the stage "
                f"{self.stage} ({len(extra)} such records), so its rows may exist twice. Delete these "
                "records, or run with --fresh."
            )

    def files(self, table: str, **partition: str) -> list[str]:
        """Return the paths (below the folder) of a table's committed files, sorted.

        `layer="late"` keeps one partition.
        """
        return list(self._committed_files(table, **partition))

    def _committed_files(self, table: str, **partition: str) -> dict[str, FileEntry]:
        """Return the entries of a table's committed files, by path, in order."""
        prefix = "/".join([table, *(f"{key}={value}" for key, value in partition.items())]) + "/"
        files = {path: file for found in self.shards().values() for path, file in found.items()}
        wanted = {path: files[path] for path in sorted(files) if path.startswith(prefix)}
        self._known.update(wanted)
        return wanted

    def iter_tables(
        self, table: str, *, columns: Sequence[str] | None = None, **partition: str
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yield (shard name, its rows) in order.

        A few shards are read ahead to hide the latency of an object store. Their number and bytes are bounded, so
        memory does not grow with the table. A layer's vectors are read one file at a time to save memory, because
        they are large.
        """
        sizes = {path: file["bytes"] for path, file in self._committed_files(table, **partition).items()}
        parts = self._one_by_one(sizes, columns) if partition else self._ahead(sizes, columns)
        for path, part in zip(sizes, parts, strict=True):
            yield path.rsplit("/", 1)[-1].removesuffix(".parquet"), part

    def _one_by_one(self, sizes: Mapping[str, int], columns: Sequence[str] | None) -> Iterator[pa.Table]:
        return (self.read_file(path, columns) for path in sizes)

    def _ahead(self, sizes: Mapping[str, int], columns: Sequence[str] | None) -> Iterator[pa.Table]:
        return read_ahead(sizes, lambda path: self.read_file(path, columns))

    def read_file(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of one file.

        Raises:
            BrokenFile: the file is not what was committed.
        """
        wanted = list(columns) if columns is not None else None

        def read(file: IO[bytes]) -> pa.Table:
            # Read in this thread only, without `pre_buffer`: Arrow's threads (`pq.read_table`) hold the Python file for
            # a moment after the call returns, and a process that exits in that moment is aborted.
            found = pq.ParquetFile(file, pre_buffer=False).read(columns=wanted, use_threads=False)
            return found if wanted is None else found.select(wanted)

        return self.reading(path, read)

    def reading(self, path: str, read: Callable[[IO[bytes]], T]) -> T:
        """Open a file and return `read(file)`. Every byte is checked before `read` sees it.

        Args:
            path: of a committed file, below the folder.
            read: may be called again, with the file reopened.

        Raises:
            BrokenFile: the file is missing, or is not what was committed.
        """
        entry = self._entry(path) if self.folder.verify else None
        try:
            return self._read_checked(path, entry, read)
        except BrokenFile:
            self._known.pop(path, None)  # it may have been rewritten since its record was read
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
            raise broken(url, "it is missing, though it was committed") from error
        except pa.ArrowInvalid as error:
            raise broken(url, f"it is not a readable Parquet file ({str(error).splitlines()[0]})") from error

    def _entry(self, path: str) -> FileEntry:
        """Return a file's entry from the commit record, or else from the manifest."""
        if path not in self._known:
            shard = path.rsplit("/", 1)[-1].removesuffix(".parquet")
            self._known.update(self.shard_files(shard))
        if path not in self._known:
            raise broken(self._url(path), "its shard's commit record does not name it")
        return self._known[path]

    def shard_files(self, shard: str) -> Mapping[str, FileEntry]:
        """Return the files of one shard, from its commit record, or from the manifest if the record is broken or lost.

        Raises:
            BrokenFile: neither lists them.
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
                raise BrokenFile(url, "the shard has no commit record", "Run again to recompute it.") from error

    def read(self, table: str, *, columns: Sequence[str] | None = None, **partition: str) -> pa.Table | None:
        """Read a whole table, or one partition of it, into memory; return None if it has no rows.

        Vectors of different layers have different lengths, so without a partition they are variable-length lists.
        """
        files = self._committed_files(table, **partition)
        sizes = {path: file["bytes"] for path, file in files.items()}
        if partition:
            found = (part for part in self._one_by_one(sizes, columns) if part.num_rows)
            return joined(found, sum(file["rows"] for file in files.values()))
        parts = [part for part in self._ahead(sizes, columns) if part.num_rows]
        if not parts:
            return None
        return concatenated(parts)


def stage_folder(run: Folder, stage: str, key: str) -> StageFolder:
    return StageFolder(stage, key, run.below(stage, key))


def failure_table(stage: str, failures: Sequence[Failure]) -> pa.Table:
    # Messages quote libraries' errors, which quote URLs.
    return table_of([replace(row, stage=stage, message=cleaned(row.message)) for row in failures], Failure)


def parquet_bytes(table: pa.Table, row_group_rows: int = ROW_GROUP_ROWS) -> bytes:
    """Return a table as the bytes of a Parquet file. The same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=row_group_rows,
        compression="zstd",
        use_dictionary=[f.name for f in table.schema if pa.types.is_string(f.type)],
    )
    return sink.getvalue().to_pybytes()
