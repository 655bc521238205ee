"""Overlays: source, heat map and both, for two maps of a clip, as .mp4 and as animated WebP.

Grad-CAM draws the original above the reversed clip. The reversed clip's map is shown in the original frame order, so
both rows show the same frame at the same time. If the rows look alike, the map does not depend on the direction of
time. Concept maps draw a concept's direction above a random one, and a time line below.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vtcav_ray.store.folder import Folder
from vtcav_ray.video.mp4 import encode_mp4
from vtcav_ray.video.webp import animated_webp, evenly

PANEL = 192  # longer side of one panel, in pixels
GAP = 6
HEAD = 30  # above the panels
SIDE = 30  # left of the panels
SCALE = 58  # right of the panels
GROUND, INK = (20, 22, 26), (235, 233, 228)
OPACITY = 0.6
MIN_LABEL = 11  # letters of a row's label that are never cut
TIME, MARGIN = 56, 8  # height of the time line, and the space around it, pixels
BAR, QUIET = (252, 165, 10), (96, 100, 110)  # bars of the time line: above and below 0
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
    upper_Thw: np.ndarray,
    lower_Thw: np.ndarray,
    labels: tuple[str, str],
    boxes_T4: np.ndarray | None,
) -> np.ndarray:
    """Draw the overlay, uint8 `[T, height, width, 3]` with even sides. Each map is scaled by its own largest value.

    Args:
        pixels_Thw3: the model's input as an image, uint8.
        upper_Thw, lower_Thw: the maps of the two rows, in the clip's frame order.
        labels: of the two rows; too long ones are cut.
        boxes_T4: the object's box in pixels of the model's input, drawn into the source panels; None: no box.
    """
    frames, height, width = upper_Thw.shape
    zoom = PANEL / max(height, width)
    size = (max(2, round(width * zoom)), max(2, round(height * zoom)))  # OpenCV: width, height
    picture = _ground(size, labels)
    shown = np.repeat(picture[None], frames, axis=0)
    source = _larger(pixels_Thw3, size)
    framed = source if boxes_T4 is None else _with_boxes(source, boxes_T4 * zoom)
    for row, maps in enumerate((upper_Thw, lower_Thw)):
        top = float(maps.max())
        large = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in maps])
        for column, panel in enumerate((framed, heat(large, top), both(source, large, top))):
            y = HEAD + row * (size[1] + GAP)
            x = SIDE + column * (size[0] + GAP)
            shown[:, y : y + size[1], x : x + size[0]] = panel
    return shown


def _ground(size: tuple[int, int], labels: tuple[str, str]) -> np.ndarray:
    """Draw labels and colour scale, without the panels."""
    width, height = SIDE + 3 * (size[0] + GAP) + SCALE, HEAD + 2 * (size[1] + GAP)
    image = Image.new("RGB", (width + width % 2, height + height % 2), GROUND)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(17)
    for column, word in enumerate(("source", "map", "both")):
        pen.text((SIDE + column * (size[0] + GAP) + size[0] / 2, HEAD / 2), word, INK, font, anchor="mm")
    for row, text in enumerate(labels):
        label = Image.new("RGB", (size[1], SIDE), GROUND)
        while font.getlength(text) > size[1] and len(text) > MIN_LABEL:
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


def write(folder: Folder, picture_THW3: np.ndarray, what: Sequence[str], suffix: str = "") -> dict[str, Any]:
    """Write an overlay as .mp4 and .webp into a stage's folder; return the columns that say where and how large.

    Args:
        folder: the stage's folder.
        picture_THW3: from `draw`.
        what: names what is drawn; the file names are a digest of it.
        suffix: end of the file names.
    """
    stem = f"overlays/{hashlib.sha256('|'.join(what).encode()).hexdigest()[:16]}{suffix}"
    folder.write_bytes(f"{stem}.mp4", as_mp4(picture_THW3))
    folder.write_bytes(f"{stem}.webp", as_webp(picture_THW3))
    _, height, width, _ = picture_THW3.shape
    return {"mp4": f"{stem}.mp4", "webp": f"{stem}.webp", "height": height, "width": width}


def with_timeline(picture_THW3: np.ndarray, upper_T: np.ndarray, lower_T: np.ndarray) -> np.ndarray:
    """Add a time line below an overlay: a bar for each frame, up for positive values, and a cursor at this frame.

    Args:
        picture_THW3: from `draw`, T frames.
        upper_T: one value per frame, drawn as bars.
        lower_T: the values to compare with, drawn as ticks on the same scale.
    """
    frames, _, width, _ = picture_THW3.shape
    strip = np.empty((TIME, width, 3), np.uint8)
    strip[:] = GROUND
    top = max(float(np.abs(upper_T).max()), float(np.abs(lower_T).max()), 1e-30)
    left, right = SIDE, width - SCALE
    middle, reach = TIME // 2, TIME // 2 - MARGIN
    edges = np.linspace(left, right, frames + 1).round().astype(int)
    cv2.line(strip, (left, middle), (right, middle), QUIET, 1)
    for t in range(frames):
        start, stop = int(edges[t]) + 1, int(edges[t + 1]) - 2
        end, tick = (middle - round(float(values[t]) / top * reach) for values in (upper_T, lower_T))
        cv2.rectangle(strip, (start, middle), (stop, end), BAR if end < middle else QUIET, -1)
        cv2.line(strip, (start, tick), (stop, tick), INK, 1)
    strips = np.repeat(strip[None], frames, axis=0)
    for t in range(frames):
        cv2.rectangle(strips[t], (int(edges[t]), 1), (int(edges[t + 1]) - 1, TIME - 2), INK, 1)
    return np.concatenate((picture_THW3, strips), axis=1)


def square_png(values_SS: np.ndarray, top: float, side: int = 144) -> bytes:
    """Return an aligned map as a PNG, with the outline of the box (the middle third)."""
    large = cv2.resize(values_SS.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    picture = heat(large[None], top)[0]
    third = side // 3
    cv2.rectangle(picture, (third, third), (side - third - 1, side - third - 1), (255, 255, 255), 1)
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "PNG", optimize=True)
    return sink.getvalue()
