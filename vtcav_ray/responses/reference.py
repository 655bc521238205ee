"""The reference clips, into which pool clips are put: which they are, and where their frames are."""

from __future__ import annotations

import pyarrow as pa

from vtcav_ray.activations.reference import reference_videos
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.store.commits import StageFolder

NO_REFERENCE = (
    "The run has no reference set, into which concepts could be patched: its clips of all classes failed, were left "
    "out, or activations.reference is 0. Run it again with activations.reference of at least 1."
)
REFERENCE_COLUMN = (
    "The run's activations are of an older version, without a reference set. Run it again, then patch it."
)


def read_reference(activations: StageFolder, layer: str, limit: int | None, seed: int) -> pa.Table:
    """Return the rows of `gradients` at the reference clips of a layer.

    Args:
        limit: maximum number of source videos, spread evenly over the classes; None: all.
        seed: of the run.

    Raises:
        ConfigError: the run has no reference set.
    """
    table = activations.read("gradients", layer=layer)
    if table is None:
        raise ConfigError(NO_REFERENCE)
    if "reference" not in table.column_names:
        raise ConfigError(REFERENCE_COLUMN)
    table = table.filter(table["reference"])
    if not table.num_rows:
        raise ConfigError(NO_REFERENCE)
    if limit is None:
        return table
    own = activations.read("activations", columns=("video_id", "set", "name"), layer=layer)
    assert own is not None, "there are gradients of this layer"
    names = zip(own["video_id"].to_pylist(), own["set"].to_pylist(), own["name"].to_pylist(), strict=True)
    there = set(table["video_id"].to_pylist())
    kept = reference_videos({v: name for v, set_, name in names if set_ == "class" and v in there}, limit, seed)
    return table.filter(pa.array([video in kept for video in table["video_id"].to_pylist()], pa.bool_()))


def clip_shards(clips: StageFolder, wanted: set[str]) -> dict[str, list[str]]:
    """Return shard of the table `clips` -> those of its clips that are wanted, sorted.

    Raises:
        StageError: a clip is in no shard.
    """
    found: dict[str, list[str]] = {}
    for shard, part in clips.iter_tables("clips", columns=["clip_id"]):
        if here := sorted(wanted & set(part["clip_id"].to_pylist())):
            found[shard] = here
    if missing := sorted(wanted - {clip for here in found.values() for clip in here}):
        raise StageError(f"The reference clip {missing[0]} is not in the table `clips`. Run the pipeline again.")
    return found
