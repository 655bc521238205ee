"""The environment that every benchmark records with its figures, and the writing of results."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    "ray", "torch", "mmaction2", "mmengine", "mmcv-lite", "ultralytics", "captum", "scikit-learn", "numpy", "pyarrow",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Return device, versions and date, without packages that are not installed (`--no-ray` needs fewer)."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": gpu or _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],  # above `cpus`, other processes were running: read ratios, not seconds
        "versions": versions,
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result with its environment, for comparison with later ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"environment": environment()} | result, indent=1)
    # Put a list of numbers on one line instead of one line per number.
    flat = re.sub(r"\[\s+([^\[\]{}\"]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    aside = path.with_name(path.name + ".new")  # if the process is killed here, the earlier file stays intact
    aside.write_text(flat + "\n", encoding="utf-8")
    aside.replace(path)
    print(f"written to {path}", flush=True)


def show(result: dict[str, Any], out: Path | None = None) -> None:
    """Print a result as JSON. With `out`, also write it, with its environment."""
    print(json.dumps(result, indent=1), flush=True)
    if out:
        write(out, result)


def read(path: Path) -> dict[str, Any]:
    """Return earlier results without their environment; empty: no earlier results."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if name != "environment"}


def moment() -> dict[str, Any]:
    """Return date, device and load of one step, for a file that is written in several steps."""
    here = environment()
    return {name: here[name] for name in ("when", "device", "cpus", "load")}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Return processor seconds of this process (all threads): steadier than wall seconds on a busy machine."""
    start = time.process_time()
    call()
    return time.process_time() - start


def ratios(theirs: Callable[[], Any], ours: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Measure processor seconds of two ways in turns, and their ratio per repeat.

    Returns:
        `theirs_s`, `ours_s` and `ratio` (theirs over ours; above 1, ours is faster), each with median, min and max.
    """
    theirs()  # warm up: imports, allocations, caches
    ours()
    pairs = [(cpu_seconds(theirs), cpu_seconds(ours)) for _ in range(repeats)]
    return {
        "repeats": repeats,
        "theirs_s": spread([a for a, _ in pairs]),
        "ours_s": spread([b for _, b in pairs]),
        "ratio": spread([a / b for a, b in pairs]),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
