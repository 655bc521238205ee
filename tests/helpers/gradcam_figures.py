"""Made-up figures of a Grad-CAM page whose verdict is known."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.gradcam.compare import Comparison, Interval, TcavFigures, map_figures
from vtcav_ray.gradcam.measures import ALIGNED_SIDE
from vtcav_ray.gradcam.page_data import PageData, Picture
from vtcav_ray.gradcam.summary import AGGREGATE, summarise
from vtcav_ray.heatmaps.overlays import as_webp, draw

NASTY = "<img src=x onerror=alert(1)>"
BLIND = {"direction_predicted": 0.97, "direction": 0.6, "drift_y": 0.0}


def rows(**changes: object) -> pa.Table:
    """Make twelve clips of `lift` and `put_down`, whose objects move up and down, with noisy maps as in `changes`."""
    stream = np.random.default_rng(0)
    made = []
    for layer in ("middle", "late"):
        for mode in ("frame", "clip"):
            for number in range(12):
                name, other = ("lift", "put_down") if number % 2 else ("put_down", "lift")
                way = -0.3 if name == "lift" else 0.3
                noise = float(stream.normal(0, 0.01))
                made.append(
                    {
                        "clip_id": f"class/{name}/{number}",
                        "video_id": f"v{number}",
                        "class": name,
                        "layer": layer,
                        "mode": mode,
                        "flicker": 0.3 + noise,
                        "track_flicker": 0.1,
                        "jump": 0.1 + noise,
                        "track_jump": 0.02,
                        "logit": 3.0,
                        "logit_change": -4.0 + noise,
                        "predicted": name,
                        "predicted_reversed": other,
                        "background_share": 0.7 + noise,
                        "background_chance": 0.9,
                        "track_agreement": 0.5 + noise,
                        "pointing": 0.5,
                        "drift_x": noise,
                        "track_drift_x": noise,
                        "track_drift_y": way + noise,
                        "shuffled_weights_similarity": 0.1 + noise,
                        "empty_share": 0.0,
                        "passes": 16 if mode == "frame" else 1,
                        "model": "m@1",
                        **{k: v * way / 0.3 + noise if k == "drift_y" else v + noise for k, v in BLIND.items()},
                        **changes,
                    }
                )
    return pa.Table.from_pylist(made, schema=tables.GRADCAM)


def tcav(first: float, second: float) -> TcavFigures:
    one, two = (Interval(e, e - 0.1, e + 0.1) for e in (first, second))
    return TcavFigures((one, two), (0.0001, 0.0001), Interval(1.0, 0.8, 1.0))


def comparison(table: pa.Table, figures: TcavFigures | None) -> Comparison:
    clip = table.filter(
        pa.compute.and_(pa.compute.equal(table["layer"], "middle"), pa.compute.equal(table["mode"], "clip"))
    )
    parts = [clip.filter(pa.compute.equal(clip["class"], name)) for name in ("lift", "put_down")]
    maps = {"middle": map_figures(parts, ("lift", "put_down"))}
    found = {} if figures is None else {"middle": figures}
    return Comparison(("lift", "put_down"), ("moving up/context", "moving down/context"), maps, found, "No scores.")


@functools.cache
def example_clip() -> tuple[bytes, int, int]:
    """Return an overlay of random maps as WebP, its height and its width."""
    maps = np.random.default_rng(0).random((16, 24, 24)).astype(np.float32)
    picture = draw(np.full((16, 24, 24, 3), 90, np.uint8), maps, maps[::-1], ("lift", "put_down"), None)
    return (as_webp(picture), *picture.shape[1:3])


def page_data(table: pa.Table | None = None, **changes: object) -> PageData:
    table = rows() if table is None else table
    webp, height, width = example_clip()
    aligned = [
        {"class": name, "layer": "middle", "mode": mode, "clips": 6, "map": np.ones(ALIGNED_SIDE**2)}
        for name in ("all", "lift")
        for mode in ("frame", "clip")
    ]
    given: dict[str, object] = {
        "title": "quickstart",
        "layer": "middle",
        "clips": table,
        "summary": summarise(table),
        "aggregate": pa.Table.from_pylist(aligned, schema=AGGREGATE),
        "comparisons": [comparison(table, tcav(0.5, -0.5))],
        "pictures": [
            Picture(f"class/lift/{i}", "lift", mode, "middle", webp, "x.mp4", height, width)
            for i in range(2)
            for mode in ("frame", "clip")
        ],
        "seconds": 2.0,
        "model": "m@1",
        "report": "report.html",
    }
    return PageData(**{**given, **changes})  # type: ignore[arg-type]
