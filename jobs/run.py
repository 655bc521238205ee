"""`vtcav run` as a job on a cluster, on the Ray that the job runs in.

    ray job submit --address http://localhost:8265 --working-dir . -- \
        python jobs/run.py configs/kinetics.yaml --set videos.uri=s3://bucket/kinetics400/val --out s3://bucket/runs/swin-t

`--working-dir .` uploads the checkout (without what .rayignore and .gitignore name), and every node imports the package
from it. The package's dependencies must be in the image or the environment of the nodes. Ray names the cluster in
RAY_ADDRESS. The exit status is that of `vtcav`. See docs/cluster.md.
"""

from __future__ import annotations

import sys

from vtcav_ray.cli import main

if __name__ == "__main__":
    sys.argv = ["vtcav", "run", *sys.argv[1:]]
    main()
