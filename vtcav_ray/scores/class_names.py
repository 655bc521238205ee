"""The classes of a layer's result cells."""

from __future__ import annotations

import pyarrow as pa

from vtcav_ray.clips.classes import same_class


def classes_with_gradients(gradients: pa.Table, clips: pa.Table) -> list[str]:
    """Return the classes that have a gradient at one of their own clips, in alphabetical order.

    Args:
        gradients: `clip_id` and `class` of the layer's rows of `gradients`.
        clips: `clip_id` and `name` of its rows of `activations`.
    """
    own = dict(zip(clips["clip_id"].to_pylist(), clips["name"].to_pylist(), strict=True))
    pairs = zip(gradients["class"].to_pylist(), gradients["clip_id"].to_pylist(), strict=True)
    return sorted({name for name, clip in pairs if clip in own and same_class(own[clip], name)})
