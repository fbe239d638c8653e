"""Trixels of the hierarchical triangular mesh: they tile the sphere, each within its parent."""

import numpy as np
import pytest

from calibration.sky.htm import depth_of, trixel_corners


def inside(vectors, corners):
    """Whether vectors (n, 3) are in triangles (m, 3, 3), (n, m)."""
    sides = np.cross(corners, np.roll(corners, -1, axis=1))
    return (np.einsum("ni,mki->nmk", vectors, sides) >= 0).all(axis=-1)


def trixel_of(vectors, depth):
    """Return the trixels of vectors by going down: each has one child that they are in."""
    ids = np.full(len(vectors), 0)
    for vector, place in zip(vectors, range(len(vectors)), strict=True):
        choices = np.arange(8, 16)
        for level in range(depth + 1):
            here = choices[inside(vector[None], trixel_corners(choices))[0]]
            assert len(here) == 1
            ids[place] = here[0]
            if level < depth:
                choices = 4 * here[0] + np.arange(4)
    return ids


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_trixels_tile_the_sphere(depth):
    vectors = np.random.default_rng(depth).normal(size=(60, 3))
    every = trixel_corners(np.arange(8 * 4**depth, 16 * 4**depth))
    found = inside(vectors, every)
    assert (found.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(
        np.argmax(found, axis=1) + 8 * 4**depth, trixel_of(vectors, depth)
    )
    np.testing.assert_allclose(np.linalg.norm(every, axis=-1), 1)
    assert (np.linalg.det(every) > 0).all()


def test_ids_are_those_of_the_mesh():
    """The first of the southern and of the northern half, and the middle of an octant."""
    assert trixel_of(np.array([[1.0, 1e-9, -2e-9]]), 7)[0] == 8 * 4**7
    assert trixel_of(np.array([[1.0, -1e-9, 2e-9]]), 7)[0] == 12 * 4**7
    assert trixel_of(np.array([[1.0, 1.0, 1.0]]), 1)[0] == 15 * 4 + 3


def test_depths():
    for depth in range(12):
        first = 8 * 4**depth
        assert [depth_of(i) for i in (first - 1, first, 2 * first - 1, 2 * first)] == [
            None, depth, depth, None,
        ]  # fmt: skip
    with pytest.raises(ValueError, match="not of one depth"):
        trixel_corners([8, 32])
