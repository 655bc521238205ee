"""A list of shards that grows while an actor pool works on it.

Ray Data reads its input from a read task. Here the read task waits for shards, so the actors, and their models, stay
while the driver decides what comes next. An actor asks before it starts a shard whether the shard is still wanted: when
the driver has seen enough, shards that wait are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vtcav_ray.runs.stage import Shard

if TYPE_CHECKING:
    from ray.data import Dataset

NOTHING = ""  # name of a row that is no shard
PAUSE = 0.5  # seconds
_ONE_ROW = 1  # bytes: Ray Data passes each row on at once, as a block of its own


class Feed:
    """The shards of one stage, in the order in which they were added.

    Args:
        most: maximum number of shards that will be added; limits the actor pool.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._shards: list[Shard] = []
        self._taken = 0
        self._closed = False
        self._kept: frozenset[str] | None = None
        self._tell: Callable[[str, Any], None] = lambda method, value: None

    def add(self, shards: Sequence[Shard]) -> None:
        """Add shards."""
        self._shards += shards
        self._tell("add", [(shard.name, shard.rows) for shard in shards])

    def close(self) -> None:
        """Note that no more shards follow."""
        self._closed = True
        self._tell("close", None)

    def stop(self, keep: Collection[str]) -> None:
        """Close the list. Shards that did not start yet and are not in `keep` are skipped."""
        self._kept = frozenset(keep)
        self._tell("stop", sorted(keep))
        self.close()

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> Feed:
        """Create a closed feed of these shards."""
        feed = cls(len(shards))
        feed.add(shards)
        feed.close()
        return feed

    @property
    def closed(self) -> bool:
        return self._closed

    def wants(self, name: str) -> bool:
        """Return whether a shard should still be computed."""
        return self._kept is None or name in self._kept

    def __len__(self) -> int:
        """Return the maximum number of shards."""
        return self.most

    def take(self) -> Shard | None:
        """Return the next shard that is wanted; None: there is none now, but more may be added until it is closed."""
        while self._taken < len(self._shards):
            shard = self._shards[self._taken]
            self._taken += 1
            if self.wants(shard.name):
                return shard
        return None

    def __iter__(self) -> Iterator[Shard]:
        """Yield the shards one by one, for a caller that runs them itself and adds more between two of them."""
        while (shard := self.take()) is not None:
            yield shard
        assert self._closed, "nothing is running, so nothing can be added"

    def attach(self, tell: Callable[[str, Any], None]) -> None:
        """Send what was added so far, and every later call, to the actor that serves other processes."""
        self._tell = tell
        self._tell("add", [(shard.name, shard.rows) for shard in self._shards])
        if self._kept is not None:
            self._tell("stop", sorted(self._kept))
        if self._closed:
            self._tell("close", None)


class Board:
    """The Ray actor behind a feed, which the read task and the workers ask."""

    def __init__(self) -> None:
        self._items: list[tuple[str, pa.Table]] = []
        self._closed = False
        self._kept: frozenset[str] | None = None
        self._changed = asyncio.Event()

    async def add(self, items: Iterable[tuple[str, pa.Table]]) -> None:
        self._items += items
        self._wake()

    async def close(self, _: None) -> None:
        self._closed = True
        self._wake()

    async def stop(self, keep: Iterable[str]) -> None:
        self._kept = frozenset(keep)

    async def wants(self, name: str) -> bool:
        return self._kept is None or name in self._kept

    async def item(self, place: int) -> tuple[str, pa.Table] | None:
        """Return the shard at a place, or, if it is not known within `PAUSE` seconds, a row that is none.

        None: no more shards follow.
        """
        if place >= len(self._items) and not self._closed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), PAUSE)
        if place < len(self._items):
            return self._items[place]
        return None if self._closed else (NOTHING, pa.table({}))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def start_board(feed: Feed) -> Any:
    """Start the actor of a feed on this node, and return its handle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
    feed.attach(lambda method, value: ray.get(getattr(board, method).remote(value)))
    return board


def dataset_of(board: Any, encode: Callable[[pa.Table], bytes]) -> Dataset:
    """Return the dataset of a feed: one row per shard, with `name` and `rows`.

    Rows with the name `NOTHING` are no shards. Ray Data passes a block on, and hands a summary out, when the next one
    comes. So while the read task waits, it makes such a row every `PAUSE` seconds, and no summary stays behind.

    Args:
        board: from `start_board`.
        encode: of a shard's rows.
    """
    import ray
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    def read() -> Iterator[pa.Table]:
        place = 0
        while (item := ray.get(board.item.remote(place))) is not None:
            name, rows = item
            yield pa.table({"name": [name], "rows": [encode(rows)]})
            place += name != NOTHING

    class Source(Datasource):  # type: ignore[misc]
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(read, unknown)]

    dataset = ray.data.read_datasource(Source(), override_num_blocks=1, num_cpus=0)
    dataset.context.target_max_block_size = _ONE_ROW
    return dataset
