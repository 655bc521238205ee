"""TCAV scores, concept effects and their statistics, from stored gradients and activations. Runs no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.lazy import lazy_names

if TYPE_CHECKING:
    from vtcav_ray.tcav.diagnostics import (
        Learnable,
        Needed,
        collinearity,
        entanglement,
        is_degenerate,
        learnability,
        mean_pairwise_cosine,
        needed,
        stability,
    )
    from vtcav_ray.tcav.effect import (
        ConceptEffect,
        ConceptEffects,
        concept_effect,
        concept_effects,
        paired_concept_effect,
        paired_concept_effects,
    )
    from vtcav_ray.tcav.intervals import score_intervals
    from vtcav_ray.tcav.scores import Scores, score
    from vtcav_ray.tcav.significance import (
        ScoreTest,
        adjust,
        empirical_test,
        minimum_p,
        null_pairs,
        paper_test,
        resolution_warning,
        round_robin_test,
        welch_test,
    )

__all__ = [
    "ConceptEffect",
    "ConceptEffects",
    "Learnable",
    "Needed",
    "ScoreTest",
    "Scores",
    "adjust",
    "collinearity",
    "concept_effect",
    "concept_effects",
    "empirical_test",
    "entanglement",
    "is_degenerate",
    "learnability",
    "mean_pairwise_cosine",
    "minimum_p",
    "needed",
    "null_pairs",
    "paired_concept_effect",
    "paired_concept_effects",
    "paper_test",
    "resolution_warning",
    "round_robin_test",
    "score",
    "score_intervals",
    "stability",
    "welch_test",
]

__getattr__ = lazy_names(
    __name__,
    {
        "diagnostics": [
            "Learnable",
            "Needed",
            "collinearity",
            "entanglement",
            "is_degenerate",
            "learnability",
            "mean_pairwise_cosine",
            "needed",
            "stability",
        ],
        "effect": [
            "ConceptEffect",
            "ConceptEffects",
            "concept_effect",
            "concept_effects",
            "paired_concept_effect",
            "paired_concept_effects",
        ],
        "intervals": ["score_intervals"],
        "scores": ["Scores", "score"],
        "significance": [
            "ScoreTest",
            "adjust",
            "empirical_test",
            "minimum_p",
            "null_pairs",
            "paper_test",
            "resolution_warning",
            "round_robin_test",
            "welch_test",
        ],
    },
)
