"""Regions of the output, and the patches that fill them."""

import numpy as np
import pytest

from mapreduce import Box, Exposure, MaskPlanes
from mapreduce.reducers.base import Patch
from mapreduce.reducers.names import get_reducer
from mapreduce.run.fold import fold, valid_pixels
from mapreduce.run.spec import RunSpec

BOX = Box(3, -2, 12, 10)


def make_patch(index, box, seed=None, dtype="f4", planes=("image", "variance")):
    rng = np.random.default_rng(index if seed is None else seed)
    return Patch(
        box, box, *(rng.uniform(1, 9, box.shape).astype(dtype) for _ in planes), cell=index
    )


# Folding


def make_spec(reducer, **options):
    planes = MaskPlanes.lsst().add("INVALID_MAPREDUCE")
    dtypes = {"image": np.dtype("f4"), "variance": np.dtype("f4"), "mask": np.dtype("i4")}
    return RunSpec(
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


def folded(spec, patches):
    planes = {name: np.full(BOX.shape, 77, dtype) for name, dtype in spec.dtypes.items()}
    planes["mask"][...] = 2
    with np.errstate(all="ignore"):
        fold(spec, BOX, planes, BOX, patches, [])
    return Exposure(**planes, origin=BOX[:2], mask_planes=spec.mask_planes)


def test_a_result_that_overflows_in_the_output_is_flagged():
    """It is valid as it comes, and inf * 0 as it is kept."""
    patch = Patch(BOX, BOX, np.full(BOX.shape, 1e300), np.zeros(BOX.shape))
    done = folded(make_spec("average"), [patch])
    assert (done.mask == 2 | done.mask_planes.bitmask("INVALID_MAPREDUCE", "BAD", "NO_DATA")).all()


def test_negative_variance_has_no_square_root():
    patch = make_patch(0, BOX)
    patch.variance[2, 3] = -1
    done = folded(make_spec("average", variance_rule="correlated"), [patch])
    assert np.argwhere(done.mask != 2).tolist() == [[2, 3]]


@pytest.mark.parametrize("reducer", ["sum", "average"])
def test_more_values_than_a_byte_counts(reducer):
    one = np.ones(BOX.shape, "f4")
    done = folded(make_spec(reducer), (Patch(BOX, BOX, one, one, cell=n) for n in range(300)))
    assert (done.image == (300 if reducer == "sum" else 1)).all()
    assert (done.mask == 2).all()


@pytest.mark.parametrize("reducer", ["copy", "sum", "average"])
def test_more_places_than_are_compared_one_by_one(reducer):
    patches = [make_patch(3 * n, Box(BOX.x0 + n % 12, BOX.y0 + n // 12, 1, 1)) for n in range(119)]
    done = folded(make_spec(reducer), patches)
    values = [patch.image.item() for patch in patches]
    np.testing.assert_array_equal(done.image.ravel()[:-1], np.array(values, "f4"))
    missing = 0 if reducer == "sum" else np.nan
    np.testing.assert_array_equal(done.image[-1, -1], missing)


@pytest.mark.parametrize("reducer", ["sum", "average"])
def test_the_first_value_of_a_pixel_is_not_added_to_zero(reducer):
    """As 0 + -0.0 would be 0.0, and what is alone comes out as it is."""
    minus = np.full(BOX.shape, -0.0, "f4"), np.ones(BOX.shape, "f4")
    for patches in ([Patch(BOX, BOX, *minus)], [Patch(BOX, BOX, *minus, cell=n) for n in (0, 1)]):
        assert np.signbit(folded(make_spec(reducer), patches).image).all()


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
