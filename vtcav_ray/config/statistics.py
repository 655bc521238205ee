"""The sections `cavs` and `scores`: concept activation vectors, tests and intervals."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vtcav_ray.config.section import ConfigSection
from vtcav_ray.registry import SOLVERS

Solver = Annotated[str, AfterValidator(SOLVERS.check)]  # also those that other packages register


class CavsConfig(ConfigSection):
    """Concept activation vectors: R for each concept and layer, one per random set."""

    solver: Solver = "logistic"
    regularization: Annotated[float, Field(gt=0)] | None = Field(None, description="null: the solver's own default")
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.33
    random_sets: Annotated[int, Field(ge=1)] = Field(50, description="R")
    relative: tuple[Literal["groups", "pairs"], ...] = Field(
        ("groups", "pairs"), description="a concept against the others of its kind; moving against still and controls"
    )


class ScoresConfig(ConfigSection):
    """Statistics. Changing them runs no model."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    correction: Literal["step_down", "holm", "bh", "none"] = Field(
        "step_down",
        description="step_down: within a concept, the classes and layers share the permutations (Westfall and Young), "
        "then Holm over the concepts; holm: over all comparisons one by one; bh: false discovery rate",
    )
    effect: Literal["first_order", "patch"] = Field(
        "first_order",
        description="first_order: along the gradient, without running the model; patch: the real change of the target "
        "when concept clips' activations replace those of the reference clips, for pool x reference x layers passes",
    )
    min_effect: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.05,
        description="smallest effect of interest, share of the class's margin (root mean square distance of the other "
        "classes' clips from its own, measured as the effect is); an effect is called only if its interval lies "
        "beyond, and 'no effect' is said only if it lies inside; 0: off",
    )
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    permutations: Annotated[int, Field(ge=100)] = 100_000
    gradients_at: Literal["reference", "own", "all"] = Field(
        "reference",
        description="where the concept effect takes a class's mean gradient: at the reference set (examples spread "
        "evenly over the classes), at the class's own examples, or at all examples that have one "
        "(activations.classes: listed or top-k)",
    )

    @property
    def per_cell_correction(self) -> Literal["holm", "bh", "none"]:
        """The correction of tests that do not share permutations."""
        return "holm" if self.correction == "step_down" else self.correction
