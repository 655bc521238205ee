"""Every stage beside what a user would write instead, side by side in one run, on the same inputs: ratios with spread.

    python benchmarks/throughput.py               5 repeats, some minutes of one core
    python benchmarks/throughput.py --check       a tiny size; fails where a ratio fell against the committed JSON
    python benchmarks/throughput.py --no-ray      the bare extraction core, Swin-T and Swin-B at full size (`bare.py`)

- **tracks**: `track_videos` against Ultralytics' `track()` in a loop;
- **extract**: `Extractor`, from uint8 clips to projected activations and gradients of four layers, against the bare
  MMAction2 model with forward hooks, one clip at a time; and from files, activations alone (MMAction2's inferencer runs
  without gradients), against `inference_recognizer` with the same hooks;
- **cavs**: `train_cavs` against Captum's DefaultClassifier and scikit-learn's LogisticRegression in a loop;
- **cavs and scores**: against Captum's `TCAV.interpret`;
- **all together**: from videos to scores, our stages' own workers (without Ray, whose start is the same whatever there
  is to do) against a script of `track()`, OpenCV, hooks and scikit-learn. `stages` has ours one by one.

Ratios are of processor time: theirs over ours, above 1 where ours is faster. The profile of the slowest stage lies
beside the JSON. Detector and tracker on videos of one's own: `tracking.py`; with several GPUs: `throughput_swin.py`.
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

import torch
from environment import RESULTS, ratios, spread, write

MARGIN = 0.5  # a ratio under half of the committed one fails: what neighbours do to caches stays above that
_FILE, _BARE, _PROFILE = (RESULTS / name for name in ("throughput.json", "bare.json", "throughput_profile.txt"))


def cav_ways(count: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """`count` CAVs of 50 + 50 clips, d = 768: theirs and ours. Ours includes the Gram matrix."""
    import cavs

    from vtcav_ray.cavs import gram

    pool = cavs.activations(1000, 768)
    few = cavs.activations(1000, 768)

    def ours() -> None:
        cavs.ours(gram(pool), count)

    return {
        "cavs, Captum's classifier in a loop": (lambda: cavs.captum(few, count), ours),
        "cavs, scikit-learn in a loop": (lambda: cavs.scikit_learn(few, count), ours),
    }


def fallen(found: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Ways whose ratio is under `MARGIN` of the committed one, or that are not among the committed."""
    out = []
    for name, figures in found.items():
        if name not in before:
            out.append(f"{name}: not in {_FILE.name}; measure again and commit")
            continue
        now, then = figures["ratio"]["median"], before[name]["ratio"]["median"]
        if now < MARGIN * then:
            out.append(f"{name}: {now:.2f} times, under {MARGIN} of the committed {then:.2f}")
    return out


def profile(call: Callable[[], Any], title: str) -> str:
    """The twenty functions that take longest by themselves."""
    watch = cProfile.Profile()
    watch.runcall(call)
    text = io.StringIO()
    pstats.Stats(watch, stream=text).strip_dirs().sort_stats("tottime").print_stats(20)
    return title + "\n" + "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip()) + "\n"


def measure(options: argparse.Namespace) -> None:
    """All ways; writes the JSON and the profile, or checks against them."""
    import beside

    ways = cav_ways(options.cavs)
    with beside.small_world(options.videos) as world:
        ways |= beside.tracking_ways(world) | beside.extraction_ways(world)
        if not options.check:
            ways |= beside.captum_ways(options.runs, 256)
        found = {}
        for name, (theirs, ours) in ways.items():
            found[name] = ratios(beside.limited(theirs), beside.limited(ours), options.repeats)
            _tell(name, found[name])
        if options.check:
            if fell := fallen(found, json.loads(_FILE.read_text(encoding="utf-8"))["ways"]):
                sys.exit("\n".join(fell))
            return
        settings = {name: getattr(options, name) for name in ("repeats", "cavs", "videos", "runs", "threads")}
        write(_FILE, {"settings": settings, "ways": found})  # so that what is done is kept
        whole = beside.Whole(world)
        name = "all together, track(), OpenCV, hooks and scikit-learn"
        found[name] = ratios(beside.limited(whole.theirs), beside.limited(whole.ours), options.repeats)
        _tell(name, found[name])
        timed = whole.stages[1:]  # the first warms up
        stages = {stage: spread([one[stage] for one in timed]) for stage in timed[0]}
        slowest = max(stages, key=lambda stage: stages[stage]["median"])
        result = {"settings": settings, "ways": found, "stages_cpu_s": stages, "slowest": slowest}
        write(_FILE, result | {"whole": whole.counts})
        text = profile(beside.limited(whole.ours), f"All stages in one process; the slowest is {slowest}.")
    _PROFILE.write_text(text, encoding="utf-8")


def _tell(name: str, figures: dict[str, Any]) -> None:
    r, own = figures["ratio"], figures["ours_s"]["median"]
    print(f"{name:<58} {r['median']:6.2f} times ({r['min']:.2f} to {r['max']:.2f}), ours {own:.3f} s", flush=True)


def measure_bare(options: argparse.Namespace) -> None:
    """`--no-ray`."""
    import bare

    models = {}
    for model in options.models:
        models[model] = found = bare.measure(model, options)
        print(
            f"{model}: {found['clips_per_second']:.3f} clips/s, {found['share_of_limit']:.0%} of the limit, "
            f"{found['ratio']['median']:.2f} times MMAction2's own, {found['peak_memory_MB']:.0f} MB",
            flush=True,
        )
    settings = {name: getattr(options, name) for name in ("device", "precision", "threads")}
    write(_BARE, {"settings": settings, "models": models})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cavs", type=int, default=100)
    parser.add_argument("--videos", type=int, default=30)
    parser.add_argument("--runs", type=int, default=5, help="random sets of Captum's TCAV")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="compare with the committed JSON; writes nothing")
    parser.add_argument("--no-ray", action="store_true", help="the bare core alone")
    parser.add_argument("--models", nargs="+", default=["swin-tiny", "swin-base"], help="of --no-ray")
    parser.add_argument("--clips", type=int, default=1, help="a batch, of --no-ray")
    parser.add_argument("--frames", type=int, default=32, help="of --no-ray")
    parser.add_argument("--size", type=int, default=224, help="of --no-ray")
    parser.add_argument("--device", default="auto", help="of --no-ray")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.no_ray:
        measure_bare(options)
        return
    if options.check:
        options.repeats, options.videos, options.cavs = 3, 8, 40
    measure(options)


if __name__ == "__main__":
    main()
