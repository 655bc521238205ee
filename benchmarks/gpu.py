"""Measure all figures of a machine with a GPU with one command: one JSON file and one table, in under 8 minutes.

    python benchmarks/gpu.py --out FOLDER                       # everything
    python benchmarks/gpu.py --out FOLDER --only networks       # one part; may be repeated
    python benchmarks/gpu.py --out FOLDER --seconds 240         # less time: each part measures what matters most
    python benchmarks/gpu.py --out FOLDER --tiny --device cpu   # check that everything works, without a GPU

The parts, in order of importance:

- `environment`: device, driver, versions, cores; measured rates of matrix products (fp32, tf32, bf16) and of memory;
- `networks`: Swin-T and Swin-B beside MMAction2's own code, by number type, compiled and not;
- `stage`: the stage `activations` beside the model loop, and the CPU time for decoding;
- `run`: `vtcav run` with Ray, on the GPU and on the CPU, and whether their tables agree;
- `tracks`: frames per second beside Ultralytics' `track()`, by batch and decoder;
- `cavs`: CAVs, permutations and scores on the GPU and on the CPU.

Each part runs in a separate process, so a crash or hang does not affect the others. It writes `FOLDER/<part>.json`
after each figure. At the end, `FOLDER/gpu.json` has all figures and `FOLDER/gpu.md` the table for
benchmarks/RESULTS.md. Parts from an earlier call with the same FOLDER stay in both. The exit status is 1 if something
failed.

On a bare CUDA machine with Python 3.12, torch, transformers, timm and the like, without a network, from the checkout
(`wheels/` contains what is missing: Ray, PyAV, MMAction2, Ultralytics, pydantic and their dependencies):

    python3 -m pip install --no-index --no-deps --target /tmp/site wheels/*.whl
    export PYTHONPATH=/tmp/site:$PWD
    python3 -m vtcav_ray doctor                                                    # half a minute
    python3 benchmarks/gpu.py --tiny --device cuda --seconds 120 --out /tmp/tiny   # does everything run on this GPU?
    python3 benchmarks/gpu.py --out /tmp/gpu                                       # the figures
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Part -> its share of the time, in order of importance. Unused time is left to the later parts.
PARTS = {"environment": 3.0, "networks": 28.0, "stage": 15.0, "run": 30.0, "tracks": 14.0, "cavs": 10.0}
GRACE_S = 20.0  # time beyond its share before a part is terminated, so a started step may finish


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, merge and print. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="a part; may be given more than once")
    parser.add_argument("--seconds", type=float, default=450.0, help="for all parts together")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--tiny", action="store_true", help="sizes of seconds: to see that it works")
    parser.add_argument("--inside", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.inside:
        return inside(options)
    began = time.perf_counter()
    wanted = [name for name in PARTS if options.only is None or name in options.only]
    for place, name in enumerate(wanted):
        left = options.seconds - (time.perf_counter() - began)
        share = max(5.0, left * PARTS[name] / sum(PARTS[later] for later in wanted[place:]))
        # The tiny size checks that everything works even on a slow machine: a part may take all of the remaining time.
        limit = max(share, left if options.tiny else min(share + GRACE_S, left))
        run_apart(name, options, share, limit)
    merged = merge(options.out, time.perf_counter() - began)
    table = as_markdown(merged)
    (options.out / "gpu.json").write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    (options.out / "gpu.md").write_text(table, encoding="utf-8")
    print(table)
    print(f"written to {options.out}/gpu.json and gpu.md, in {merged['seconds']:.0f} s")
    return 0 if all(merged["parts"].get(name, {}).get("state") == "done" for name in wanted) else 1


def inside(options: argparse.Namespace) -> int:
    """Run one part in this process."""
    import torch
    from gpu_parts.part import Options, Part

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    part = Part(options.inside, Options(device, options.tiny, options.seconds, options.out))
    part.write()
    importlib.import_module(f"gpu_parts.{options.inside}").run(part)
    part.state = "failed" if part.errors else "done"
    part.write()
    return 0


def run_apart(name: str, options: argparse.Namespace, share: float, limit: float) -> None:
    """Run one part in a separate process, terminated after `limit` seconds. Add how it ended to what it wrote."""
    path = options.out / f"{name}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "gpu.py"), "--inside", name, "--seconds", f"{share:.1f}"]
    command += ["--device", options.device, "--out", str(options.out), *(["--tiny"] if options.tiny else [])]
    print(f"== {name}, {share:.0f} s", flush=True)
    log = options.out / f"{name}.log"
    with log.open("w", encoding="utf-8") as output:
        # In its own process group, so terminating a part also terminates its decoders and its Ray.
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(limit)
            ended = "" if status == 0 else f"exit status {status}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            ended = f"ended after {limit:.0f} s"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    print("\n".join(line for line in lines if line.startswith(f"[{name}]")), flush=True)
    if ended:
        print(f"[{name}] {ended}", *lines[-15:], sep="\n", flush=True)
        found = read(path) or {"part": name, "errors": {}, "rows": [], "skipped": [], "figures": {}}
        found["state"] = "failed"
        found["errors"]["the part"] = "\n".join([*lines[-40:], ended])
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Return a part's record; empty: no record."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def merge(out: Path, seconds: float) -> dict[str, Any]:
    """Merge all existing parts."""
    parts = {name: found for name in PARTS if (found := read(out / f"{name}.json"))}
    return {"seconds": round(seconds, 1), "parts": parts}


def as_markdown(merged: dict[str, Any]) -> str:
    """Format the table for benchmarks/RESULTS.md."""
    about = merged["parts"].get("environment", {}).get("figures", {}).get("device", {})
    lines = [about.get("line", "no part `environment`: the device is not known"), ""]
    lines += ["| part | figure | value | target | met |", "| --- | --- | ---: | ---: | --- |"]
    for name, part in merged["parts"].items():
        for row in part["rows"]:
            value = "-" if row["value"] is None else f"{row['value']:.4g}"
            met = {True: "yes", False: "**no**", None: ""}[row["met"]]
            lines.append(f"| {name} | {row['figure']} | {value} {row['unit']} | {row['target']} | {met} |")
    for name, part in merged["parts"].items():
        lines += [f"\n{name}, {what}: {text.splitlines()[-1]}" for what, text in part["errors"].items()]
        lines += [f"\n{name}: no time for {', '.join(part['skipped'])}"] if part["skipped"] else []
    if any(part.get("tiny") for part in merged["parts"].values()):
        lines.append("\nAt the tiny size: these figures say that all works, and not how fast.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
