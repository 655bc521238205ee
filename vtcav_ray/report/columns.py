"""The scores table for the page: typed columns, one gzip, base64. 256,000 cells take about 10 MB.

The page shows four digits, so a float column keeps 13 bits of each mantissa. The bytes of a column are stored plane by
plane (all lowest bytes, then all second bytes, ...), as Parquet's BYTE_STREAM_SPLIT does: signs and exponents repeat,
and gzip finds it. assets/store.js reads it back with the browser's own DecompressionStream.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.report.cells import Cells

# Rows of (cell, video): about 2 MB.
MAX_VIDEO_ROWS = 400_000
_TYPES = {"u1": "u8", "u4": "u32", "f4": "f32"}
_KEPT = np.uint32(0xFFFFFC00)  # sign, exponent and the 13 highest of 23 bits of the mantissa
_HALF = np.uint32(0x00000200)


def pack_cells(cells: Cells) -> tuple[dict[str, Any], str]:
    """(head, data): `head` is JSON-like and says how to read `data`, base64 of one gzip.

    Returns:
        head: `rows`; `classes`, `layers`, `columns` (what the codes stand for); `texts`: for each text column its
            different values; `fields`: [name, type] in the data's order. Types: `u8`, `u32`, `f32`.
    """
    arrays: dict[str, np.ndarray] = {
        "class": cells.class_N.astype("<u4"),
        "column": cells.column_N.astype("<u4"),
        "layer": cells.layer_N.astype("u1"),
        "status": cells.status_N.astype("u1"),
        **{name: _rounded(numbers) for name, numbers in cells.numbers.items()},
        **{name: column.code_N.astype("<u4") for name, column in cells.texts.items()},
    }
    fields, data = pack_arrays(arrays)
    head = {
        "rows": len(cells),
        "classes": list(cells.classes),
        "layers": list(cells.layers),
        "columns": [vars(column) for column in cells.columns],
        "texts": {name: list(column.values) for name, column in cells.texts.items()},
        "fields": fields,
    }
    return head, data


def pack_videos(
    cells: Cells, sensitivities: pa.Table | None, limit: int = MAX_VIDEO_ROWS
) -> tuple[dict[str, Any], str]:
    """(head, data): the sensitivity of each class video in each cell against random clips, sorted by cell.

    Args:
        cells: that the rows belong to.
        sensitivities: class, layer, concept, video_id, sensitivity (logits a unit of z, mean over the R CAVs); rows of
            a cell that isn't there are left out.
        limit: rows. Where there are more, the cells with the largest |z| are kept, whole.

    Returns:
        head: `rows`, `videos` (names), `fields`, `complete`: False when cells were left out.
    """
    if sensitivities is None or not len(cells) or not sensitivities.num_rows:
        fields, data = pack_arrays({name: np.zeros(0, "<u4") for name in ("cell", "video", "sensitivity")})
        return {"rows": 0, "videos": [], "fields": fields, "complete": True}, data
    concepts = [c.concept if c.contrast == "random" else None for c in cells.columns]
    shape = (len(cells.classes), len(concepts), len(cells.layers))
    place = np.full(shape, -1, np.int64)
    place[cells.class_N, cells.column_N, cells.layer_N] = np.arange(len(cells))
    keys = [
        _known(sensitivities[name], known)
        for name, known in (("class", cells.classes), ("concept", concepts), ("layer", cells.layers))
    ]
    known = np.all([key >= 0 for key in keys], axis=0)
    cell = np.where(known, place[tuple(np.where(known, key, 0) for key in keys)], -1)
    video = pc.fill_null(sensitivities["video_id"], "").combine_chunks().dictionary_encode()
    rows = np.flatnonzero(cell >= 0)
    complete = len(rows) <= limit
    if not complete:
        z = np.abs(np.nan_to_num(cells.numbers["effect_z"]))
        counts = np.bincount(cell[rows], minlength=len(cells))
        strongest = np.argsort(-z, kind="stable")
        kept = np.zeros(len(cells), bool)
        kept[strongest[np.cumsum(counts[strongest]) <= limit]] = True
        rows = rows[kept[cell[rows]]]
    rows = rows[np.argsort(cell[rows], kind="stable")]
    fields, data = pack_arrays(
        {
            "cell": cell[rows].astype("<u4"),
            "video": video.indices.to_numpy()[rows].astype("<u4"),
            "sensitivity": _rounded(sensitivities["sensitivity"].to_numpy()[rows]),
        }
    )
    return {"rows": len(rows), "videos": video.dictionary.to_pylist(), "fields": fields, "complete": complete}, data


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[list[list[str]], str]:
    """([[name, type], ...], base64 of one gzip of all their bytes, plane by plane)."""
    fields = [[name, _TYPES[values.dtype.str.lstrip("<|")]] for name, values in arrays.items()]
    raw = b"".join(_planes(values) for values in arrays.values())
    return fields, base64.b64encode(gzip.compress(raw, compresslevel=6, mtime=0)).decode()


def _known(column: pa.ChunkedArray, known: Sequence[str | None]) -> np.ndarray:
    """Each value's place in `known`; -1: it isn't there."""
    place = {value: i for i, value in enumerate(known) if value is not None}
    coded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    return np.array([place.get(v, -1) for v in coded.dictionary.to_pylist()], np.int64)[coded.indices.to_numpy()]


def _rounded(numbers: np.ndarray) -> np.ndarray:
    """float32 with 14 significant bits. Whole numbers (counts) stay as they are."""
    values = numbers.astype("<f4")
    finite = np.isfinite(values)
    if np.array_equal(values[finite], np.round(values[finite])):
        return values
    bits = values.view("<u4")
    bits[finite] = (bits[finite] + _HALF) & _KEPT
    return values


def _planes(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.itemsize).T.tobytes()
