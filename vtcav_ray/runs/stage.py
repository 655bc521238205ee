"""What a stage is: what determines its output, and how a list of shards becomes tables. Nothing here knows of Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from vtcav_ray.config import Config, StageResources
from vtcav_ray.errors import StageError
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import canonical_digest

SHARD_COLUMNS_THAT_NAME = ("video_id", "fingerprint", "clip_id", "layer", "shard", "class")


@dataclass(frozen=True)
class Shard:
    """A unit of work: a name made from its content, and the rows that say what to do."""

    name: str
    rows: pa.Table


class Worker(Protocol):
    """Made once an actor; called once a shard."""

    def __call__(self, rows: pa.Table) -> ShardOutput: ...


@dataclass(frozen=True)
class Context:
    """What a stage may look at: the config, the run folder, and the complete folders of the stages before it."""

    config: Config
    run: Folder
    inputs: Mapping[str, StageFolder]
    memo: dict[str, Any] = field(default_factory=dict)  # what a stage found for its key and needs again for its work

    def input(self, stage: str) -> StageFolder:
        return self.inputs[stage]

    def note(self, stage: str, name: str) -> Any:
        """What an earlier stage wrote down in its manifest."""
        return self.inputs[stage].manifest()["notes"][name]


@dataclass(frozen=True)
class Work:
    """What there is to do for one stage.

    Attributes:
        shards: all of them, also those that are committed already: the same list every time for the same key.
        make_worker: makes the worker, in the process that uses it; picklable.
        resources: of one actor; None: small, and done in the driver.
        warnings: sentences for the user (the corpus is too small for ..., by how much).
        notes: facts for the manifest, and for later stages.
        finish: makes one last shard, named `final`, from what the other shards wrote.
    """

    shards: Sequence[Shard]
    make_worker: Callable[[], Worker]
    resources: StageResources | None = None
    warnings: Sequence[str] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    finish: Callable[[StageFolder], ShardOutput] | None = None


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: also the name of its folder.
        inputs: the stages whose tables it reads; their keys are part of its key.
        version: raised when the code's meaning changes, so that older output is not taken for the new.
        ingredients: the config sections and digests that determine the output, as JSON-like values.
        prepare: says what there is to do.
    """

    name: str
    inputs: tuple[str, ...]
    version: int
    ingredients: Callable[[Context], dict[str, Any]]
    prepare: Callable[[Context], Work]

    def all_ingredients(self, context: Context) -> dict[str, Any]:
        return {
            "stage": self.name,
            "version": self.version,
            "inputs": {name: context.input(name).key for name in self.inputs},
            **self.ingredients(context),
        }

    def key(self, context: Context) -> str:
        return canonical_digest(self.all_ingredients(context))[:16]


def shard_size(count: int, wanted: int | None = None) -> int:
    """Items a shard: about 32 shards for a small corpus, and at most 64 items, since a lost shard is done again."""
    return wanted or max(4, min(64, -(-count // 32)))


def make_shards(rows: pa.Table, size: int) -> list[Shard]:
    """Cut rows, in their order, into shards of `size`, each named by its number and by what is in it."""
    shards = []
    named_by = [name for name in SHARD_COLUMNS_THAT_NAME if name in rows.column_names]
    for number, start in enumerate(range(0, rows.num_rows, size)):
        part = rows.slice(start, size).combine_chunks()
        digest = canonical_digest(part.select(named_by).to_pylist())[:10]
        shards.append(Shard(f"{number:05d}-{digest}", part))
    return shards


def require(condition: bool, message: str) -> None:
    """Raise a StageError that says what is missing and how to mend it."""
    if not condition:
        raise StageError(message)
