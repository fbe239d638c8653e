"""A dask cluster whose scheduler and workers are processes of their own, to see what each costs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
from distributed import Client, Scheduler, Worker

from .bench_memory import peak_memory

__all__ = ["cpu_seconds", "peaks", "process_cluster"]

# What even an idle worker does; of many in one process it would be most of the work.
_QUIET = {
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "10s",
    "distributed.worker.profile.enabled": False,
}
_START = 120  # seconds


@contextmanager
def process_cluster(workers: int, processes: int | None = None) -> Iterator[Client]:
    """Start a scheduler and workers of one thread each; one in a process, unless that is given."""
    processes = processes or workers
    each, rest = divmod(workers, processes)
    if rest:
        raise ValueError(f"{workers} workers cannot be shared out evenly to {processes} processes")
    with ExitStack() as stack:
        scheduler = stack.enter_context(_process("serve_scheduler()"))
        address = scheduler.stdout.readline().strip()
        for _ in range(processes):
            stack.enter_context(_process(f"serve_workers({address!r}, {each})"))
        client = stack.enter_context(Client(address))
        client.wait_for_workers(workers, timeout=_START)
        yield client


def cpu_seconds(client: Client) -> dict[str, float]:
    """Return the seconds of CPU that scheduler, client and all workers' processes took so far."""
    return {
        "scheduler": client.run_on_scheduler(time.process_time),
        "client": time.process_time(),
        "workers": sum(dict(client.run(_process_time).values()).values()),
    }


def peaks(client: Client) -> dict[str, float]:
    """Return the highest resident memory of the scheduler, and of any workers' process, in MB."""
    return {
        "scheduler": client.run_on_scheduler(peak_memory),
        "workers": max(client.run(peak_memory).values()),
    }


def _process_time() -> tuple[int, float]:
    return os.getpid(), time.process_time()


@contextmanager
def _process(call: str) -> Iterator[subprocess.Popen]:
    """Run a function of this module in a process, which ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__package__} import clusters; clusters.{call}"],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def serve_scheduler() -> None:
    """Be a scheduler, and print its address."""

    async def serve() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            print(scheduler.address, flush=True)
            await scheduler.finished()

    asyncio.run(serve())


def serve_workers(address: str, count: int) -> None:
    """Be some workers."""

    async def serve() -> None:
        workers = await asyncio.gather(
            *(Worker(address, nthreads=1, dashboard=False) for _ in range(count))
        )
        await asyncio.gather(*(worker.finished() for worker in workers))

    with dask.config.set(_QUIET if count > 1 else {}):
        asyncio.run(serve())
