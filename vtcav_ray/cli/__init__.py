"""The command line `vtcav`: thin, no logic of its own."""

from vtcav_ray.cli.application import app, main

__all__ = ["app", "main"]
