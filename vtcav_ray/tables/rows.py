"""Rows of a table as mappings, without holding all of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

_ROWS_AT_ONCE = 8192  # a row of `videos` takes about 1 kB as Python objects


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows that `table.to_pylist()` returns, one by one."""
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield from batch.to_pylist()
