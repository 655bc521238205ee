"""The command line `vtcav`: a thin layer without logic."""

from vtcav_ray.cli.application import app, main

__all__ = ["app", "main"]
