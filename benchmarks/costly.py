"""Mappers that cost something, and a stopwatch around them.

In a module of its own, so that other processes import it, and their stopwatches can be read there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import fft

import mapreduce as mr

__all__ = ["Spent", "Stopwatch", "despike", "fft_gaussian", "take_spent"]


class Spent(NamedTuple):
    """What mappers under a stopwatch took: number of calls, seconds, seconds of CPU."""

    calls: int
    wall: float
    cpu: float


_spent: list[tuple[float, float]] = []  # wall and CPU seconds of each call in this process


@dataclass(frozen=True)
class Stopwatch:
    """A mapper whose calls are timed, in whatever process and thread they run."""

    mapper: Callable[..., Any]

    def __call__(self, sub: mr.Exposure, expanded: mr.Exposure, full_bbox: mr.Box) -> Any:
        """Call the mapper."""
        wall, cpu = time.perf_counter(), time.thread_time()
        result = self.mapper(sub, expanded, full_bbox)
        _spent.append((time.perf_counter() - wall, time.thread_time() - cpu))
        return result


def take_spent() -> Spent:
    """Return what the calls in this process took since this was last asked."""
    calls = [_spent.pop() for _ in range(len(_spent))]
    return Spent(len(calls), sum(wall for wall, _ in calls), sum(cpu for _, cpu in calls))


def fft_gaussian(sub: mr.Exposure, expanded: mr.Exposure, full_bbox: mr.Box) -> mr.Exposure:
    """Smooth with a Gaussian of 3 pixels in Fourier space, mirrored beyond the cell's box.

    Without the mirror the edges of the exposure, where cells have no border, would be mixed with
    the other side of the cell.
    """
    reach = 16
    image = np.pad(expanded.image, reach, mode="symmetric")
    ky, kx = fft.fftfreq(image.shape[0])[:, None], fft.rfftfreq(image.shape[1])
    transfer = np.exp(-2 * (np.pi * 3.0) ** 2 * (kx**2 + ky**2)).astype(image.dtype)
    smooth = fft.irfft2(fft.rfft2(image) * transfer, s=image.shape)
    inside = smooth[reach:-reach, reach:-reach]
    return sub.replace(image=inside[sub.bbox.slices(expanded.bbox)])


def despike(image: np.ndarray, above: float = 150.0) -> np.ndarray:
    """Replace pixels far above the median of their neighbors: a loop over pixels in plain Python.

    Those at the edge of the image stay.
    """
    rows, result = image.tolist(), image.copy()
    for y in range(1, len(rows) - 1):
        up, row, down = rows[y - 1 : y + 2]
        for x in range(1, len(row) - 1):
            around = sorted((*up[x - 1 : x + 2], row[x - 1], row[x + 1], *down[x - 1 : x + 2]))
            middle = (around[3] + around[4]) / 2
            if row[x] > middle + above:
                result[y, x] = middle
    return result
