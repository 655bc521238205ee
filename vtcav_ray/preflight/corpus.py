"""Check the videos by counts: labels against the model's classes, and enough videos for every set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from vtcav_ray.clips.classes import ClassPlan, labels_of, plan_classes
from vtcav_ray.clips.corpus import Corpus
from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError
from vtcav_ray.preflight.checks import Check, LabelRow, listed
from vtcav_ray.text.name_lists import NameIndex

FEW = 2  # source videos without which no concept and no random set is made
KINETICS = "asset:kinetics400.txt"
_HOW_TO_LABEL = (
    "Put the videos of each class in a folder with its name (VIDEOS/arm wrestling/a.mp4), or list them in a CSV with "
    "the columns video_id and label: --set videos.labels=FILE.csv"
)


def label_rows(labels: Sequence[str | None], classes: Sequence[str], described: Sequence[str] | None) -> list[LabelRow]:
    """Compare the videos' labels with the model's classes.

    Args:
        labels: of every video; one with several labels has several entries.
        classes: the model's, in the order of the logits.
        described: the classes that are known without the checkpoint; labels that are numbers are places among these.

    Returns:
        One row per label: those without a class first, then by number of videos.
    """
    index = NameIndex(classes)
    counts = Counter(label or None for label in labels)
    given = {label: label for label in counts if label is not None}
    spelled = labels_of(given, NameIndex(described) if described else None, [])
    rows = []
    for label, count in counts.items():
        match = None if label is None else index.spelling(spelled[label])
        nearest = index.nearest(label) if label is not None and match is None else None
        rows.append(LabelRow(label, count, match, nearest))
    return sorted(rows, key=lambda row: (row.match is not None, -row.videos, row.label or ""))


def corpus_checks(
    videos: pa.Table, config: Config, classes: Sequence[str], described: Sequence[str] | None
) -> tuple[list[Check], list[LabelRow]]:
    """Check that at least one class can be scored, from the labels and the number of videos alone.

    Args:
        videos: VIDEOS table; not empty.
        config: of the run.
        classes, described: as for `label_rows`.
    """
    corpus = Corpus.of(videos)
    rows = label_rows(corpus.labels(NameIndex(classes)), classes, described)
    wanted = _wanted_check(config, classes)
    checks = [*([] if wanted is None else [wanted]), _label_check(rows, classes)]
    if any(check.verdict == "stop" for check in checks):
        return checks, rows
    try:
        plan = plan_classes(corpus.listed, config.clips, config.seed, described)
    except ConfigError as error:
        return [*checks, Check.of("classes", error)], rows
    index = NameIndex(classes)
    scored = [name for name in plan.examples if name in index]
    checks.append(_class_check(plan, scored, config, rows))
    if scored:
        checks.append(_set_check(plan, config, corpus))
    return checks, rows


def _wanted_check(config: Config, classes: Sequence[str]) -> Check | None:
    """Return a row that stops the run if `clips.classes` names a class that the model does not have."""
    index = NameIndex(classes)
    unknown = [name for name in config.clips.classes or () if name not in index]
    if not unknown:
        return None
    words = []
    for name in unknown:
        near = index.nearest(name)
        words.append(f"the model has no class {name!r}{f', nearest {near!r}' if near is not None else ''}")
    return Check(
        "classes",
        "stop",
        f"`clips.classes`: {'; '.join(words)}. It has: {listed(classes)}. Change clips.classes, or leave it out to "
        "take every class that has enough videos.",
    )


def _label_check(rows: Sequence[LabelRow], classes: Sequence[str]) -> Check:
    named = [row for row in rows if row.label is not None]
    if not named:
        return Check("labels", "stop", f"No video has a label, so no class can be explained. {_HOW_TO_LABEL}")
    unknown = [row for row in named if row.match is None]
    without = sum(row.videos for row in rows if row.label is None)
    shown = listed([row.sentence for row in unknown], sep="; ")
    if len(unknown) == len(named):
        return Check(
            "labels",
            "stop",
            f"No label is a class of the model. {shown}. The model has {len(classes):,} classes: {listed(classes)}. "
            f"{_how_to_match(classes)}",
        )
    if unknown:
        return Check(
            "labels",
            "warn",
            f"{len(unknown)} of {len(named)} labels are not classes of the model: {shown}. Their videos give concept "
            "and random clips only. Rename these labels to explain their classes.",
        )
    if without:
        return Check("labels", "warn", f"{without:,} videos have no label. {_HOW_TO_LABEL}")
    return Check("labels", "ok", f"{len(named):,} labels, all of them classes of the model")


def _how_to_match(classes: Sequence[str]) -> str:
    file = KINETICS if len(classes) == 400 else "FILE.txt"
    if all(name.isdecimal() for name in classes):
        return (
            "The model has no names for its classes, only numbers. Give a file with one class name per line: --set "
            f"model.labels={file}"
        )
    return (
        "Rename the folders or the labels to the model's classes. If these names are not the model's own, give a file "
        f"with one class name per line: --set model.labels={file}"
    )


def _class_check(plan: ClassPlan, scored: Sequence[str], config: Config, rows: Sequence[LabelRow]) -> Check:
    least, wanted = config.clips.min_per_class, config.clips.per_class
    if not scored:
        most = max((row.videos for row in rows if row.match is not None), default=0)
        return Check(
            "classes",
            "stop",
            f"No class can be scored: the largest class has {most} video{'' if most == 1 else 's'}, and {FEW} are "
            f"needed (better {least}, clips.min_per_class). Add videos of the classes to explain.",
        )
    few = [name for name in scored if len(plan.examples[name]) < least]
    counts = listed([f"{name}: {len(plan.examples[name])}" for name in scored])
    if few:
        return Check(
            "classes",
            "warn",
            f"Few examples per class ({counts}); {least} are needed for a firm result (clips.min_per_class), {wanted} "
            "are wanted (clips.per_class). Add videos.",
        )
    return Check("classes", "ok", f"{len(scored)} classes have examples ({counts})")


def _set_check(plan: ClassPlan, config: Config, corpus: Corpus) -> Check:
    """Check what the class examples leave for concepts and random sets, as `vtcav_ray.clips.select` divides it."""
    clips, total = config.clips, len(corpus.examples)
    if not clips.need_tracks:
        return _rest_check(plan, corpus)
    examples = sum(len(ids) for ids in plan.examples.values())
    free = total - examples
    random = min(clips.random_pool, -(-free // 2))
    concepts = free - random
    split = (
        f"{total:,} {_what(corpus)}: {examples:,} class examples, {concepts:,} for concepts, {random:,} for random sets"
    )
    if min(concepts, random) < FEW:
        lacking = 2 * FEW - free
        return Check(
            "videos",
            "stop",
            f"{split}. Concepts and random sets need {FEW} each. Add {lacking} or more videos (of any label), or leave "
            f"some of the classes' videos to them: --set clips.per_class={max(FEW, clips.per_class // 2)}",
        )
    if concepts < clips.min_per_concept:
        return Check(
            "videos",
            "warn",
            f"{split}. A concept needs {clips.min_per_concept} source videos for a firm result "
            f"(clips.min_per_concept). Add {2 * (clips.min_per_concept - concepts)} or more videos, of any label.",
        )
    return Check("videos", "ok", split)


def _rest_check(plan: ClassPlan, corpus: Corpus) -> Check:
    """Check what the class examples leave for random sets, if all concepts are a person's own clips."""
    examples = sum(len(ids) for ids in plan.examples.values())
    total = len(corpus.examples)
    left = total - examples
    split = f"{total:,} {_what(corpus)}: {examples:,} class examples, {left:,} for random sets"
    if left < 2 * FEW:
        return Check(
            "videos",
            "warn",
            f"{split}. Concepts of own clips without random clips of their own can't be compared: give them "
            "`negatives`, or add videos.",
        )
    return Check("videos", "ok", split)


def _what(corpus: Corpus) -> str:
    return f"source videos with {corpus.segments:,} segments" if corpus.segments else "videos"
