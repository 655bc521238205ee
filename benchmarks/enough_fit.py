"""Fit what videos show, for `enough.py`, to real clips: how often each concept is found, by label.

    python benchmarks/enough_fit.py --videos FOLDER --weights yolov8n.pt      FOLDER/.../LABEL/CLIP.mp4

The detector and tracker of the stage `tracks` look at every 8th frame of a seeded sample of clips of each label. A
concept is an object that moves in a direction, as `concepts: auto` proposes it from the spans that pass the quality
filters. (At this stride, small objects are rarely followed over a whole span.)

The number of a label's clips that show a concept is beta-binomial: each label has a rate, and the rates of a concept
have a beta distribution over labels, with `mean` m and `concentration` s: Beta(m s, (1 - m) s). The fit is by maximum
likelihood. The same is done for clips that give any span at all (`tracked`).

`enough_fitted.json` has the parameters, and no clip and no frame.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import write
from scipy.optimize import minimize
from scipy.stats import betabinom

from vtcav_ray.clips.classes import draw
from vtcav_ray.clips.offers import proposals
from vtcav_ray.clips.span_filters import usable_spans
from vtcav_ray.clips.spans import Span, iter_tracks
from vtcav_ray.config import ClipsConfig, TracksConfig
from vtcav_ray.tracks.detect import Detector
from vtcav_ray.tracks.track import track_videos

FITTED = Path(__file__).parent / "enough_fitted.json"
STRIDE = 8
# A span of 8 frames, 6 apart, fits into clips of 2 s. Two detections in a row may be missing.
CLIPS = {"frames": 8, "interval": 6, "quality": {"max_gap": 2 * STRIDE}}
FEWEST = 3  # clips that show a concept, below which it isn't fitted
BOUNDS = (np.log(1e-3), np.log(1e4))  # of both parameters of the beta distribution


def sampled(folder: Path, per_label: int, seed: int) -> dict[str, list[Path]]:
    """Return up to `per_label` clips of each label (the path of their folder)."""
    by_label: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.mp4")):
        by_label[path.parent.relative_to(folder).as_posix()].append(path)
    if not by_label:
        raise SystemExit(f"{folder} has no .mp4 file: give a folder with a folder of clips for each label")
    return {
        label: sorted(paths, key=lambda path: draw(seed, "fit", label, path.name))[:per_label]
        for label, paths in by_label.items()
    }


def fit(hits: Sequence[int], clips: Sequence[int]) -> dict[str, float]:
    """Fit a beta-binomial distribution by maximum likelihood.

    Args:
        hits: number of each label's clips that show a concept.
        clips: number of each label's clips.

    Returns:
        `mean` and `concentration` of the labels' rates. Without any spread over labels beyond chance, the concentration
        is at its bound.
    """
    hits_L, clips_L = np.asarray(hits), np.asarray(clips)
    if not 0 < hits_L.sum() < clips_L.sum():
        raise ValueError("a rate of 0 or 1 over all labels has no beta distribution")

    def loss(log_ab: np.ndarray) -> float:
        return -float(betabinom.logpmf(hits_L, clips_L, *np.exp(log_ab)).sum())

    share = hits_L.sum() / clips_L.sum()
    starts = [np.log([share * s, (1 - share) * s]) for s in (0.3, 3.0, 30.0)]
    fits = [minimize(loss, np.clip(start, *BOUNDS), bounds=[BOUNDS, BOUNDS], method="L-BFGS-B") for start in starts]
    a, b = np.exp(min(fits, key=lambda one: one.fun).x)
    return {"mean": round(float(a / (a + b)), 5), "concentration": round(float(a + b), 4)}


def look(clips: Mapping[str, Sequence[Path]], config: TracksConfig) -> dict[str, list[list[Span]]]:
    """Return the usable spans of each clip that could be read, by label."""
    detector, found, filters = Detector(config, "cpu"), {}, ClipsConfig.model_validate(CLIPS)
    for label, paths in clips.items():
        table, failures, _ = track_videos([(str(path), str(path)) for path in paths], detector, config)
        failed = {failure.video_id for failure in failures}
        spans: dict[str, list[Span]] = {str(path): [] for path in paths if str(path) not in failed}
        for track in iter_tracks(table):
            if track.video_id in spans:
                spans[track.video_id] += usable_spans(track, filters, Counter())
        found[label] = list(spans.values())
        print(label, Counter(name for some in spans.values() for name in _shown(some)).most_common(8), flush=True)
    return found


def _shown(spans: Sequence[Span]) -> list[str]:
    return [name for name, _, _ in proposals({(span.object, span.motion.direction) for span in spans})]


def concepts_of(found: Mapping[str, Sequence[Sequence[Span]]]) -> list[dict[str, Any]]:
    """Fit every concept that enough clips show, the most frequent first."""
    clips = [len(some) for some in found.values()]
    shown = {label: Counter(name for spans in some for name in _shown(spans)) for label, some in found.items()}
    total = sum(shown.values(), Counter())
    rows = []
    for name, count in sorted(total.items(), key=lambda item: (-item[1], item[0])):
        if count >= FEWEST:
            hits = [counts[name] for counts in shown.values()]
            rows.append({"concept": name, "clips": count, "labels": sum(map(bool, hits)), **fit(hits, clips)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--per-label", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    clips = sampled(args.videos, args.per_label, args.seed)
    config = TracksConfig(weights=args.weights, image_size=args.image_size, frame_stride=STRIDE)
    found = look(clips, config)
    counts = [len(some) for some in found.values()]
    tracks = [[len({span.track_id for span in spans}) for spans in some] for some in found.values()]
    result = {
        "clips": sum(counts),
        "unreadable": sum(map(len, clips.values())) - sum(counts),
        "labels": len(counts),
        "frame_stride": STRIDE,
        "seed": args.seed,
        "cpu_seconds": round(time.process_time() - begun),
        "tracked": fit([sum(map(bool, some)) for some in tracks], counts),
        "tracks_per_clip": round(float(np.mean([n for some in tracks for n in some])), 3),
        "concepts": concepts_of(found),
    }
    write(FITTED, result)


if __name__ == "__main__":
    main()
