import functools
import operator
import pickle

import astropy.units as u
import dask
import dask.array as da
import numpy as np
import pytest
from dask.base import tokenize
from scipy import ndimage

from mapreduce import GridConfig, check_seams, map_reduce
from mapreduce.exposure.box import Box
from mapreduce.exposure.exposure import Exposure
from mapreduce.mappers.filters import gaussian_filter, median_filter
from mapreduce.mappers.mapper import (
    array_mapper,
    extras,
    masked_pixels,
    require_border,
)

WHOLE = Box(100, 200, 8, 6)


def plain(sub, expanded, full_bbox, **kwargs):
    return sub


def curious(sub, expanded, full_bbox, cell, *, rng=None):
    return sub


def noise(image, *, rng, sigma=1.0):
    return image + rng.normal(0, sigma, image.shape)


class Curious:
    def __call__(self, sub, expanded, full_bbox, *, cell):
        return sub

    def method(self, sub, expanded, full_bbox, *, rng):
        return sub


@pytest.fixture
def expanded():
    image = np.arange(48, dtype=np.float32).reshape(6, 8)
    mask = np.zeros((6, 8), np.int32)
    mask[2, 3] = 1
    exposure = Exposure(image, np.ones((6, 8), np.float32), mask, origin=(100, 200))
    for plane in (image, exposure.variance, exposure.mask):
        plane.flags.writeable = False
    return exposure


@pytest.fixture
def sub(expanded):
    return expanded.cutout(Box(102, 201, 4, 3))


@pytest.mark.parametrize(
    ("mapper", "named"),
    [
        (plain, set()),
        (curious, {"cell", "rng"}),
        (Curious(), {"cell"}),
        (Curious().method, {"rng"}),
        (functools.partial(curious, rng=1), {"cell"}),
        (functools.partial(lambda config, sub, expanded, box, rng: sub, 5), {"rng"}),
        (lambda cell, expanded, full_bbox: cell, set()),
        (lambda *args, **kwargs: args, set()),
        (lambda sub, expanded, full_bbox, rng, /: sub, set()),
        (array_mapper(noise), {"rng"}),
        (array_mapper(noise, rng=3), set()),
        (array_mapper(ndimage.median_filter, size=3), set()),
        (operator.itemgetter(0), set()),
        (max, set()),  # a built-in function without a signature
    ],
)
def test_extras_are_what_the_mapper_names(mapper, named):
    assert extras(mapper) == named


def test_a_mapper_must_be_callable():
    with pytest.raises(TypeError, match="a mapper is a callable .* got 'median'"):
        extras("median")


def test_array_mapper_works_on_the_expanded_box_and_trims(sub, expanded):
    result = array_mapper(ndimage.uniform_filter, size=3)(sub, expanded, WHOLE)
    assert result.bbox == sub.bbox
    assert result.image.dtype == np.float32
    # The mean over a square of a slope is the slope, where the whole square can be seen.
    np.testing.assert_allclose(result.image, sub.image)
    np.testing.assert_array_equal(result.variance, sub.variance)
    np.testing.assert_array_equal(result.mask, sub.mask)


def test_array_mapper_without_trimming(sub, expanded):
    result = array_mapper(np.negative, trim=False)(sub, expanded, WHOLE)
    assert result.bbox == expanded.bbox
    np.testing.assert_array_equal(result.image, -expanded.image)


@pytest.mark.parametrize("plane", ["variance", "mask"])
def test_array_mapper_on_another_plane(sub, expanded, plane):
    result = array_mapper(lambda array: array * 2, plane=plane)(sub, expanded, WHOLE)
    np.testing.assert_array_equal(getattr(result, plane), 2 * getattr(sub, plane))
    np.testing.assert_array_equal(result.image, sub.image)


def test_keywords_of_the_call_win_over_fixed_ones(sub, expanded):
    def add(image, *, number, factor=1):
        return image + number * factor

    mapper = array_mapper(add, number=1, factor=2)
    np.testing.assert_array_equal(mapper(sub, expanded, WHOLE).image, sub.image + 2)
    result = mapper(sub, expanded, WHOLE, number=10)
    np.testing.assert_array_equal(result.image, sub.image + 20)


def test_the_result_must_keep_the_shape(sub, expanded):
    mapper = array_mapper(np.ravel)
    with pytest.raises(ValueError, match=r"ravel was given .* \(6, 8\) and returned .* \(48,\)"):
        mapper(sub, expanded, WHOLE)


def seen_by(expanded, **options):
    seen = []
    array_mapper(lambda image: seen.append(image) or image, **options)(expanded, expanded, WHOLE)
    return seen[0]


def test_pixels_are_given_as_they_are_by_default(expanded):
    assert seen_by(expanded) is expanded.image


def test_masked_pixels_become_nan_or_the_fill(expanded):
    image = np.array(expanded.image)
    image[0, 0] = np.nan
    exposure = expanded.replace(image=image)
    with_nan = seen_by(exposure, mask=["BAD", "SAT"])
    assert np.argwhere(np.isnan(with_nan)).tolist() == [[0, 0], [2, 3]]
    assert with_nan.dtype == np.float32
    filled = seen_by(exposure, mask="BAD", fill=-1)
    assert filled[0, 0] == filled[2, 3] == -1
    assert np.isnan(seen_by(exposure)).sum() == 1
    assert seen_by(exposure, fill=7.0)[2, 3] == image[2, 3]
    assert np.isnan(exposure.image).sum() == 1


def test_masked_pixels_of_integers(expanded):
    whole_numbers = expanded.astype(np.int16)
    assert seen_by(whole_numbers, mask="BAD", fill=0).dtype == np.int16
    assert np.isnan(seen_by(whole_numbers, mask="BAD")[2, 3])


def test_a_function_cannot_write_into_the_input(sub, expanded):
    def spoil(image):
        image[:] = 0
        return image

    with pytest.raises(ValueError, match="read-only"):
        array_mapper(spoil)(sub, expanded, WHOLE)


def test_array_mapper_is_a_value():
    mapper = array_mapper(ndimage.median_filter, size=5, mask="BAD")
    again = pickle.loads(pickle.dumps(mapper))
    assert again == mapper
    assert hash(again) == hash(mapper)
    assert tokenize(again) == tokenize(mapper)
    assert tokenize(mapper) != tokenize(array_mapper(ndimage.median_filter, size=3, mask="BAD"))


def test_what_array_mapper_refuses(sub, expanded):
    with pytest.raises(TypeError, match="takes a function of an array, got 5"):
        array_mapper(5)
    with pytest.raises(ValueError, match="plane must be image, variance or mask, got 'weight'"):
        array_mapper(np.negative, plane="weight")
    with pytest.raises(KeyError, match="no mask plane 'GHOST'"):
        array_mapper(np.negative, mask=["GHOST"])(sub, expanded, WHOLE)
    bare = Exposure(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="works on the variance, and there is none"):
        array_mapper(np.negative, plane="variance")(bare, bare, bare.bbox)


def test_masked_pixels_without_a_mask():
    assert not masked_pixels(Exposure(np.zeros((2, 2))), "BAD").any()


def test_border_is_needed_inside_of_the_exposure_only():
    whole = Exposure(np.zeros((20, 20)))
    core = Box(0, 5, 8, 8)
    require_border(whole.cutout(core), whole.cutout(Box(0, 2, 11, 14)), whole.bbox, 3)
    with pytest.raises(ValueError, match="needs a border of 3 pixels .* make the border"):
        require_border(whole.cutout(core), whole.cutout(Box(0, 2, 10, 14)), whole.bbox, 3)


# Reach


GAUSSIAN = array_mapper(ndimage.gaussian_filter, sigma=1.5, reach=6)


@pytest.mark.parametrize(
    ("mapper", "kwargs", "reach"),
    [
        (GAUSSIAN, {}, 6),
        (functools.partial(GAUSSIAN, mode="mirror"), {}, 6),
        (median_filter, {"size": 9}, 4),
        (functools.partial(median_filter, size=9), {}, 4),
        (median_filter, {}, 2),
        (gaussian_filter, {"sigma": 1.5 * u.pix}, 6),
    ],
)
@pytest.mark.parametrize("adjust", ["partition", "none"])
def test_a_border_narrower_than_the_reach_is_refused_before_the_run(mapper, kwargs, reach, adjust):
    image = np.random.default_rng(3).normal(size=(90, 110))
    exposure = Exposure(da.from_array(image, chunks=40), origin=(7, -3))
    options = {"mapper_kwargs": kwargs}
    message = f"looks {reach} pixels around, and cell [0-9]+ has a border of {reach - 1}: there"
    with pytest.raises(ValueError, match=message):
        map_reduce(
            exposure, mapper, grid=GridConfig(30, border=reach - 1, adjust=adjust), **options
        )
    whole = map_reduce(exposure, mapper, grid=GridConfig(200, border=0), **options)
    for border in (reach, reach + 5):
        grid = GridConfig(30, border=border)
        result = map_reduce(exposure, mapper, grid=grid, **options)
        np.testing.assert_array_equal(*dask.compute(result.image, whole.image))
        assert check_seams(exposure, mapper, grid, **options) == 0


def test_seams_are_measured():
    exposure = Exposure(np.random.default_rng(3).normal(size=(90, 110)))
    blur = array_mapper(ndimage.uniform_filter, size=9)
    assert check_seams(exposure, blur, GridConfig(30, border=4)) < 1e-12
    assert check_seams(exposure, blur, GridConfig(30, border=3)) > 1e-3


@pytest.mark.parametrize("reach", [1.5, -1, "wide"])
def test_a_reach_that_is_none(reach):
    with pytest.raises((TypeError, ValueError), match="reach must be"):
        array_mapper(ndimage.gaussian_filter, sigma=2, reach=reach)
