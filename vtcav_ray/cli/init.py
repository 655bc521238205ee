"""`vtcav init`: write a config, with what is found in the folder of videos."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rich.console import Console

from vtcav_ray.cli.terminal import printable
from vtcav_ray.config.clips import STILL
from vtcav_ray.config.template import OwnConcepts, write_config

PLACEHOLDER = "s3://bucket/videos"
FRAMES, INTERVAL, PER_CLASS, MIN_PER_CLASS = 32, 2, 30, 5  # of the template
NO_CLASS = (
    "The model has none of these classes, so a run could score nothing. Name a model that was trained on them: set "
    "`model.config`, `model.checkpoint` and `model.labels` (a file with one class name per line, in the order of its "
    "logits) in {path}, or give --model and --checkpoint. Or rename the folders to the model's classes."
)
LEAST = 2  # videos of a class without which it is not explained


@dataclass(frozen=True)
class Wanted:
    """The options of `vtcav init`.

    `videos` None: a placeholder is written, and nothing is looked at. `concepts` None: concepts are found in tracks.
    """

    file: str
    videos: str | None
    weights: str
    model: str
    checkpoint: str
    out: str | None
    force: bool
    concepts: str | None = None


def write_and_print(wanted: Wanted, console: Console) -> None:
    """Write the config. Print what was found, the labels that the model does not have, and what to do next.

    Raises:
        ConfigError: the file exists already, or there is no video.
    """
    sentences: list[str] = []
    interval, per_class, least = INTERVAL, PER_CLASS, MIN_PER_CLASS
    found = None
    if wanted.videos is not None:
        from vtcav_ray.planning.survey import survey

        found = survey(wanted.videos)
        sentences = found.sentences
        interval = found.interval(FRAMES, INTERVAL)
        largest = max((n for label, n in found.labels.items() if label), default=0)
        least = max(LEAST, min(MIN_PER_CLASS, largest))
        # Class examples may not take the videos that concepts and random sets need.
        per_class = max(least, min(PER_CLASS, largest // 2))
    own = own_concepts(wanted.concepts) if wanted.concepts is not None else None
    sentences += own.sentences if own is not None else []
    path = write_config(
        wanted.file,
        videos=wanted.videos or PLACEHOLDER,
        weights=wanted.weights,
        model_config=wanted.model,
        checkpoint=wanted.checkpoint,
        out=wanted.out,
        force=wanted.force,
        found=sentences,
        interval=interval,
        per_class=per_class,
        min_per_class=least,
        concepts=own,
    )
    for sentence in sentences:
        console.print(printable(sentence), soft_wrap=True, highlight=False)
    if found is not None:
        from vtcav_ray.config.loading import load_config
        from vtcav_ray.planning.survey import matched_labels

        rows = matched_labels(found, load_config(str(path)))
        for row in rows:
            if row.match is None:
                console.print(f"  {printable(row.sentence)}", soft_wrap=True, highlight=False)
        if rows and all(row.match is None for row in rows):
            console.print(NO_CLASS.format(path=path), soft_wrap=True, highlight=False)
    console.print(f"{path} is written. Review it, then: vtcav run {path} --dry-run", soft_wrap=True, highlight=False)


def own_concepts(folder: str) -> OwnConcepts:
    """Look at a folder of concept folders.

    Raises:
        ConfigError: it does not exist, or has no folder of clips or images.
    """
    from vtcav_ray.config.loading import parse_config
    from vtcav_ray.store.folder import Folder
    from vtcav_ray.tables import VIDEOS
    from vtcav_ray.videos.given import list_given

    config = parse_config({"videos": {"uri": PLACEHOLDER}, "clips": {"concepts": {"from": folder}}}, where="--concepts")
    found = list_given(config, VIDEOS.empty_table(), Folder("."))
    counts: Counter[tuple[str, str]] = Counter()
    random = 0
    for row in found.rows:
        if row["negative"]:
            random += 1
        else:
            counts[row["concept"], "images" if row["kind"] == STILL else "clips"] += 1
    shown = ", ".join(f"{name} {count} {what}" for (name, what), count in sorted(counts.items()))
    matched = (
        f"{random:,} random clips or images" if random else "no folder `random`: they are compared with the corpus"
    )
    return OwnConcepts(folder, min(counts.values()), (f"own clips: {shown}; {matched}", *found.warnings))
