"""Activations and gradients of a recogniser's layers, projected to vectors. `Extractor` is the door."""

from __future__ import annotations

from vtcav_ray.activations.extract import Extraction, Extractor, NonFinite
from vtcav_ray.activations.intervene import intervene
from vtcav_ray.activations.projections import Projection, make_projection

__all__ = ["Extraction", "Extractor", "NonFinite", "Projection", "intervene", "make_projection"]
