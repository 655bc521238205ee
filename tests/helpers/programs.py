"""Programs that the distribution provides."""

from __future__ import annotations

import shutil


def find_chromium() -> str | None:
    """Return the path of Debian's Chromium, or None.

    The whole browser comes first. The headless shell draws a page with half the CPU time, but it once stopped drawing
    frames in a busy test run.
    """
    return shutil.which("chromium") or shutil.which("chromium-headless-shell")
