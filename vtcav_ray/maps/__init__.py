"""Concept maps: where and when a layer's activation goes along a concept's direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtcav_ray.report.companions import COMPANIONS, Companion

if TYPE_CHECKING:
    from vtcav_ray.runs.run import Run

PAGE = "maps.html"  # in the run folder


def _rewrite(run: Run) -> None:
    from vtcav_ray.maps.page import write_page  # imported late: workers import this package too

    write_page(run)


COMPANIONS["maps"] = Companion(PAGE, "Maps", _rewrite)
