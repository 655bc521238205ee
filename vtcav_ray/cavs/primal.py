"""A CAV whose normal is a sum of nearly cancelling rows, computed from the rows themselves.

If there are more rows than numbers (n > d) and no plane separates the sides, the coefficients of w = sum_i a_i z_i stay
as large as the penalty allows, while w shrinks as the activations grow. The sum cancels, and the Gram matrix's rounding
leaves only noise in ||w||^2 = a'Ka and f = Ka. The same sums over the rows in float64 are exact enough, and cheap,
since rows are short in this case.

Legend: T train rows and H held-out rows of one CAV (padded: label 0), d numbers each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from vtcav_ray.cavs.gram_matrix import Gram
from vtcav_ray.cavs.solvers import Solution

# Share of the length that w would have if its summands did not cancel. Below it, float32 has too few digits for w.
CANCELLED = 1e-4


def by_rows(
    gram: Gram,
    train_T: torch.Tensor,
    tested_H: torch.Tensor,
    labels_T: torch.Tensor,
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    solve: Callable[[torch.Tensor, torch.Tensor], Solution],
    raw: bool,
    constant: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute one CAV from its rows, where the Gram matrix lacks precision. Costs n^2 d at most.

    Args:
        gram: of the pool. If it is float32, it has also lost what the solver needs, and the CAV is solved again.
        train_T, tested_H: rows of the pool.
        labels_T: +1, -1, and 0 on padding.
        found: coefficients [T], bias and converged, as solved in the Gram matrix.
        solve: (kernel [1, T, T], labels [1, T]) -> solution.
        raw, constant: whether the kernel uses raw rows, and the constant that it adds to their inner products.

    Returns:
        Coefficients [T], the bias for raw rows, the length of w, decision values [T + H], converged.
    """
    rows = torch.cat((train_T, tested_H)).cpu().numpy()
    mean_D = np.zeros_like(gram.mean_D) if raw else gram.mean_D
    z_RD = torch.from_numpy(gram.pool_ND[rows].astype(np.float64) - mean_D)
    present_T = labels_T.abs().cpu()
    z_TD = z_RD[: len(train_T)] * present_T[:, None]
    a_T, bias, converged = (one.cpu() for one in found)
    if gram.inner_NN.dtype != torch.float64:
        kernel = z_TD @ z_TD.T + constant * present_T[:, None] * present_T
        anew = solve(kernel[None], labels_T.cpu()[None])
        a_T, bias, converged = anew.coefficients_MT[0], anew.bias_M[0], anew.converged_M[0]
    w_D = z_TD.T @ a_T
    bias = bias + constant * a_T.sum()  # the constant feature's weight
    decision = z_RD @ w_D + bias
    return a_T, bias - w_D @ torch.from_numpy(mean_D), torch.linalg.vector_norm(w_D), decision, converged
