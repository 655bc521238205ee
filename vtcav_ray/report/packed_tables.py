"""The scores table packed for the page: typed columns, one gzip, base64. 256,000 cells take about 10 MB.

The page shows four digits, so a float column keeps 13 bits of each mantissa. The bytes of a column are stored plane by
plane (all lowest bytes, then all second bytes, ...), as in Parquet's BYTE_STREAM_SPLIT. Then signs and exponents
repeat, which gzip compresses well. assets/store.js unpacks the data with the browser's DecompressionStream.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtcav_ray.report.score_cells import ScoreCells
from vtcav_ray.tcav.null_histograms import EFFECT_BINS, EFFECT_REACH, SCORE_BINS

# Rows of (cell, video): about 2 MB.
MAX_VIDEO_ROWS = 400_000
HEIGHTS = 31  # height steps of the bars of a null distribution
_TYPES = {"u1": "u8", "u4": "u32", "f4": "f32"}
_KEPT = np.uint32(0xFFFFFC00)  # sign, exponent and the 13 highest of 23 bits of the mantissa
_HALF = np.uint32(0x00000200)


def pack_cells(cells: ScoreCells) -> tuple[dict[str, Any], str]:
    """Pack the cells as (head, data). `head` goes into JSON and describes `data`, the base64 of one gzip.

    Returns:
        head: `rows`; `classes`, `layers`, `columns` (the values that the codes index); `texts`: the distinct values of
            each text column; `fields`: [name, type] in the order of the data. Types: `u8`, `u32`, `f32`.
    """
    arrays: dict[str, np.ndarray] = {
        "class": cells.class_N.astype("<u4"),
        "column": cells.column_N.astype("<u4"),
        "layer": cells.layer_N.astype("u1"),
        "status": cells.status_N.astype("u1"),
        **{name: rounded(numbers) for name, numbers in cells.numbers.items()},
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
    cells: ScoreCells, sensitivities: pa.Table | None, limit: int = MAX_VIDEO_ROWS
) -> tuple[dict[str, Any], str]:
    """Pack the sensitivity of each class video in each cell against random clips, sorted by cell, as (head, data).

    Args:
        cells: the cells that the rows belong to.
        sensitivities: class, layer, concept, video_id, sensitivity (logits per unit of z, mean over the R CAVs). Rows
            of a cell that is not in `cells` are left out.
        limit: maximum number of rows. Above it, only the cells with the largest |z| are kept, each with all its videos.

    Returns:
        head: `rows`, `videos` (names), `fields`, `complete`: False if cells were left out.
    """
    if sensitivities is None or not len(cells) or not sensitivities.num_rows:
        fields, data = pack_arrays({name: np.zeros(0, "<u4") for name in ("cell", "video", "sensitivity")})
        return {"rows": 0, "videos": [], "fields": fields, "complete": True}, data
    concepts = [c.concept if c.contrast == "random" else None for c in cells.columns]
    shape = (len(cells.classes), len(concepts), len(cells.layers))
    place = np.full(shape, -1, np.int64)
    place[cells.class_N, cells.column_N, cells.layer_N] = np.arange(len(cells))
    keys = [
        codes_of(sensitivities[name], known)
        for name, known in (("class", cells.classes), ("concept", concepts), ("layer", cells.layers))
    ]
    known = np.all([key >= 0 for key in keys], axis=0)
    cell = np.where(known, place[tuple(np.where(known, key, 0) for key in keys)], -1)
    video = pc.fill_null(sensitivities["video_id"], "").combine_chunks().dictionary_encode()
    rows = np.flatnonzero(cell >= 0)
    complete = len(rows) <= limit
    if not complete:
        z = np.abs(np.nan_to_num(cells.numbers["z"]))
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
            "sensitivity": rounded(sensitivities["sensitivity"].to_numpy()[rows]),
        }
    )
    return {"rows": len(rows), "videos": video.dictionary.to_pylist(), "fields": fields, "complete": complete}, data


def pack_nulls(cells: ScoreCells, nulls: pa.Table | None) -> tuple[dict[str, Any], str]:
    """Pack the null distributions of each cell's effect and score, one row per cell, as (head, data).

    Args:
        cells: the cells that the rows belong to.
        nulls: rows of `tables.NULLS`; None: the run kept none. Rows of a cell that is not in `cells` are left out.

    Returns:
        head: `rows`; `fields`; `reach`: the effect's bins span -reach to reach units; `bins`: number of bins of the
            effect and of the score. Fields: `unit` (logits), then one field per bin with the bars' heights, 0 to 31,
            where the highest bar is 31; all are 0 for a cell without a null. 31 steps are finer than the noise of
            10,000 permutations, and pack well.
    """
    bins = {"effect": EFFECT_BINS, "score": SCORE_BINS}
    rows = len(cells) if nulls is not None and nulls.num_rows else 0
    unit_N = np.full(rows, np.nan)
    heights = {name: np.zeros((rows, count), "u1") for name, count in bins.items()}
    if rows and nulls is not None:
        column_of = {(c.concept, c.against): i for i, c in enumerate(cells.columns)}
        place = np.full((len(cells.classes), len(cells.columns), len(cells.layers)), -1, np.int64)
        place[cells.class_N, cells.column_N, cells.layer_N] = np.arange(rows)
        pairs = zip(nulls["concept"].to_pylist(), nulls["against"].to_pylist(), strict=True)
        column = np.array([column_of.get(pair, -1) for pair in pairs], np.int64)
        keys = (codes_of(nulls["class"], cells.classes), column, codes_of(nulls["layer"], cells.layers))
        known = np.all([key >= 0 for key in keys], axis=0)
        cell = place[tuple(key[known] for key in keys)]
        there = np.flatnonzero(known)[cell >= 0]
        cell = cell[cell >= 0]
        unit_N[cell] = nulls["effect_unit"].to_numpy()[there]
        for name, count in bins.items():
            heights[name][cell] = _heights(nulls[f"{name}_counts"], count)[there]
    arrays = {"unit": rounded(unit_N)}
    arrays |= {f"{name}{i}": heights[name][:, i] for name, count in bins.items() for i in range(count)}
    fields, data = pack_arrays(arrays)
    return {"rows": rows, "fields": fields, "reach": EFFECT_REACH, "bins": bins}, data


def _heights(counts: pa.ChunkedArray, bins: int) -> np.ndarray:
    """Scale lists of counts to uint8 [rows, bins]; an empty or null list gives zeros."""
    lists = counts.combine_chunks()
    full = pc.fill_null(pc.equal(pc.list_value_length(lists), bins), False).to_numpy(zero_copy_only=False)
    found = np.zeros((len(lists), bins), "u1")
    values = lists.filter(pa.array(full)).flatten().to_numpy().reshape(-1, bins).astype(np.float64)
    highest = values.max(axis=1, keepdims=True, initial=0.0)
    found[full] = np.ceil(HEIGHTS * np.divide(values, highest, out=np.zeros_like(values), where=highest > 0))
    return found


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[list[list[str]], str]:
    """Return ([[name, type], ...], the base64 of one gzip of the arrays' bytes, plane by plane)."""
    fields = [[name, _TYPES[values.dtype.str.lstrip("<|")]] for name, values in arrays.items()]
    raw = b"".join(_planes(values) for values in arrays.values())
    return fields, base64.b64encode(gzip.compress(raw, compresslevel=6, mtime=0)).decode()


def codes_of(column: pa.ChunkedArray, known: Sequence[str | None]) -> np.ndarray:
    """Return each value's index in `known`, or -1 if it is not in it."""
    place = {value: i for i, value in enumerate(known) if value is not None}
    coded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    return np.array([place.get(v, -1) for v in coded.dictionary.to_pylist()], np.int64)[coded.indices.to_numpy()]


def rounded(numbers: np.ndarray) -> np.ndarray:
    """Round to float32 with 14 significant bits. Columns of whole numbers (counts) stay exact."""
    values = numbers.astype("<f4")
    finite = np.isfinite(values)
    if np.array_equal(values[finite], np.round(values[finite])):
        return values
    bits = values.view("<u4")
    bits[finite] = (bits[finite] + _HALF) & _KEPT
    return values


def _planes(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.itemsize).T.tobytes()
