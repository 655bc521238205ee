"""How class names are compared: folders and configs spell them otherwise than the model does."""

from __future__ import annotations


def normal_label(label: str) -> str:
    """A label as it is compared: `arm_wrestling`, `Arm-Wrestling` and `arm wrestling` are one."""
    return " ".join(label.replace("_", " ").replace("-", " ").casefold().split())


def same_class(label: str, other: str) -> bool:
    """A clip has the spelling of its folder or list, where only the checkpoint knows the model's."""
    return normal_label(label) == normal_label(other)
