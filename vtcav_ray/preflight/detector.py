"""Check the detector: read its weights on the CPU, and compare its classes with the concepts' objects."""

from __future__ import annotations

from collections.abc import Sequence

from vtcav_ray.config import Config
from vtcav_ray.errors import VtcavError
from vtcav_ray.preflight.checks import Check, listed
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.tracks.sources import BUILT_IN


def detector_checks(config: Config) -> list[Check]:
    """Check that the detector loads, that `tracks.classes` exist, and that concepts name objects that it finds.

    Other sources of tracks, and engines (which run on a GPU only), are not loaded.
    """
    settings = config.tracks
    if settings.source not in (None, BUILT_IN):
        return [Check("detector", "ok", f"tracks come from `{settings.source}`, which is not checked")]
    if settings.weights.lower().endswith(".engine"):
        return [Check("detector", "ok", f"{settings.weights} needs a GPU, and is not loaded here")]
    from vtcav_ray.tracks.detect import Detector

    try:
        detector = Detector(settings, "cpu")
    except VtcavError as error:
        return [Check.of("detector", error)]
    names = list(detector.names.values())
    return [
        Check("detector", "ok", f"{settings.weights}: {len(names):,} classes: {listed(names)}"),
        *object_checks(config, names),
    ]


def object_checks(config: Config, names: Sequence[str]) -> list[Check]:
    """Compare the concepts' objects with what the detector can find. They must be spelled alike.

    Args:
        names: the detector's classes.

    Returns:
        A `warn` for each concept that can't be found; a `stop` if none can.
    """
    concepts = config.clips.tracked
    if not concepts:
        return []
    kept = config.tracks.classes
    wrong: list[tuple[str, str]] = []
    for concept in concepts:
        if concept.object is None:
            continue
        if concept.object not in names:
            wrong.append((concept.name, _unknown(concept.object, names)))
        elif kept is not None and concept.object not in kept:
            wrong.append(
                (
                    concept.name,
                    f"`tracks.classes` drops {concept.object!r}. Add it there, or set tracks.classes to null",
                )
            )
    if not wrong:
        return [Check("concepts", "ok", f"{len(concepts)} concepts: the detector finds all their objects")]
    if len(wrong) < len(concepts):
        return [Check("concepts", "warn", f"Concept {name!r} will have no clip: {why}.") for name, why in wrong]
    reasons = "; ".join(f"{name!r}: {why}" for name, why in wrong)
    return [Check("concepts", "stop", f"No concept can have a clip. {reasons}. Change clips.concepts.")]


def _unknown(name: str, names: Sequence[str]) -> str:
    index = NameIndex(names)
    near = index.spelling(name) or index.nearest(name)
    if near is not None:
        return f"the detector has no class {name!r}; write `object: {near}`"
    return f"the detector has no class {name!r}; it has: {listed(names)}"
