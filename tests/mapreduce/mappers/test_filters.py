import numpy as np
import pytest

from mapreduce.exposure.box import Box
from mapreduce.exposure.exposure import Exposure
from mapreduce.mappers.filters import gaussian_filter, median_filter


def whole(mapper, exposure, **options):
    return mapper(exposure, exposure, exposure.bbox, **options)


def by_cells(mapper, exposure, cell_size, border, **options):
    """Image of the mapper's results for square cells, put side by side."""
    image = np.zeros(exposure.shape, exposure.image.dtype)
    box = exposure.bbox
    for y in range(box.y0, box.y1, cell_size):
        for x in range(box.x0, box.x1, cell_size):
            core = Box(x, y, cell_size, cell_size).clip(box)
            expanded = exposure.cutout(core.grow(border).clip(box))
            result = mapper(exposure.cutout(core), expanded, box, **options)
            image[core.slices(box)] = result.image
    return image


@pytest.mark.parametrize("cell_size", [7, 16, 100])
@pytest.mark.parametrize(
    ("mapper", "border", "options"),
    [(median_filter, 2, {"size": 5}), (gaussian_filter, 6, {"sigma": 1.5})],
)
def test_cells_leave_no_seams(noisy, mapper, border, options, cell_size):
    expected = whole(mapper, noisy, **options).image
    result = by_cells(mapper, noisy, cell_size, border, **options)
    np.testing.assert_array_equal(result, expected)


def test_median_is_that_of_the_finite_pixels(noisy):
    result = whole(median_filter, noisy, size=5).image
    for y, x in ((10, 10), (19, 29), (21, 31), (50, 12), (2, 2)):
        window = noisy.image[y - 2 : y + 3, x - 2 : x + 3]
        assert result[y, x] == pytest.approx(np.nanmedian(window), rel=1e-6)
    assert not np.isnan(result).any()
    assert np.isnan(whole(median_filter, noisy, size=3).image).sum() == 1


def test_median_of_a_bare_neighborhood_is_nan():
    assert np.isnan(whole(median_filter, Exposure(np.full((4, 4), np.nan)), size=3).image).all()


def test_gaussian_keeps_a_flat_image_flat(noisy):
    flat = noisy.replace(image=np.where(np.isnan(noisy.image), np.nan, np.float32(3)))
    result = whole(gaussian_filter, flat, sigma=1.0).image
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 3, rtol=1e-6)


def test_gaussian_is_nan_where_it_sees_nothing():
    image = np.full((1, 30), np.nan)
    image[0, 0] = 2.0
    result = whole(gaussian_filter, Exposure(image), sigma=1.0).image[0]
    np.testing.assert_allclose(result[:4], 2)
    assert np.isnan(result[5:]).all()


@pytest.mark.parametrize("mapper", [median_filter, gaussian_filter])
def test_filters_leave_masked_pixels_out(mapper):
    image = np.ones((9, 9))
    image[4, 4] = 1e6
    exposure = Exposure(image, mask=(image > 1).astype(int))
    assert whole(mapper, exposure, mask="BAD").image[4, 4] == pytest.approx(1)


@pytest.mark.parametrize("mapper", [median_filter, gaussian_filter])
def test_filters_refuse_a_narrow_border(mapper, noisy):
    core = noisy.cutout(Box(10, 10, 20, 20))
    with pytest.raises(ValueError, match=r"needs a border of \d pixels"):
        mapper(core, noisy.cutout(core.bbox.grow(1)), noisy.bbox)


def test_filters_refuse_bad_sizes(noisy):
    with pytest.raises(ValueError, match="size must be an odd number of pixels, got 4"):
        whole(median_filter, noisy, size=4)
    with pytest.raises(ValueError, match="sigma must be a positive number of pixels, got 0"):
        whole(gaussian_filter, noisy, sigma=0)
