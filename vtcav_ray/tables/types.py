"""Arrow types that several tables use."""

from __future__ import annotations

import pyarrow as pa

BOX = pa.list_(pa.float32(), 4)
POINT = pa.list_(pa.float32(), 2)
PART = pa.struct([("start", pa.float64()), ("end", pa.float64()), ("label", pa.string())])  # of a video


def vector(d: int, numbers: str = "float32") -> pa.DataType:
    """The type of a vector of `d` numbers in P-space, `float32` or `float16`."""
    return pa.list_(pa.from_numpy_dtype(numbers), d)
