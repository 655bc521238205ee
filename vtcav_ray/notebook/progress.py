"""Progress of a computation, in a terminal or in a notebook."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Steps:
    """One bar per step. `shown`: False shows nothing."""

    def __init__(self, shown: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, disable=not shown, transient=True)

    def __enter__(self) -> Steps:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, what: str, total: int) -> Callable[[int], None]:
        """Begin a step, and return a function that counts items as done. It may be called from any thread."""
        return functools.partial(self._progress.advance, self._progress.add_task(what, total=total))
