"""The owner rule: of what several cells have found, one cell's stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..exposure.box import Box

__all__ = ["owned"]

_SAME = 0.5  # pixels: what is closer, and of different cells, is the same


def owned(cores: Sequence[Box], place: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return which points stay, of points that different cells may both have found.

    Of points of different cells that lie within half a pixel, those of the cell stay in whose core
    their mean position lies; of the first such cell, or else of the first. A center that differs in
    the last bits between two cells, on the line between them, so gives neither two nor none.

    Parameters
    ----------
    cores : sequence of Box
        Of the cells, in the order of their indices.
    place : (n,) int array
        The cell of each point, as its place in ``cores``.
    points : (n, 2) float array
        Positions x and y.

    Returns
    -------
    (n,) bool array

    Examples
    --------
    >>> points = np.array([[9.5, 4], [9.4999999, 4], [3, 3], [15, 8], [15.1, 8]])
    >>> owned([Box(0, 0, 10, 10), Box(10, 0, 10, 10)], np.array([0, 1, 0, 1, 1]), points)
    array([ True, False,  True,  True,  True])
    """
    stays = np.ones(len(points), bool)
    pairs = cKDTree(points).query_pairs(_SAME, output_type="ndarray")
    pairs = pairs[place[pairs[:, 0]] != place[pairs[:, 1]]]
    if not len(pairs):
        return stays
    members, numbers = np.unique(pairs, return_inverse=True)
    one, other = numbers.reshape(pairs.shape).T
    links = coo_array((np.ones(len(one)), (one, other)), shape=(len(members), len(members)))
    count, group = connected_components(links, directed=False)
    size = np.bincount(group)
    mean = np.column_stack([np.bincount(group, points[members, i]) / size for i in range(2)])[group]
    edges = np.array([(core.x0, core.y0, core.x1, core.y1) for core in cores])[place[members]] - 0.5
    owns = ((edges[:, :2] <= mean) & (mean < edges[:, 2:])).all(axis=1)
    # The first owner, or where there is none the first cell: those that own come before all others.
    rank = place[members] + np.where(owns, 0, len(cores))
    first = np.full(count, 2 * len(cores))
    np.minimum.at(first, group, rank)
    stays[members] = rank == first[group]
    return stays
