"""Compare every stage with what a user would write instead, in one run on the same inputs: ratios with spread.

    python benchmarks/throughput.py               5 repeats, some minutes of one core
    python benchmarks/throughput.py --missing     only what is missing from the JSON, with the same settings
    python benchmarks/throughput.py --only clips  only ways with this in their name
    python benchmarks/throughput.py --no-ray      `extraction_core.py`: Swin-T and Swin-B at full size

- **tracks**: `track_videos` against Ultralytics' `track()` in a loop;
- **clips**: the stage's worker against OpenCV in a loop, which stores its clips as PNG or does not store them;
- **extract**: `Extractor`, from uint8 clips to projected activations and gradients of four layers, against the plain
  MMAction2 model with forward hooks, one clip at a time; and from files, activations alone (MMAction2's inferencer runs
  without gradients), against `inference_recognizer` with the same hooks;
- **cavs**: `train_cavs` against Captum's DefaultClassifier and scikit-learn's LogisticRegression in a loop;
- **scores**: `score` against a NumPy loop over CAVs, and effects against SciPy's permutation test in a loop;
- **cavs and scores**: against Captum's `TCAV.interpret`;
- **all together**: from videos to scores, our stages' own workers (without Ray, whose startup time does not depend on
  the work) against a script of `track()`, OpenCV, hooks and scikit-learn. `stages` lists ours one by one.

Ratios are of processor time: theirs over ours, above 1 if ours is faster. Both are warmed up first, then take turns.
Each way is written to the JSON when it is measured, beside earlier results. The profile of the slowest stage is stored
beside it. For detector and tracker on your own videos, see `tracking.py`; for several GPUs, `throughput_swin.py`; for a
tiny size against committed ratios, `smoke.py`.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
from collections.abc import Callable, Sequence
from typing import Any

import torch
from environment import RESULTS, moment, ratios, read, spread, write

_FILE, _CORE, _PROFILE = (
    RESULTS / name for name in ("throughput.json", "extraction_core.json", "throughput_profile.txt")
)
WHOLE = "all together, track(), OpenCV, hooks and scikit-learn"
SETTINGS = ("repeats", "cavs", "videos", "runs", "threads")


def profile(call: Callable[[], Any], title: str) -> str:
    """Return the twenty functions with the largest own time."""
    watch = cProfile.Profile()
    watch.runcall(call)
    text = io.StringIO()
    pstats.Stats(watch, stream=text).strip_dirs().sort_stats("tottime").print_stats(20)
    return title + "\n" + "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip()) + "\n"


def measure(options: argparse.Namespace) -> None:
    """Measure all requested ways. Write the JSON after each, and the profile at the end."""
    import baselines
    import baselines_vectors
    import baselines_whole

    kept = read(_FILE)
    kept.pop("settings", None)  # from files older than the settings per way
    settings = {name: getattr(options, name) for name in SETTINGS}
    measured = kept.setdefault("ways", {})

    def wanted(name: str) -> bool:
        if options.missing and measured.get(name, {}).get("settings") == settings:
            return False
        return options.only is None or options.only in name

    def keep(name: str, figures: dict[str, Any]) -> None:
        measured[name] = {"settings": settings, **moment(), **figures}
        write(_FILE, kept)
        _tell(name, figures)

    with baselines.small_world(options.videos) as world:
        makers: list[Callable[[], baselines.Ways]] = [
            lambda: baselines.tracking_ways(world),
            lambda: baselines.extraction_ways(world),
            lambda: baselines_vectors.cav_ways(options.cavs),
            lambda: baselines_vectors.score_ways(10, 2000, 20, 10_000),
            lambda: baselines_vectors.captum_ways(options.runs, 256),
            lambda: baselines_whole.clip_ways(world),
        ]
        for make in makers:
            for name, (theirs, ours) in make().items():
                if wanted(name):
                    keep(name, ratios(baselines.limited(theirs), baselines.limited(ours), options.repeats))
        if not wanted(WHOLE):
            return
        whole = baselines_whole.Whole(world)
        figures = ratios(baselines.limited(whole.theirs), baselines.limited(whole.ours), options.repeats)
        timed = whole.stages[1:]  # the first call warms up
        stages = {stage: spread([one[stage] for one in timed]) for stage in timed[0]}
        slowest = max(stages, key=lambda stage: stages[stage]["median"])
        kept |= {"stages_cpu_s": stages, "slowest": slowest, "whole": whole.counts}
        keep(WHOLE, figures)
        text = profile(baselines.limited(whole.ours), f"All stages in one process; the slowest is {slowest}.")
    _PROFILE.write_text(text, encoding="utf-8")


def _tell(name: str, figures: dict[str, Any]) -> None:
    r, own = figures["ratio"], figures["ours_s"]["median"]
    print(f"{name:<58} {r['median']:6.2f} times ({r['min']:.2f} to {r['max']:.2f}), ours {own:.3f} s", flush=True)


def measure_extraction_core(options: argparse.Namespace) -> None:
    """Measure `--no-ray`. The JSON has a part for each model, size, type, device and number of threads."""
    import extraction_core

    kept = read(_CORE)
    for model in options.models:
        found = extraction_core.measure(model, options)
        size = f"{options.clips} x {options.frames}x{options.size}x{options.size}"
        name = f"{model}, {size}, {options.precision}, {found['device']}, {options.threads} threads"
        kept.setdefault("models", {})[name] = found
        write(_CORE, kept)
        print(f"{name}: {extraction_core.sentence(found)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cavs", type=int, default=100)
    parser.add_argument("--videos", type=int, default=40, help="at least 32: with fewer there is no concept to plan")
    parser.add_argument("--runs", type=int, default=5, help="random sets of Captum's TCAV")
    parser.add_argument("--threads", type=int, help="default: 1; with --no-ray all cores")
    parser.add_argument("--only", help="a part of the ways' names")
    parser.add_argument("--missing", action="store_true", help="leave out what was measured with the same settings")
    parser.add_argument("--no-ray", action="store_true", help="the extraction core alone")
    parser.add_argument("--models", nargs="+", default=["swin-tiny", "swin-base"], help="of --no-ray")
    parser.add_argument("--clips", type=int, default=1, help="a batch, of --no-ray")
    parser.add_argument("--frames", type=int, default=32, help="of --no-ray")
    parser.add_argument("--size", type=int, default=224, help="of --no-ray")
    parser.add_argument("--device", default="auto", help="of --no-ray")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    options = parser.parse_args(arguments)
    options.threads = options.threads or (torch.get_num_threads() if options.no_ray else 1)
    torch.set_num_threads(options.threads)
    if options.no_ray:
        measure_extraction_core(options)
        return
    from baselines_whole import LEAST_VIDEOS

    if options.videos < LEAST_VIDEOS:
        parser.error(f"--videos {options.videos}: at least {LEAST_VIDEOS}, or no concept is seen in two videos")
    measure(options)


if __name__ == "__main__":
    main()
