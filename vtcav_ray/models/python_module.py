"""A network from a function of your own module: `model.framework: python`, `model.config: package.module:function`.

The function takes no arguments and returns an `nn.Module` and a `NetworkSpec`. It is a program: it runs under the same
rule as a `.py` config (`vtcav_ray.models.config_files`). The module is looked for among the installed packages, on
PYTHONPATH, and in the working directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn

from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.models.base import Description, Recogniser, TokenGrid, described_by
from vtcav_ray.models.checkpoints import load_weights, read_checkpoint
from vtcav_ray.models.config_files import read_labels
from vtcav_ray.models.digest import UNTRAINED, describe_model
from vtcav_ray.models.preprocess import AntialiasedResize, Crop, Preprocessor, Sampling
from vtcav_ray.registry import FRAMEWORKS
from vtcav_ray.text.name_lists import repeated

logger = logging.getLogger(__name__)

BUILT = "built"  # model.checkpoint: the weights that the function gives
NO_CHECKPOINT = (BUILT, ModelConfig.model_fields["checkpoint"].default)
PLACE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class NetworkSpec:
    """Facts about a network that can't be read from it.

    Attributes:
        class_names: in the order of the logits; unique.
        input_size: side of the square input, or (height, width), pixels.
        mean, std: of the three channels, for pixel values between 0 and 1.
        frames: the only number of frames that the network takes; None: any.
        layer_aliases: `early`, `middle`, `late`, `head` -> a module's path (`path:in`: its input).
        resize: new short side before the centre crop to `input_size`, pixels; None: the shorter side of the input.
        interpolation: of the resize, with antialiasing, as in torchvision.
        tokens: how token sequences inside the network lie on the video; None: there are none.
        layouts: a module's path -> `channels_first` or `channels_last`, if the shapes are ambiguous.
    """

    class_names: Sequence[str]
    input_size: int | tuple[int, int]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    frames: int | None = None
    layer_aliases: Mapping[str, str] = field(default_factory=dict)
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    tokens: TokenGrid | None = None
    layouts: Mapping[str, str] = field(default_factory=dict)


class PythonRecogniser(Recogniser):
    """A network that maps `[B, 3, T, H, W]` to `[B, K]`."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.module(x)
        return found


def describe_python(config: ModelConfig, seed: int) -> Description:
    """See `vtcav_ray.models.digest`. Reads the module's source; does not run it, but imports its parent package."""
    name, function = _place(config)
    source = _source(name, config)
    names = read_labels(config.labels, config.storage_options) if config.labels else None
    identity = {"function": function, "source": hashlib.sha256(source).hexdigest()}
    weights = f"{BUILT} {seed}" if config.checkpoint in NO_CHECKPOINT else None
    return describe_model(config, identity, names, None, seed, weights=weights)


@FRAMEWORKS.register("python")
@described_by(describe_python)
def load_python(config: ModelConfig, device: torch.device, seed: int) -> PythonRecogniser:
    """Call the function and load the checkpoint, if one is named. See `vtcav_ray.models.load_recogniser`."""
    name, function = _place(config)
    module, spec = _call(_import(name, config), function, config, seed)
    if config.checkpoint not in (*NO_CHECKPOINT, UNTRAINED):
        load_weights(module, read_checkpoint(config.checkpoint, config.storage_options).weights, config.checkpoint)
    names = read_labels(config.labels, config.storage_options) if config.labels else tuple(spec.class_names)
    if len(names) != len(spec.class_names):
        raise ConfigError(
            f"model.labels: {config.labels} names {len(names)} classes, and {config.config} has "
            f"{len(spec.class_names)}. Give a file with one name per class."
        )
    return PythonRecogniser(
        module=module,
        class_names=names,
        description=describe_python(config, seed),
        preprocessor=preprocessor_of(spec, f"model.config: {config.config}"),
        layer_aliases=spec.layer_aliases,
        device=device,
        tokens=spec.tokens,
        layouts=spec.layouts,
        frames=spec.frames,
    )


def _place(config: ModelConfig) -> tuple[str, str]:
    """Return the names of the module and the function, if they may run.

    Raises:
        ConfigError: `model.config` is not of this form, or only a run's record names it.
    """
    found = PLACE.fullmatch(config.config)
    if found is None:
        raise ConfigError(
            f"model.config: `{config.config}` is no function. With framework: python, write `package.module:function`."
        )
    if config.code == "nowhere":
        raise ConfigError(
            f"The function {config.config} (model.config) is a program. It is named by the record of a run (run.json), "
            "which another user may have written. Check it, then give --trust-code, or name it yourself with --set "
            "model.config=MODULE:FUNCTION."
        )
    return found.group(1), found.group(2)


def _source(name: str, config: ModelConfig) -> bytes:
    with _working_directory_on_path():
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError) as error:  # of a parent package; ValueError: a module without a spec
            raise ConfigError(_not_found(name, config, error)) from error
    if spec is None or not spec.origin or not os.path.isfile(spec.origin):
        raise ConfigError(_not_found(name, config, f"there is no source file of {name}"))
    return Path(spec.origin).read_bytes()


def _import(name: str, config: ModelConfig) -> ModuleType:
    logger.info("the function %s (model.config) is a program, and is run", config.config)
    with _working_directory_on_path():
        try:
            return importlib.import_module(name)
        except (
            ImportError, OSError, SyntaxError, NameError, AttributeError, LookupError, TypeError, ValueError,
            RuntimeError, AssertionError,
        ) as error:  # fmt: skip
            raise ConfigError(_not_found(name, config, f"{type(error).__name__}: {error}")) from error


def _not_found(name: str, config: ModelConfig, why: object) -> str:
    return (
        f"model.config: {config.config}: the module {name} can't be imported: {' '.join(str(why).split())}. Install "
        "its package, or put its folder on PYTHONPATH (on every node), or start vtcav in its folder."
    )


def _call(module: ModuleType, function: str, config: ModelConfig, seed: int) -> tuple[nn.Module, NetworkSpec]:
    build = getattr(module, function, None)
    if not callable(build):
        raise ConfigError(f"model.config: the module {module.__name__} has no function `{function}`.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of weights that the function initialises
        made: Any = build()
    if not (isinstance(made, tuple) and len(made) == 2):
        made = (made, None)
    network, spec = made
    if not isinstance(network, nn.Module) or not isinstance(spec, NetworkSpec):
        raise ConfigError(
            f"model.config: {config.config} must return (nn.Module, vtcav_ray.models.NetworkSpec), not "
            f"({type(network).__name__}, {type(spec).__name__})."
        )
    if not spec.class_names or (twice := repeated(spec.class_names)):
        what = f"names twice: {', '.join(twice[:5])}" if spec.class_names else "no names"
        raise ConfigError(f"model.config: {config.config}: its `class_names` have {what}. Give each class its own.")
    return network, spec


def preprocessor_of(spec: NetworkSpec, where: str) -> Preprocessor:
    """Return the preprocessing that a spec describes.

    Args:
        spec: of the network.
        where: what gave the spec, for the message.

    Raises:
        ConfigError: its sizes, means or deviations are not possible.
    """
    size = (spec.input_size, spec.input_size) if isinstance(spec.input_size, int) else spec.input_size
    height, width = int(size[0]), int(size[1])
    short = spec.resize or min(height, width)
    if len(spec.mean) != 3 or len(spec.std) != 3 or min(spec.std) <= 0 or min(height, width) < 1:
        raise ConfigError(f"{where}: give three numbers as `mean` and as `std` (above 0), and `input_size` in pixels.")
    resize = AntialiasedResize(short, mode=spec.interpolation)
    if height != width and spec.resize is None:
        resize = AntialiasedResize(None, (height, width), spec.interpolation)
    return Preprocessor(
        (resize,),
        Crop("center", height, width),
        (255.0 * spec.mean[0], 255.0 * spec.mean[1], 255.0 * spec.mean[2]),
        (255.0 * spec.std[0], 255.0 * spec.std[1], 255.0 * spec.std[2]),
        swap_channels=False,
        sampling=Sampling(spec.frames, None, 1) if spec.frames else None,
    )


@contextlib.contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """Look for modules in the working directory, too, after all other places, inside the context."""
    folder = os.getcwd()
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
