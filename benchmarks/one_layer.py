"""Measure peak memory and time to read one layer of 100,000 clips in a fresh process.

    python benchmarks/one_layer.py                     # 100,000 clips, four layers of Swin-T (d = 192, 384, 768, 768)
    python benchmarks/one_layer.py --clips 5000 --json # what tests/activations/test_one_layer.py runs

Writes the shards like the stage does (64 clips each, one file per layer). Then starts one process for each way of
reading, and one that reads nothing, whose peak is subtracted. Prints bytes of peak memory per byte of the layer's
vectors.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vtcav_ray import tables
from vtcav_ray.store.commits import ShardOutput, StageFolder
from vtcav_ray.store.folder import Folder
from vtcav_ray.store.vectors import vector_array, vectors_of

LAYERS = {"early": 192, "middle": 384, "late": 768, "head": 768}
WAYS = ("nothing", "one layer", "one layer, shard by shard", "one layer, as the CAV stage has it")
READ = "late"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--shard", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--read", nargs=2, metavar=("FOLDER", "WAY"), help="used by itself")
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(*options.read)))
        return
    with tempfile.TemporaryDirectory(prefix="one_layer_") as folder:
        size = write(folder, options.clips, options.shard)
        found = {way: fresh(folder, way) for way in WAYS}
    layer_bytes = 4 * options.clips * LAYERS[READ]
    base = found["nothing"]["peak"]
    for row in found.values():
        row["over_layer"] = (row["peak"] - base) / layer_bytes
    result = {"clips": options.clips, "layer_bytes": layer_bytes, "bytes_of_all_layers": size, "ways": found}
    if options.json:
        print(json.dumps(result))
        return
    print(f"{options.clips} clips; the layer's vectors {layer_bytes / 1e6:.0f} MB; all files {size / 1e6:.0f} MB")
    for way, row in found.items():
        print(f"{way:<40}{row['peak'] / 1e6:>8.0f} MB peak {row['over_layer']:>6.2f} x layer {row['seconds']:>7.1f} s")


def write(folder: str, clips: int, shard: int) -> int:
    stage = StageFolder("activations", "k", Folder(folder))
    stream = np.random.RandomState(0)
    size = 0
    for start in range(0, clips, shard):
        n = min(shard, clips - start)
        ids = [f"clip{i:07d}" for i in range(start, start + n)]
        parts = {}
        for layer, d in LAYERS.items():
            vectors = stream.standard_normal((n, d)).astype(np.float32)
            parts[f"activations/layer={layer}"] = pa.table(
                {
                    "clip_id": ids,
                    "video_id": ids,
                    **dict.fromkeys(("set", "name", "kind"), ["random"] * n),
                    "layer": [layer] * n,
                    "views": [1] * n,
                    "model": ["model@0123456789ab"] * n,
                    "vector": vector_array(vectors),
                },
                schema=tables.activations(d),
            )
        record = stage.commit(f"{start // shard:05d}", ShardOutput(parts))
        size += sum(file["bytes"] for file in record["files"].values())
    return size


def fresh(folder: str, way: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__)), "--read", folder, way]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def read(folder: str, way: str) -> dict[str, float]:
    stage = StageFolder("activations", "k", Folder(folder))
    start = time.perf_counter()
    rows = 0
    match way:
        case "one layer":
            table = stage.read("activations", layer=READ)
            assert table is not None
            rows = table.num_rows
        case "one layer, shard by shard":
            rows = sum(part.num_rows for _, part in stage.iter_tables("activations", layer=READ))
        case "one layer, as the CAV stage has it":
            table = stage.read("activations", columns=("clip_id", "video_id", "vector"), layer=READ)
            assert table is not None
            rows = len(vectors_of(table))
    seconds = time.perf_counter() - start
    # Not ru_maxrss: a process inherits it from its parent, which had all layers in memory.
    status = Path("/proc/self/status").read_text()
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))  # type: ignore[union-attr]
    return {"peak": peak, "seconds": seconds, "rows": rows}


if __name__ == "__main__":
    main()
