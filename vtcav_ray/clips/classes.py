"""Which classes are explained, and which videos are their examples; comparison of class names."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from vtcav_ray.config import ClipsConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.text.counted import are
from vtcav_ray.text.label_sets import join_labels, split_labels
from vtcav_ray.text.name_lists import NameIndex, same_name, without_nearest

_SHARE = 0.4  # maximum share of the videos used as class examples
_FEW = 2
_NUMBER = re.compile(r"\d{1,9}")


@dataclass(frozen=True)
class ClassPlan:
    """Class examples.

    Attributes:
        examples: class -> video ids, in the order in which they were drawn.
        label_of: video id -> its labels (`vtcav_ray.text.label_sets`), in the model's spelling if the model has the
            class; videos without a label are absent.
        warnings: sentences for the user.
        turn_of: video id -> the one of its labels for which it counts wherever classes take turns.
    """

    examples: dict[str, list[str]]
    label_of: dict[str, str]
    warnings: list[str]
    turn_of: dict[str, str]


def same_class(label: str, other: str) -> bool:
    """Compare two labels. If only the checkpoint knows the classes, clips have the spelling of their folder or list."""
    return same_name(label, other)


def draw(seed: int, *what: object) -> float:
    """Return a number in [0, 1) that depends only on the seed and `what`."""
    text = "\x1f".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2.0**64


def plan_classes(
    videos: Sequence[tuple[str, str, str | None]],
    config: ClipsConfig,
    seed: int,
    recogniser_classes: Sequence[str] | None,
    corpus_videos: int | None = None,
) -> ClassPlan:
    """Draw the class examples at random from the usable videos (video_id, uri, label), without looking at content.

    A label that the model does not have is not an error: such videos still give concept and random clips. A video with
    several labels may be an example of each of them, but of one only: it goes to the class with the fewest videos.

    Class examples take a limited share of `corpus_videos`; None: of these videos.

    Raises:
        ConfigError: `clips.classes` names a class that the model does not have.
    """
    warnings: list[str] = []
    known = NameIndex(recogniser_classes) if recogniser_classes else None
    label_of = labels_of({v: label for v, _, label in videos if label}, known, warnings)
    labels = {video_id: split_labels(label, known) for video_id, label in label_of.items()}
    having: dict[str, list[str]] = defaultdict(list)
    for video_id, some in labels.items():
        for label in some:
            having[label].append(video_id)
    wanted = _wanted(having, config, known, warnings)
    turn_of = _one_label(labels, having, wanted, config.min_per_class, seed)
    by_class: dict[str, list[str]] = defaultdict(list)
    for video_id, label in turn_of.items():
        by_class[label].append(video_id)
    classes = _with_enough_videos(wanted, by_class, config, warnings)
    share_of = len(videos) if corpus_videos is None else corpus_videos
    classes, most = _share_of_videos(classes, by_class, config, share_of, warnings)
    examples = {}
    for name in classes:
        drawn = sorted(by_class[name], key=lambda v: (draw(seed, "class", v), v))
        examples[name] = drawn[:most]
    short = [c for c in classes if len(examples[c]) < config.per_class]
    if short:
        fewest = min(len(examples[c]) for c in short)
        warnings.append(
            f"{len(short)} of {len(classes)} classes have fewer examples than the {config.per_class} wanted "
            f"(the fewest: {fewest}); {len(videos)} videos have to serve classes, concepts and random sets."
        )
    return ClassPlan(examples, label_of, warnings, turn_of)


def _one_label(
    labels: Mapping[str, Sequence[str]], having: Mapping[str, Sequence[str]], wanted: list[str], least: int, seed: int
) -> dict[str, str]:
    """Return one label for each video: of several, the explained class that has the fewest videos so far.

    A source video serves one class only, so that no video is on two sides of a comparison of classes.

    Args:
        labels: video id -> its labels.
        having: label -> videos that have it.
        wanted: the classes to explain.
        least: `clips.min_per_class`. Classes that can't reach it leave their videos to the others.
    """
    found = {video_id: some[0] for video_id, some in labels.items() if len(some) == 1}
    several = [video_id for video_id, some in labels.items() if len(some) > 1]
    if not several:
        return found
    large = {name for name in wanted if len(having.get(name, ())) >= least} or set(wanted)
    counts = Counter(found.values())
    order = sorted(several, key=lambda v: (sum(name in large for name in labels[v]), draw(seed, "label", v), v))
    for video_id in order:
        possible = [name for name in labels[video_id] if name in large] or labels[video_id]
        found[video_id] = min(possible, key=lambda name: (counts[name], len(having[name]), name))
        counts[found[video_id]] += 1
    return {video_id: found[video_id] for video_id in labels}


def _wanted(
    by_class: Mapping[str, Sequence[str]], config: ClipsConfig, known: NameIndex | None, warnings: list[str]
) -> list[str]:
    """Return the classes of the config, or else those of the videos that the model has too."""
    if config.classes is not None:
        return [_known(name, known) for name in config.classes]
    wanted = sorted(c for c in by_class if known is None or c in known.names)
    unknown = sorted(set(by_class) - set(wanted))
    if unknown and known is not None:
        shown = without_nearest(unknown, known)
        count = sum(len(by_class[c]) for c in unknown)
        warnings.append(
            f"The model has no class for {len(unknown)} labels ({shown}): their {count} videos give concept and "
            "random clips, and no class examples."
        )
    return wanted


def _with_enough_videos(
    wanted: list[str], by_class: Mapping[str, Sequence[str]], config: ClipsConfig, warnings: list[str]
) -> list[str]:
    """Leave out classes with too few videos. If no class has enough, return those with at least a few."""
    num_videos = {c: len(by_class.get(c, ())) for c in wanted}
    enough = [c for c in wanted if num_videos[c] >= config.min_per_class]
    left_out = [c for c in wanted if c not in enough]
    if not enough:
        enough = [c for c in wanted if num_videos[c] >= _FEW]
        if enough:
            warnings.append(
                f"No class has {config.min_per_class} videos (clips.min_per_class). The {len(enough)} with at least "
                f"{_FEW} are kept so that there is something to see; their figures will be weak."
            )
        else:
            warnings.append("No class can be explained: no label that the model knows has two videos.")
    elif config.classes is not None:
        warnings += [
            f"Class {c!r} is left out: it has {num_videos[c]} videos, {config.min_per_class} are needed."
            for c in left_out
        ]
    elif left_out:
        some = are(len(left_out), "class", "classes")
        warnings.append(f"{some} left out for fewer than {config.min_per_class} videos.")
    return enough


def _share_of_videos(
    classes: list[str],
    by_class: Mapping[str, Sequence[str]],
    config: ClipsConfig,
    num_videos: int,
    warnings: list[str],
) -> tuple[list[str], int]:
    """Limit class examples to their share of all videos: the classes, and the maximum number of examples of each."""
    most = config.per_class
    if sum(min(len(by_class[c]), most) for c in classes) <= _SHARE * num_videos:
        return classes, most
    floor = config.min_per_class if len(classes) * config.min_per_class <= num_videos / 2 else _FEW
    room = max(int(_SHARE * num_videos / floor), 1)
    if floor == _FEW and room < len(classes):  # very few videos: use fewer classes, so that concepts get some
        classes = sorted(sorted(classes, key=lambda c: (-len(by_class[c]), c))[:room])
        warnings.append(f"With {num_videos} videos, only {len(classes)} classes can have examples.")
    return classes, min(most, max(int(_SHARE * num_videos / len(classes)), floor))


def labels_of(given: Mapping[str, str], known: NameIndex | None, warnings: list[str]) -> dict[str, str]:
    """Return video id -> label in the model's spelling. Labels that are all numbers are the places of the classes.

    Args:
        given: video id -> labels (`vtcav_ray.text.label_sets`).
        known: the model's classes; None: only the checkpoint has them.
        warnings: gets a sentence if the labels are numbers.
    """
    if known is None:
        return dict(given)
    labels = {label for text in set(given.values()) for label in split_labels(text, known)}
    spelling = {label: known.spelling(label) for label in labels}
    if spelling and not any(spelling.values()) and all(_NUMBER.fullmatch(label) for label in spelling):
        numbers = {label: int(label) for label in spelling}
        # Lists of MMAction2 begin at 0. Only a list without 0 and with the number of classes begins at 1.
        first = 1 if min(numbers.values()) > 0 and max(numbers.values()) == len(known.names) else 0
        if max(numbers.values()) - first < len(known.names):
            spelling = {label: known.names[number - first] for label, number in numbers.items()}
            warnings.append(
                f"The labels are numbers. They are read as places in the model's list of classes, from {first}: "
                f"{first} is {known.names[0]!r}."
            )
    spelled = {
        text: join_labels(spelling[label] or label for label in split_labels(text, known)) or text
        for text in set(given.values())
    }
    return {video_id: spelled[text] for video_id, text in given.items()}


def _known(name: str, known: NameIndex | None) -> str:
    if known is None:
        return name
    if (spelling := known.spelling(name)) is not None:
        return spelling
    near = known.nearest(name)
    hint = f"Did you mean {near!r}?" if near is not None else f"It has {len(known.names)} classes."
    raise ConfigError(f"`clips.classes`: the model has no class {name!r}. {hint}")


def in_turn(priority: Mapping[str, float], label_of: Mapping[str, str]) -> list[str]:
    """Return videos by priority, one of each label in turn.

    Within a turn they stay in the order of priority. In the order of labels, a set that is smaller than the number of
    labels would hold only those that come first in the alphabet.
    """
    turns: Counter[str] = Counter()
    rounds: list[list[str]] = []
    for _, video_id in sorted(zip(priority.values(), priority, strict=True)):
        label = label_of.get(video_id) or ""
        if turns[label] == len(rounds):
            rounds.append([])
        rounds[turns[label]].append(video_id)
        turns[label] += 1
    return list(chain(*rounds))
