"""Start Ray on this machine without two of its processes, which no run needs."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator

# The log monitor forwards what workers write to drivers, and our driver prints none of it (`log_to_driver`). The
# autoscaler's monitor asks a cloud for nodes, and here is none. Each costs half a second of a core, and memory.
UNUSED = {"include_log_monitor": False, "no_monitor": True}


@contextlib.contextmanager
def without_monitors() -> Iterator[None]:
    """Let `ray.init` start no monitors inside the block.

    `ray start` has options for this (`--no-monitor`, `--include-log-monitor`), but `ray.init` has none, so the defaults
    of its parameters change. A version of Ray without these parameters starts all its processes.
    """
    from ray._private.parameter import RayParams

    made = RayParams.__init__
    changed = {name: value for name, value in UNUSED.items() if name in inspect.signature(made).parameters}
    RayParams.__init__ = functools.partialmethod(made, **changed)
    try:
        yield
    finally:
        RayParams.__init__ = made
