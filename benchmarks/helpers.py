"""What the benchmarks share: input, timing, tables, and the facts about the machine."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from dask.system import CPU_COUNT

__all__ = ["Planes", "environment", "facts", "make_planes", "race", "summary", "table"]

_QUICK, _SLOW = 1.0, 5.0  # seconds


class Planes(NamedTuple):
    """Image float32, variance float32 and mask int32, all (ny, nx)."""

    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray


def make_planes(size: int, seed: int = 1) -> Planes:
    """Return a noisy sky without NaN, with its variance and one pixel in 100 saturated (bit 1)."""
    rng = np.random.default_rng(seed)
    shape = (size, size)
    return Planes(
        1000 + 30 * rng.standard_normal(shape, np.float32),
        900 + 10 * rng.random(shape, np.float32),
        np.where(rng.random(shape, np.float32) < 0.01, np.int32(2), np.int32(0)),
    )


def race(
    functions: Mapping[str, Callable[[], Any]],
    *,
    repeat: int | None = None,
    repeat_slow: int = 1,
    check: Callable[[str, Any], None] = lambda name, result: None,
) -> dict[str, list[float]]:
    """Time functions side by side, in the order A B C A B C ..., and return each one's seconds.

    The first run of each is for ``check(name, result)``; it warms up, and tells how often to
    repeat: ``repeat`` times, by default 5, or 9 if it took less than 1 s. One that took more than
    5 s counts as slow: it runs ``repeat_slow`` times in all, the first run included.
    """
    first = {}
    for name, function in functions.items():
        first[name], result = _timed(function)
        check(name, result)
        del result
    seconds = {name: [t] if t > _SLOW else [] for name, t in first.items()}
    rounds = {
        name: repeat_slow if t > _SLOW else repeat or (9 if t < _QUICK else 5)
        for name, t in first.items()
    }
    while left := [name for name in functions if len(seconds[name]) < rounds[name]]:
        for name in left:
            seconds[name].append(_timed(functions[name])[0])
    return seconds


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def summary(seconds: Mapping[str, Sequence[float]], reference: str) -> list[tuple]:
    """Return a row a contestant: name, runs, median, min, max, median over the reference's."""
    unit = median(seconds[reference])
    return [
        (
            name,
            len(t),
            *(f"{s:.3f} s" for s in (median(t), min(t), max(t))),
            f"{median(t) / unit:.2f}",
        )
        for name, t in seconds.items()
    ]


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return aligned plain text: the first column to the left, the others to the right."""
    lines = [[str(value) for value in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


def environment() -> dict[str, Any]:
    """Return the machine and the versions, for a record of what the times mean."""
    return {
        "cpu": _cpu_name(),
        "cores": CPU_COUNT,
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "dask", "astropy")},
    }


def facts(values: Mapping[str, Any]) -> str:
    """Return a mapping in lines of "key  value"."""
    width = max(map(len, values))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in values.items())


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
