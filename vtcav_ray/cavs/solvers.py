"""Linear classifiers in the Gram matrix, many at once: Newton's method for three losses, and the pattern direction.

All of them minimise, over w = sum_i a_i z_i and a bias b, with f_i = w·z_i + b and labels y_i = ±1,

    ||w||^2 / 2 + sum_i loss(y_i, f_i)

| solver   | loss                                | scikit-learn's name for it                                         |
| logistic | C log(1 + exp(-y f))                | LogisticRegression(C=C)                                            |
| ridge    | (y - f)^2 / (2 alpha)               | RidgeClassifier(alpha=alpha)                                       |
| svm      | C max(0, 1 - y f)^2                 | LinearSVC(C=C): its bias is the weight of a constant feature of 1   |

Newton's step in the coefficients a, with g = loss', W = loss'' and s = sqrt(W), is (Rasmussen & Williams, Gaussian
Processes for Machine Learning, 2006, section 3.4, with a free bias added)

    r = -g - a,   B = I + s K s,   B u = -s (K r + db),   da = r + s u,   and db makes the coefficients sum to 0.

B has no eigenvalue below 1, so its Cholesky factor always exists, also with duplicated rows and a singular K. The
length of a step is searched for, and it never goes uphill, which makes the method converge from any start.

The time goes into n x n factors that fit in the cache. `logistic` takes its steps in float32, whose factors cost about
half. The result is then judged in float64 by the distance of the coefficients from a = -g, which holds only at the
minimum. Problems beyond float32 (an ill-conditioned kernel, or numbers out of range) are solved again in float64.
`ridge` is one step, and its B (like svm's, whose kernel holds the common offset) has too wide a spectrum for
float32: they are float64 throughout.

A solver is a class in the registry `SOLVERS`; docs/extending.md adds one.

Legend: M CAVs, T train rows (padded: label 0, and the row and column of K are 0).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import scipy.linalg.lapack
import torch

from vtcav_ray.registry import SOLVERS

NewtonSolver = Literal["logistic", "ridge", "svm"]

_MAX_STEPS = 100
_MAX_HALVINGS = 30
_LINE_STEPS = 2  # two more would save a thirtieth of Newton's steps, and cost more than that
# Stop when the predicted gain of the step just taken is below this share of the objective: the relative error of w was
# about its root before the step, and Newton's method squares it.
_TOLERANCE = 1e-5
# Largest distance of float32's coefficients from a = -g, relative to their length. B has no eigenvalue below 1, so the
# error that is left in the coefficients is no larger.
_FLOAT32_ENOUGH = 1e-3
_COMPACT = 0.7  # drop the solved problems from the batch when fewer than this share are left


@dataclass(frozen=True)
class Solution:
    """`coefficients_MT` (0 on padding), `bias_M`, `steps_M` (Newton steps taken) and `converged_M`."""

    coefficients_MT: torch.Tensor
    bias_M: torch.Tensor
    steps_M: torch.Tensor
    converged_M: torch.Tensor


class Solver(ABC):
    """A way of separating two sides, for many CAVs at once. One instance per call of `train_cavs`.

    Attributes:
        default_regularization: used if the caller gives none; None: this solver has no regularization.
        raw_rows: the kernel holds inner products of the rows themselves; else of rows centred on the pool's mean, whose
            coefficients must then sum to 0 (the bias is free).
        constant_feature: added to the raw kernel, as by a constant feature of this square; its weight becomes the bias,
            and that of the solution is not used.
        exact_from_rows: a CAV whose coefficients nearly cancel is computed again from its rows
            (`vtcav_ray.cavs.primal`).
        many_short_steps: larger batches pay, since Python takes longer than the arithmetic.
    """

    default_regularization: ClassVar[float | None] = 1.0
    raw_rows: ClassVar[bool] = False
    constant_feature: ClassVar[float] = 0.0
    exact_from_rows: ClassVar[bool] = True
    many_short_steps: ClassVar[bool] = False

    def __init__(self, regularization: float, seed: int) -> None:
        self.regularization, self.seed = regularization, seed

    @abstractmethod
    def solve(self, kernel_MTT: torch.Tensor, labels_MT: torch.Tensor) -> Solution:
        """Train a batch of CAVs.

        Args:
            kernel_MTT: inner products of the train rows, float64, 0 on padding.
            labels_MT: +1, -1, and 0 on padding, float64.
        """


@SOLVERS.register("logistic")
class Logistic(Solver):
    """scikit-learn's LogisticRegression(C=regularization)."""

    def solve(self, kernel_MTT: torch.Tensor, labels_MT: torch.Tensor) -> Solution:
        return newton(kernel_MTT, labels_MT, "logistic", self.regularization)


@SOLVERS.register("ridge")
class Ridge(Solver):
    """scikit-learn's RidgeClassifier(alpha=regularization)."""

    def solve(self, kernel_MTT: torch.Tensor, labels_MT: torch.Tensor) -> Solution:
        return newton(kernel_MTT, labels_MT, "ridge", self.regularization)


@SOLVERS.register("svm")
class SVM(Solver):
    """scikit-learn's LinearSVC(C=regularization)."""

    raw_rows = True
    constant_feature = 1.0

    def solve(self, kernel_MTT: torch.Tensor, labels_MT: torch.Tensor) -> Solution:
        return newton(kernel_MTT, labels_MT, "svm", self.regularization)


@SOLVERS.register("pattern")
class Pattern(Solver):
    """The difference of the two sides' means; see `pattern`."""

    default_regularization = None
    exact_from_rows = False

    def solve(self, kernel_MTT: torch.Tensor, labels_MT: torch.Tensor) -> Solution:
        return pattern(kernel_MTT, labels_MT)


def newton(kernel_MTT: torch.Tensor, labels_MT: torch.Tensor, solver: NewtonSolver, regularization: float) -> Solution:
    """Solve a batch of classifiers.

    Args:
        kernel_MTT: inner products of the train rows, 0 on padding, float64. For `svm` of the raw rows with 1 added.
        labels_MT: +1, -1, and 0 on padding, float64.
        solver: which loss.
        regularization: C for `logistic` and `svm`, alpha for `ridge`.
    """
    if solver != "logistic":
        return _newton(kernel_MTT, labels_MT, solver, regularization)
    with np.errstate(all="ignore"):  # the check finds values that float32 can't hold
        quick = _newton(kernel_MTT.float(), labels_MT.float(), solver, regularization)
    a, b = quick.coefficients_MT.double(), quick.bias_M.double()
    g, _ = _Loss(labels_MT, solver, regularization).derivatives(apply_kernel(kernel_MTT, a) + b[:, None])
    away = torch.linalg.vector_norm(a + g, dim=1)
    good = quick.converged_M & (away <= _FLOAT32_ENOUGH * torch.linalg.vector_norm(a, dim=1))
    if good.all():
        return Solution(a, b, quick.steps_M, quick.converged_M)
    bad = ~good
    exact = _newton(kernel_MTT[bad], labels_MT[bad], solver, regularization)
    a[bad], b[bad] = exact.coefficients_MT, exact.bias_M
    steps, converged = quick.steps_M.clone(), good.clone()
    steps[bad] += exact.steps_M
    converged[bad] = exact.converged_M
    return Solution(a, b, steps, converged)


def _newton(
    kernel_MTT: torch.Tensor,
    labels_MT: torch.Tensor,
    solver: NewtonSolver,
    regularization: float,
) -> Solution:
    """Run Newton's method in the type of its arguments."""
    num = len(labels_MT)
    free_bias = solver != "svm"
    tiny = torch.finfo(labels_MT.dtype).tiny
    coefficients = torch.zeros_like(labels_MT)
    bias = torch.zeros(num, dtype=labels_MT.dtype, device=labels_MT.device)
    steps = torch.zeros(num, dtype=torch.int64, device=labels_MT.device)
    converged = torch.zeros(num, dtype=torch.bool, device=labels_MT.device)

    batch = torch.arange(num, device=labels_MT.device)  # the problems still at work
    K, y, a, b, Ka = kernel_MTT, labels_MT, coefficients.clone(), bias.clone(), coefficients.clone()
    running = ~converged
    loss = _Loss(y, solver, regularization)
    value = loss.value(Ka + b[:, None])
    B = torch.empty_like(K)  # one buffer for all steps: fresh pages cost as much as the arithmetic
    for _ in range(_MAX_STEPS):
        g, W = loss.derivatives(Ka + b[:, None])
        s = W.sqrt()
        r = -g - a
        torch.mul(K, s[:, :, None], out=B)
        B *= s[:, None, :]
        B.diagonal(dim1=1, dim2=2).add_(1.0)
        Kr = apply_kernel(K, r)
        if free_bias:
            u = _solve(B, torch.stack((s * Kr, s), dim=1))
            # sum(a + da) = 0 fixes db. Where all weights vanish (every point far from the plane) the bias stays.
            slope = (s * u[:, 1]).sum(1)
            db = torch.where(slope > 0, -(g.sum(1) + (s * u[:, 0]).sum(1)) / slope.clamp_min(tiny), 0.0)
            step = r - s * (u[:, 0] + db[:, None] * u[:, 1])
        else:
            db = torch.zeros_like(b)
            step = r - s * _solve(B, (s * Kr)[:, None])[:, 0]
        Kstep = apply_kernel(K, step)
        df = Kstep + db[:, None]
        # What the quadratic model promises: half of minus the objective's slope along the step.
        gain = -0.5 * ((step * Ka).sum(1) + (g * df).sum(1))
        length, value = _line_search(a, Ka, b, step, Kstep, df, value, loss)
        length = torch.where(running, length, 0.0)
        a = a + length[:, None] * step
        b = b + length * db
        Ka = Ka + length[:, None] * Kstep
        steps[batch] += running
        running &= ~(gain <= _TOLERANCE * value.abs() + tiny)
        left = int(running.sum())
        if left < _COMPACT * len(batch):
            done = ~running
            coefficients[batch[done]], bias[batch[done]], converged[batch[done]] = a[done], b[done], True
            if left == 0:
                break
            batch, K, y, a, b, Ka, value = (x[running] for x in (batch, K, y, a, b, Ka, value))
            running, B, loss = running[running], B[:left], _Loss(y, solver, regularization)
    else:
        coefficients[batch], bias[batch], converged[batch] = a, b, ~running
    return Solution(coefficients, bias, steps, converged)


def pattern(kernel_MTT: torch.Tensor, labels_MT: torch.Tensor) -> Solution:
    """Return the signal direction: covariance of activation and label, which is the difference of the classes' means.

    A filter (any of the classifiers above) turns away from directions of much noise; the pattern does not (Haufe et
    al., On the interpretation of weight vectors of linear models, NeuroImage 2014; Pahde et al., Navigating Neural
    Space, ICLR 2025). The plane goes half-way between the means.

    Args:
        kernel_MTT, labels_MT: as for `newton`.
    """
    positive, negative = labels_MT.clamp_min(0), (-labels_MT).clamp_min(0)
    mean_positive = positive / positive.sum(1, keepdim=True)
    mean_negative = negative / negative.sum(1, keepdim=True)
    a = mean_positive - mean_negative
    middle = apply_kernel(kernel_MTT, (mean_positive + mean_negative) / 2)
    steps = torch.ones(len(a), dtype=torch.int64, device=a.device)
    return Solution(a, -(a * middle).sum(1), steps, torch.ones(len(a), dtype=torch.bool, device=a.device))


class _Loss:
    """One of the three losses, summed over a problem's rows; 0 on padding."""

    def __init__(self, y_MT: torch.Tensor, solver: NewtonSolver, regularization: float) -> None:
        self.y, self.on, self.solver, self.regularization = y_MT, y_MT.abs(), solver, regularization

    def value(self, f: torch.Tensor) -> torch.Tensor:
        """Return the loss of each problem: [M]."""
        if self.solver == "logistic":
            return self.regularization * (self.on * torch.nn.functional.softplus(-self.y * f, threshold=40.0)).sum(1)
        if self.solver == "ridge":
            return ((f - self.y).square() * self.on).sum(1) / (2 * self.regularization)
        return self.regularization * (self.on - self.y * f).clamp_min(0).square().sum(1)

    def derivatives(self, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return slope and curvature in f, [M, T] each."""
        if self.solver == "logistic":
            p = torch.sigmoid(-self.y * f)
            return -self.regularization * self.y * p, self.regularization * self.on * p * (1 - p)
        if self.solver == "ridge":
            return (f - self.y) * self.on / self.regularization, self.on / self.regularization
        slack = (self.on - self.y * f).clamp_min(0)
        return -2 * self.regularization * self.y * slack, 2 * self.regularization * (slack > 0)


def _line_search(
    a: torch.Tensor,
    Ka: torch.Tensor,
    b: torch.Tensor,
    step: torch.Tensor,
    Kstep: torch.Tensor,
    df: torch.Tensor,
    value: torch.Tensor,
    loss: _Loss,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the length of each step: near the minimum on the line, and never uphill.

    Along the line the objective is a parabola plus the loss of f + t df, so trying a length costs T numbers, not T^2.
    Going further than 1 matters: on separable examples a plain Newton step raises the margin by about 1 at a time.

    Returns:
        The lengths [M] and the objective there.
    """
    f = Ka + b[:, None]
    linear, quadratic = (step * Ka).sum(1), (step * Kstep).sum(1)
    base = 0.5 * (a * Ka).sum(1)

    def objective(t: torch.Tensor) -> torch.Tensor:
        return base + t * linear + 0.5 * t * t * quadratic + loss.value(f + t[:, None] * df)

    length = torch.ones_like(b)
    if loss.solver != "ridge":  # a parabola's Newton step ends at its minimum
        for _ in range(_LINE_STEPS):
            g, W = loss.derivatives(f + length[:, None] * df)
            slope = linear + length * quadratic + (g * df).sum(1)
            curve = quadratic + (W * df.square()).sum(1)
            # At most doubled or halved at a time: where the loss is flat, Newton's own step would overshoot.
            moved = length - slope / curve.clamp_min(torch.finfo(curve.dtype).tiny)
            length = torch.maximum(torch.minimum(moved, 2 * length), length / 2)
    slack = 16 * torch.finfo(value.dtype).eps * value.abs()
    for _ in range(_MAX_HALVINGS):
        reached = objective(length)
        uphill = ~(reached <= value + slack)
        if not uphill.any():
            return length, reached
        length = torch.where(uphill, length / 2, length)
    return torch.where(uphill, 0.0, length), torch.where(uphill, value, reached)


def apply_kernel(K_MTT: torch.Tensor, a_MT: torch.Tensor) -> torch.Tensor:
    """Return K a for each problem: [M, S, T] and [M, T] to [M, S]."""
    if K_MTT.device.type == "cpu":  # NumPy calls BLAS for each matrix: five times as fast as torch's batch
        return torch.from_numpy(np.matmul(K_MTT.numpy(), a_MT.numpy()[:, :, None])[:, :, 0])
    return torch.bmm(K_MTT, a_MT[:, :, None])[:, :, 0]


def _solve(B_MTT: torch.Tensor, right_MkT: torch.Tensor) -> torch.Tensor:
    """Return u [M, k, T] of B u = right for each of k right sides. B is symmetric and positive. A CPU overwrites it."""
    if B_MTT.device.type != "cpu":
        return _solve_in_batch(B_MTT, right_MkT)
    # A loop over LAPACK, in place: twice as fast as NumPy's batch and three times as torch's, which copy and zero.
    posv = scipy.linalg.lapack.dposv if B_MTT.dtype == torch.float64 else scipy.linalg.lapack.sposv
    solved = right_MkT.contiguous().clone()
    for matrix, right in zip(B_MTT.numpy(), solved.numpy(), strict=True):
        posv(matrix.T, right.T, lower=1, overwrite_a=1, overwrite_b=1)  # transposes are LAPACK's order: no copies
    return solved


def _solve_in_batch(B_MTT: torch.Tensor, right_MkT: torch.Tensor) -> torch.Tensor:
    """Do the same on a GPU with a few calls for the whole batch. The result is NaN where B is not positive.

    B always is, but float32 may not hold it. Then the caller's check finds the NaN and solves in float64, as on the
    CPU: `torch.linalg.cholesky` would raise instead. And `torch.cholesky_solve` processes the batch one by one if torch
    has no MAGMA (pytorch/pytorch#175898).
    """
    L, info = torch.linalg.cholesky_ex(B_MTT)
    half = torch.linalg.solve_triangular(L, right_MkT.mT, upper=False)
    u = torch.linalg.solve_triangular(L.mT, half, upper=True)
    return torch.where(info[:, None, None] == 0, u, torch.nan).mT
