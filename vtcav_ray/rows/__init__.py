"""Rows of tables as dataclasses. Their fields are the columns, in order, and `vtcav_ray.tables` derives the schemas.

The comment beside a field is the column's description in docs/tables.md. A column whose name is a Python keyword has a
field with a trailing underscore: `class_` is the column `class`.
"""

from vtcav_ray.rows.branches import (
    ErasureRow,
    FaithfulnessRow,
    FiniteChangeRow,
    HalfRow,
    MapRow,
    MapSummaryRow,
    PatchedRow,
    PatchEffectRow,
    RandomisedRow,
)
from vtcav_ray.rows.columns import Counts, Float32, Floats, read_rows, schema_of, table_of
from vtcav_ray.rows.failures import Failure
from vtcav_ray.rows.scores import (
    CompositionRow,
    EffectTestRow,
    MistakeRow,
    NullRow,
    ResponseRow,
    ScoreRow,
    SensitivityRow,
    VerdictRow,
)

__all__ = [
    "CompositionRow",
    "Counts",
    "EffectTestRow",
    "ErasureRow",
    "Failure",
    "FaithfulnessRow",
    "FiniteChangeRow",
    "Float32",
    "Floats",
    "HalfRow",
    "MapRow",
    "MapSummaryRow",
    "MistakeRow",
    "NullRow",
    "PatchEffectRow",
    "PatchedRow",
    "RandomisedRow",
    "ResponseRow",
    "ScoreRow",
    "SensitivityRow",
    "VerdictRow",
    "read_rows",
    "schema_of",
    "table_of",
]
