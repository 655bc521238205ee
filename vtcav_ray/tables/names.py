"""Names of columns: the key of a cell, and names of older versions."""

from __future__ import annotations

CELL_KEY = ("class", "layer", "concept", "against")  # identifies a cell
EFFECT = ("effect", "ci_low", "ci_high")  # a cell's effect with its interval
_RENAMED = {
    "effect_logits": "effect",
    "effect_ci_low": "ci_low",
    "effect_ci_high": "ci_high",
    "effect_null_sd": "null_sd",
    "effect_z": "z",
    "effect_p": "p",
    "effect_p_symmetric": "p_symmetric",
    "effect_q": "q",
    "score": "tcav_score",
    "null_mean": "tcav_null_mean",
    "magnitude": "tcav_magnitude",
    "smooth": "tcav_smooth",
}
# Table -> old column -> its name today. Old scores had other figures under `effect`, `ci_low`, `p`, `q` and `null_sd`.
RENAMED = {"scores": _RENAMED, "patch_effects": {"effect_logits": "effect"}}
# Table -> a column that older versions did not write: a stored table without it is old.
MARKER = {"scores": "tcav_score", "patch_effects": "effect", "gradients": "gain"}
