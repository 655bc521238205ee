"""Start Ray on this machine without three of its processes, which no run needs."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any
from unittest import mock

# The log monitor forwards what workers write to drivers, and our driver prints none of it (`log_to_driver`). The
# autoscaler's monitor asks a cloud for nodes, and here is none. Each costs half a second of a core, and memory.
UNUSED = {"include_log_monitor": False, "no_monitor": True}


@contextlib.contextmanager
def without_unused_processes() -> Iterator[None]:
    """Let `ray.init(include_dashboard=False)` start no monitors and no API server inside the block.

    `ray start` has options for the monitors (`--no-monitor`, `--include-log-monitor`), but `ray.init` has none, so the
    defaults of its parameters change. The API server has no option: without a dashboard, it only reports usage
    statistics, which are off, and a start waits 0.7 s for it. A version of Ray without these parameters or this method
    starts all its processes.
    """
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    made = RayParams.__init__
    changed = {name: value for name, value in UNUSED.items() if name in inspect.signature(made).parameters}
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(RayParams, "__init__", functools.partialmethod(made, **changed)))
        if hasattr(Node, "start_api_server"):
            stack.enter_context(mock.patch.object(Node, "start_api_server", _no_api_server))
        yield


def _no_api_server(node: Any, **_: object) -> None:
    node._webui_url = None  # as where the server does not start
