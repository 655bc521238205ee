"""Ports for servers that tests start."""

from __future__ import annotations

import os
import random
import socket

# Outside the ports that others take between the choice and the start of the server: Ray's workers take 10002 to 19999
# below `ray start`, and the kernel gives clients and port 0 one of 32768 to 60999. 10,000 above these is free, too.
_LOWEST, _HIGHEST = 20_000, 22_700
_MAX_TEST_WORKERS = 16


def free_ports(count: int, also_above: int = 0) -> list[int]:
    """Return ports that are free now, and that no other worker of this test run chooses.

    `also_above`: the ports this far above them are free too, for a server that uses both.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _MAX_TEST_WORKERS
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(_LOWEST + worker, _HIGHEST, _MAX_TEST_WORKERS)
        if port not in found and _is_free(port) and (not also_above or _is_free(port + also_above)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
