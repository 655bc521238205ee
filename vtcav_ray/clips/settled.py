"""Keep Python's garbage collector away from what stays, while a large corpus is scanned."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Turn garbage collection off inside the block, which creates many objects that stay, and no cycles.

    The collector runs because there are more objects, and finds nothing: for a large corpus, a quarter of the time.
    """
    if not gc.isenabled():  # by the program that called
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Leave the objects that exist now out of garbage collection inside the block.

    A scan creates objects at a high rate, so the collector runs often, and each full pass visits every object of the
    process: for a large corpus, millions that stay. Objects created inside the block are collected as usual.
    """
    if gc.get_freeze_count():  # by the program that called; `unfreeze` would undo that, too
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
