"""The number of a class that is differentiated, from the logits."""

from __future__ import annotations

from typing import Literal

import torch

Target = Literal["logit", "log_odds", "log_probability"]


def target_values(logits: torch.Tensor, classes: torch.Tensor, target: Target) -> torch.Tensor:
    """Compute the target of each clip.

    Args:
        logits: `[B, K]`.
        classes: int `[B]`, the class of each clip.
        target: `logit`: h_k; `log_probability`: log p_k; `log_odds`: log(p_k / (1 - p_k)).

    Returns:
        `[B]`, in logits (nats).
    """
    chosen = logits.gather(1, classes[:, None])[:, 0]
    if target == "logit":
        return chosen
    if target == "log_probability":
        return chosen - logits.logsumexp(1)
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return chosen - others.logsumexp(1)
