"""When the threads of a process take turns, instead of mapping at the same time.

Python runs one thread at a time but for what NumPy does in C. Where a mapper takes microseconds,
two threads pass Python's lock to and fro more often than they work, and take longer than one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

__all__ = ["Turns"]

_SMALL = 128 * 128  # pixels of a cell; from here on NumPy's calls are long enough
_QUICK = 1e-4  # seconds that a mapper takes
_PATIENCE = 0.05  # seconds; a mapper may itself wait for tasks that wait for this turn

_turn = threading.RLock()  # one for the process, as Python's own


class Turns:
    """Whether the tiles of a run are mapped one at a time in this process."""

    def __init__(self) -> None:
        self._quickest = 0.0  # seconds a cell; as long as nothing is known, small cells are quick

    @contextmanager
    def take(self, table: np.ndarray, seconds: Sequence[float]) -> Iterator[bool]:
        """Wait for a turn, if that pays, and learn from it.

        Parameters
        ----------
        table : (n,) array
            The cells of a tile, rows of `Grid.table`.
        seconds : list of float
            Where the time that the mapper takes for each of them will be added.

        Yields
        ------
        bool
            Whether it was waited for and came.
        """
        core = table["core"]
        small = (core["width"] * core["height"]).sum() < _SMALL * len(table)
        turn = small and self._quickest < _QUICK and _turn.acquire(timeout=_PATIENCE)
        try:
            yield turn
        finally:
            if turn:
                _turn.release()
        if seconds:
            mean = sum(seconds) / len(seconds)
            self._quickest = min(self._quickest or mean, mean)
