"""VisitIndex: which rows of a catalog belong to a visit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..search import contains, find
from ..tables.catalog import MISSING, Catalog

__all__ = ["VisitIndex"]

_FEW = 10


@dataclass(frozen=True, eq=False)
class VisitIndex:
    """Which rows of a catalog belong to a visit.

    Compact where the rows of each visit lie together: some 20 bytes a visit, whatever the number of
    rows. Otherwise all row numbers are held, in the order of the visits.

    Parameters
    ----------
    visits : (n,) int64 array
        In ascending order.
    starts, counts : (n,) int array
        First row and number of rows of each visit; first place in ``order`` where there is one.
    order : (rows,) int array or None
        All rows in the order of visits.
    repeated : (m,) int64 array
        Visits that have several rows, or several with the same second key.
    lost : (k,) int array
        The first few rows that are left out, as the visit or the second key is missing.
    n_lost : int
        How many they are.

    Examples
    --------
    >>> from calibration.run.columns import ATMOSPHERE
    >>> catalog, _ = Catalog.of({"visit": [7, 7, 5, 9]}, ATMOSPHERE)
    >>> index = VisitIndex.of(catalog)
    >>> index.visits, index.repeated
    (array([5, 7, 9]), array([7]))
    >>> index.rows([7]), index.rows([9, 5])
    (slice(0, 2, None), array([3, 2]))
    """

    visits: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    order: np.ndarray | None
    repeated: np.ndarray
    lost: np.ndarray
    n_lost: int = 0

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        second: str | None = None,
        look: Callable[[np.ndarray, np.ndarray], None] | None = None,
    ) -> VisitIndex:
        """Read the visits of all rows, a few megabytes at a time.

        Parameters
        ----------
        catalog : Catalog
        second : str, optional
            The column that tells the rows of a visit from each other.
        look : callable, optional
            Given visits and second keys of every few rows, so that they need not be read again.
        """
        runs = _Runs()
        for block in catalog.blocks(["visit"] if second is None else ["visit", second]):
            known = runs.add(*block.values())
            if look is not None:
                look(*(keys[known] for keys in block.values()))
        visits, starts, counts = runs.joined()
        by_visit = np.argsort(visits, kind="stable")
        visits, starts, counts = visits[by_visit], starts[by_visit], counts[by_visit]
        if runs.tidy and np.all(visits[1:] != visits[:-1]):
            return cls(visits, starts, counts, None, visits[:0], visits[:0])
        return cls._of_rows(catalog, second)

    @classmethod
    def _of_rows(cls, catalog: Catalog, second: str | None) -> VisitIndex:
        """Make the index of a catalog whose rows have to be sorted."""
        keys = catalog.read(["visit"] if second is None else ["visit", second])
        known = np.all([values != MISSING for values in keys.values()], axis=0)
        rows, lost = np.flatnonzero(known), np.flatnonzero(~known)
        keys = {name: values[known] for name, values in keys.items()}
        visits = keys["visit"].astype(np.int64, copy=False)
        order = np.lexsort(tuple(reversed(keys.values())))
        same = np.diff(visits[order]) == 0
        if second is not None:
            same &= keys[second][order][1:] == keys[second][order][:-1]
        repeated = np.unique(visits[order][1:][same])
        order = np.argsort(visits, kind="stable")
        visits, starts, counts = np.unique(visits[order], return_index=True, return_counts=True)
        order = rows[order]
        first = order[starts]
        if np.array_equal(order, np.repeat(first - starts, counts) + np.arange(len(order))):
            return cls(visits, first, counts, None, repeated, lost[:_FEW], len(lost))
        small = np.int32 if len(catalog) < 2**31 else np.int64
        return cls(visits, starts, counts, order.astype(small), repeated, lost[:_FEW], len(lost))

    def __len__(self) -> int:
        return len(self.visits)

    def __contains__(self, visit: int) -> bool:
        return contains(self.visits, visit)

    def rows(self, visits: Iterable[int]) -> slice | np.ndarray:
        """Return the rows of visits, in the order of the visits; a slice where they lie together.

        Raises
        ------
        KeyError
            If there are none of a visit.
        """
        wanted = np.fromiter(visits, np.int64)
        places, found = find(self.visits, wanted)
        if not found.all():
            raise KeyError(int(wanted[~found][0]))
        starts, counts = self.starts[places], self.counts[places]
        if len(starts) and np.all(starts[1:] == (starts + counts)[:-1]):
            rows = slice(int(starts[0]), int(starts[-1] + counts[-1]))
            return rows if self.order is None else self.order[rows]
        rows = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        return rows if self.order is None else self.order[rows]


class _Runs:
    """Runs of rows of the same visit, from blocks of rows."""

    def __init__(self) -> None:
        self.tidy = True  # whether no key is missing, and the second increases in every run
        self._last: tuple[int, int | None] | None = None
        self._visits: list[np.ndarray] = []
        self._starts: list[np.ndarray] = []
        self._rows = 0

    def add(self, visits: np.ndarray, second: np.ndarray | None = None) -> np.ndarray:
        """Take the next rows; return which of them have their keys."""
        known = visits != MISSING if second is None else (visits != MISSING) & (second != MISSING)
        if not len(visits):
            return known
        self.tidy &= bool(known.all())
        visits = visits.astype(np.int64, copy=False)
        same = np.empty(len(visits), bool)
        same[0] = self._last is not None and visits[0] == self._last[0]
        np.equal(visits[1:], visits[:-1], out=same[1:])
        if self.tidy and second is None:
            self.tidy = not same.any()
        elif self.tidy and second is not None:
            up = np.empty(len(visits), bool)
            up[0] = self._last is None or second[0] > self._last[1]
            np.greater(second[1:], second[:-1], out=up[1:])
            self.tidy = bool(np.all(up | ~same))
        first = np.flatnonzero(~same)
        self._visits.append(visits[first])
        self._starts.append(first + self._rows)
        self._rows += len(visits)
        self._last = int(visits[-1]), None if second is None else int(second[-1])
        return known

    def joined(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the visit, first row and length of every run."""
        none = np.empty(0, np.int64)
        visits = np.concatenate([none, *self._visits])
        starts = np.concatenate([none, *self._starts])
        return visits, starts, np.diff(starts, append=self._rows)
