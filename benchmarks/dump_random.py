"""Write random clips of a run as the FILE for `benchmarks/calibration.py --npz`: true nulls with real activations.

python benchmarks/dump_random.py RUN FILE.npz --layer late --kind context
python benchmarks/calibration.py --npz FILE.npz --n 5 --sets 19
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vtcav_ray.runs.run import Run
from vtcav_ray.store.vectors import vectors_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Read a run's random clips and the gradients of its classes at one layer, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run")
    parser.add_argument("file", type=Path)
    parser.add_argument("--layer", default="late")
    parser.add_argument("--kind", default="context")
    options = parser.parse_args(arguments)
    run = Run(options.run)
    pool = run.table("activations", layer=options.layer)
    gradients = run.table("gradients", layer=options.layer)
    names = pool["name"].to_numpy(zero_copy_only=False).astype(str)
    random = names == f"random/{options.kind}"
    if not random.any():
        raise SystemExit(f"no random clips of kind {options.kind}")
    own = dict(zip(pool["clip_id"].to_pylist(), names.tolist(), strict=True))
    classes = gradients["class"].to_numpy(zero_copy_only=False).astype(str)
    at = np.array([own[clip] for clip in gradients["clip_id"].to_pylist()])
    keep = classes == at
    np.savez(
        options.file,
        activations=vectors_of(pool)[random],
        groups=pool["video_id"].to_numpy(zero_copy_only=False).astype(str)[random],
        gradients=vectors_of(gradients)[keep],
        gradient_groups=gradients["video_id"].to_numpy(zero_copy_only=False).astype(str)[keep],
        gradient_classes=classes[keep],
    )
    print(f"{int(random.sum())} random clips, {int(keep.sum())} gradients: {options.file}")


if __name__ == "__main__":
    main()
