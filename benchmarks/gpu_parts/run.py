"""Part `run`: `vtcav run` of a rendered corpus with Ray on the GPU and on the CPU: seconds and parity.

The second run has the first one's videos, tracks and clips, so that later stages are compared on the same clips. A
third run, on the CPU, ends with the tracks. Without a GPU, the second run has another batch size, whose last digits
differ, and there is no third.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gpu_parts import parity
from gpu_parts.part import Part
from vtcav_ray.runs.run import Run
from vtcav_ray.stages import NAMES
from vtcav_ray.world import write_world

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
WORLD = "world"
TINY = (
    "clips.per_class=4",
    "clips.min_per_class=2",
    "clips.per_concept=4",
    "clips.min_per_concept=3",
    "clips.random_pool=12",
    "clips.concepts=[{name: moving up, motion: {direction: up}, kinds: [context]}]",
    "activations.layers=[middle, late]",
    "cavs.random_sets=4",
    "scores.permutations=500",
    "scores.bootstrap=200",
)


def run(part: Part) -> None:
    """Measure and note."""
    with tempfile.TemporaryDirectory(prefix="gpu-run-", ignore_cleanup_errors=True) as place:
        three(part, Path(place))


def three(part: Part, folder: Path) -> None:
    """Make the runs, each in a separate folder, and compare them."""
    gpu = part.options.device == "cuda"
    write_world(str(folder / WORLD), videos=32 if part.options.tiny else 200, seed=1)
    first, second, third = folder / "gpu", folder / "cpu", folder / "cpu-tracks"
    done = part.attempt("run", lambda: whole(part, first, resources(part, gpu), "on the GPU" if gpu else "one"))
    if not done:
        part.skipped += ["parity of activations, CAVs and scores", "parity of tracks"]
        part.write()
        return

    def again() -> None:
        with_clips_of(first, second)
        more = resources(part, False) if gpu else [*resources(part, False), "resources.extract.batch_size=3"]
        whole(part, second, more, "on the processor, from the same clips" if gpu else "another batch size")
        parity.compare_vectors(part, Run(str(first)), Run(str(second)))
        parity.compare_scores(part, Run(str(first)), Run(str(second)))

    def tracks() -> None:
        if gpu:
            whole(part, third, resources(part, False), "on the processor, tracks", until="tracks")
        parity.compare_tracks(part, Run(str(first)), Run(str(third if gpu else second)))

    part.attempt("parity of activations, CAVs and scores", again, needs=20)
    part.attempt("parity of tracks", tracks, needs=15)


def resources(part: Part, gpu: bool) -> list[str]:
    """Return settings for one actor with the GPU, or many with a core each."""
    cores = len(os.sched_getaffinity(0))
    found = [] if not part.options.tiny else list(TINY)
    if gpu:
        for stage in ("detect", "extract", "statistics"):
            found += [f"resources.{stage}.gpus=1", f"resources.{stage}.cpus={max(1, cores // 2)}"]
        found += [f"resources.detect.decode_threads={max(2, cores // 2)}", "resources.extract.batch_size=auto"]
    elif part.options.tiny:
        found += [f"resources.{stage}.max_actors=1" for stage in ("detect", "cut", "extract", "statistics")]
    return found


def whole(part: Part, out: Path, settings: Sequence[str], title: str, until: str | None = None) -> None:
    """Run `vtcav run` in a separate process; return its time by stage and the GPU's load."""
    command = [sys.executable, "-m", "vtcav_ray", "run", str(CONFIG), "--out", str(out)]
    # Beside the runs, not in one, because a video's path is part of its identity and all runs share the videos.
    command += ["--set", "videos.world=null", "--set", f"videos.uri={out.parent / WORLD}"]
    command += [each for setting in settings for each in ("--set", setting)]
    command += ["--until", until] if until else []
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    began, busy = time.perf_counter(), GpuBusy()
    with busy:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"vtcav run ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    result = Run(str(out))
    stages = {name: result.manifest(name)["seconds"] for name in NAMES if name in result.keys}
    ran = [name for name in stages if name not in there]
    by_stage = {name: stages[name] for name in ran}
    part.note(f"run, {title}", {"seconds": taken, "by stage": by_stage, "gpu": busy.figures()})
    part.row(f"vtcav run, {title}", taken, "s")
    for name in ("tracks", "activations", "cavs", "scores"):
        if name in stages and name in ran and (until is None or name == until):
            part.row(f"vtcav run, {title}: {name}", stages[name], "s")
    failures = result.table("failures").num_rows
    part.note(f"run, {title}, failures", failures)
    assert not failures, f"{failures} failures in {out}"


def with_clips_of(first: Path, second: Path) -> None:
    """Make a run folder with the first one's videos, tracks and clips."""
    for name in ("videos", "tracks", "clips"):
        shutil.copytree(first / name, second / name)


class GpuBusy:
    """A sampler of nvidia-smi, if installed, five times per second: share of time with a kernel running, and memory."""

    def __init__(self) -> None:
        self._asked: list[tuple[float, float]] = []
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> GpuBusy:
        if shutil.which("nvidia-smi"):
            query = ["--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop-ms=200"]
            self._process = subprocess.Popen(["nvidia-smi", "--id=0", *query], stdout=subprocess.PIPE, text=True)
            self._thread = threading.Thread(target=self._read, daemon=True)
            self._thread.start()
        return self

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            parts = line.split(",")
            if len(parts) == 2 and all(each.strip().isdigit() for each in parts):
                self._asked.append((float(parts[0]), float(parts[1])))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._thread is not None:
            self._process.terminate()
            self._process.wait()
            self._thread.join()

    def figures(self) -> dict[str, Any]:
        """Return the figures; empty: nvidia-smi is not installed."""
        if not self._asked:
            return {}
        busy, memory = np.array(self._asked).T
        return {"busy share": float(busy.mean() / 100), "memory, MB": float(memory.max()), "asked": len(busy)}
