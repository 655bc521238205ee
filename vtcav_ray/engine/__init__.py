"""Ray: a cluster to run on, and shards streamed through actor pools. Only this package and `jobs/` import ray."""

from vtcav_ray.engine.attempts import Rehearsal
from vtcav_ray.engine.session import LazySession, ray_session
from vtcav_ray.engine.stream import run_shards

__all__ = ["LazySession", "Rehearsal", "ray_session", "run_shards"]
