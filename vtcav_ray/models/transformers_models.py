"""Hugging Face's video classifiers: every architecture of `AutoModelForVideoClassification`, from a folder or URL.

`model.checkpoint` is a folder that `save_pretrained` wrote (`vtcav_ray.models.transformers_folder`). With `checkpoint:
untrained`, `model.config` is the folder, and only its JSON files are read. No code of the folder runs, and the hub is
never asked. Attention runs through PyTorch's SDPA wherever the library has it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError, StageError
from vtcav_ray.models.base import Description, Recogniser, described_by
from vtcav_ray.models.checkpoints import listed
from vtcav_ray.models.config_files import read_labels
from vtcav_ray.models.digest import UNTRAINED, describe_model
from vtcav_ray.models.preprocess import Preprocessor
from vtcav_ray.models.torchvision_fit import mismatch
from vtcav_ray.models.transformers_families import transformers_family
from vtcav_ray.models.transformers_folder import ModelFolder, read_folder
from vtcav_ray.models.transformers_processor import read_processor
from vtcav_ray.registry import FRAMEWORKS
from vtcav_ray.store.saved_models import CONFIG
from vtcav_ray.text.name_lists import repeated

FRAMES = ("num_frames", "frames_per_clip")  # keys of config.json
# What the library raises for a config or weights that it can't use.
_UNUSABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, OSError, RuntimeError, ImportError)


class TransformersRecogniser(Recogniser):
    """One of the library's video classifiers."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        name = str(self.module.main_input_name)
        found: torch.Tensor = self.module(**{name: x.transpose(1, 2).contiguous()}).logits
        return found.flatten(1)  # VideoPrism's: one answer per pooled query, of which it has one


def describe_transformers(config: ModelConfig, seed: int) -> Description:
    """See `vtcav_ray.models.digest`. Reads the folder's files; does not import transformers."""
    folder = _folder(config)
    return _description(config, folder, _preprocessor(folder), seed)


def weights_of_transformers(config: ModelConfig) -> str:
    """Return the hex SHA-256 of the folder's weights."""
    return read_folder(config.checkpoint, config.storage_options).weights_digest()


@FRAMEWORKS.register("transformers")
@described_by(describe_transformers, weights=weights_of_transformers)
def load_transformers(config: ModelConfig, device: torch.device, seed: int) -> TransformersRecogniser:
    """Build the network of the folder's config and load its weights. See `vtcav_ray.models.load_recogniser`."""
    folder = _folder(config)
    preprocessor, class_names = _preprocessor(folder), _class_names(config, folder)
    module: Any = _build(folder, seed if config.checkpoint == UNTRAINED else None)
    _check_size(module.config, preprocessor, folder.uri)
    family = transformers_family(module)
    return TransformersRecogniser(
        module=module,
        class_names=class_names,
        description=_description(config, folder, preprocessor, seed),
        preprocessor=preprocessor,
        layer_aliases=family.aliases,
        device=device,
        tokens=family.tokens,
        frames=family.frames,
    )


def import_transformers() -> ModuleType:
    """Import and return the library, offline. Call this before any `from transformers...`.

    Raises:
        ConfigError: it is not installed, or it can't be imported beside the installed torchvision.
    """
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    try:
        library = importlib.import_module("transformers")
        importlib.import_module("transformers.models.videomae.modeling_videomae")  # the first that imports torchvision
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision's operators were built for another torch
        hint = mismatch() or "Install it: pip install 'vtcav-ray[transformers]'."
        raise ConfigError(f"model.framework: transformers can't be used here ({error}). {hint}") from error
    return library


def architectures() -> tuple[str, ...]:
    """Return the `model_type` of every video classifier of the installed library."""
    import_transformers()
    from transformers.models.auto.modeling_auto import MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES

    return tuple(sorted(MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES))


def _folder(config: ModelConfig) -> ModelFolder:
    if config.checkpoint == UNTRAINED:
        return read_folder(config.config.removesuffix(f"/{CONFIG}"), config.storage_options, "model.config")
    return read_folder(config.checkpoint, config.storage_options)


def _preprocessor(folder: ModelFolder) -> Preprocessor:
    frames = next((folder.config[key] for key in FRAMES if isinstance(folder.config.get(key), int)), None)
    return read_processor(folder.processor, folder.config, frames, folder.uri)


def _description(config: ModelConfig, folder: ModelFolder, preprocessor: Preprocessor, seed: int) -> Description:
    weights = None if config.checkpoint == UNTRAINED else folder.weights_digest()
    identity = {"network": folder.identity, "processor": _settings(preprocessor)}
    return describe_model(config, identity, _class_names(config, folder), preprocessor.sampling, seed, weights=weights)


def _settings(preprocessor: Preprocessor) -> dict[str, Any]:
    """Return the processor's steps, as JSON-like values, for the digest."""
    return {
        "resizes": [[resize.size(10_000, 10_000), repr(resize)] for resize in preprocessor.resizes],
        "crop": repr(preprocessor.crop),
        "mean": preprocessor.mean,
        "std": preprocessor.std,
    }


def _class_names(config: ModelConfig, folder: ModelFolder) -> tuple[str, ...]:
    own = folder.class_names
    if config.labels:
        names = read_labels(config.labels, config.storage_options)
        if len(names) != len(own):
            raise ConfigError(
                f"model.labels: {config.labels} names {len(names)} classes, and the model has {len(own)}. Give a file "
                "with one name per class."
            )
        return names
    if twice := repeated(own):
        raise ConfigError(
            f"{folder.uri}/{CONFIG}: `id2label` has names twice: {', '.join(twice[:5])}. Set `model.labels` to a file "
            "with one name per line."
        )
    return own


def _build(folder: ModelFolder, seed: int | None) -> nn.Module:
    """Build the network in float32. Load the folder's weights, or initialise all from `seed`."""
    known = architectures()
    kind = folder.config.get("model_type")
    if kind not in known:
        raise ConfigError(
            f"{folder.uri}/{CONFIG}: `model_type` {kind!r} is no video classifier of the installed transformers, "
            f"which has {', '.join(known)}."
        )
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForVideoClassification

    with tempfile.TemporaryDirectory(prefix="vtcav-model-") as place, _quiet():
        folder.stage(place, weights=seed is None)
        info: Mapping[str, Any] = {}
        try:
            if seed is None:
                module, info = AutoModelForVideoClassification.from_pretrained(
                    place,
                    dtype=torch.float32,
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                    ignore_mismatched_sizes=True,  # they are listed with the others, and refused
                    output_loading_info=True,
                )
            else:
                settings = AutoConfig.from_pretrained(place, trust_remote_code=False, local_files_only=True)
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    module = AutoModelForVideoClassification.from_config(
                        settings, trust_remote_code=False, dtype=torch.float32
                    )
        except (*_UNUSABLE, SafetensorError, StrictDataclassError) as error:
            raise StageError(f"transformers can't load {folder.uri}: {' '.join(str(error).split())}") from error
    _check_loaded(info, folder.uri)
    if getattr(module.config, "attention_type", None) == "space_only":
        raise ConfigError(
            f"{folder.uri}/{CONFIG}: `attention_type: space_only` answers for each frame, not for a clip."
        )
    return module


def _check_size(settings: Any, preprocessor: Preprocessor, uri: str) -> None:
    """Raise ConfigError if the processor's frames are not of the network's size."""
    size = getattr(settings, "image_size", None) or getattr(settings, "crop_size", None)
    if size is None:
        return
    wanted = (size, size) if isinstance(size, int) else tuple(size)
    if preprocessor.input_size != wanted:
        given = "x".join(map(str, preprocessor.input_size))
        raise ConfigError(
            f"The processor of {uri} gives frames of {given} pixels, and the network takes {wanted[0]}x{wanted[1]} "
            f"({CONFIG}). Save the processor that belongs to the model into its folder."
        )


def _check_loaded(info: Mapping[str, Any], uri: str) -> None:
    """Raise StageError with the list if weights are missing, unexpected or of another shape."""
    titles = {"missing_keys": "missing", "unexpected_keys": "not in the model", "mismatched_keys": "of another shape"}
    problems = []
    for key, title in titles.items():
        names = sorted(name if isinstance(name, str) else str(name[0]) for name in info.get(key, ()))
        if names:
            problems.append(f"{title}: {listed(names)}")
    problems += [str(message) for message in info.get("error_msgs", ())]
    if problems:
        raise StageError(
            f"The checkpoint {uri} does not fit the video classifier of its {CONFIG}; {'; '.join(problems)}. A model "
            "that was only pretrained has no classifier: fine-tune it first."
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's messages and progress bars inside the context: what they say is checked, or an error."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
