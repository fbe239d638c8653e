"""Regions of the output, and the pieces that fill them."""

import numpy as np
import pytest

from mapreduce import Box, Exposure, MaskPlanes
from mapreduce.reducers.names import get_reducer
from mapreduce.run.fold import Fold, Piece, valid_pixels
from mapreduce.run.job import Job

BOX = Box(3, -2, 12, 10)


def make_piece(index, box, seed=None, dtype="f4", planes=("image", "variance")):
    rng = np.random.default_rng(index if seed is None else seed)
    return Piece(index, box, box, {n: rng.uniform(1, 9, box.shape).astype(dtype) for n in planes})


# Folding


def make_job(reducer, **options):
    planes = MaskPlanes.lsst().add("INVALID_MAPREDUCE")
    dtypes = {"image": np.dtype("f4"), "variance": np.dtype("f4"), "mask": np.dtype("i4")}
    return Job(
        mapper=None,
        extras=frozenset(),
        kwargs={},
        reducer=type(get_reducer(reducer))(**options),
        on_error="raise",
        seed=0,
        reach=0,
        box=BOX,
        dtypes=dtypes,
        mask_planes=planes,
        shells={},
    )


def fold(job, pieces):
    planes = {name: np.full(BOX.shape, 77, dtype) for name, dtype in job.dtypes.items()}
    planes["mask"][...] = 2
    region = Fold(job, BOX, BOX, planes)
    with np.errstate(all="ignore"):
        for piece in pieces:
            region.add(piece)
        region.finish()
    return Exposure(**planes, origin=BOX[:2], mask_planes=job.mask_planes)


def test_a_result_that_overflows_in_the_output_is_flagged():
    """It is valid as it comes, and inf * 0 as it is kept."""
    piece = Piece(
        0, BOX, BOX, {"image": np.full(BOX.shape, 1e300), "variance": np.zeros(BOX.shape)}
    )
    done = fold(make_job("average"), [piece])
    assert (done.mask == 2 | done.mask_planes.bitmask("INVALID_MAPREDUCE", "BAD", "NO_DATA")).all()


def test_negative_variance_has_no_square_root():
    piece = make_piece(0, BOX)
    piece.planes["variance"][2, 3] = -1
    done = fold(make_job("average", variance_rule="correlated"), [piece])
    assert np.argwhere(done.mask != 2).tolist() == [[2, 3]]


@pytest.mark.parametrize("reducer", ["sum", "average"])
def test_more_values_than_a_byte_counts(reducer):
    one = {"image": np.ones(BOX.shape, "f4"), "variance": np.ones(BOX.shape, "f4")}
    done = fold(make_job(reducer), (Piece(n, BOX, BOX, one) for n in range(300)))
    assert (done.image == (300 if reducer == "sum" else 1)).all()
    assert (done.mask == 2).all()


@pytest.mark.parametrize("reducer", ["copy", "sum", "average"])
def test_more_places_than_are_compared_one_by_one(reducer):
    pieces = [make_piece(3 * n, Box(BOX.x0 + n % 12, BOX.y0 + n // 12, 1, 1)) for n in range(119)]
    done = fold(make_job(reducer), pieces)
    values = [piece.planes["image"].item() for piece in pieces]
    np.testing.assert_array_equal(done.image.ravel()[:-1], np.array(values, "f4"))
    missing = 0 if reducer == "sum" else np.nan
    np.testing.assert_array_equal(done.image[-1, -1], missing)


@pytest.mark.parametrize("reducer", ["sum", "average"])
def test_the_first_value_of_a_pixel_is_not_added_to_zero(reducer):
    """As 0 + -0.0 would be 0.0, and what is alone comes out as it is."""
    minus = {"image": np.full(BOX.shape, -0.0, "f4"), "variance": np.ones(BOX.shape, "f4")}
    for pieces in ([Piece(0, BOX, BOX, minus)], [Piece(n, BOX, BOX, minus) for n in (0, 1)]):
        assert np.signbit(fold(make_job(reducer), pieces).image).all()


# Validity


@pytest.mark.parametrize(
    ("image", "variance", "valid"),
    [
        ([1, 2], [3, 4], None),
        ([1, np.nan], [3, 4], [True, False]),
        ([1, 2], [np.nan, 4], [False, True]),
        ([np.inf, 2], [0, 4], [False, True]),
        ([np.inf, -np.inf], [1, 1], None),
        ([np.inf, np.nan], None, [True, False]),
        ([3e38, 3e38], [3e38, -3e38], None),
    ],
)
def test_valid_pixels(image, variance, valid):
    image = np.array([image], "f4")
    with np.errstate(all="ignore"):
        found = valid_pixels(image, None if variance is None else np.array([variance], "f4"))
    assert (found is None) == (valid is None)
    if valid is not None:
        assert found.tolist() == [valid]


def test_integers_are_valid():
    assert valid_pixels(np.ones((2, 2), "i4"), None) is None
