"""Tables that are equal except for a number's last bits, which other processors or batch sizes can change."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def same(old: pa.Table, new: pa.Table, where: str) -> None:
    """Assert that columns are equal, floating-point ones within 1e-3 of each number or 1e-4."""
    assert old.schema == new.schema, where
    assert old.num_rows == new.num_rows, where
    for name in old.column_names:
        one, other = old[name].combine_chunks(), new[name].combine_chunks()
        if one.equals(other):
            continue
        one, other = flat(one), flat(other)
        assert pa.types.is_floating(one.type), f"{where}: {name}"
        np.testing.assert_allclose(
            other.to_numpy(zero_copy_only=False), one.to_numpy(zero_copy_only=False), rtol=1e-3, atol=1e-4,
            err_msg=f"{where}: {name}",
        )  # fmt: skip


def flat(column: pa.Array) -> pa.Array:
    while pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    return column
