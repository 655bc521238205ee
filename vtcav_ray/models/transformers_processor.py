"""The settings of a Hugging Face video processor as a `Preprocessor`, without its library.

The library's processors need a torchvision that matches torch; these steps need only torch. Tests compare the logits of
clips with the library's processors and models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from vtcav_ray.errors import ConfigError
from vtcav_ray.models.preprocess import MOST_SIDE, AntialiasedResize, Crop, Preprocessor, Sampling

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
MODES: Mapping[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
SUFFIXES = ("VideoProcessor", "ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
KEYS = ("video_processor_type", "image_processor_type", "feature_extractor_type")


class Defaults(NamedTuple):
    """The attributes of a processor's class, for settings that the file lacks."""

    size: dict[str, int]
    crop: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float = 1 / 255
    resample: int = 2


DEFAULTS: Mapping[str, Defaults] = {
    "VideoMAE": Defaults({"shortest_edge": 224}, 224, *HALVES),
    "Vivit": Defaults({"shortest_edge": 256}, 224, *HALVES, rescale=1 / 127.5),
    "Timesformer": Defaults({"shortest_edge": 224}, 224, *IMAGENET),
    "VJEPA2": Defaults({"shortest_edge": 292}, 256, *IMAGENET),
    "LlavaOnevision": Defaults({"height": 384, "width": 384}, None, *CLIP, resample=3),
}
# Network -> its processor, and the input's side if config.json has none.
NETWORKS: Mapping[str, tuple[str, int]] = {
    "videomae": ("VideoMAE", 224),
    "vivit": ("Vivit", 224),
    "timesformer": ("Timesformer", 224),
    "vjepa2": ("VJEPA2", 256),
}


def read_processor(
    settings: Mapping[str, Any] | None, network: Mapping[str, Any], frames: int | None, where: str
) -> Preprocessor:
    """Return the steps of a processor.

    Args:
        settings: the processor's JSON; None: that of the network's own processor, for its own input size.
        network: the content of `config.json`.
        frames: number of frames that the network takes; None: unknown.
        where: the folder, for messages.

    Raises:
        ConfigError: a setting is not supported or not valid, or there are no settings and the network's processor is
            unknown.
    """
    if settings is None:
        settings = _own_settings(network, where)
    try:
        return _read(settings, network, Sampling(frames, None, 1) if frames else None)
    except ConfigError as error:
        raise ConfigError(f"The processor of {where}: {error}") from error
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise ConfigError(
            f"The processor of {where} can't be read ({type(error).__name__}: {error}). Write it with the library: "
            "AutoVideoProcessor.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        ) from error


def _own_settings(network: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = NETWORKS.get(str(network.get("model_type")))
    if known is None:
        raise ConfigError(
            f"{where} has no preprocessor_config.json, which says how frames become the model's input. Save the "
            "model's processor into the folder, too: processor.save_pretrained(FOLDER)."
        )
    kind, side = known
    size = network.get("crop_size" if kind == "VJEPA2" else "image_size", side)
    try:
        height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    except (TypeError, ValueError, LookupError) as error:
        raise ConfigError(f"{where}/config.json: the side of the input, {size!r}, is no number of pixels.") from error
    return {
        "video_processor_type": f"{kind}VideoProcessor",
        "size": {"shortest_edge": min(height, width)},
        "crop_size": {"height": height, "width": width},
    }


def _read(settings: Mapping[str, Any], network: Mapping[str, Any], sampling: Sampling | None) -> Preprocessor:
    kind = _kind(settings, network)
    defaults = DEFAULTS.get(kind)

    def setting(name: str, default: Any) -> Any:
        value = settings.get(name)
        if value is not None:
            return value
        if defaults is None:
            raise ConfigError(f"`{name}` is missing, and the defaults of {kind or 'its class'} are unknown: write it.")
        return default

    if settings.get("do_pad"):
        raise ConfigError("`do_pad` is not supported: a clip is resized and cropped, not padded.")
    crop = None
    if setting("do_center_crop", defaults is not None and defaults.crop is not None):
        height, width = _square(setting("crop_size", defaults and defaults.crop))
        crop = Crop("center", height, width)
    resizes: tuple[AntialiasedResize, ...] = ()
    if setting("do_resize", True):
        size = setting("size", defaults and defaults.size)
        if kind == "VJEPA2" and crop is not None:  # the class computes it, whatever the file says
            size = {"shortest_edge": int(crop.height * 256 / 224)}
        resizes = (_resize(size, int(setting("resample", defaults and defaults.resample))),)
    if crop is None and (not resizes or resizes[-1].exact is None):
        raise ConfigError(
            "it ends with frames of any size: it needs `do_center_crop`, or a `size` of height and width."
        )
    if crop is not None and resizes and _too_large(crop, resizes[0]):
        raise ConfigError(
            f"`crop_size` {crop.height}x{crop.width} is larger than the resized frames, which is not supported."
        )
    mean, std = _normalisation(settings, setting, kind, defaults)
    return Preprocessor(resizes, crop, mean, std, False, sampling)


def _kind(settings: Mapping[str, Any], network: Mapping[str, Any]) -> str:
    """Return the processor's class without its suffix: the file's if it is known, else the network's own."""
    for key in KEYS:
        name = str(settings.get(key) or "")
        for suffix in SUFFIXES:
            if name.endswith(suffix) and name.removesuffix(suffix) in DEFAULTS:
                return name.removesuffix(suffix)
    return NETWORKS.get(str(network.get("model_type")), ("", 0))[0]


def _too_large(crop: Crop, resize: AntialiasedResize) -> bool:
    height, width = resize.size(10_000, 10_000)  # of a square frame: no other has a smaller side
    return crop.height > height or crop.width > width


def _resize(size: Any, resample: int) -> AntialiasedResize:
    if resample not in MODES:
        raise ConfigError(f"`resample: {resample}` is not supported; supported: 2 (bilinear) and 3 (bicubic).")
    if isinstance(size, int):
        size = {"shortest_edge": size}
    given = {name: int(value) for name, value in size.items() if value is not None}
    if not all(1 <= value <= MOST_SIDE for value in given.values()):
        raise ValueError(f"a size of {given} pixels")
    if set(given) == {"shortest_edge"}:
        return AntialiasedResize(given["shortest_edge"], mode=MODES[resample])
    if set(given) == {"height", "width"}:
        return AntialiasedResize(None, (given["height"], given["width"]), MODES[resample])
    raise ConfigError(f"`size` with {', '.join(given)} is not supported: write shortest_edge, or height and width.")


def _square(size: Any) -> tuple[int, int]:
    height, width = (int(size), int(size)) if isinstance(size, int) else (int(size["height"]), int(size["width"]))
    if not (1 <= height <= MOST_SIDE and 1 <= width <= MOST_SIDE):
        raise ValueError(f"a crop of {height}x{width} pixels")
    return height, width


def _normalisation(
    settings: Mapping[str, Any], setting: Any, kind: str, defaults: Defaults | None
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and deviation in units of pixel values: rescaling, Vivit's offset and normalisation in one step."""
    rescale = float(setting("rescale_factor", defaults and defaults.rescale)) if setting("do_rescale", True) else 1.0
    # ViViT's processors take 1 from the rescaled pixels. Only the older one can switch that off.
    offset = 1.0 if kind == "Vivit" and settings.get("offset", True) and rescale != 1.0 else 0.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if setting("do_normalize", True):
        mean, std = (_three(setting(f"image_{name}", defaults and getattr(defaults, name))) for name in ("mean", "std"))
    if rescale <= 0 or min(std) <= 0:
        raise ValueError(f"rescale_factor {rescale} and image_std {std} must be above 0")
    return _three([(m + offset) / rescale for m in mean]), _three([s / rescale for s in std])


def _three(values: Any) -> tuple[float, float, float]:
    if isinstance(values, int | float):
        values = [values] * 3
    first, second, third = (float(value) for value in values)
    return first, second, third
