"""Overlays: source, heat map and both, the original above the reversed clip, as .mp4 and as animated WebP.

The reversed clip's map is shown in the original frame order, so both rows show the same frame at the same time. If the
rows look alike, the map does not depend on the direction of time.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vtcav_ray.video.mp4 import encode_mp4
from vtcav_ray.video.webp import animated_webp, evenly

PANEL = 192  # longer side of one panel, in pixels
GAP = 6
HEAD = 30  # above the panels
SIDE = 30  # left of the panels
SCALE = 58  # right of the panels
GROUND, INK = (20, 22, 26), (235, 233, 228)
OPACITY = 0.6
FPS = 10
WEBP_QUALITY = 60
WEBP_FRAMES = 16


def heat(maps_Thw: np.ndarray, top: float) -> np.ndarray:
    """Colour a map, uint8 `[T, h, w, 3]` RGB, with OpenCV's inferno: 0 is black, `top` and above the lightest."""
    levels = np.clip(maps_Thw / top if top > 0 else np.zeros_like(maps_Thw), 0, 1)
    flat = (levels * 255).round().astype(np.uint8).reshape(-1, maps_Thw.shape[2])
    colours: np.ndarray = cv2.applyColorMap(flat, cv2.COLORMAP_INFERNO)[:, :, ::-1].reshape(*maps_Thw.shape, 3)
    return np.ascontiguousarray(colours)


def both(pixels_Thw3: np.ndarray, maps_Thw: np.ndarray, top: float) -> np.ndarray:
    """Blend the map over its frames. Larger values hide more of the frame."""
    levels = np.clip(maps_Thw / top if top > 0 else np.zeros_like(maps_Thw), 0, 1)[..., None] * OPACITY
    mixed = pixels_Thw3 * (1 - levels) + heat(maps_Thw, top) * levels
    return mixed.round().astype(np.uint8)


def draw(
    pixels_Thw3: np.ndarray,
    own_Thw: np.ndarray,
    back_Thw: np.ndarray,
    answers: tuple[str, str],
    boxes_T4: np.ndarray | None,
) -> np.ndarray:
    """Draw the overlay, uint8 `[T, height, width, 3]` with even sides. Each map is scaled by its own largest value.

    Args:
        pixels_Thw3: the model's input as an image, uint8.
        own_Thw: the clip's map.
        back_Thw: the reversed clip's map, in the original frame order.
        answers: the class that each of the two maps explains, used as the rows' labels.
        boxes_T4: the object's box in pixels of the model's input, drawn into the source panels; None: no box.
    """
    frames, height, width = own_Thw.shape
    zoom = PANEL / max(height, width)
    size = (max(2, round(width * zoom)), max(2, round(height * zoom)))  # OpenCV: width, height
    picture = _ground(size, answers)
    shown = np.repeat(picture[None], frames, axis=0)
    source = _larger(pixels_Thw3, size)
    framed = source if boxes_T4 is None else _with_boxes(source, boxes_T4 * zoom)
    for row, maps in enumerate((own_Thw, back_Thw)):
        top = float(maps.max())
        large = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in maps])
        for column, panel in enumerate((framed, heat(large, top), both(source, large, top))):
            y = HEAD + row * (size[1] + GAP)
            x = SIDE + column * (size[0] + GAP)
            shown[:, y : y + size[1], x : x + size[0]] = panel
    return shown


def _ground(size: tuple[int, int], answers: tuple[str, str]) -> np.ndarray:
    """Draw labels and colour scale, without the panels."""
    width, height = SIDE + 3 * (size[0] + GAP) + SCALE, HEAD + 2 * (size[1] + GAP)
    image = Image.new("RGB", (width + width % 2, height + height % 2), GROUND)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(17)
    for column, word in enumerate(("source", "map", "both")):
        pen.text((SIDE + column * (size[0] + GAP) + size[0] / 2, HEAD / 2), word, INK, font, anchor="mm")
    for row, (word, answer) in enumerate(zip(("original", "reversed"), answers, strict=True)):
        label = Image.new("RGB", (size[1], SIDE), GROUND)
        text = f"{word}: {answer}"
        while font.getlength(text) > size[1] and len(text) > len(word) + 3:
            text = text[:-2] + "…"
        ImageDraw.Draw(label).text((size[1] / 2, SIDE / 2), text, INK, font, anchor="mm")
        image.paste(label.rotate(90, expand=True), (0, HEAD + row * (size[1] + GAP)))
    left, top, bottom = SIDE + 3 * (size[0] + GAP) + 4, HEAD, HEAD + 2 * size[1] + GAP
    ramp = np.linspace(1, 0, bottom - top, dtype=np.float32)[None, :, None].repeat(12, axis=2)
    image.paste(Image.fromarray(heat(ramp, 1.0)[0]), (left, top))
    pen.text((left + 16, top), "max", INK, font, anchor="lt")
    pen.text((left + 16, bottom), "0", INK, font, anchor="lb")
    return np.asarray(image)


def _larger(pixels_Thw3: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    way = cv2.INTER_CUBIC if size[0] > pixels_Thw3.shape[2] else cv2.INTER_AREA
    return np.stack([cv2.resize(frame, size, interpolation=way) for frame in pixels_Thw3])


def _with_boxes(pixels_Thw3: np.ndarray, boxes_T4: np.ndarray) -> np.ndarray:
    framed = pixels_Thw3.copy()
    for frame, box in zip(framed, boxes_T4, strict=True):
        if np.isfinite(box[0]):
            x1, y1, x2, y2 = (round(float(v)) for v in box)
            cv2.rectangle(frame, (x1, y1), (x2, y2), (255, 255, 255), 1)
    return framed


def as_mp4(picture_THW3: np.ndarray) -> bytes:
    """Encode as H.264, yuv420p, FPS frames per second. The same frames give the same bytes."""
    return encode_mp4(picture_THW3, FPS)


def as_webp(picture_THW3: np.ndarray) -> bytes:
    """Encode as a small animation of at most WEBP_FRAMES frames, which every browser plays in an `<img>`."""
    chosen = evenly(len(picture_THW3), WEBP_FRAMES)
    images = [Image.fromarray(picture_THW3[i]) for i in chosen]
    return animated_webp(images, round(1000 / FPS * len(picture_THW3) / len(chosen)), WEBP_QUALITY, 2)


def square_png(values_SS: np.ndarray, top: float, side: int = 144) -> bytes:
    """Return an aligned map as a PNG, with the outline of the box (the middle third)."""
    large = cv2.resize(values_SS.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    picture = heat(large[None], top)[0]
    third = side // 3
    cv2.rectangle(picture, (third, third), (side - third - 1, side - third - 1), (255, 255, 255), 1)
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "PNG", optimize=True)
    return sink.getvalue()
