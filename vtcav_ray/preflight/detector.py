"""Check the detector: read its weights on the CPU, and compare its classes with the concepts' objects.

Tracks that exist already are listed; the stage `tracks` reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

from vtcav_ray.config import Config, TracksConfig
from vtcav_ray.errors import VtcavError
from vtcav_ray.preflight.checks import Check, listed
from vtcav_ray.registry import TRACK_SOURCES
from vtcav_ray.store.folder import Folder
from vtcav_ray.text.name_lists import NameIndex
from vtcav_ray.tracks.given_files import list_files, reader_of
from vtcav_ray.tracks.sources import BUILT_IN, Ultralytics

_BOXES = "Set clips.mask to false."


def detector_checks(config: Config, folder: Folder | None = None) -> list[Check]:
    """Check that the detector loads, that `tracks.classes` exist, and that concepts name objects that it finds.

    Other sources of tracks, and engines (which run on a GPU only), are not loaded.

    Args:
        config: of the run.
        folder: the run folder, to keep the vectors of `tracks.vocabulary`; None: keep nothing.
    """
    settings = config.tracks
    if settings.given:
        if config.clips.mask:
            return [Check("tracks", "stop", f"`clips.mask`: tracks from files have no masks. {_BOXES}")]
        return [_given_check(settings)]
    if settings.source not in (None, BUILT_IN):
        if config.clips.mask and not TRACK_SOURCES[settings.source].draws_masks:
            return [Check("detector", "stop", f"`clips.mask`: tracks from `{settings.source}` have no masks. {_BOXES}")]
        return [Check("detector", "ok", f"tracks come from `{settings.source}`, which is not checked")]
    if settings.weights.lower().endswith(".engine"):
        return [_engine_check(config)]
    from vtcav_ray.tracks.detect import Detector

    try:
        shared = Ultralytics.shared(config, folder)
        if settings.backend == "auto" and settings.weights.lower().endswith(".pt"):
            # Whatever it chooses has the same classes, and an export would take a second.
            settings = settings.model_copy(update={"backend": "pytorch"})
        detector = Detector(settings, "cpu", masks=config.clips.mask, **shared)
    except VtcavError as error:
        return [Check.of("detector", error)]
    names = list(detector.names.values())
    return [
        Check("detector", "ok", f"{settings.weights}: {len(names):,} classes: {listed(names)}"),
        *object_checks(config, names),
    ]


def _engine_check(config: Config) -> Check:
    """Check what an engine's header says. The engine itself is not loaded: it needs a GPU."""
    from vtcav_ray.tracks.backends import check_words
    from vtcav_ray.tracks.detector_files import read_bytes
    from vtcav_ray.tracks.engine_files import engine_export, engine_metadata

    settings = config.tracks
    if config.clips.mask:
        return Check("detector", "stop", f"`clips.mask`: {settings.weights} gives no masks here. {_BOXES}")
    try:
        check_words(settings)
        data = read_bytes(settings.weights, settings.storage_options)
        engine_export(engine_metadata(data, settings.weights), settings.weights)
    except VtcavError as error:
        return Check.of("detector", error)
    return Check("detector", "ok", f"{settings.weights} needs a GPU, and is not loaded here")


def _given_check(settings: TracksConfig) -> Check:
    """Check that `tracks.source` has files of the format."""
    try:
        found = list_files(settings, reader_of(settings))
    except VtcavError as error:
        return Check.of("tracks", error)
    count = len(found.files)
    return Check("tracks", "ok", f"{settings.source}: {count:,} file{'' if count == 1 else 's'} of `{settings.format}`")


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
