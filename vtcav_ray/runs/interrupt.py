"""Wake a main thread that waits for something that will not come."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


def interrupter() -> Callable[[], None]:
    """A function that raises `KeyboardInterrupt` in the main thread, also where it waits in a system call.

    Call this in the main thread. In another one, the function does nothing: Python runs signal handlers in the main
    thread alone.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main or main.ident is None:
        return lambda: None
    ident, number = main.ident, signal.SIGINT
    if not callable(signal.getsignal(signal.SIGINT)):
        # Ctrl-C is ignored: so a shell starts what runs in the background. This one nobody uses.
        number = signal.SIGURG
        signal.signal(number, signal.default_int_handler)
    return lambda: signal.pthread_kill(ident, number)
