"""Make the picture for the README and the docs: the first screen of a run's report, as the browser shows it.

    .venv/bin/python tools/report_picture.py runs/quickstart docs/images/answer.png

Needs chromium and the dev extra (Playwright).
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1280, 900  # of the browser's window, pixels
COLOURS = 96  # a page of text and tables has few; a palette makes the file a third as large
MOST_BYTES = 150_000


def screenshot(page: Path, width: int, height: int) -> bytes:
    """Return the first screen of a page as a PNG."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        opened.goto(page.resolve().as_uri())
        opened.wait_for_selector("table.depths")
        taken = opened.screenshot()
        browser.close()
    return taken


def small(png: bytes) -> bytes:
    """Return the PNG with a palette."""
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
        out, "png", optimize=True
    )
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--height", type=int, default=HEIGHT)
    arguments = parser.parse_args()
    found = small(screenshot(arguments.run / "report.html", WIDTH, arguments.height))
    if len(found) > MOST_BYTES:
        sys.exit(f"The picture has {len(found):,} bytes, and may have {MOST_BYTES:,}. Lower --height.")
    arguments.out.write_bytes(found)
    print(f"{arguments.out}: {len(found):,} bytes")


if __name__ == "__main__":
    main()
