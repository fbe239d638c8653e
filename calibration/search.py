"""Where values are among others that ascend."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["contains", "find"]


def contains(ids: np.ndarray, value: Any) -> bool:
    """Whether a value is one of those that ascend.

    Examples
    --------
    >>> contains(np.array([3, 7]), 7), contains(np.array([3, 7]), 8)
    (True, False)
    """
    place = np.searchsorted(ids, value)
    return bool(place < len(ids) and ids[place] == value)


def find(
    ids: np.ndarray, wanted: np.ndarray, order: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of each wanted value in ``ids`` (0 if it has none), and whether it has one.

    Parameters
    ----------
    ids : (n,) array
        Of several that are equal, the first in order is found.
    wanted : array
    order : (n,) int array, optional
        That in which ``ids`` ascend; default as they are.

    Examples
    --------
    >>> find(np.array([3, 7]), np.array([7, 4]))
    (array([1, 0]), array([ True, False]))
    >>> find(np.array([7, 3]), np.array([3, 4]), order=np.array([1, 0]))
    (array([1, 0]), array([ True, False]))
    """
    if not len(ids):
        return np.zeros(wanted.shape, np.int64), np.zeros(wanted.shape, bool)
    if order is not None:
        rank, found = find(ids[order], wanted)
        return np.where(found, order[rank], 0), found
    whole = ids.dtype.kind == wanted.dtype.kind == "i"
    if whole and int(ids[-1]) - int(ids[0]) < wanted.size:
        return _looked_up(ids, wanted)
    place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    found = ids[place] == wanted
    return np.where(found, place, 0), found


def _looked_up(ids: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Do so by a table of all numbers from the first id to the last, which is quicker for many."""
    first, last = int(ids[0]), int(ids[-1])
    places = np.full(last - first + 3, -1)  # with one more at either end
    places[ids[::-1] - first + 1] = np.arange(len(ids))[::-1]
    place = np.take(places, wanted.astype(np.int64) - (first - 1), mode="clip")
    return np.maximum(place, 0), place >= 0
