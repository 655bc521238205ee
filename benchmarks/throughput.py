"""Two stages beside what a user would write instead, side by side in one run, on the same inputs: ratios with spread.

    python benchmarks/throughput.py               5 repeats
    python benchmarks/throughput.py --check       a tiny size; fails where a ratio fell against the committed JSON

- **cavs**: `train_cavs` against Captum's DefaultClassifier and scikit-learn's LogisticRegression in a loop;
- **extract**: `Extractor` on MMAction2's Swin of the planted world, from uint8 clips to projected activations and
  gradients of four layers, against the bare MMAction2 model with forward hooks on the same layers, one clip at a time.

Ratios are of processor time: theirs over ours, above 1 where ours is faster. Full-size Swin-T: `throughput_swin.py`;
detector and tracker against Ultralytics' `track()`: `tracking.py`.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import pstats
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cavs
import numpy as np
import torch
from environment import RESULTS, ratios, write

from vtcav_ray.activations import Extractor
from vtcav_ray.cavs import gram
from vtcav_ray.config import ModelConfig
from vtcav_ray.models import load_recogniser, resolve_layer
from vtcav_ray.models.config_files import read_config
from vtcav_ray.models.mmaction import build_mmaction

LAYERS = ("early", "middle", "late", "head")
MARGIN = 0.5  # a ratio under half of the committed one fails: what neighbours do to caches stays above that
_FILE = RESULTS / "throughput.json"


def cav_ways(count: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """`count` CAVs of 50 + 50 clips, d = 768: theirs and ours. Ours includes the Gram matrix."""
    pool = cavs.activations(1000, 768)

    def ours() -> None:
        cavs.ours(gram(pool), count)

    return {
        "cavs, Captum's classifier in a loop": (lambda: cavs.captum(pool, count), ours),
        "cavs, scikit-learn in a loop": (lambda: cavs.scikit_learn(pool, count), ours),
    }


def extract_ways(clips: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Activations and one class's gradients of `clips` clips at four layers: theirs and ours."""
    recogniser = load_recogniser(ModelConfig(config="asset:recogniser.py", checkpoint="untrained"), "cpu")
    plain = build_mmaction(read_config("asset:recogniser.py"), "asset:recogniser.py", seed=None)
    plain.load_state_dict(recogniser.module.state_dict())
    frames = list(np.random.default_rng(0).integers(0, 256, (clips, 16, 64, 64, 3), dtype=np.uint8))
    extractor = Extractor(recogniser, LAYERS, batch_size=8, threads=1)
    module: Any = plain

    def hooked() -> None:
        kept: list[torch.Tensor] = []
        paths = [resolve_layer(recogniser, layer) for layer in LAYERS]
        hooks = [plain.get_submodule(p).register_forward_hook(lambda m, i, out: kept.append(out)) for p in paths]
        for clip in frames:
            kept.clear()
            logits = module.cls_head(module.backbone(recogniser.preprocess([clip])[:, 0]))
            gradients = torch.autograd.grad(logits[0, 0], kept)
            assert len(gradients) == len(LAYERS), "every layer was hooked"
        for hook in hooks:
            hook.remove()

    return {
        "extract, MMAction2's model with hooks": (hooked, lambda: extractor.extract(frames, [[0]] * clips)),
    }


def profile(call: Callable[[], Any]) -> list[str]:
    """The ten functions that take longest by themselves."""
    watch = cProfile.Profile()
    watch.runcall(call)
    text = io.StringIO()
    pstats.Stats(watch, stream=text).strip_dirs().sort_stats("tottime").print_stats(10)
    return [line.strip() for line in text.getvalue().splitlines() if line.strip()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cavs", type=int, default=100)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="compare with the committed JSON; writes nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.check:
        options.repeats = 3
    ways = {**cav_ways(options.cavs), **extract_ways(options.clips)}
    found = {name: ratios(*pair, options.repeats) for name, pair in ways.items()}
    for name, figures in found.items():
        r, own = figures["ratio"], figures["ours_s"]["median"]
        print(f"{name:<42} {r['median']:6.2f} times ({r['min']:.2f} to {r['max']:.2f}), ours {own:.3f} s", flush=True)
    if options.check:
        before = json.loads(_FILE.read_text(encoding="utf-8"))["ways"]
        fell = [n for n, f in found.items() if f["ratio"]["median"] < MARGIN * before[n]["ratio"]["median"]]
        if fell:
            sys.exit(f"Under {MARGIN} of the committed ratio: {', '.join(fell)}")
        return
    slowest = max(found, key=lambda name: found[name]["ours_s"]["median"])
    settings = {name: getattr(options, name) for name in ("repeats", "cavs", "clips", "threads")}
    write(_FILE, {"settings": settings, "ways": found, "slowest": slowest, "profile": profile(ways[slowest][1])})


if __name__ == "__main__":
    main()
