"""`vtcav rerun` as a job: another checkpoint on the tracks and clips of an existing run.

    ray job submit --address http://localhost:8265 --working-dir . -- \
        python jobs/rerun.py s3://bucket/runs/swin-t --checkpoint s3://bucket/exp/epoch_12.pth
"""

from __future__ import annotations

import sys

from vtcav_ray.cli import main

if __name__ == "__main__":
    sys.argv = ["vtcav", "rerun", *sys.argv[1:]]
    main()
