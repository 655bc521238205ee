"""The HTML pages' common ground: one shell, Jinja2 templates that escape everything, and numbers as people read them.

A page of a room extends `pages/shell.html`, may use the macros of `pages/macros.html`, and gets plain values from the
room's own code. Nothing here imports another room.
"""

from vtcav_ray.pages.render import Shell, asset, render, stream

__all__ = ["Shell", "asset", "render", "stream"]
