"""Comparison of class names: folders and configs may spell them differently from the model."""

from __future__ import annotations


def normal_label(label: str) -> str:
    """Normalise a label for comparison: `arm_wrestling`, `Arm-Wrestling` and `arm wrestling` become equal."""
    return " ".join(label.replace("_", " ").replace("-", " ").casefold().split())


def same_class(label: str, other: str) -> bool:
    """Compare two labels. If only the checkpoint knows the classes, clips have the spelling of their folder or list."""
    return normal_label(label) == normal_label(other)
