import numpy as np
import pytest

from mapreduce.exposure.box import Box
from mapreduce.exposure.exposure import Exposure
from mapreduce.mappers.background import subtract_background
from mapreduce.simulate import simulate_exposure


def whole(mapper, exposure, **options):
    return mapper(exposure, exposure, exposure.bbox, **options)


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
