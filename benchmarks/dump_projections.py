"""Write the projections of a run's clips on all classes' mean gradients, for `benchmarks/calibration_effect.py`.

python benchmarks/dump_projections.py RUN benchmarks/results/planted_projections.npz --kind context

The committed file is of `make quickstart`. Each number is one clip's projection on one mean gradient at the reference
set, as the stage `scores` tests it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vtcav_ray.runs.run import Run
from vtcav_ray.store.vectors import vectors_of
from vtcav_ray.tcav.arrays import video_means


def main(arguments: Sequence[str] | None = None) -> None:
    """Read all layers of a run, project the clips of one kind, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run")
    parser.add_argument("file", type=Path)
    parser.add_argument("--kind", default="context")
    options = parser.parse_args(arguments)
    run = Run(options.run)
    columns, cells, names, videos = [], [], np.array([]), np.array([])
    for layer in run.config.activations.layers:
        pool, gradients = run.table("activations", layer=layer), run.table("gradients", layer=layer)
        keep = pool["kind"].to_numpy(zero_copy_only=False).astype(str) == options.kind
        names, videos = (pool[name].to_numpy(zero_copy_only=False).astype(str)[keep] for name in ("name", "video_id"))
        vectors_ND = vectors_of(pool)[keep].astype(np.float64)
        vectors_ND -= vectors_ND.mean(axis=0)  # saves digits, and changes no difference of means
        classes = gradients["class"].to_numpy(zero_copy_only=False).astype(str)
        reference = np.array(gradients["reference"].to_pylist())
        clip_videos = np.array(gradients["video_id"].to_pylist())
        for name in np.unique(classes):
            rows = reference & (classes == name)
            mean_D = video_means(vectors_of(gradients)[rows], clip_videos[rows]).mean(axis=0)
            columns.append(vectors_ND @ mean_D)
            cells.append(f"{name}\t{layer}")
    if not len(names):
        raise SystemExit(f"no clips of kind {options.kind}")
    labels = dict(zip(*(run.table("videos")[name].to_pylist() for name in ("video_id", "label")), strict=True))
    order = np.lexsort((videos, names))
    np.savez_compressed(
        options.file,
        projections=np.stack(columns, axis=1).astype(np.float32)[order],
        names=names[order],
        labels=np.array([labels[video] or "" for video in videos])[order],
        cells=np.array(cells),
    )
    print(f"{len(names)} clips, {len(cells)} cells: {options.file}")


if __name__ == "__main__":
    main()
