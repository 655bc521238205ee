"""A finished or unfinished run, opened for reading: its config, manifests and tables."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from vtcav_ray import tables
from vtcav_ray.config import Config
from vtcav_ray.config.loading import parse_config
from vtcav_ray.errors import ConfigError
from vtcav_ray.store.commits import StageFolder, stage_folder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import BRANCH_JSON, RUN_JSON, checked
from vtcav_ray.store.urls import check_url
from vtcav_ray.store.vectors import concatenated

T = TypeVar("T")

REPORT_PAGE = "report.html"
# Stages in order. `vtcav_ray.pipeline` says what each does.
STAGES = ("videos", "tracks", "clips", "activations", "cavs", "scores", "report")
# Stages that a rerun on another checkpoint takes from the run that it is a rerun of (`vtcav rerun`).
SHARED_STAGES = ("videos", "tracks", "clips")
# Branches, run by commands of their own. `RUN/<stage>.json` has the key, and those of the stages that were read.
OPTIONAL_STAGES = {"gradcam": "vtcav gradcam CONFIG"}


class Run:
    """The run folder at `url`.

    Args:
        url: of the run folder, on any file system.
        storage_options: for fsspec.
        verify: check what is read of its tables against the commit records.

    Raises:
        ConfigError: there is no run at this URL.
        BrokenFile: its run.json is not as it was written.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None, *, verify: bool = True) -> None:
        self.folder = Folder(check_url(url, "RUN"), dict(storage_options or {}), verify)
        if not self.folder.exists("run.json"):
            raise ConfigError(f"No run at {url}: it has no run.json. Make one with `vtcav run CONFIG --out {url}`.")
        self._record = self._read("run.json", RUN_JSON)
        there = [stage for stage in OPTIONAL_STAGES if self.folder.exists(f"{stage}.json")]
        self._branches = {stage: self._read(f"{stage}.json", BRANCH_JSON) for stage in there}

    def _read(self, name: str, kind: TypeAdapter[T]) -> T:
        return checked(self.folder.read_json(name), kind, f"{self.folder.url}/{name}")

    @property
    def url(self) -> str:
        return self.folder.url

    @property
    def config(self) -> Config:
        """The config that the newest run of this folder was started with (without storage options).

        Somebody else may have written it: of the programs that it names, none is run (`Config.trusting`).
        """
        return parse_config(self._record["config"], where=f"{self.url}/run.json").trusting("nowhere")

    @property
    def keys(self) -> dict[str, str]:
        """Stage -> key, for the stages that the newest run has reached, and branches that belong to these."""
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
        """Where the tables of `SHARED_STAGES` are: the run that this is a rerun of, or this one."""
        base = self._record.get("base")
        if base is None:
            return self.folder
        return Folder(join_url(self.url, base), self.folder.storage_options, self.folder.verify)

    def base_run(self) -> Run | None:
        """The run that this is a rerun of; None: it is none.

        Raises:
            ConfigError: that run is not there any more.
        """
        if self.base.url == self.url:
            return None
        return Run(self.base.url, self.folder.storage_options, verify=self.folder.verify)

    @property
    def report_url(self) -> str:
        return f"{self.url.rstrip('/')}/{REPORT_PAGE}"

    def stage(self, name: str) -> StageFolder:
        """A stage's folder.

        Raises:
            ConfigError: the newest run has not reached this stage.
        """
        if name not in self.keys and name in OPTIONAL_STAGES:
            raise ConfigError(
                f"The run at {self.url} has no stage `{name}`. Make it with `{OPTIONAL_STAGES[name]} --out {self.url}`."
            )
        if name not in self.keys:
            raise ConfigError(
                f"The run at {self.url} has not reached the stage `{name}` yet. Run it again: it goes on where it was."
            )
        return stage_folder(self.base if name in SHARED_STAGES else self.folder, name, self.keys[name])

    def manifest(self, stage: str) -> dict[str, Any]:
        """What the stage's key was made from, its counts, timings, warnings, versions.

        Raises:
            ConfigError: the stage is not complete.
        """
        folder = self.stage(stage)
        if not folder.complete:
            raise ConfigError(
                f"The stage `{stage}` of {self.url} is not complete. Run it again: it goes on from there."
            )
        return folder.manifest()

    def table(self, name: str, *, columns: Sequence[str] | None = None, **partition: str) -> pa.Table:
        """A table of the design, in memory; `layer="late"` reads one layer of activations, gradients or cavs.

        Raises:
            ConfigError: no table of this name, or the run has not reached its stage.
        """
        if name == "failures":
            return self._failures()
        if name == "interventions":
            return self._interventions()
        found = self.stage(self._stage_of(name)).read(name, columns=columns, **partition)
        if found is None:
            schema = tables.EMPTY_SCHEMAS[name]
            return schema.empty_table().select(list(columns)) if columns is not None else schema.empty_table()
        return found

    def head(self, name: str, rows: int) -> pa.Table:
        """The first rows of a table: no more shards are read than have them.

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
            if part.num_rows:
                parts.append(part)
                rows -= part.num_rows
        return concatenated(parts) if parts else tables.EMPTY_SCHEMAS[name].empty_table()

    def _stage_of(self, table: str) -> str:
        stages = {**tables.STAGE_OF, **tables.OPTIONAL_STAGE_OF}
        if table not in stages:
            raise ConfigError(f"No table `{table}`. There are: {', '.join(tables.ALL_NAMES)}.")
        return stages[table]

    def iter_tables(self, name: str, *, columns: Sequence[str] | None = None, **partition: str) -> Iterator[pa.Table]:
        """The same, a shard at a time."""
        for _, part in self.stage(tables.STAGE_OF[name]).iter_tables(name, columns=columns, **partition):
            yield part

    def _interventions(self) -> pa.Table:
        """What `vtcav intervene` found for the scores of the newest run; no rows where it was not called."""
        place = self.folder.below("interventions", self.keys.get("scores", ""))
        parts = [
            pq.ParquetFile(pa.BufferReader(place.read_bytes(n)), pre_buffer=False).read(use_threads=False)
            for n in place.names("")
            if n.endswith(".parquet")
        ]
        return pa.concat_tables(parts) if parts else tables.INTERVENTIONS.empty_table()

    def _failures(self) -> pa.Table:
        parts = [self.stage(name).read("failures") for name in (*STAGES, *OPTIONAL_STAGES) if name in self.keys]
        found = [part for part in parts if part is not None]
        return pa.concat_tables(found) if found else tables.FAILURES.empty_table()


def join_url(url: str, reference: str) -> str:
    """A URL, or a path relative to `url` (`../..`), as a URL. Object stores know no `..`, so it is worked out here."""
    if "://" in reference or reference.startswith("/"):
        return reference
    scheme, separator, path = url.rpartition("://")
    return scheme + separator + posixpath.normpath(posixpath.join(path, reference))


def relative_url(url: str, target: str) -> str:
    """`target` as seen from `url`, where `url` lies below it, so that both can be moved together; else as it is."""
    below = url.removeprefix(target.rstrip("/") + "/")
    return target if below == url else "/".join([".."] * len(below.strip("/").split("/")))
