"""A finished or unfinished run, opened for reading: its config, manifests and tables."""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from vtcav_ray import stages, tables
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.runs.columns import (
    check_columns,
    check_stored,
    old_tables_reported,
    schema_of_table,
    with_marker,
)
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import BRANCH_JSON, RUN_JSON, checked
from vtcav_ray.store.urls import check_url
from vtcav_ray.store.vectors import concatenated

T = TypeVar("T")

REPORT_PAGE = "report.html"


class Run:
    """The run folder at `url`.

    Args:
        url: of the run folder, on any file system.
        storage_options: for fsspec.
        verify: check tables against the commit records when they are read.

    Raises:
        ConfigError: there is no run at this URL.
        BrokenFile: its run.json is damaged.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None, *, verify: bool = True) -> None:
        self.folder = Folder(check_url(url, "RUN"), dict(storage_options or {}), verify)
        if not self.folder.exists("run.json"):
            raise ConfigError(f"No run at {url}: it has no run.json. Start one with `vtcav run CONFIG --out {url}`.")
        self._record = self._read("run.json", RUN_JSON)
        there = [stage.name for stage in stages.BRANCHES if self.folder.exists(f"{stage.name}.json")]
        self._branches = {stage: self._read(f"{stage}.json", BRANCH_JSON) for stage in there}

    def _read(self, name: str, kind: TypeAdapter[T]) -> T:
        return checked(self.folder.read_json(name), kind, f"{self.folder.url}/{name}")

    @property
    def url(self) -> str:
        return self.folder.url

    @property
    def config(self) -> Config:
        """The config of this folder's newest run, without storage options.

        Another user may have written it, so none of the programs that it names may run (`Config.trusting`).
        """
        return parse_config(self._record["config"], where=f"{self.url}/run.json").trusting("nowhere")

    @property
    def keys(self) -> dict[str, str]:
        """Stage -> key, for the stages that the newest run has reached and for the branches that build on them."""
        keys = dict(self._record["keys"])
        for stage, record in self._branches.items():
            if all(keys.get(name) == key for name, key in record["inputs"].items()):
                keys[stage] = record["key"]
        return keys

    @property
    def record(self) -> dict[str, Any]:
        """run.json: config, keys, status, versions, warnings."""
        return dict(self._record)

    @property
    def base(self) -> Folder:
        """The folder with the tables of the shared stages: that of the run that this is a rerun of, or this one."""
        base = self._record.get("base")
        if base is None:
            return self.folder
        return Folder(join_url(self.url, base), self.folder.storage_options, self.folder.verify)

    def base_run(self) -> Run | None:
        """Open the run that this is a rerun of; None: this is no rerun.

        Raises:
            ConfigError: that run no longer exists.
        """
        if self.base.url == self.url:
            return None
        return Run(self.base.url, self.folder.storage_options, verify=self.folder.verify)

    @property
    def report_url(self) -> str:
        return f"{self.url.rstrip('/')}/{REPORT_PAGE}"

    def stage(self, name: str) -> StageFolder:
        """Return a stage's folder.

        Raises:
            ConfigError: the newest run has not reached this stage.
        """
        facts = stages.facts_of(name)
        if name not in self.keys and facts.command is not None:
            command = facts.command.replace("RUN", self.url)
            raise ConfigError(f"The run at {self.url} has no stage `{name}`. Run `{command}`.")
        if name not in self.keys:
            raise ConfigError(
                f"The run at {self.url} has not reached the stage `{name}` yet. Run it again: it resumes."
            )
        return stage_folder(self.base if facts.shared else self.folder, name, self.keys[name])

    def manifest(self, stage: str) -> dict[str, Any]:
        """Return the stage's manifest: the ingredients of its key, counts, timings, warnings, versions.

        Raises:
            ConfigError: the stage is not complete.
        """
        folder = self.stage(stage)
        if not folder.complete:
            raise ConfigError(f"The stage `{stage}` of {self.url} is not complete. Run it again: it resumes.")
        return folder.manifest()

    def table(self, name: str, *, columns: Sequence[str] | None = None, **partition: str) -> pa.Table:
        """Read a table into memory; `layer="late"` reads one layer of activations, gradients or cavs.

        Raises:
            ConfigError: there is no table of this name, it has no such column or layer, an older version wrote it, or
                the run has not reached its stage.
        """
        if name == "failures":
            return self._failures()
        if name == "interventions":
            return self._interventions()
        stage = self.stage(self._stage_of(name))
        check_columns(name, columns)
        self._check_partition(name, stage, partition)
        with old_tables_reported(name, self.url):
            found = stage.read(name, columns=with_marker(name, columns), **partition)
        if found is None:
            found = schema_of_table(name).empty_table()
        check_stored(found, name, self.url)
        return found.select(list(columns)) if columns is not None else found

    def summary(self) -> str:
        """Return the verdicts in sentences, one line per class.

        Raises:
            ConfigError: the run has not reached its report, or an older version made it.
        """
        rows = self.table("verdicts", columns=["class", "verdict"]).to_pylist()
        return "\n".join(f"{row['class']}: {row['verdict']}" for row in rows) or "No class was tested."

    def head(self, name: str, rows: int) -> pa.Table:
        """Read the first rows of a table, and only the shards that hold them.

        Raises: as `table`.
        """
        if name in ("failures", "interventions"):
            return self.table(name).slice(0, rows)
        stage = self.stage(self._stage_of(name))
        parts: list[pa.Table] = []
        for path in stage.files(name):
            if rows <= 0:
                break
            part = stage.read_file(path).slice(0, rows)
            check_stored(part, name, self.url)
            if part.num_rows:
                parts.append(part)
                rows -= part.num_rows
        return concatenated(parts) if parts else schema_of_table(name).empty_table()

    def _stage_of(self, table: str) -> str:
        if table not in stages.STAGE_OF_TABLE:
            raise ConfigError(f"No table `{table}`.{_near(table, stages.ALL_TABLES)}")
        return stages.STAGE_OF_TABLE[table]

    def _check_partition(self, name: str, stage: StageFolder, partition: Mapping[str, str]) -> None:
        """Raise ConfigError if the table has no such part, which would read as a table without rows."""
        if not partition:
            return
        parts = [path.split("/")[1:-1] for path in stage.files(name)]
        for key, value in partition.items():
            known = {part.partition("=")[2] for path in parts for part in path if part.startswith(f"{key}=")}
            if not known and parts:
                raise ConfigError(f"The table `{name}` has no parts by `{key}`. Read it whole, and filter its rows.")
            if value in known or (key == "layer" and value in self.config.activations.layers):
                continue
            if known:
                raise ConfigError(f"The table `{name}` has no {key} `{value}`.{_near(value, sorted(known))}")

    def iter_tables(self, name: str, *, columns: Sequence[str] | None = None, **partition: str) -> Iterator[pa.Table]:
        """Iterate over a table, one shard at a time."""
        stage = self.stage(self._stage_of(name))
        check_columns(name, columns)
        self._check_partition(name, stage, partition)
        with old_tables_reported(name, self.url):
            for _, part in stage.iter_tables(name, columns=with_marker(name, columns), **partition):
                check_stored(part, name, self.url)
                yield part.select(list(columns)) if columns is not None else part

    def _interventions(self) -> pa.Table:
        """Return the results of `vtcav intervene` for the newest run's scores; no rows if it was not called."""
        place = self.folder.below("interventions", self.keys.get("scores", ""))
        parts = [
            pq.ParquetFile(pa.BufferReader(place.read_bytes(n)), pre_buffer=False).read(use_threads=False)
            for n in place.names("")
            if n.endswith(".parquet")
        ]
        return pa.concat_tables(parts) if parts else tables.INTERVENTIONS.empty_table()

    def _failures(self) -> pa.Table:
        parts = [self.stage(name).read("failures") for name in stages.ALL_NAMES if name in self.keys]
        found = [part for part in parts if part is not None]
        return pa.concat_tables(found) if found else tables.FAILURES.empty_table()


def _near(name: str, known: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the nearest name, and all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return (f" Did you mean `{near[0]}`?" if near else "") + f" There are: {', '.join(known)}."


def join_url(url: str, reference: str) -> str:
    """Return a URL, or a path relative to `url` (`../..`), as a URL. Object stores do not resolve `..`; this does."""
    if "://" in reference or reference.startswith("/"):
        return reference
    scheme, separator, path = url.rpartition("://")
    return scheme + separator + posixpath.normpath(posixpath.join(path, reference))


def relative_url(url: str, target: str) -> str:
    """Return `target` relative to `url` if `url` lies below it, so that both can be moved together; else unchanged."""
    below = url.removeprefix(target.rstrip("/") + "/")
    return target if below == url else "/".join([".."] * len(below.strip("/").split("/")))
