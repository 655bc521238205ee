"""Checks of a caller's pool, positives, negatives and groups; index sets become padded arrays.

Legend: N rows of the pool, M CAVs, n rows of one side of one CAV (the widest, where they differ).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

PAD = -1  # in an index array: no row here

IndexSets = ArrayLike | Sequence[ArrayLike]


def check_pool(pool: ArrayLike, name: str = "pool") -> NDArray[np.floating[Any]]:
    """Return `pool` as a finite float array [N, d].

    Raises:
        ValueError: not two-dimensional, no rows, no columns, or NaN or infinite values (with the first bad row).
    """
    array = np.asarray(pool)
    if array.dtype == object or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ValueError(f"{name} must hold real numbers, and has dtype {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name} must be two-dimensional [rows, d], and has shape {array.shape}")
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}; give at least one row and one column")
    if not np.issubdtype(array.dtype, np.floating) or array.dtype == np.float16:
        array = array.astype(np.float32)
    # A row's sum is finite only if all its values are. Rows that overflow are checked again below. No [N, d] mask.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(array.sum(axis=1)))
    bad = [int(row) for row in suspects if not np.isfinite(array[row]).all()]
    if bad:
        raise ValueError(f"{name} has NaN or infinite values in {len(bad)} row(s), first in row {bad[0]}: drop them")
    return array


def padded(sets: IndexSets, num_rows: int, name: str) -> NDArray[np.int64]:
    """Convert index sets to one array [M, n], padded with -1.

    Args:
        sets: integers [M, n] (entries of -1 are padding), or a sequence of M one-dimensional integer arrays of any
            lengths.
        num_rows: N; every index must be in 0..N-1.
        name: the argument's name, for messages.

    Raises:
        ValueError: not integers, wrong shape, an empty set, or an index out of range.
    """
    if isinstance(sets, np.ndarray) and sets.ndim == 2:
        array = sets
    else:
        if isinstance(sets, np.ndarray) or not isinstance(sets, Sequence):
            sets = np.asarray(sets)
            if sets.ndim != 2:
                raise ValueError(
                    f"{name} must be integers [M, n] or a list of M index arrays; its shape is {sets.shape}"
                )
            array = sets
        else:
            array = _from_ragged([np.asarray(one) for one in sets], name)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integer row indices into the pool, and has dtype {array.dtype}")
    out = np.ascontiguousarray(array, dtype=np.int64)
    if out.shape[0] == 0:
        raise ValueError(f"{name} holds no sets: its shape is {out.shape}; give at least one CAV")
    outside = (out >= num_rows) | (out < PAD)
    if outside.any():
        cav, column = np.argwhere(outside)[0]
        raise ValueError(
            f"{name}[{cav}] holds row {out[cav, column]}, and the pool has rows 0 to {num_rows - 1} (-1 is padding)"
        )
    empty = np.flatnonzero((out != PAD).sum(axis=1) == 0)
    if empty.size:
        raise ValueError(f"{name}[{empty[0]}] is empty: a CAV needs examples on both sides; leave this one out")
    return out


def _from_ragged(parts: list[NDArray[Any]], name: str) -> NDArray[np.int64]:
    for position, part in enumerate(parts):
        if part.ndim != 1:
            raise ValueError(f"{name}[{position}] must be one-dimensional, and has shape {part.shape}")
        if part.size and not np.issubdtype(part.dtype, np.integer):
            raise ValueError(f"{name}[{position}] must be integer row indices, and has dtype {part.dtype}")
    width = max((part.size for part in parts), default=0)
    out = np.full((len(parts), width), PAD, dtype=np.int64)
    for position, part in enumerate(parts):
        out[position, : part.size] = part
    return out


def check_groups(groups: ArrayLike | None, num_rows: int, name: str = "groups") -> NDArray[np.int64]:
    """Convert group labels (source videos) [N] of any type to integers 0..G-1; None: each row is its own group.

    Raises:
        ValueError: not one label per row, or a missing label (None or NaN).
    """
    if groups is None:
        return np.arange(num_rows, dtype=np.int64)
    return _unique_groups(groups, num_rows, name)[1]


def hash_groups(groups: ArrayLike | None, num_rows: int, name: str = "groups") -> NDArray[np.int64]:
    """Hash group labels (source videos) [N] to integers 0..2**63 - 1 that depend on the label alone.

    The numbers of `check_groups` also depend on which other labels there are. None: each row is its own group, and its
    number is that of the row.

    Raises:
        ValueError: as for `check_groups`.
    """
    if groups is None:
        return np.arange(num_rows, dtype=np.int64)
    labels, label_N = _unique_groups(groups, num_rows, name)
    return np.array([_hash_label(str(label)) for label in labels.tolist()], dtype=np.int64)[label_N]


@functools.lru_cache(maxsize=1 << 16)  # thousands of calls of `train_cavs` share a pool
def _hash_label(label: str) -> int:
    return int.from_bytes(hashlib.blake2b(label.encode(), digest_size=8).digest(), "little") >> 1


def _unique_groups(groups: ArrayLike, num_rows: int, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the labels in order, each once, and the index of each row's label [N]."""
    labels = np.asarray(groups)
    if labels.shape != (num_rows,):
        raise ValueError(f"{name} must give one source video per row: shape ({num_rows},), not {labels.shape}")
    missing = (
        np.array([label is None or label != label for label in labels])
        if labels.dtype == object
        else np.isnan(labels)
        if np.issubdtype(labels.dtype, np.floating)
        else np.zeros(num_rows, dtype=bool)
    )
    if missing.any():
        raise ValueError(f"{name} has no source video for row {int(np.flatnonzero(missing)[0])}")
    unique, label_N = np.unique(labels, return_inverse=True)
    return unique, label_N.astype(np.int64).reshape(-1)


def check_disjoint(positives: NDArray[np.int64], negatives: NDArray[np.int64], block: int = 2048) -> None:
    """Raise ValueError if a row is on both sides of one CAV: its labels would contradict each other."""
    for start in range(0, len(positives), block):
        left, right = positives[start : start + block], negatives[start : start + block]
        # Encode row and side in one number: after sorting, a row on both sides is next to itself. Padding is below 0.
        marked = np.sort(np.concatenate((2 * left, np.where(right == PAD, PAD, 2 * right + 1)), axis=1), axis=1)
        both = (marked[:, 1:] // 2 == marked[:, :-1] // 2) & (marked[:, 1:] != marked[:, :-1]) & (marked[:, :-1] >= 0)
        if both.any():
            cav, column = np.argwhere(both)[0]
            raise ValueError(
                f"row {marked[cav, column] // 2} is in both positives[{start + cav}] and negatives[{start + cav}]: "
                "take it out of one of them"
            )
