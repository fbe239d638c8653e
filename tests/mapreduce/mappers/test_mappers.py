import numpy as np
import pytest

from mapreduce.exposure.box import Box
from mapreduce.exposure.exposure import Exposure
from mapreduce.mappers import MAPPERS, describe
from mapreduce.mappers.background import subtract_background
from mapreduce.mappers.filters import gaussian_filter, median_filter
from mapreduce.mappers.mapper import extras
from mapreduce.simulate import simulate_exposure


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


@pytest.fixture
def noisy():
    image = np.random.default_rng(1).normal(100, 5, (60, 70)).astype(np.float32)
    image[20:23, 30:33] = np.nan
    image[50, :] = np.nan
    exposure = Exposure(image, np.full(image.shape, 25, np.float32), np.zeros(image.shape, int))
    for plane in exposure.planes.values():
        plane.flags.writeable = False
    return exposure


def test_every_built_in_mapper_is_one_and_says_what_it_does():
    for name, text in describe().items():
        assert extras(MAPPERS[name]) <= {"cell", "rng"}
        assert text.endswith(".")
        assert 10 < len(text) < 90
    assert {"background", "median", "gaussian"} <= describe().keys()


def test_background_is_the_clipped_median_of_the_expanded_box():
    image = np.full((10, 10), 7, np.float32)
    image[:, 5:] = 9
    image[0, 0] = 1e6
    exposure = Exposure(image)
    result = subtract_background(exposure.cutout(Box(0, 0, 5, 10)), exposure, exposure.bbox)
    # 49 sevens and 50 nines are left.
    assert result.bbox == Box(0, 0, 5, 10)
    assert result.image.dtype == np.float32
    assert (result.image[1:] == -2).all()


def test_background_leaves_variance_and_mask(noisy):
    result = whole(subtract_background, noisy)
    assert abs(np.nanmedian(result.image)) < 0.05
    np.testing.assert_array_equal(np.isnan(result.image), np.isnan(noisy.image))
    assert result.variance is noisy.variance
    assert result.mask is noisy.mask


def test_background_of_a_simulated_exposure():
    exposure, truth = simulate_exposure(256, seed=1, gradient=0)
    result = whole(subtract_background, exposure)
    level = np.median((exposure.image - result.image)[exposure.mask == 0])
    assert level == pytest.approx(truth.background.mean(), abs=1.0)


@pytest.mark.parametrize("estimator", ["mean", "median", "mode"])
def test_background_estimators_agree_on_symmetric_noise(noisy, estimator):
    image = whole(subtract_background, noisy, estimator=estimator).image
    assert abs(np.nanmean(image)) < 0.5


def test_background_estimator_formulas():
    exposure = Exposure(np.array([[1.0, 2.0, 6.0]]))
    levels = {
        name: 1 - whole(subtract_background, exposure, sigma=9, estimator=name).image[0, 0]
        for name in ("mean", "median", "mode")
    }
    assert levels == {"mean": 3, "median": 2, "mode": 2.5 * 2 - 1.5 * 3}
    with pytest.raises(ValueError, match="one of mean, median, mode, got 'average'"):
        whole(subtract_background, exposure, estimator="average")


def test_background_is_not_taken_from_masked_pixels():
    exposure = Exposure(np.array([[1.0, 1.0, 5.0, 5.0, 5.0]]), mask=np.array([[0, 0, 32, 32, 32]]))
    assert whole(subtract_background, exposure).image[0, 0] == 0  # DETECTED is bit 5
    assert whole(subtract_background, exposure, mask=()).image[0, 0] == -4
    assert whole(subtract_background, exposure, mask="SAT").image[0, 0] == -4


def test_background_planes_that_do_not_exist():
    exposure = Exposure(np.ones((2, 2)), mask=np.zeros((2, 2), int), mask_planes={"BAD": 0})
    assert (whole(subtract_background, exposure).image == 0).all()
    with pytest.raises(KeyError, match="no mask plane 'SAT'; there are BAD"):
        whole(subtract_background, exposure, mask=["BAD", "SAT"])


def test_background_of_nothing_is_an_error():
    exposure = Exposure(np.array([[np.nan, np.inf, 1.0]]), mask=np.array([[0, 0, 1]]))
    with pytest.raises(ValueError, match="none of the 3 pixels .* 2 are not finite and 1 are mask"):
        whole(subtract_background, exposure, mask="BAD")


def test_background_of_integers():
    image = whole(subtract_background, Exposure(np.array([[1, 2, 2, 9]], np.uint16))).image
    assert image.tolist() == [[-1, 0, 0, 7]]


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


def test_median_of_a_bare_neighbourhood_is_nan():
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
