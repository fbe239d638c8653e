"""Sky maps: tracts are those of the formula, written out again for one position at a time."""

from __future__ import annotations

import math
import pickle
import sys

import numpy as np
import pytest
from dask.base import tokenize

from calibration.config.config import ProductsConfig
from calibration.sky.skymap import HealpixSkyMap, RingsSkyMap, sky_map_of

COUNTS = [1, 2, 3, 4, 8, 14, 37, 120]


def ring_counts(num_rings):
    """Return the height of a ring, and how many tracts each has."""
    height = math.pi / (num_rings + 1)
    counts = []
    for ring in range(num_rings):
        south = height * (ring + 0.5) - 0.5 * math.pi
        nearest = min(abs(south), abs(south + height))
        counts.append(int(2 * math.pi * math.cos(nearest) / height) + 1)
    return height, counts


def literal(num_rings, ra_start, ra, dec):
    """Return the tracts of positions in degrees by the formula, one by one."""
    height, counts = ring_counts(num_rings)
    first = height * 0.5 - 0.5 * math.pi
    tracts = []
    for x, y in zip(ra.tolist(), dec.tolist(), strict=True):
        y = math.radians(y)
        if y < first:
            tracts.append(0)
        elif y > -first or int((y - first) / height) == num_rings:
            tracts.append(sum(counts) + 1)
        else:
            ring = int((y - first) / height)
            east = (math.radians(x) - math.radians(ra_start)) % (2 * math.pi)
            tract = int(east / (2 * math.pi / counts[ring]) + 0.5)
            tract = 0 if tract == counts[ring] else tract
            tracts.append(1 + sum(counts[:ring]) + tract)
    return np.array(tracts)


def around(values):
    """Return values, and the numbers next to them on both sides."""
    values = np.asarray(values, float)
    return np.concatenate([values, np.nextafter(values, 1e3), np.nextafter(values, -1e3)])


@pytest.mark.slow
@pytest.mark.parametrize("ra_start", [0.0, 123.456, 359.9])
@pytest.mark.parametrize("num_rings", COUNTS)
def test_rings_follow_the_formula(num_rings, ra_start):
    rng = np.random.default_rng(num_rings)
    ra = rng.uniform(0, 360, 10_000)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, len(ra))))
    found = RingsSkyMap(num_rings, ra_start).tract(ra, dec)
    np.testing.assert_array_equal(found, literal(num_rings, ra_start, ra, dec))
    assert found.dtype == np.int64


@pytest.mark.parametrize("num_rings", COUNTS)
def test_rings_edges_poles_and_the_wrap(num_rings):
    height = 180 / (num_rings + 1)
    edges = around(np.arange(num_rings + 1) * height + height / 2 - 90)
    dec = np.concatenate([edges, np.arange(num_rings) * height + height - 90, [-90, 90]])
    for ra_start in (0.0, 200.0):
        _, counts = ring_counts(num_rings)
        width = 360 / counts[num_rings // 2]
        turns = np.arange(-1, 3) * 360.0
        ra = around([*turns, *(turns + ra_start), *(ra_start + width / 2 + width * np.arange(3))])
        ras, decs = (grid.ravel() for grid in np.meshgrid(ra, dec))
        found = RingsSkyMap(num_rings, ra_start).tract(ras, decs)
        np.testing.assert_array_equal(found, literal(num_rings, ra_start, ras, decs))


def test_a_known_ring():
    """Rings 45 deg high from -67.5 deg on; each has int(8 cos 22.5 deg) + 1 = 8 tracts."""
    sky_map = RingsSkyMap(3, ra_start=10.0)
    assert sky_map.n_tracts == 26
    ra = [10.0, 32.4, 32.6, 347.4, 347.6, 9.9, 0.0, 0.0, 10.0]
    dec = [-45.0, -45.0, -45.0, -45.0, -45.0, -45.0, -68.0, 68.0, 0.0]
    assert sky_map.tract(ra, dec).tolist() == [1, 1, 2, 8, 1, 1, 0, 25, 9]


@pytest.mark.parametrize("sky_map", [RingsSkyMap(37, 77.7), RingsSkyMap(1), HealpixSkyMap(16)])
def test_every_tract_has_its_center(sky_map):
    tracts = np.arange(sky_map.n_tracts)
    ra, dec = sky_map.center(tracts)
    np.testing.assert_array_equal(sky_map.tract(ra, dec), tracts)
    assert (ra >= 0).all()
    assert (ra < 360).all()
    one = sky_map.center(3 % sky_map.n_tracts)
    assert np.ndim(one[0]) == np.ndim(one[1]) == 0


def test_boxes_hold_the_positions_of_their_tracts():
    sky_map = RingsSkyMap(7, ra_start=300.0)
    rng = np.random.default_rng(5)
    for tract in range(sky_map.n_tracts):
        west, east, south, north = sky_map.box(tract)
        ra = rng.uniform(west, east, 50)
        dec = rng.uniform(south, north, 50)
        assert (sky_map.tract(ra, dec) == tract).all()
    assert sky_map.box(0) == (120.0, 480.0, -90.0, -78.75)
    assert sky_map.box(sky_map.n_tracts - 1)[2:] == (78.75, 90.0)


def test_right_ascensions_of_any_turn():
    rng = np.random.default_rng(6)
    ra, dec = rng.uniform(1, 359, 500), rng.uniform(-90, 90, 500)
    for sky_map in (RingsSkyMap(20, 33.0), HealpixSkyMap(4)):
        expected = sky_map.tract(ra, dec)
        for turn in (-720, -360, 360, 1080):
            np.testing.assert_array_equal(sky_map.tract(ra + turn, dec), expected)


def test_shapes_go_together_and_blocks_do_not_show():
    sky_map = RingsSkyMap(12)
    rng = np.random.default_rng(7)
    ra, dec = rng.uniform(0, 360, 40_000), rng.uniform(-90, 90, 40_000)
    whole = sky_map.tract(ra, dec)
    parts = [sky_map.tract(ra[i : i + 977], dec[i : i + 977]) for i in range(0, len(ra), 977)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(
        sky_map.tract(ra[:6].reshape(2, 3), dec[:6].reshape(2, 3)), whole[:6].reshape(2, 3)
    )
    assert sky_map.tract(ra[:3, None], dec[:4]).shape == (3, 4)
    assert sky_map.tract(10, 20).shape == ()
    assert sky_map.tract([], []).shape == (0,)
    with pytest.raises(ValueError, match="broadcast"):
        sky_map.tract(ra[:3], dec[:4])


@pytest.mark.parametrize("sky_map", [RingsSkyMap(12), HealpixSkyMap(8)])
def test_positions_that_are_not_on_the_sky(sky_map):
    ra = np.array([10.0, np.nan, 10.0, 10.0, -np.inf, 10.0])
    dec = np.array([20.0, 20.0, np.nan, 90.001, 20.0, -91.0])
    match = "5 of 6 positions are not on the sky; the first, of index 1, is ra=nan, dec=20.0 deg"
    with pytest.raises(ValueError, match=match):
        sky_map.tract(ra, dec)
    found = sky_map.tract(ra, dec, strict=False)
    assert found.tolist() == [sky_map.tract(10.0, 20.0), -1, -1, -1, -1, -1]
    assert sky_map.tract(np.nan, [0.0, 1.0], strict=False).tolist() == [-1, -1]


@pytest.mark.parametrize("sky_map", [RingsSkyMap(3), HealpixSkyMap(1)])
def test_tracts_that_do_not_exist(sky_map):
    for tract in (-1, sky_map.n_tracts):
        with pytest.raises(ValueError, match=rf"no tract {tract}; .*0 to {sky_map.n_tracts - 1}"):
            sky_map.center([0, tract])
    with pytest.raises(TypeError, match="whole numbers"):
        sky_map.center(1.5)


def test_wrong_sky_maps():
    with pytest.raises(ValueError, match="num_rings is at least 1, got 0"):
        RingsSkyMap(0)
    with pytest.raises(TypeError, match="num_rings is a whole number"):
        RingsSkyMap(2.5)
    with pytest.raises(ValueError, match="ra_start is a finite number"):
        RingsSkyMap(3, math.nan)
    with pytest.raises(ValueError, match="nside is a power of two"):
        HealpixSkyMap(6)


def test_healpix_is_the_nested_scheme():
    """Of the twelve base pixels 0 to 3 are in the north, 8 to 11 in the south."""
    sky_map = HealpixSkyMap(1)
    assert sky_map.n_tracts == 12
    assert sky_map.tract([45, 135, 225, 315], 45.0).tolist() == [0, 1, 2, 3]
    assert sky_map.tract([0, 90, 180, 270], 0.0).tolist() == [4, 5, 6, 7]
    assert sky_map.tract([45, 135, 225, 315], -45.0).tolist() == [8, 9, 10, 11]
    fine = HealpixSkyMap(2).tract([45, 45], [5.0, 80.0])
    assert (fine // 4).tolist() == [0, 0]
    assert fine.tolist() == [0, 3]


def test_healpix_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "hpgeom", None)
    with pytest.raises(ImportError, match=r"pip install 'skyfold\[healpix\]'"):
        HealpixSkyMap(4).tract(0.0, 0.0)
    assert RingsSkyMap(4).tract(0.0, -90.0) == 0


def test_sky_maps_of_configurations():
    config = ProductsConfig(sky_map_num_rings=9, sky_map_ra_start=5.5, sky_map_nside=32)
    assert sky_map_of(config) == RingsSkyMap(9, 5.5)
    assert sky_map_of(config.replace(sky_map="healpix")) == HealpixSkyMap(32)


def test_sky_maps_are_values():
    sky_map = RingsSkyMap(9, 5)
    token = tokenize(sky_map)
    sky_map.tract(0.0, 0.0)
    assert tokenize(sky_map) == token != tokenize(RingsSkyMap(9, 6))
    again = pickle.loads(pickle.dumps(sky_map))
    assert again == sky_map
    assert {again: 1}[RingsSkyMap(9, 5.0)] == 1
