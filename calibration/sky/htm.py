"""The hierarchical triangular mesh: eight triangles on the sphere, each cut in four repeatedly.

A trixel of depth d has an id from 8 * 4**d on; its last two bits say which quarter of its parent it
is. LSST's reference catalogs are cut so, at depth 7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["depth_of", "trixel_corners"]

_AXES = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, -1]], np.float64)
# S0 to S3, then N0 to N3
_ROOTS = _AXES[
    [[1, 5, 2], [2, 5, 3], [3, 5, 4], [4, 5, 1], [1, 0, 4], [4, 0, 3], [3, 0, 2], [2, 0, 1]]
]


def depth_of(trixel: int) -> int | None:
    """Return the depth of a trixel; None if there is none of that id.

    Examples
    --------
    >>> depth_of(8), depth_of(131072), depth_of(262144), depth_of(16)
    (0, 7, None, None)
    """
    bits = int(trixel).bit_length()
    return (bits - 4) // 2 if bits >= 4 and bits % 2 == 0 else None


def trixel_corners(trixels: ArrayLike) -> np.ndarray:
    """Return the corners of trixels of one depth, (n, 3, 3) unit vectors, one after the other.

    Examples
    --------
    >>> trixel_corners([15]).tolist()
    [[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
    """
    ids = np.asarray(trixels, np.int64)
    depth = depth_of(int(ids.max())) if ids.size else 0
    if depth is None or (ids.size and depth_of(int(ids.min())) != depth):
        raise ValueError("the trixels are not of one depth")
    corners = _ROOTS[(ids >> (2 * depth)) - 8]
    for level in range(depth - 1, -1, -1):
        a, b, c = np.moveaxis(corners, 1, 0)
        bc, ac, ab = (_unit(one + other) for one, other in ((b, c), (a, c), (a, b)))
        quarters = np.array([[a, ab, ac], [b, bc, ab], [c, ac, bc], [bc, ac, ab]])
        corners = np.moveaxis(quarters, 2, 0)[np.arange(len(ids)), (ids >> (2 * level)) & 3]
    return corners


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
