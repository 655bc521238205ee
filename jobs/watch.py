"""`vtcav watch` as a job: each new checkpoint once. Use `--once` on a schedule; without it, the job keeps running.

    ray job submit --address http://localhost:8265 --working-dir . -- \
        python jobs/watch.py configs/kinetics.yaml --checkpoints 's3://bucket/exp/*.pth' --once --out s3://bucket/runs/exp
"""

from __future__ import annotations

import sys

from vtcav_ray.cli import main

if __name__ == "__main__":
    sys.argv = ["vtcav", "watch", *sys.argv[1:]]
    main()
