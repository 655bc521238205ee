"""The shared base of all parts: time limits, records and measuring."""

from __future__ import annotations

import gc
import json
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import extraction_core
import torch

# Number type -> its name in `activations.precision`. tf32 is float32 with 10 bits inside products.
PRECISIONS = {"bf16": "bfloat16", "tf32": "float32", "fp32": "float32"}
Way = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """The options of a part.

    Attributes:
        device: `cpu` or `cuda`.
        tiny: sizes that take a second or two on a CPU, to check that everything works, not how fast.
        seconds: time limit of the part.
        out: folder for the results.
    """

    device: str
    tiny: bool
    seconds: float
    out: Path

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)


@dataclass(frozen=True)
class Target:
    """A figure's target: a minimum or a maximum. Targets of speed are not judged at the tiny size or on a CPU."""

    value: float
    at_least: bool = True
    speed: bool = False

    def met(self, found: float) -> bool:
        return found >= self.value if self.at_least else found <= self.value

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.value:g}"


@dataclass
class Part:
    """One part's record, written to `<out>/<name>.json` after every note.

    Attributes:
        figures: all measured figures, by name.
        rows: of the table: figure, value, unit, target, whether it is met.
        errors: measurement that failed -> its error.
        skipped: measurements for which no time was left.
    """

    name: str
    options: Options
    figures: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    state: str = "running"
    begun: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Return the seconds left."""
        return self.options.seconds - (time.perf_counter() - self.begun)

    @property
    def path(self) -> Path:
        return self.options.out / f"{self.name}.json"

    def note(self, name: str, value: Any) -> None:
        """Record a figure and print it."""
        self.figures[name] = value
        self.write()
        print(f"[{self.name}] {name}: {shortened(value)}", flush=True)

    def row(self, figure: str, value: float, unit: str = "", target: Target | None = None) -> None:
        """Add a row to the table."""
        judged = target is not None and not (target.speed and (self.options.tiny or self.options.device == "cpu"))
        met = target.met(value) if target is not None and judged else None
        self.rows.append(
            {"figure": figure, "value": value, "unit": unit, "target": str(target) if target else "", "met": met}
        )
        self.write()

    def attempt(self, name: str, measure: Callable[[], None], *, needs: float = 0.0) -> bool:
        """Run one measurement. Record an error or a lack of time, so that the next measurement can run.

        Args:
            name: of the measurement.
            measure: measures and notes.
            needs: its approximate seconds; with less time left it is skipped, except at the tiny size.

        Returns:
            Whether it was measured.
        """
        if self.left < needs and not self.options.tiny:
            self.skipped.append(name)
            self.write()
            return False
        begun = time.perf_counter()
        try:
            measure()
        except Exception as error:  # noqa: BLE001 - the machine is there for minutes: what else can be measured is
            self.errors[name] = "".join(traceback.format_exception(error)[-6:]).strip()
            print(f"[{self.name}] {name} FAILED: {type(error).__name__}: {error}", flush=True)
        self.figures.setdefault("seconds by step", {})[name] = round(time.perf_counter() - begun, 1)
        self.write()
        free_memory(self.options.torch_device)
        return name not in self.errors

    def write(self) -> None:
        """Write the record atomically, so that a killed part leaves what it has found so far."""
        found = {
            "part": self.name,
            "state": self.state,
            "device": self.options.device,
            "tiny": self.options.tiny,
            "seconds": round(time.perf_counter() - self.begun, 1),
            "seconds_allowed": round(self.options.seconds, 1),
            "errors": self.errors,
            "skipped": self.skipped,
            "rows": self.rows,
            "figures": self.figures,
        }
        aside = self.path.with_suffix(".new")
        aside.write_text(json.dumps(finite(found), indent=1) + "\n", encoding="utf-8")
        aside.replace(self.path)


def finite(value: Any) -> Any:
    """Return the value with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shortened(value: Any) -> str:
    """Return the value as a short text for the terminal."""
    text = json.dumps(finite(value), default=str)
    return text if len(text) < 300 else f"{text[:300]} ..."


@contextmanager
def numbers(precision: str) -> Iterator[None]:
    """Set float32 products and convolutions to TF32 for `tf32`, to float32 for `fp32`, to torch's default for `bf16`.

    torch's own default is float32 in products and TF32 in cuDNN's convolutions (Swin has one, its patch embedding).
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    if precision != "bf16":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def matmul_rate(device: torch.device, precision: str, n: int) -> float:
    """Return operations per second in a product of two n x n matrices: the best of several."""
    with numbers(precision):
        a = torch.randn(n, n, device=device, dtype=getattr(torch, PRECISIONS[precision]))
        a @ a
        return 2 * n**3 / min(seconds(lambda: a @ a, device) for _ in range(5))


def seconds(way: Way, device: torch.device) -> float:
    """Return wall seconds until the device has finished."""
    return extraction_core.timed(way, device)[0]


def in_turns(ways: Mapping[str, Way], device: torch.device, repeats: int) -> dict[str, list[float]]:
    """Return seconds of each way, `repeats` times, in turns, after one uncounted call of each."""
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            taken[name].append(seconds(way, device))
    return taken


def middle(values: list[float]) -> float:
    return median(values)


def ratio(slower: list[float], faster: list[float]) -> dict[str, float]:
    """Return the ratio of durations, pair by pair: median, minimum and maximum."""
    found = [a / b for a, b in zip(slower, faster, strict=True)]
    return {"median": median(found), "min": min(found), "max": max(found)}


def free_memory(device: torch.device) -> None:
    """Free GPU memory, since an error's traceback may hold tensors."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
