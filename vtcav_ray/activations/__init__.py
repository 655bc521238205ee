"""Activations and gradients of a recogniser's layers, projected to vectors. Start with `Extractor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.lazy import lazy_names

if TYPE_CHECKING:
    from vtcav_ray.activations.extract import Extractor
    from vtcav_ray.activations.extraction import Extraction, NonFinite
    from vtcav_ray.activations.interventions import intervene
    from vtcav_ray.activations.projections import Projection, make_projection

__all__ = ["Extraction", "Extractor", "NonFinite", "Projection", "intervene", "make_projection"]

__getattr__ = lazy_names(
    __name__,
    {
        "extract": ["Extractor"],
        "extraction": ["Extraction", "NonFinite"],
        "interventions": ["intervene"],
        "projections": ["Projection", "make_projection"],
    },
)
