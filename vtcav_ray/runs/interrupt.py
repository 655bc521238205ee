"""Interrupt a main thread that waits for something that will not come."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


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
