"""Peak memory of a run's driver, Ray's workers and the object store, measured from outside during the run."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

import psutil
from ray.cluster_utils import Cluster

EVERY_S = 0.5


class Peaks:
    """A thread that samples memory twice per second.

    The kernel records a process's own peak (VmHWM), so peaks between two samples count too if the process lives for
    half a second. The object store has no such record: short peaks between samples may be missed.
    `store_created_bytes`, which Ray counts, gives the total that went through it.

    Attributes:
        driver, worker: resident bytes of the driver and of the largest worker.
        workers: largest sum of the peaks of all workers alive at one time.
        store: bytes in the object stores of all nodes.
    """

    def __init__(self, cluster: Cluster, driver: int) -> None:
        self._nodes = [(n.node_ip_address, n.node_manager_port) for n in cluster.list_all_nodes()]
        raylets = [p.process.pid for n in cluster.list_all_nodes() for p in n.all_processes.get("raylet", [])]
        self._raylets = [psutil.Process(pid) for pid in raylets]
        self._driver = driver
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.driver = self.worker = self.workers = self.store = 0
        self._created_before = self._store("cumulative_created_bytes")

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def figures(self) -> dict[str, float]:
        """Return the peaks in megabytes."""
        created = self._store("cumulative_created_bytes") - self._created_before
        found = {"driver": self.driver, "largest_worker": self.worker, "all_workers": self.workers, "store": self.store}
        return {f"{name}_MB": round(value / 1e6, 1) for name, value in (found | {"store_created": created}).items()}

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            self.driver = max(self.driver, _high_water(self._driver))
            workers = [_high_water(child.pid) for raylet in self._raylets for child in _workers(raylet)]
            self.worker = max([self.worker, *workers])
            self.workers = max(self.workers, sum(workers))
            self.store = max(self.store, self._store("object_store_bytes_used"))

    def _store(self, field: str) -> int:
        from ray._private.internal_api import node_stats

        replies: list[Any] = [node_stats(host, port, include_memory_info=False) for host, port in self._nodes]
        return sum(int(getattr(reply.store_stats, field)) for reply in replies)


def _workers(raylet: psutil.Process) -> list[psutil.Process]:
    """Return a raylet's worker processes (including idle ones), without its agents."""
    found = []
    for child in raylet.children():
        try:
            if child.cmdline() and child.cmdline()[0].startswith("ray::"):
                found.append(child)
        except psutil.Error:
            continue
    return found


def _high_water(pid: int) -> int:
    """Return the peak of resident bytes; 0 for a process that has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as lines:
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0
