"""Still images as one-frame videos: decoded by Pillow, within the limits of a video's frame."""

from __future__ import annotations

import io
import os
import posixpath
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vtcav_ray.errors import InputError
from vtcav_ray.video.fetch import Source, fetch
from vtcav_ray.video.limits import MAX_PIXELS

# Extension -> Pillow's name of the format. No other format is tried: some run other programs, or have had many faults.
_FORMATS = {
    "jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP", "tif": "TIFF",
    "tiff": "TIFF", "ppm": "PPM", "pgm": "PPM",
}  # fmt: skip
IMAGE_EXTENSIONS = tuple(_FORMATS)


def is_image(uri: str) -> bool:
    """Return whether a file is an image, by its extension."""
    path = uri.partition("?")[0] if "://" in uri else uri
    return posixpath.splitext(path)[1].lower().lstrip(".") in _FORMATS


def read_image(
    source: Source, *, max_pixels: int = MAX_PIXELS, storage_options: Mapping[str, Any] | None = None
) -> np.ndarray:
    """Read an image: uint8 [H, W, 3] RGB, upright as its EXIF data says. Transparent parts are shown on black.

    Raises:
        InputError: `missing`, `empty`, `not_image`, `too_large` or `decode`, and what `fetch` raises.
        OSError: permission is missing, or the network failed.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = "the image" if isinstance(source, bytes) else os.fspath(source)
    data = source if isinstance(source, bytes) else fetch(source, storage_options)
    try:
        with _open()(
            data if isinstance(data, str) else io.BytesIO(data), formats=sorted(set(_FORMATS.values()))
        ) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError("too_large", f"{name}: {width}x{height} pixels are more than {max_pixels:,}.")
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                seen = upright.convert("RGBA")
                black = Image.new("RGBA", seen.size, (0, 0, 0, 255))
                upright = Image.alpha_composite(black, seen)
            return np.asarray(upright.convert("RGB"), np.uint8)
    except UnidentifiedImageError as error:
        raise InputError(
            "not_image", f"{name} is no image that is read here: {', '.join(IMAGE_EXTENSIONS)}."
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError("too_large", f"{name}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's own errors in damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the disk
        raise InputError("decode", f"{name} is not decoded: {error}") from error


def _open() -> Callable[..., Any]:
    """Return Pillow's own `open`: Ultralytics replaces it by one that installs a plugin for unknown files."""
    from PIL import Image

    patches = sys.modules.get("ultralytics.utils.patches")
    found: Callable[..., Any] = getattr(patches, "_image_open", Image.open)
    return found
