"""Concept activation vectors, thousands at once: the entry point of this package.

Each CAV separates its positives from its negatives among the rows of one pool. A part of both, chosen by source video,
is held out. The vector comes from the train part alone, so the held-out accuracy is that of the returned vector.

Legend: N rows of the pool, d numbers each, M CAVs, P and Q the widths of the two sides, T train rows and H held-out
rows of a CAV (padded).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import ThreadpoolController

from vtcav_ray.cavs.gram_matrix import Gram, gram
from vtcav_ray.cavs.indices import PAD, IndexSets, check_disjoint, check_pool, hash_groups, padded
from vtcav_ray.cavs.primal import CANCELLED, by_rows
from vtcav_ray.cavs.sgd import SGD
from vtcav_ray.cavs.solvers import SVM, Logistic, Ridge, Solver, apply_kernel
from vtcav_ray.cavs.splits import split
from vtcav_ray.cavs.trained import Cavs
from vtcav_ray.registry import SOLVERS

# In scikit-learn's own convention for each estimator, and its own default (sgd: Captum's).
DEFAULT_REGULARIZATION = {
    "logistic": Logistic.default_regularization,
    "ridge": Ridge.default_regularization,
    "svm": SVM.default_regularization,
    "sgd": SGD.default_regularization,
}

_BLAS = ThreadpoolController()  # the libraries that NumPy and torch have loaded
_CHUNK_NUMBERS = 1 << 20  # of kernels solved together: small enough for the cache, large enough to hide Python
_CHUNK_NUMBERS_SHORT_STEPS = 1 << 22  # sgd takes thousands of short steps: more CAVs in each
_CHUNK_NUMBERS_GPU = 1 << 24  # 134 MB of float64, and some copies: each step is a few dozen calls for any chunk size
# Relative to the pool's own length: below it a difference between two means is rounding of float32.
_NOTHING = 1e-6
_APART = 1e-2  # of decision values, whose labels are 2 apart

ONE_VIDEO = "one of its sides comes from a single source video, so nothing can be held out"
NO_DIFFERENCE = "its activations are all equal, or equal on both sides: there is no direction between them"
NOT_CONVERGED = "the solver did not converge: scale the activations, or regularise more"


def train_cavs(
    pool: ArrayLike | Gram,
    positives: IndexSets,
    negatives: IndexSets,
    *,
    groups: ArrayLike | None = None,
    solver: str = "logistic",
    regularization: float | None = None,
    held_out: float = 0.33,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Cavs:
    """Train M linear classifiers on rows of one pool.

    Args:
        pool: activations in P-space, [N, d]; or their `gram`, which several calls can share.
        positives: row indices of the concept's examples, integers [M, P]. Sets of different sizes: pad with -1, or give
            a list of M index arrays.
        negatives: row indices of the other side, [M, Q], likewise. A row may not be on both sides of one CAV.
        groups: source video of each pool row, [N], of any type; None: every row is its own video. No video has rows in
            both the train and the held-out part of a CAV. The split depends on the labels, not on the order of rows.
        solver: `logistic`, `ridge`, `svm`, `pattern`, `sgd` or one that was registered; see `vtcav_ray.cavs.solvers`.
        regularization: in scikit-learn's convention for that estimator: C for `logistic` and `svm` (larger is weaker),
            alpha for `ridge` and `sgd` (larger is stronger). None: scikit-learn's default (1; `sgd`: Captum's 0.01).
            `pattern` has none.
        held_out: share of each side's rows held out, in [0, 1); whole videos, at least one per side. 0: train on all,
            and the held-out accuracy is NaN.
        seed: of the split and of `sgd`'s order. Except for `sgd`, a CAV's result does not depend on the others in the
            call (up to float32 rounding, 1e-6, since the others determine the padding of its rows).
        device: where to train, such as `cuda`; a given `Gram` has its own.

    Returns:
        The CAVs; `vectors` [M, d] is computed at first use.

    Raises:
        ValueError: an argument is malformed: shapes, NaN, an index out of range, an empty set, a row on both sides.
            A CAV that cannot be trained (one video, no difference) raises nothing; see `Cavs.reason`.
    """
    method = _make_solver(solver, regularization, held_out, seed)
    given = pool if isinstance(pool, Gram) else check_pool(pool)
    num_rows = given.num_rows if isinstance(given, Gram) else len(given)
    positives_MP = padded(positives, num_rows, "positives")
    negatives_MQ = padded(negatives, num_rows, "negatives")
    if len(positives_MP) != len(negatives_MQ):
        raise ValueError(
            f"positives and negatives must each hold one set per CAV: {len(positives_MP)} against {len(negatives_MQ)}"
        )
    check_disjoint(positives_MP, negatives_MQ)
    groups_N = hash_groups(groups, num_rows)
    matrix = given if isinstance(given, Gram) else gram(given, device=device)

    held_MP, held_MQ, possible_M = split(positives_MP, negatives_MQ, groups_N, held_out=held_out, seed=seed)
    train, tested = _parts(positives_MP, negatives_MQ, np.concatenate((held_MP, held_MQ), axis=1))
    result = _trained(_Job(matrix, train, tested, method))
    reason = result.explain_failures(possible_M)
    return Cavs(
        bias=result.bias.astype(np.float32),
        train_accuracy=result.train_accuracy.astype(np.float32),
        held_out_accuracy=result.held_out_accuracy.astype(np.float32),
        coefficients=_sparse(train, result.coefficients, num_rows, np.flatnonzero(reason != "")),
        reason=tuple(reason),
        n_positives=(positives_MP != PAD).sum(axis=1),
        n_negatives=(negatives_MQ != PAD).sum(axis=1),
        solver=solver,
        gram=matrix,
    )


def _parts(
    positives_MP: NDArray[np.int64], negatives_MQ: NDArray[np.int64], held_MR: NDArray[np.bool_]
) -> tuple[_Packed, _Packed]:
    """Return the train rows and the held-out rows of each CAV, with labels +1 and -1."""
    rows_MR = np.concatenate((positives_MP, negatives_MQ), axis=1)
    labels_MR = np.where(rows_MR == PAD, 0.0, 1.0)
    labels_MR[:, positives_MP.shape[1] :] *= -1.0
    return _pack(rows_MR, labels_MR, (labels_MR != 0) & ~held_MR), _pack(rows_MR, labels_MR, held_MR)


def _trained(job: _Job) -> _Columns:
    """Train all CAVs of a job, chunk by chunk."""
    device = job.gram.device
    result = _Columns(*job.train.rows.shape)
    chunks = list(_chunks(job.train, job.tested, _chunk_numbers(job.solver, device)))
    workers = min(len(chunks), torch.get_num_threads()) if device.type == "cpu" else 1
    # A BLAS that splits a small factorisation over its own threads spends its time waiting for them.
    with _BLAS.limit(limits=1, user_api="blas"):
        _run(job, chunks, result, workers)
    return result


def _chunk_numbers(solver: Solver, device: torch.device) -> int:
    if device.type != "cpu":
        return _CHUNK_NUMBERS_GPU
    return _CHUNK_NUMBERS_SHORT_STEPS if solver.many_short_steps else _CHUNK_NUMBERS


def _run(job: _Job, chunks: list[NDArray[np.int64]], result: _Columns, workers: int) -> None:
    if workers == 1:
        for chunk in chunks:
            job.run(chunk, result)
        return
    # The factorisations release the GIL, so chunks run in parallel; torch's own threads would only slow them down.
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as executor:
        try:
            list(executor.map(lambda chunk: job.run(chunk, result), chunks))
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Packed:
    """Some rows of each CAV, moved to the left: `rows` (0 on padding), `labels` (0 on padding), `counts`."""

    rows: NDArray[np.int64]
    labels: NDArray[np.float64]
    counts: NDArray[np.int64]


class _Columns:
    """The results of all CAVs, filled chunk by chunk."""

    def __init__(self, num: int, width: int) -> None:
        self.coefficients = np.zeros((num, width))
        self.bias = np.zeros(num)
        self.train_accuracy = np.zeros(num)
        self.held_out_accuracy = np.zeros(num)
        self.degenerate = np.zeros(num, dtype=bool)
        self.converged = np.zeros(num, dtype=bool)

    def explain_failures(self, possible_M: NDArray[np.bool_]) -> NDArray[np.object_]:
        """Return why each CAV has no result, "" for the others. Set the figures of those without one to NaN.

        Args:
            possible_M: False where nothing could be held out.
        """
        reason = np.where(self.degenerate, NO_DIFFERENCE, np.where(self.converged, "", NOT_CONVERGED)).astype(object)
        reason[~possible_M] = ONE_VIDEO
        failed = np.flatnonzero(reason != "")
        for column in (self.bias, self.train_accuracy, self.held_out_accuracy):
            column[failed] = np.nan
        self.coefficients[failed] = 0.0
        return reason


@dataclass(frozen=True)
class _Job:
    """The input of every chunk of CAVs; chunks write to different rows of the result."""

    gram: Gram
    train: _Packed
    tested: _Packed
    solver: Solver

    def run(self, chunk: NDArray[np.int64], result: _Columns) -> None:
        """Train the CAVs `chunk` (indices) and measure their accuracy."""
        device = self.gram.device
        # Chunks hold CAVs of similar size; cut off columns that are padding in all of them.
        width, width_tested = int(self.train.counts[chunk].max()), int(self.tested.counts[chunk].max(initial=0))
        rows_MT = torch.from_numpy(self.train.rows[chunk, :width]).to(device)
        y_MT = torch.from_numpy(self.train.labels[chunk, :width]).to(device)
        rows_MH = torch.from_numpy(self.tested.rows[chunk, :width_tested]).to(device)
        y_MH = torch.from_numpy(self.tested.labels[chunk, :width_tested]).to(device)

        raw = self.solver.raw_rows
        everything = torch.cat((rows_MT, rows_MH), dim=1)
        kernel = self._inner(everything, rows_MT, raw)  # [m, T + H, T]
        K_MTT = kernel[:, :width]
        if not (present := y_MT.abs()).all():
            K_MTT = K_MTT * present[:, :, None] * present[:, None, :]
        solution = self.solver.solve(K_MTT, y_MT)

        a_MT = solution.coefficients_MT
        inner = apply_kernel(kernel, a_MT)
        square_M, decision = (a_MT * inner[:, :width]).sum(1), inner + solution.bias_M[:, None]
        if raw:
            constant = self.solver.constant_feature
            square_M = square_M - (constant * a_MT.sum(1) ** 2)
            # The constant feature's weight is part of svm's kernel, and becomes the bias.
            bias_M = constant * a_MT.sum(1) if constant else solution.bias_M
        else:  # from centred rows back to raw ones
            bias_M = solution.bias_M - (a_MT * self.gram.offset_N[rows_MT]).sum(1)
        norm_M = square_M.clamp_min(0).sqrt()
        length_M = self.gram.scale * a_MT.abs().sum(1)  # of w, if no two of its summands cancelled
        converged_M = solution.converged_M
        # Is there a direction, or only rounding? Check w as a sum of rows, and the spread of the rows along it.
        nothing_M = ~(norm_M > _NOTHING * length_M)
        if self.solver.exact_from_rows:
            short = (norm_M <= CANCELLED * length_M) & (y_MT.abs().sum(1) > self.gram.dim)
            for m in short.nonzero()[:, 0].tolist():
                found = (a_MT[m], solution.bias_M[m], converged_M[m])
                one = by_rows(
                    self.gram,
                    rows_MT[m],
                    rows_MH[m],
                    y_MT[m],
                    found,
                    self.solver.solve,
                    raw,
                    self.solver.constant_feature,
                )
                a_MT[m], bias_M[m], norm_M[m], decision[m], converged_M[m] = one
            # The length of w says nothing here. Decision values have no unit: if they differ, there is a direction.
            nothing_M &= ~(short & (_spread(torch.where(y_MT != 0, decision[:, :width], torch.nan)) > _APART))
        spread_M = _spread(torch.where(y_MT != 0, decision[:, :width], torch.nan))
        degenerate_M = nothing_M | ~(spread_M > _NOTHING * self.gram.scale * norm_M)
        unit = torch.where(degenerate_M, 0.0, 1 / norm_M.clamp_min(1e-300))
        result.coefficients[chunk, :width] = (a_MT * unit[:, None]).cpu().numpy()
        result.bias[chunk] = (bias_M * unit).cpu().numpy()
        result.train_accuracy[chunk] = _balanced_accuracy(decision[:, :width], y_MT).cpu().numpy()
        result.held_out_accuracy[chunk] = _balanced_accuracy(decision[:, width:], y_MH).cpu().numpy()
        result.degenerate[chunk] = degenerate_M.cpu().numpy()
        result.converged[chunk] = converged_M.cpu().numpy()

    def _inner(self, left_MA: torch.Tensor, right_MB: torch.Tensor, raw: bool) -> torch.Tensor:
        """Return inner products [m, A, B] of rows of the pool: centred rows, or raw rows plus the constant feature."""
        flat = left_MA[:, :, None] * self.gram.num_rows + right_MB[:, None, :]
        inner = self.gram.inner_NN.view(-1).index_select(0, flat.view(-1)).view(flat.shape).double()
        if raw:
            offset = self.gram.offset_N
            sides = offset[left_MA][:, :, None] + offset[right_MB][:, None, :]
            inner += sides + self.gram.mean_square + self.solver.constant_feature
        return inner


def _make_solver(name: str, regularization: float | None, held_out: float, seed: int) -> Solver:
    SOLVERS.check(name)
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out must be a share in [0, 1), and is {held_out}")
    method: type[Solver] = SOLVERS[name]
    if method.default_regularization is None:
        if regularization is not None:
            raise ValueError(f"regularization: the solver `{name}` has none; leave it out")
        return method(0.0, seed)
    strength = method.default_regularization if regularization is None else float(regularization)
    if not (np.isfinite(strength) and strength > 0):
        raise ValueError(f"regularization must be positive and finite, and is {regularization}")
    return method(strength, seed)


def _pack(rows: NDArray[np.int64], labels: NDArray[np.float64], chosen: NDArray[np.bool_]) -> _Packed:
    counts = chosen.sum(axis=1)
    width = int(counts.max(initial=0))
    order = np.argsort(~chosen, axis=1, kind="stable")[:, :width]
    kept = np.take_along_axis(chosen, order, axis=1)
    return _Packed(
        np.where(kept, np.take_along_axis(rows, order, axis=1), 0),
        np.where(kept, np.take_along_axis(labels, order, axis=1), 0.0),
        counts,
    )


def _chunks(train_rows: _Packed, tested_rows: _Packed, numbers: int) -> Iterator[NDArray[np.int64]]:
    """Yield indices of CAVs to train together: of similar size, with about `numbers` kernel entries in total."""
    train, tested = train_rows.counts, tested_rows.counts
    # CAVs of one concept are adjacent: they read the same rows of the Gram matrix, from the cache.
    first = train_rows.rows[:, 0] if train_rows.rows.shape[1] else np.zeros(len(train), np.int64)
    order = np.lexsort((first, -(train * (train + tested))))
    start = 0
    while start < len(order):
        largest = order[start]
        size = int(train[largest] * (train[largest] + tested[largest]))
        stop = start + max(1, numbers // max(size, 1))
        yield order[start:stop]
        start = stop


def _balanced_accuracy(decision: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the mean of both sides' shares of correct rows; NaN if a side has no rows."""
    right = (decision * y > 0).double()
    positive, negative = (y > 0).double(), (y < 0).double()
    return 0.5 * ((right * positive).sum(1) / positive.sum(1) + (right * negative).sum(1) / negative.sum(1))


def _spread(values: torch.Tensor) -> torch.Tensor:
    """Return the largest minus the smallest value of each row, ignoring NaN."""
    high = torch.where(torch.isnan(values), -torch.inf, values).amax(1)
    low = torch.where(torch.isnan(values), torch.inf, values).amin(1)
    return high - low


def _sparse(
    train: _Packed, coefficients: NDArray[np.float64], num_rows: int, failed: NDArray[np.int64]
) -> scipy.sparse.csr_array:
    used = train.labels != 0
    indptr = np.concatenate(([0], np.cumsum(used.sum(axis=1))))
    data: NDArray[Any] = coefficients[used]
    # A failed CAV keeps its rows with NaN, so that every value computed from it is NaN too.
    row_of = np.repeat(np.arange(len(train.rows)), used.sum(axis=1))
    data[np.isin(row_of, failed)] = np.nan
    return scipy.sparse.csr_array((data, train.rows[used], indptr), shape=(len(train.rows), num_rows))
