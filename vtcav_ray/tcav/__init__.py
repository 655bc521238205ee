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
    from vtcav_ray.tcav.family import EffectFamily, effect_family, paired_effect_family
    from vtcav_ray.tcav.intervals import score_intervals
    from vtcav_ray.tcav.min_effect import Calls, calls, class_margin
    from vtcav_ray.tcav.responses import paired_response_effect, response_effect
    from vtcav_ray.tcav.scores import Scores, score
    from vtcav_ray.tcav.significance import (
        ScoreTest,
        adjust,
        empirical_test,
        holm_over_families,
        minimum_p,
        null_pairs,
        paper_test,
        resolution_warning,
        round_robin_test,
        welch_test,
    )
    from vtcav_ray.tcav.westfall_young import StepDown, step_down

__all__ = [
    "Calls",
    "ConceptEffect",
    "ConceptEffects",
    "EffectFamily",
    "Learnable",
    "Needed",
    "ScoreTest",
    "Scores",
    "StepDown",
    "adjust",
    "calls",
    "class_margin",
    "collinearity",
    "concept_effect",
    "concept_effects",
    "effect_family",
    "empirical_test",
    "entanglement",
    "holm_over_families",
    "is_degenerate",
    "learnability",
    "mean_pairwise_cosine",
    "minimum_p",
    "needed",
    "null_pairs",
    "paired_concept_effect",
    "paired_concept_effects",
    "paired_effect_family",
    "paired_response_effect",
    "paper_test",
    "resolution_warning",
    "response_effect",
    "round_robin_test",
    "score",
    "score_intervals",
    "stability",
    "step_down",
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
        "family": ["EffectFamily", "effect_family", "paired_effect_family"],
        "intervals": ["score_intervals"],
        "min_effect": ["Calls", "calls", "class_margin"],
        "responses": ["paired_response_effect", "response_effect"],
        "scores": ["Scores", "score"],
        "significance": [
            "ScoreTest",
            "adjust",
            "empirical_test",
            "holm_over_families",
            "minimum_p",
            "null_pairs",
            "paper_test",
            "resolution_warning",
            "round_robin_test",
            "welch_test",
        ],
        "westfall_young": ["StepDown", "step_down"],
    },
)
