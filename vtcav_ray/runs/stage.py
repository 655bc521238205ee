"""The interface of a stage: what determines its output, and how a list of shards becomes tables. It needs no Ray."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from vtcav_ray.config import Config, StageResources
from vtcav_ray.errors import StageError
from vtcav_ray.stages import TRACKS, StageFacts
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
    """A function from a shard's rows to its output. Created once per actor, called once per shard."""

    def __call__(self, rows: pa.Table) -> ShardOutput: ...


@dataclass(frozen=True)
class Context:
    """The input of a stage: the config, the run folder, and the complete folders of the stages before it."""

    config: Config
    run: Folder
    inputs: Mapping[str, StageFolder]
    memo: dict[str, Any] = field(default_factory=dict)  # values computed for the key that the work needs again

    def input(self, stage: str) -> StageFolder:
        return self.inputs[stage]

    def note(self, stage: str, name: str) -> Any:
        """Return a note from an earlier stage's manifest."""
        return self.inputs[stage].manifest()["notes"][name]


@dataclass(frozen=True)
class Work:
    """The work of one stage.

    Attributes:
        shards: all shards, committed or not. The same key always gives the same list.
        make_worker: creates the worker, in the process that uses it; picklable.
        resources: of one actor; None: the work is small, and the driver does it.
        warnings: sentences for the user (the corpus is too small for ..., by how much).
        notes: facts for the manifest and for later stages.
        finish: computes one last shard, named `final`, from the output of the other shards.
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
        facts: its name, inputs, tables and resources (`vtcav_ray.stages`).
        version: raised when the code's output changes, so that old output does not count as new.
        ingredients: returns the config sections and digests that determine the output, as JSON-like values.
        prepare: returns the work.
    """

    facts: StageFacts
    version: int
    ingredients: Callable[[Context], dict[str, Any]]
    prepare: Callable[[Context], Work]

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.facts.inputs

    def inputs_of(self, there: Container[str]) -> tuple[str, ...]:
        """Return its inputs; without `tracks` if the run has none, because all its concepts are own clips."""
        return tuple(name for name in self.inputs if name in there or name != TRACKS.name)

    def all_ingredients(self, context: Context) -> dict[str, Any]:
        return {
            "stage": self.name,
            "version": self.version,
            "inputs": {name: context.input(name).key for name in self.inputs_of(context.inputs)},
            **self.ingredients(context),
        }

    def key(self, context: Context) -> str:
        return canonical_digest(self.all_ingredients(context))[:16]


def shard_size(count: int, wanted: int | None = None) -> int:
    """Return the items per shard: about 32 shards for a small corpus; at most 64 items, as a lost shard is redone."""
    return wanted or max(4, min(64, -(-count // 32)))


def shard_numbers(videos: Sequence[str], size: int) -> list[int]:
    """Return the shard of each row's source video, so that a shard holds all rows of about `size` videos.

    A video's shard depends on its id and on the number of shards. That is a power of two, so it rarely changes.
    """
    wanted = -(-len(set(videos)) // size)
    shards = 1 << max(0, (wanted - 1).bit_length())
    return [int.from_bytes(hashlib.sha256(video.encode()).digest()[:8], "big") % shards for video in videos]


def make_shards(rows: pa.Table, size: int) -> list[Shard]:
    """Cut rows, in order, into shards of `size`, each named by its number and its content."""
    shards = []
    named_by = [name for name in SHARD_COLUMNS_THAT_NAME if name in rows.column_names]
    for number, start in enumerate(range(0, rows.num_rows, size)):
        part = rows.slice(start, size).combine_chunks()
        digest = canonical_digest(part.select(named_by).to_pylist())[:10]
        shards.append(Shard(f"{number:05d}-{digest}", part))
    return shards


def require(condition: bool, message: str) -> None:
    """Raise a StageError with `message`, which says what is missing and how to fix it, unless `condition` holds."""
    if not condition:
        raise StageError(message)
