"""Programs that the distribution provides."""

from __future__ import annotations

import shutil


def find_chromium() -> str | None:
    """Return the path of Debian's Chromium, or None.

    The headless shell is the same engine without the windows of a desktop: it loads a page with half the CPU time, and
    opens a tab with a third.
    """
    return shutil.which("chromium-headless-shell") or shutil.which("chromium")
