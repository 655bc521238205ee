"""Part `environment`: a description of the machine, and its rates for large products and copies."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from typing import Any

import environment as machine
import torch

from gpu_parts.part import Part, matmul_rate, seconds


def run(part: Part) -> None:
    """Measure and note."""
    part.note("device", about(part))
    part.attempt("rates of matrix products", lambda: products(part))
    part.attempt("rates of memory", lambda: memory(part))


def about(part: Part) -> dict[str, Any]:
    """Note names, versions and sizes."""
    found = machine.environment()
    found |= {
        "system": platform.platform(),
        "memory_GB": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9,
    }
    found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    for name in ("torchvision", "transformers", "timm", "torchcodec", "av", "triton", "opencv-python-headless"):
        try:
            found["versions"][name] = machine.importlib.metadata.version(name)
        except machine.importlib.metadata.PackageNotFoundError:
            continue
    line = f"{found['device']}, {found['cpus']} cores"
    if part.options.device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        found["gpu"] = {
            "name": gpu.name,
            "memory_GB": gpu.total_memory / 1e9,
            "multiprocessors": gpu.multi_processor_count,
            "capability": f"{gpu.major}.{gpu.minor}",
            "count": torch.cuda.device_count(),
        }
        if shutil.which("nvidia-smi"):
            asked = "driver_version,clocks.max.sm,power.limit,pcie.link.gen.current,pcie.link.width.current"
            command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
            found["nvidia-smi"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        line += f", {gpu.total_memory / 1e9:.0f} GB, driver {found.get('nvidia-smi', 'not known').split(',')[0]}"
    versions = found["versions"]
    found["line"] = (
        f"{line}; Python {versions['python']}, torch {torch.__version__}, CUDA {torch.version.cuda}; {found['when']}"
    )
    return found


def products(part: Part) -> None:
    """Measure square products that are large enough to fill the chip."""
    device = part.options.torch_device
    sizes = [256] if part.options.tiny else ([8192, 16384] if device.type == "cuda" else [1536])
    for precision in ("fp32", "tf32", "bf16"):
        rates = {n: matmul_rate(device, precision, n) for n in sizes}
        part.note(f"operations a second, {precision}", rates)
        part.row(f"matrix product, {precision}", max(rates.values()) / 1e12, "T operations/s")


def memory(part: Part) -> None:
    """Measure bytes per second: a copy inside the device's memory (read and written), and copies to it and back."""
    device = part.options.torch_device
    size = 1 << (22 if part.options.tiny else 30)
    a = torch.zeros(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    inside = 2 * size / min(seconds(lambda: b.copy_(a), device) for _ in range(5))
    part.note("bytes a second inside the device", inside)
    part.row("memory, a copy inside the device", inside / 1e9, "GB/s")
    if device.type == "cpu":
        return
    here = torch.zeros(size // 4, dtype=torch.uint8)
    pinned = here.pin_memory()
    some = a[: size // 4]
    for name, way in {
        "to the device, page-locked": lambda: some.copy_(pinned, non_blocking=True),
        "to the device, pageable": lambda: some.copy_(here),
        "from the device, page-locked": lambda: pinned.copy_(some, non_blocking=True),
    }.items():
        rate = len(here) / min(seconds(way, device) for _ in range(5))
        part.note(f"bytes a second {name}", rate)
        part.row(f"memory, {name}", rate / 1e9, "GB/s")
    began = time.perf_counter()
    for _ in range(1000):
        some[:1].add_(1)
    torch.cuda.synchronize(device)
    part.note("seconds a call of a small kernel", (time.perf_counter() - began) / 1000)
