"""Check the recogniser: build it on the CPU, load its weights, and run one synthetic clip through every layer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

import numpy as np

from vtcav_ray.config import Config
from vtcav_ray.errors import ConfigError, VtcavError
from vtcav_ray.preflight.checks import Check
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.records import BrokenFile, canonical_digest
from vtcav_ray.version import __version__

if TYPE_CHECKING:
    from vtcav_ray.models import Description, Recogniser

logger = logging.getLogger(__name__)

PLACE = "preflight"  # folder of a run: names of the classes of models that passed, by digest


class Classes(NamedTuple):
    """The names of a model's classes.

    Attributes:
        names: in the order of the logits.
        described: those that are known without the checkpoint; None: none is.
    """

    names: tuple[str, ...]
    described: tuple[str, ...] | None


class _Passed(NamedTuple):
    """What a run folder keeps of a model that passed.

    Attributes:
        class_names: in the order of the logits.
        without_motion: the layers at which the projections `moving` and `still` are both the mean.
    """

    class_names: tuple[str, ...]
    without_motion: tuple[str, ...]


def model_checks(config: Config, cache: Folder, *, keep: bool) -> tuple[list[Check], Classes | None]:
    """Check that the model builds, that its weights fit, and that its layers and projections exist for these clips.

    The model is built once: its class names are kept under a digest of the model and of the settings that were checked.

    Args:
        config: with layers filled in (`vtcav_ray.models.with_layers`).
        cache: the run folder, where earlier checks are looked up.
        keep: whether to write the result into `cache`.

    Returns:
        (rows, the classes; None: the model can't be used).
    """
    from vtcav_ray.activations.stage import sampled_otherwise
    from vtcav_ray.models import describe

    try:
        description = describe(config.model, seed=config.seed)
    except VtcavError as error:
        return [Check.of("model", error)], None
    key = canonical_digest(_checked_settings(config, description.digest))[:16]
    known = _remembered(cache, key)
    rows: list[Check] = []
    if known is None:
        rows, known = _built(config)
        if known is None:
            return rows, None
        if keep:
            cache.write_json(f"{PLACE}/{key}.json", known._asdict())
    names, layers = known.class_names, ", ".join(config.activations.layers)
    rows = [
        Check("model", "ok", f"{description.tag}: {len(names):,} classes; the weights fit"),
        *rows,
        Check("layers", "ok", f"{layers}: all run on clips of {config.clips.frames} frames"),
        *_motion_checks(known.without_motion, config.clips.frames),
    ]
    rows += _warnings(description, sampled_otherwise(config.clips, description.sampling))
    return rows, Classes(names, description.class_names)


def _checked_settings(config: Config, digest: str) -> dict[str, object]:
    activations = config.activations
    return {
        "version": __version__,
        "model": digest,
        "layers": activations.layers,
        "projection": activations.projection,
        "sketch_seed": activations.sketch_seed,
        "clip": [config.clips.frames, config.clips.size],
    }


def _remembered(cache: Folder, key: str) -> _Passed | None:
    """Return what is known of a model that passed before; None: it was not checked, or the file is damaged."""
    try:
        found = cache.read_json(f"{PLACE}/{key}.json")
    except FileNotFoundError:
        return None
    except BrokenFile as error:  # the model is built again, and the file rewritten
        logger.warning("%s", error)
        return None
    names, without_motion = (found.get(name) if isinstance(found, dict) else None for name in _Passed._fields)
    if not _is_text_list(names) or not names or not _is_text_list(without_motion):
        return None
    return _Passed(tuple(names), tuple(without_motion))


def _is_text_list(found: object) -> TypeGuard[list[str]]:
    return isinstance(found, list) and all(isinstance(one, str) for one in found)


def _built(config: Config) -> tuple[list[Check], _Passed | None]:
    """Build the model and run a clip through it. Return (rows, what is known of it; None: it can't be used)."""
    from vtcav_ray.models import load_recogniser

    try:
        recogniser = load_recogniser(config.model, "cpu", seed=config.seed)
    except VtcavError as error:
        return [Check.of("model", error)], None
    if wrong := _layer_checks(config, recogniser):
        return wrong, None
    try:
        without_motion = _run_one_clip(config, recogniser)
    except VtcavError as error:
        return [Check.of("layers", error)], None
    except RuntimeError as error:  # torch: an operation that needs a GPU, or no memory on this machine
        first = (str(error).strip().splitlines() or [""])[0]
        hint = "The model did not run on this machine's CPU, so the layers' shapes are not checked"
        return [Check("layers", "warn", f"{hint}: {first}")], _Passed(recogniser.class_names, ())
    return [], _Passed(recogniser.class_names, without_motion)


def _layer_checks(config: Config, recogniser: Recogniser) -> list[Check]:
    """Return a row for each layer that the model does not have."""
    from vtcav_ray.activations.projections import layer_and_projection
    from vtcav_ray.models import resolve_layer

    wrong = []
    for layer in config.activations.layers:
        try:
            resolve_layer(recogniser, layer_and_projection(layer, config.activations.projection)[0])
        except ConfigError as error:
            hint = "`vtcav layers CONFIG` lists all; to take the usual ones: --set activations.layers=auto"
            wrong.append(Check.of("layers", ConfigError(f"{error} {hint}.")))
    return wrong


def _run_one_clip(config: Config, recogniser: Recogniser) -> tuple[str, ...]:
    """Run the model once on a clip of noise, and make every layer's projection for the shapes that it gives.

    Returns:
        The layers whose projection should tell moving places from still ones, and can't.
    """
    from vtcav_ray.activations.projections import Places, layer_and_projection, make_projection
    from vtcav_ray.models.layers import find_forms, resolve_layer

    settings = config.activations
    words = [layer_and_projection(layer, settings.projection) for layer in settings.layers]
    paths = [resolve_layer(recogniser, name) for name, _ in words]
    shape = (config.clips.frames, config.clips.size, config.clips.size, 3)
    clip = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    forms = find_forms(recogniser, list(dict.fromkeys(paths)), recogniser.preprocess([clip])[:, 0])
    without_motion = []
    for layer, path, (_, spec) in zip(settings.layers, paths, words, strict=True):
        projection = make_projection(spec, forms[path].shape, settings.sketch_seed)
        if isinstance(projection, Places) and projection.is_mean:
            without_motion.append(layer)
    return tuple(without_motion)


def _motion_checks(layers: Sequence[str], frames: int) -> list[Check]:
    """Return a warning about layers at which moving and still places are the same."""
    if not layers:
        return []
    return [
        Check(
            "layers",
            "warn",
            f"{', '.join(layers)}: of a clip of {frames} frames, one time step or one place is left there, so nothing "
            "moves, and `moving` and `still` are both the mean. Take an earlier layer, or more frames (clips.frames).",
        )
    ]


def _warnings(description: Description, sampling: list[str]) -> list[Check]:
    rows = [Check("model", "warn", sentence) for sentence in sampling]
    if description.untrained:
        rows.append(
            Check(
                "model",
                "warn",
                "The weights are random numbers (model.checkpoint: untrained), and so is what the scores say. "
                "Give trained weights: --set model.checkpoint=FILE.pth",
            )
        )
    return rows
