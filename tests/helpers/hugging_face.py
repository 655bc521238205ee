"""Small random-weight models of every architecture of transformers, as folders that `save_pretrained` wrote."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from vtcav_ray.config import ModelConfig
from vtcav_ray.models import Recogniser, load_recogniser

SIDE = 32  # of the input, pixels
FRAMES = 4
NAMES = {0: "lift", 1: "put_down", 2: "push_left", 3: "push_right"}
ARCHITECTURES = ("videomae", "vivit", "timesformer", "vjepa2", "videoprism_vision_model")
SMALL: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 6}


def need_transformers() -> None:
    """Skip the test where the library or its processors can't be imported; `make setup` installs what they need."""
    if (why := _why_not()) is not None:
        pytest.skip(why)


@cache
def _why_not() -> str | None:
    try:
        import torchvision  # noqa: F401 - a build for another torch fails here, whoever imports it
        from transformers import VideoMAEVideoProcessor  # noqa: F401
    except (ImportError, RuntimeError) as error:
        return f"transformers can't be imported: {error}"
    return None


def settings(kind: str, **changes: Any) -> Any:
    """Return the library's config of a small network of `model_type` `kind`."""
    import transformers as hf

    labels = {"id2label": NAMES, "label2id": {name: i for i, name in NAMES.items()}}
    image = {"image_size": SIDE, "num_frames": FRAMES}
    made: dict[str, Callable[[], Any]] = {
        "videomae": lambda: hf.VideoMAEConfig(**{**SMALL, **image, **labels, "patch_size": 8, **changes}),
        "vivit": lambda: hf.VivitConfig(**{**SMALL, **image, **labels, "tubelet_size": [2, 8, 8], **changes}),
        "timesformer": lambda: hf.TimesformerConfig(**{**SMALL, **image, **labels, "patch_size": 8, **changes}),
        "vjepa2": lambda: hf.VJEPA2Config(
            **{
                **{name: SMALL[name] for name in SMALL if name != "intermediate_size"},
                "crop_size": SIDE,
                "frames_per_clip": FRAMES,
                "patch_size": 8,
                "mlp_ratio": 2.0,
                "pred_hidden_size": 16,
                "pred_num_attention_heads": 2,
                "pred_num_hidden_layers": 1,
                "num_pooler_layers": 2,
                **labels,
                **changes,
            }
        ),
        "videoprism_vision_model": lambda: hf.VideoPrismVisionConfig(
            **{
                **{name: SMALL[name] for name in SMALL if name != "num_hidden_layers"},
                "num_spatial_layers": 6,
                "num_temporal_layers": 2,
                "tubelet_size": [1, 8, 8],
                **image,
                **labels,
                **changes,
            }
        ),
    }
    return made[kind]()


def model(kind: str, seed: int = 0, **changes: Any) -> Any:
    """Return the library's own network with weights large enough for logits that differ between clips."""
    from transformers import AutoModelForVideoClassification

    module = AutoModelForVideoClassification.from_config(settings(kind, **changes)).eval()
    stream = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.25 * torch.randn(parameter.shape, generator=stream)
    return module


def processor(kind: str) -> Any:
    """Return a processor of the class that the library chooses for the network."""
    import transformers as hf

    crop = {"height": SIDE, "width": SIDE}
    made: dict[str, Callable[[], Any]] = {
        "videomae": lambda: hf.VideoMAEVideoProcessor(size={"shortest_edge": 36}, crop_size=crop),
        "vivit": lambda: hf.VivitVideoProcessor(size={"shortest_edge": 40}, crop_size=crop),
        "timesformer": lambda: hf.TimesformerVideoProcessor(size={"shortest_edge": SIDE}, crop_size=crop),
        "vjepa2": lambda: hf.VJEPA2VideoProcessor(crop_size=SIDE),
        "videoprism_vision_model": lambda: hf.LlavaOnevisionVideoProcessor(size=crop),
    }
    return made[kind]()


def save(kind: str, folder: Path, *, seed: int = 0, own_processor: Any = None, **changes: Any) -> str:
    """Save a network and its processor into a folder; return its path."""
    model(kind, seed, **changes).save_pretrained(str(folder))
    (own_processor or processor(kind)).save_pretrained(str(folder))
    return str(folder)


def recogniser_at(folder: str) -> Recogniser:
    """Load a saved folder as the package does."""
    return load_recogniser(ModelConfig(framework="transformers", checkpoint=folder), "cpu")
