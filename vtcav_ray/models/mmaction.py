"""MMAction2's recognisers, 3D and 2D, behind the interface of `vtcav_ray.models.base`."""

from __future__ import annotations

import copy
import logging

import torch
from torch import nn

from vtcav_ray.config import ModelConfig
from vtcav_ray.errors import ConfigError
from vtcav_ray.models.base import Description, Recogniser, described_by
from vtcav_ray.models.checkpoints import load_weights, read_checkpoint
from vtcav_ray.models.config_files import MMActionConfig, read_config, read_labels
from vtcav_ray.models.config_programs import import_modules
from vtcav_ray.models.config_types import check_registered
from vtcav_ray.models.digest import UNTRAINED, describe_model
from vtcav_ray.models.families import default_layers, family_of
from vtcav_ray.models.mmaction_import import import_backbone_of, import_mmaction, is_installed, require_mmaction
from vtcav_ray.models.planted_swin import build_planted_swin
from vtcav_ray.models.preprocess import make_preprocessor
from vtcav_ray.models.swin_attention import fuse_window_attention
from vtcav_ray.registry import FRAMEWORKS
from vtcav_ray.store.assets import SCHEME
from vtcav_ray.text.name_lists import repeated


class MMActionRecogniser(Recogniser):
    """A `Recognizer3D`, or a `Recognizer2D` that takes the frames of a clip as its segments."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        if type(self.module).__name__ == "Recognizer2D":
            frames = x.transpose(1, 2).contiguous()  # B' T C H W: the frames are the segments; MMAction2 views it
            scores, _ = self.module.extract_feat(frames, stage="head")  # type: ignore[operator]
            return scores
        features = self.module.backbone(x)  # type: ignore[operator]
        if self.module.with_neck:
            features, _ = self.module.neck(features)  # type: ignore[operator]
        return self.module.cls_head(features)  # type: ignore[operator]


def describe_mmaction(config: ModelConfig, seed: int) -> Description:
    """See `vtcav_ray.models.digest`. Reads the config and the checkpoint's bytes; does not import MMAction2."""
    parsed = read_config(config.config, config.storage_options, code=config.code)
    names = read_labels(config.labels, config.storage_options) if config.labels else parsed.class_names
    preprocessor = make_preprocessor(parsed.pipeline, parsed.model.get("data_preprocessor") or {})
    return describe_model(config, parsed.identity, names, preprocessor.sampling, seed)


def mmaction_layers(config: ModelConfig) -> tuple[str, ...]:
    """Return the default layers of the config's family. Reads the config; does not import MMAction2."""
    backbone = read_config(config.config, config.storage_options, code=config.code).model["backbone"]
    return default_layers(str(backbone.get("type")) if isinstance(backbone, dict) else "")


@FRAMEWORKS.register("mmaction2")
@described_by(describe_mmaction, layers=mmaction_layers)
def load_mmaction(config: ModelConfig, device: torch.device, seed: int, *, fused: bool = True) -> MMActionRecogniser:
    """Build a recogniser from its config and load its weights. See `vtcav_ray.models.load_recogniser`.

    Args:
        config: which recogniser.
        device: where its weights are.
        seed: of random weights, where the config has no checkpoint.
        fused: False keeps MMAction2's own network and forward pass.
    """
    parsed = read_config(config.config, config.storage_options, code=config.code)
    if fused and config.config.startswith(SCHEME) and config.checkpoint != UNTRAINED:
        # It gives MMAction2's results bit for bit, and saves a second of imports in each process.
        module = build_planted_swin(parsed.model)
    else:
        module = build_mmaction(parsed, config.config, seed=seed if config.checkpoint == UNTRAINED else None)
    names = read_labels(config.labels, config.storage_options) if config.labels else parsed.class_names
    if config.checkpoint != UNTRAINED:
        checkpoint = read_checkpoint(config.checkpoint, config.storage_options)
        load_weights(module, checkpoint.weights, config.checkpoint)
        names = names or checkpoint.class_names
    if fused:
        fuse_window_attention(module)
    family = family_of(module)
    return MMActionRecogniser(
        module=module,
        class_names=_class_names(names, parsed.num_classes, config),
        description=describe_mmaction(config, seed),
        preprocessor=make_preprocessor(parsed.pipeline, parsed.model.get("data_preprocessor") or {}),
        layer_aliases=family.aliases,
        device=device,
        tokens=family.tokens,
        frames=family.frames,
    )


def build_mmaction(parsed: MMActionConfig, uri: str, *, seed: int | None) -> nn.Module:
    """Build the unmodified MMAction2 network of a config, in eval mode.

    Where MMAction2 is not installed, the network of the packaged config is built from `vtcav_ray.models.planted_swin`,
    with the same results.

    Args:
        parsed: from `read_config`; nothing in it downloads.
        uri: for errors.
        seed: initialise all weights as the model itself does, from this seed; None: they will be loaded.

    Raises:
        ConfigError: MMAction2 can't build it or is not installed, or the config names something that is no part of a
            recogniser.
    """
    if uri.startswith(SCHEME) and seed is None and not is_installed():
        return build_planted_swin(parsed.model)
    require_mmaction(f"The model of {uri} (model.framework: mmaction2)")
    import_mmaction()
    try:
        import_backbone_of(parsed.model)  # which registers it
    except (ImportError, RuntimeError) as error:  # RuntimeError: mmpretrain, where torchvision does not match torch
        raise ConfigError(f"MMAction2 can't build the model of {uri}: {error}") from error
    if parsed.imports:
        import_modules(parsed.imports, uri, parsed.folder)
    check_registered(parsed.model, uri, program=parsed.program)
    from mmaction.registry import MODELS
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it lists every parameter
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed or 0)
            module: nn.Module = MODELS.build(copy.deepcopy(parsed.model))
            if seed is not None:
                for part in module.modules():
                    if getattr(part, "pretrained2d", False):  # nothing to load: the config's download was left out
                        part.pretrained2d = False  # type: ignore[assignment]
                module.init_weights()  # type: ignore[operator]
    except (
        KeyError,
        TypeError,
        AssertionError,
        ImportError,
        AttributeError,
        ValueError,
        IndexError,
        ArithmeticError,
        RuntimeError,
    ) as error:  # fmt: skip  (RuntimeError: timm and mmpretrain, where torchvision does not match torch)
        raise ConfigError(f"MMAction2 can't build the model of {uri}: {error}") from error
    finally:
        logger.setLevel(level)
    return module.eval()


def _class_names(names: tuple[str, ...] | None, count: int | None, config: ModelConfig) -> tuple[str, ...]:
    if names is None:
        if count is None:
            raise ConfigError(f"{config.config} does not say how many classes there are; give model.labels.")
        return tuple(str(i) for i in range(count))
    if count is not None and len(names) != count:
        where = config.labels or config.config
        raise ConfigError(f"{where} names {len(names)} classes, and the model has {count}: give model.labels as many.")
    if twice := repeated(names):
        raise ConfigError(
            f"The class names of {config.labels or config.checkpoint} occur twice: {', '.join(twice[:5])}. Set "
            "`model.labels` to a file with one name per line."
        )
    return names
