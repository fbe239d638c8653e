"""Matching on the sky: each the nearest of the other, as a look at all pairs finds it."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.sky.matching import angle, chord, match_sky, match_vectors, unit_vectors


def all_pairs(vectors, others, radius):
    distances = np.linalg.norm(vectors[:, None] - others, axis=-1)
    nearest, back = distances.argmin(axis=1), distances.argmin(axis=0)
    return [
        (i, j)
        for i, j in enumerate(nearest.tolist())
        if back[j] == i and distances[i, j] <= chord(radius)
    ]


@pytest.mark.parametrize("radius", [0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("crowding", [1, 5])
def test_matches_are_those_of_all_pairs(radius, crowding):
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(50):
        first, second = (
            np.stack([rng.uniform(-1, 1, n), rng.uniform(-1, 1, n)]) / crowding
            for n in rng.integers(1, 30, 2)
        )
        pairs = all_pairs(unit_vectors(*first), unit_vectors(*second), radius)
        for matches in (
            match_sky(*first, *second, radius),
            match_vectors(unit_vectors(*first), unit_vectors(*second), radius),
        ):
            assert list(zip(matches.first, matches.second, strict=True)) == pairs
        found += len(pairs)
    assert found > 0


def test_nobody_gets_a_second_choice():
    # The first star's nearest has a nearer star, which has a nearer one itself.
    matches = match_sky([0.0, 0.19], [0.0, 0.0], [0.1, 0.2], [0.0, 0.0], 0.5)
    assert [*zip(matches.first, matches.second, strict=True)] == [(1, 1)]
    # And what is left, 0.0 and 0.7, are within the radius of nothing but what is taken.
    matches = match_sky([0.0, 0.3], [0.0, 0.0], [0.2, 0.7], [0.0, 0.0], 0.5)
    assert [*zip(matches.first, matches.second, strict=True)] == [(1, 0)]


def test_equals_are_matched_once():
    matches = match_sky([5.0, 5.0, 5.0], [1.0, 1.0, 1.0], [5.0, 5.0], [1.0, 1.0], 1.0)
    assert len(matches) == 1
    matches = match_sky([4.0, 6.0], [0.0, 0.0], [5.0], [0.0], 2.0)
    assert len(matches) == 1


def test_the_radius_counts_as_within():
    assert len(match_sky([0.0], [0.0], [0.0], [0.5], 0.5 + 1e-12)) == 1
    assert len(match_sky([0.0], [0.0], [0.0], [0.5], 0.5 - 1e-9)) == 0


def test_matches_across_the_poles_and_the_meridian():
    matches = match_sky(
        [359.9999, 0.0, 10.0], [0.0, 89.9999, -90.0], [0.0001, 180.0, 200.0],
        [0.0, 89.9999, -89.9999], 0.001,
    )  # fmt: skip
    assert [*matches.second] == [0, 1, 2]
    np.testing.assert_allclose(matches.separation, [2e-4, 2e-4, 1e-4], rtol=1e-6)


def test_what_is_not_finite_has_no_match():
    matches = match_sky([np.nan, 1.0], [0.0, 0.0], [1.0, 1.0], [np.nan, 0.0], 1.0)
    assert [*matches.first, *matches.second] == [1, 1]


@pytest.mark.parametrize("counts", [(0, 3), (3, 0), (0, 0)])
def test_of_none_there_are_no_matches(counts):
    first, second = (np.zeros(n) for n in counts)
    assert len(match_sky(first, first, second, second, 1.0)) == 0


def test_angles_and_chords_are_each_other_s_inverse():
    angles = np.array([0.0, 1e-7, 1.0, 90.0, 180.0])
    np.testing.assert_allclose(angle(chord(angles)), angles, rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(unit_vectors([10, 200], [-80, 3]), axis=1), 1)


@pytest.mark.parametrize("radius", [-1, np.nan, np.inf])
def test_a_radius_that_is_none(radius):
    with pytest.raises(ValueError, match="radius must be 0 to 180 deg"):
        match_sky([10.0], [1.0], [10.0], [1.0], radius)
