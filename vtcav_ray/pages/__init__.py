"""Shared parts of the HTML pages: one shell, Jinja2 templates that escape everything, and number formats.

A room's page extends `pages/shell.html`, may use the macros of `pages/macros.html`, and gets plain values from the
room's code. Nothing here imports another room.
"""

from vtcav_ray.pages.render import Shell, asset, render, stream

__all__ = ["Shell", "asset", "render", "stream"]
