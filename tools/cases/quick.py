"""What `--quick` uses in place of all clips and of the configs' numbers: a case in minutes, without any meaning."""

from __future__ import annotations

from pathlib import Path

from tools.recognisers.clips import list_clips

SETTINGS = (
    "clips.per_class=3",
    "clips.min_per_class=1",
    "clips.per_concept=4",
    "clips.min_per_concept=2",
    "clips.random_pool=10",
    "cavs.random_sets=4",
    "scores.permutations=200",
    "scores.bootstrap=100",
)


def few_clips(videos: Path, folder: Path, each: int, classes: tuple[str, ...] = ()) -> Path:
    """Link the first clips of each class, spread evenly over its list, into a folder. Returns the folder.

    Args:
        videos: a folder per class.
        folder: of the links; existing ones are kept.
        each: clips of a class, at most.
        classes: names; empty: all.
    """
    by_class: dict[str, list[str]] = {}
    for clip in list_clips(videos):
        by_class.setdefault(clip.label, []).append(clip.uri)
    for label, uris in by_class.items():
        if classes and label not in classes:
            continue
        for uri in uris[:: max(len(uris) // each, 1)][:each]:
            target = folder / uri
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_symlink():
                target.symlink_to((videos / uri).resolve())
    return folder
