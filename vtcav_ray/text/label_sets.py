"""Several labels of one video, in one text: sorted, with `; ` between them, as `drinking; sitting`.

Two videos with the same labels have equal texts, so the text is also the stratum of a video.
"""

from __future__ import annotations

from collections.abc import Iterable

from vtcav_ray.text.name_lists import NameIndex, same_name

SEPARATOR = ";"


def join_labels(labels: Iterable[str | None]) -> str | None:
    """Return the text of a set of labels; None if there is none. Empty labels and repeats are dropped."""
    found = {one for label in labels if label and (one := label.strip())}
    return f"{SEPARATOR} ".join(sorted(found)) or None


def split_labels(label: str | None, known: NameIndex | None = None) -> tuple[str, ...]:
    """Return the labels of a text, sorted.

    Args:
        label: one label, or several as `join_labels` writes them; None: no label.
        known: the model's classes. A text that names one of them is one label, whatever it contains.
    """
    if not label:
        return ()
    if SEPARATOR not in label or (known is not None and label in known):
        return (label,)
    return tuple(sorted({part.strip() for part in label.split(SEPARATOR)} - {""}))


def has_label(label: str | None, name: str) -> bool:
    """Return whether a text of labels contains a name, in any spelling."""
    return label is not None and (same_name(label, name) or any(same_name(one, name) for one in split_labels(label)))
