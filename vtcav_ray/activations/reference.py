"""The reference set: class examples of all classes, at which the gradient of every class is taken.

At its own examples a class's logit is often saturated: the gradient there says little about, and may have the opposite
sign of, what happens to the logit at other clips. The concept effect therefore takes a class's mean gradient at clips
spread evenly over the classes (`scores.gradients_at: reference`). The permutation test stays exact, since class
examples are never among concept or random clips.

The cost: one forward pass for each reference clip, which its own gradient needs anyway, and one backward pass for each
reference clip and class. With the default size, a class has as many backward passes here as at its own examples.
"""

from __future__ import annotations

from collections.abc import Mapping

from vtcav_ray.clips.classes import draw


def reference_videos(class_of: Mapping[str, str], size: int, seed: int) -> set[str]:
    """Draw the source videos of the reference set, class by class in turn.

    Every class has either q or q + 1 of them while it has that many videos. A video's place depends only on the seed,
    its id and its class, so that more videos change few places.

    Args:
        class_of: video id -> class, of every class example.
        size: number of videos to draw; all, if there are fewer.
        seed: of the run.
    """
    turns: list[tuple[int, float, str]] = []
    videos_of: dict[str, list[tuple[float, str]]] = {}
    for video, name in class_of.items():
        videos_of.setdefault(name, []).append((draw(seed, "reference", video), video))
    for videos in videos_of.values():
        turns += [(turn, place, video) for turn, (place, video) in enumerate(sorted(videos))]
    return {video for _, _, video in sorted(turns)[:size]}


def reference_classes(class_of: Mapping[str, str], size: int, seed: int) -> dict[str, list[str]]:
    """Map each video of the reference set to all classes, in alphabetical order. See `reference_videos`."""
    return dict.fromkeys(reference_videos(class_of, size, seed), sorted(set(class_of.values())))
