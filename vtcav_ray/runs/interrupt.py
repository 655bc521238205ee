"""Interrupt a main thread that waits for something that will not come."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


def end_like_ctrl_c() -> None:
    """Let SIGTERM, which `kill` and job schedulers send, raise `KeyboardInterrupt` as Ctrl-C does.

    Does nothing outside the main thread, or if the program has a handler of its own.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextlib.contextmanager
def own_sigterm() -> Iterator[None]:
    """Keep the program's handler of SIGTERM while Ray starts, which installs one that exits without cleaning up.

    If the program has none, Ray's stays.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and callable(before):
            signal.signal(signal.SIGTERM, before)


def interrupter() -> Callable[[], None]:
    """Return a function that raises `KeyboardInterrupt` in the main thread, even while that waits in a system call.

    Call this in the main thread. In another thread, the returned function does nothing, because Python runs signal
    handlers only in the main thread.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main or main.ident is None:
        return lambda: None
    ident, number = main.ident, signal.SIGINT
    if not callable(signal.getsignal(signal.SIGINT)):
        # SIGINT is ignored, as a shell sets it for a background command. Nothing else uses SIGURG.
        number = signal.SIGURG
        signal.signal(number, signal.default_int_handler)
    return lambda: signal.pthread_kill(ident, number)
