"""What is submitted to a cluster: `vtcav run`, on the Ray that the job runs in.

    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python jobs/run.py configs/kinetics.yaml --set videos.uri=s3://bucket/kinetics400/val --out s3://bucket/runs/swin-t

Every node needs the package installed. Ray names the cluster in RAY_ADDRESS; the exit status is that of `vtcav`.
"""

from __future__ import annotations

import sys

from vtcav_ray.cli import main

if __name__ == "__main__":
    sys.argv = ["vtcav", "run", *sys.argv[1:]]
    main()
