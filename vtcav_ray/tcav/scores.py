"""TCAV scores of CAVs from stored gradients: one matrix product.

Every projection P that turns an activation a into a vector z = P a is linear, and a CAV w learnt from z is P^T w in the
activation's own space. The directional derivative of the class's logit h along it is therefore

    grad h · (P^T w) = (P grad h) · w

so it is enough to store P grad h once per (clip, layer, class). All concepts, random sets and reruns of the statistics
are products of these vectors with CAVs, and run no model.

Legend: N clips, V source videos, M CAVs, d numbers of a projected activation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vtcav_ray.tcav.arrays import check_gradients, check_width, video_means

ZERO_GRADIENTS = "the class's gradients are zero at this layer: nothing can be said of it"
NO_CAV = "the CAV could not be trained"

_BLOCK_NUMBERS = 1 << 22  # sensitivities held at a time


@dataclass(frozen=True)
class Scores:
    """Scores of one class at one layer, one for each of M CAVs. NaN if `reason` is not empty.

    Attributes:
        sign_count: the TCAV score: share of source videos with a positive sensitivity, in [0, 1]. Sensitivities of
            exactly 0 count as not positive, as in the paper and in Captum.
        magnitude: mean sensitivity, in logits per unit of z.
        smooth: mean over videos of sigmoid(sensitivity / scale), in (0, 1); does not jump if a sensitivity crosses 0.
        scale: of `smooth`, [M]: the median absolute sensitivity of this CAV over the videos (the lower of the
            middle two).
        reason: M strings, empty if there is no problem.
        sensitivities: [V, M] float32, if requested; videos in the order of their sorted labels.
    """

    sign_count: NDArray[np.float64]
    magnitude: NDArray[np.float64]
    smooth: NDArray[np.float64]
    scale: NDArray[np.float64]
    reason: tuple[str, ...]
    num_videos: int
    sensitivities: NDArray[np.float32] | None = None


def score(
    gradients: ArrayLike,
    cavs: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    sensitivities: bool = False,
    device: str | torch.device = "cpu",
) -> Scores:
    """Compute the TCAV scores of M CAVs for one class.

    Args:
        gradients: of the class's logit at its clips, projected, [N, d].
        cavs: unit vectors, [M, d] (`Cavs.vectors`). A row of NaN (an untrained CAV) gives NaN.
        groups: source video of each clip; its clips are averaged, and it counts once. None: every clip is a video.
        sensitivities: also return them, [V, M].
        device: where to multiply, such as `cuda`.

    Raises:
        ValueError: a class without clips, NaN or infinite gradients, shapes that do not fit.
    """
    gradients_ND = check_gradients(gradients)
    cavs_MD = np.asarray(cavs)
    if cavs_MD.ndim != 2 or len(cavs_MD) == 0:
        raise ValueError(f"cavs must be [M, d] with M of at least 1, and has shape {cavs_MD.shape}")
    check_width(cavs_MD, gradients_ND.shape[1], "cavs")
    videos_VD = video_means(gradients_ND, groups)
    is_zero = not videos_VD.any()
    num_videos, num_cavs = len(videos_VD), len(cavs_MD)
    left = torch.from_numpy(videos_VD.astype(np.float32)).to(device)
    columns = {name: np.empty(num_cavs) for name in ("sign_count", "magnitude", "smooth", "scale")}
    kept = np.empty((num_videos, num_cavs), dtype=np.float32) if sensitivities else None
    block = max(1, _BLOCK_NUMBERS // num_videos)
    for start in range(0, num_cavs, block):
        part = slice(start, start + block)
        # Vectors from a table are read-only, and PyTorch warns about that: copy them block by block.
        right = torch.from_numpy(np.require(cavs_MD[part], np.float32, ("C", "W"))).to(device)
        s_MV = right @ left.T
        if kept is not None:
            kept[:, part] = s_MV.T.cpu().numpy()
        for name, values in _statistics(s_MV).items():
            columns[name][part] = values.cpu().numpy()
    # NaN and infinity show in the products, so only those CAVs are checked one by one.
    missing_M = ~np.isfinite(columns["magnitude"])
    if not np.isnan(cavs_MD[missing_M]).all():
        raise ValueError("cavs has NaN or infinite values in some columns of a row; an untrained CAV is NaN in all")
    for column in columns.values():
        column[missing_M | is_zero] = np.nan
    reason = [ZERO_GRADIENTS if is_zero else ""] * num_cavs
    for at in np.flatnonzero(missing_M):
        reason[at] = NO_CAV
    return Scores(**columns, reason=tuple(reason), num_videos=num_videos, sensitivities=kept)


def _statistics(s_MV: torch.Tensor) -> dict[str, torch.Tensor]:
    size_MV = s_MV.abs()
    middle = (s_MV.shape[1] - 1) // 2  # the lower median, as in torch
    if s_MV.device.type == "cpu":  # NumPy's selection is six times as fast as torch's
        scale_M = torch.from_numpy(np.partition(size_MV.numpy(), middle, axis=1)[:, middle].copy())
    else:
        scale_M = size_MV.median(dim=1).values
    # If more than half of the sensitivities are exactly 0, use their mean magnitude, and 1 if all are 0.
    mean_M = size_MV.mean(dim=1)
    scale_M = torch.where(scale_M > 0, scale_M, torch.where(mean_M > 0, mean_M, 1.0))
    return {
        "sign_count": (s_MV > 0).float().mean(dim=1),
        "magnitude": s_MV.mean(dim=1),
        "smooth": torch.sigmoid(s_MV / scale_M[:, None]).mean(dim=1),
        "scale": scale_M,
    }
