"""Stochastic gradient descent on the hinge loss, in the Gram matrix: the CAVs of Captum and tensorflow/tcav.

Both call scikit-learn's SGDClassifier(alpha=0.01, max_iter=1000, tol=1e-3): hinge loss, L2, the `optimal` rate
eta_t = 1 / (alpha (t0 + t)) with Bottou's t0, one example at a time in a new random order each epoch, stopped after
five epochs whose mean objective (loss and penalty, summed during the epoch) did not improve on the best by tol. The
result depends on the order, so two seeds of scikit-learn differ from each other as much as ours differs from it. This
solver exists for comparison with published scores; it is neither the most accurate nor the most stable.

Between two examples inside the margin, w only shrinks, by (t0 + t - 1) / (t0 + t) per step. So the next such example is
found at once from all decision values, and an epoch costs as many steps as it has mistakes. All CAVs step in parallel,
each in its own epoch.

Legend: M CAVs, T train rows (padded: label 0).
"""

from __future__ import annotations

import numpy as np
import torch

from vtcav_ray.cavs.solvers import Solution, Solver
from vtcav_ray.registry import SOLVERS

_MAX_EPOCHS = 1000
_TOLERANCE = 1e-3
_PATIENCE = 5  # n_iter_no_change
_COMPACT = 0.7  # drop the finished CAVs when fewer than this share are left


@SOLVERS.register("sgd")
class SGD(Solver):
    """scikit-learn's SGDClassifier(alpha=regularization, max_iter=1000, tol=1e-3), with Captum's default alpha."""

    default_regularization = 0.01
    raw_rows = True  # the bias starts at 0
    many_short_steps = True

    def solve(self, kernel_MTT: torch.Tensor, labels_MT: torch.Tensor) -> Solution:
        return sgd(kernel_MTT, labels_MT, self.regularization, self.seed)


def sgd(kernel_MTT: torch.Tensor, labels_MT: torch.Tensor, alpha: float, seed: int) -> Solution:
    """Train a batch of linear classifiers like SGDClassifier(alpha=alpha, max_iter=1000, tol=1e-3).

    Args:
        kernel_MTT: inner products of the RAW train rows, 0 on padding, float64. (The bias is not free here: its steps
            are as long as the weights'.)
        labels_MT: +1, -1, and 0 on padding.
        alpha: strength of the L2 penalty.
        seed: of the orders of examples.
    """
    generator = np.random.default_rng([seed, 0x5D])
    # Bottou's t0: the first step is as long as a typical weight; the hinge's slope is 1.
    first = 1.0 / (alpha * np.sqrt(1.0 / np.sqrt(alpha)))
    run = _Descent(kernel_MTT, labels_MT, generator)
    out_coefficients = torch.zeros_like(labels_MT)
    out_bias = torch.zeros_like(run.bias)
    out_epochs = torch.zeros_like(run.epochs)
    out_converged = torch.zeros_like(run.running)
    while True:
        run.advance(alpha, first)
        run.end_epochs(generator)
        left = int(run.running.sum())
        if left < _COMPACT * len(run.running):
            done = ~run.running
            at = run.index[done]
            out_coefficients[at], out_bias[at] = run.coefficients[done], run.bias[done]
            out_epochs[at], out_converged[at] = run.epochs[done], run.stale[done] >= _PATIENCE
            if left == 0:
                return Solution(out_coefficients, out_bias, out_epochs, out_converged)
            run.keep(run.running)


class _Descent:
    """The state of all unfinished CAVs."""

    def __init__(self, kernel_MTT: torch.Tensor, labels_MT: torch.Tensor, generator: np.random.Generator) -> None:
        num = len(labels_MT)
        zero = torch.zeros(num, dtype=labels_MT.dtype, device=labels_MT.device)
        count = torch.zeros(num, dtype=torch.int64, device=labels_MT.device)
        self.index = torch.arange(num, device=labels_MT.device)
        self.kernel, self.labels = kernel_MTT, labels_MT
        self.counts = labels_MT.abs().sum(1)
        self.coefficients = torch.zeros_like(labels_MT)  # of w
        self.inner = torch.zeros_like(labels_MT)  # w·z of each row
        self.bias, self.square = zero.clone(), zero.clone()  # b and ||w||^2
        self.taken = zero.clone()  # steps so far, over all epochs
        self.position = zero.clone()  # of the next example in this epoch
        self.objective = zero.clone()  # summed over this epoch's steps
        self.best = torch.full_like(zero, torch.inf)
        self.stale, self.epochs = count.clone(), count.clone()
        self.running = torch.ones(num, dtype=torch.bool, device=labels_MT.device)
        self.rank = _ranks(labels_MT, generator)

    def keep(self, chosen: torch.Tensor) -> None:
        """Drop all CAVs except the chosen ones."""
        for name, value in vars(self).items():
            setattr(self, name, value[chosen])

    def advance(self, alpha: float, first: float) -> None:
        """Advance each CAV to the next example inside the margin and take its step, or to the end of the epoch."""
        time = first + self.taken
        ahead = self.rank - self.position[:, None]
        shrunk = (time - 1).clamp_min(0)[:, None] / (time[:, None] + ahead.clamp_min(0) - 1).clamp_min(1e-9)
        margin = self.labels * (self.inner * shrunk + self.bias[:, None])
        wrong = (margin <= 1) & (ahead >= 0) & (self.labels != 0)
        next_rank, i = torch.where(wrong, self.rank, torch.inf).min(dim=1)
        found = torch.isfinite(next_rank)
        # Steps without a mistake, and the mistake itself.
        idle = torch.where(found, next_rank, self.counts) - self.position
        passed = (ahead >= 0) & (ahead < (idle + found)[:, None]) & (self.labels != 0)
        self.objective += alpha / 2 * self.square * (shrunk.square() * passed).sum(1)
        picked = torch.arange(len(i), device=i.device)
        self.objective += torch.where(found, 1 - margin[picked, i], 0.0)

        late = time + idle
        decay = (time - 1).clamp_min(0) / (late - 1).clamp_min(1e-9)
        decay = torch.where(idle > 0, decay, 1.0)
        eta = 1 / (alpha * late)
        last = torch.where(found, (1 - eta * alpha).clamp_min(0), 1.0)
        move = torch.where(found, eta * self.labels[picked, i], 0.0)
        row = self.kernel[picked, i]
        own = self.inner[picked, i] * decay
        self.square = (decay * last) ** 2 * self.square + 2 * move * last * own + move**2 * row[picked, i]
        self.inner = self.inner * (decay * last)[:, None] + move[:, None] * row
        self.coefficients *= (decay * last)[:, None]
        self.coefficients[picked, i] += move
        self.bias = self.bias + move
        self.taken = self.taken + idle + found
        self.position = self.position + idle + found

    def end_epochs(self, generator: np.random.Generator) -> None:
        """Stop the CAVs at the end of an epoch, or shuffle and begin their next one."""
        over = self.running & (self.position >= self.counts)
        if not over.any():
            return
        mean = self.objective[over] / self.counts[over]
        worse = mean > self.best[over] - _TOLERANCE
        self.stale[over] = torch.where(worse, self.stale[over] + 1, 0)
        self.best[over] = torch.minimum(self.best[over], mean)
        self.epochs[over] += 1
        self.running &= ~(over & ((self.stale >= _PATIENCE) | (self.epochs >= _MAX_EPOCHS)))
        again = over & self.running
        self.objective[again], self.position[again] = 0.0, 0.0
        self.rank[again] = _ranks(self.labels[again], generator)


def _ranks(labels_MT: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Return each row's position in a new random order of its CAV's rows; padding last (it takes no step)."""
    keys = torch.from_numpy(generator.random(tuple(labels_MT.shape))).to(labels_MT.device)
    order = torch.where(labels_MT != 0, keys, 2.0).argsort(dim=1)
    places = torch.arange(labels_MT.shape[1], dtype=labels_MT.dtype, device=labels_MT.device)
    return torch.empty_like(labels_MT).scatter_(1, order, places.expand(labels_MT.shape))
