import numpy as np
import pytest

from mapreduce.exposure.box import Box
from mapreduce.exposure.psf import DoubleGaussianPsf, GaussianPsf
from mapreduce.simulate import PROFILES, draw_galaxy, simulate_exposure


@pytest.fixture(scope="module")
def simulated():
    return simulate_exposure((700, 500), seed=5, origin=(1000, -200))


def flagged(exposure, name):
    return (exposure.mask & exposure.mask_planes.bitmask(name)) != 0


def test_planes_are_of_the_asked_size_and_dtype(simulated):
    exposure, truth = simulated
    assert exposure.bbox == Box(1000, -200, 700, 500)
    assert [exposure.image.dtype, exposure.variance.dtype] == [np.float32] * 2
    assert [truth.noiseless.dtype, truth.background.dtype] == [np.float32] * 2
    assert exposure.mask.dtype == np.int32
    assert truth.noiseless.shape == truth.background.shape == exposure.shape == (500, 700)


def test_noise_is_what_the_variance_says(simulated):
    exposure, truth = simulated
    pull = ((exposure.image - truth.noiseless) / np.sqrt(exposure.variance))[exposure.mask == 0]
    n = pull.size
    assert abs(pull.mean()) < 4 / np.sqrt(n)
    assert abs((pull**2).mean() - 1) < 4 * np.sqrt(2 / n)


def test_variance_formula(simulated):
    exposure, truth = simulated
    expected = truth.noiseless / 1.5 + (6 / 1.5) ** 2
    np.testing.assert_allclose(exposure.variance, expected, rtol=1e-6)


def test_background_formula():
    truth = simulate_exposure((3, 5), density=0, background=100, gradient=0.5).truth
    # At the corner u = v = -1, in the middle u = v = 0.
    assert truth.background[0, 0] == pytest.approx(100 * (1 + 0.5 * (-0.5 - 0.3 - 0.2)))
    assert truth.background[2, 1] == pytest.approx(100)
    np.testing.assert_array_equal(truth.noiseless, truth.background)
    assert len(truth.sources) == 0


def test_same_seed_same_bits():
    one, two, other = (simulate_exposure(120, seed=seed) for seed in (7, 7, 8))
    for plane in ("image", "variance", "mask"):
        first, second = getattr(one.exposure, plane), getattr(two.exposure, plane)
        assert first.tobytes() == second.tobytes()
        assert first.tobytes() != getattr(other.exposure, plane).tobytes()
    assert (one.truth.sources == two.truth.sources).all()


def test_origin_moves_the_coordinates_alone():
    here, there = (simulate_exposure(120, seed=2, origin=o) for o in ((0, 0), (5000, -300)))
    np.testing.assert_array_equal(here.exposure.image, there.exposure.image)
    np.testing.assert_allclose(there.truth.sources["x"] - here.truth.sources["x"], 5000)
    np.testing.assert_allclose(there.truth.sources["ra"], here.truth.sources["ra"], atol=1e-9)


def test_ingredients_have_their_own_random_streams():
    full = simulate_exposure(300, seed=3)
    clean = simulate_exposure(300, seed=3, cosmic_rays=0, bad_columns=0)
    good = full.exposure.mask == 0
    assert not good.all()
    np.testing.assert_array_equal(full.exposure.image[good], clean.exposure.image[good])
    np.testing.assert_array_equal(full.truth.noiseless, clean.truth.noiseless)


def test_blemishes_are_flagged(simulated):
    exposure, truth = simulated
    residual = (exposure.image - truth.noiseless) / np.sqrt(exposure.variance)
    bad, sat, ray = (flagged(exposure, name) for name in ("BAD", "SAT", "CR"))
    # Every track leaves a mark on some quiet pixels; a column is dead from some row up.
    assert ray.sum() >= 5
    assert np.median(residual[ray & ~bad & ~sat]) > 20
    assert 1 <= bad.any(axis=0).sum() <= 2
    assert np.abs(exposure.image[bad]).max() < 6 * 6 / 1.5
    assert sat.any()
    assert (exposure.image[sat & ~bad] == 60_000).all()
    assert (exposure.image[~sat] < 60_000).all()


def test_number_of_sources_goes_with_the_area():
    small, large = (simulate_exposure(n, density=1000).truth.sources for n in (100, 200))
    assert (len(small), len(large)) == (10, 40)
    assert list(large["kind"]).count("star") == 16


@pytest.mark.parametrize("psf", [GaussianPsf(1.7), DoubleGaussianPsf(1.5, 3.5, 0.1)])
@pytest.mark.parametrize("star_fraction", [0.0, 1.0])
def test_truth_has_the_flux_and_the_place(psf, star_fraction):
    truth = simulate_exposure(
        (201, 151), density=1e6 / (201 * 151), star_fraction=star_fraction, seed=4, psf=psf
    ).truth
    source = truth.sources[0]
    image = truth.noiseless.astype(float) - truth.background
    y, x = np.indices(image.shape)
    assert image.sum() == pytest.approx(source["flux"], rel=1e-3)
    assert (image * x).sum() / image.sum() == pytest.approx(source["x"], abs=0.05)
    assert (image * y).sum() / image.sum() == pytest.approx(source["y"], abs=0.05)


def test_psf_is_that_of_the_stars():
    psf = GaussianPsf(2.0)
    exposure, truth = simulate_exposure(
        101, density=1e6 / 101**2, star_fraction=1, seed=1, psf=psf, saturation=1e9
    )
    x, y, flux = (float(truth.sources[name][0]) for name in ("x", "y", "flux"))
    star = exposure.bbox.clip(Box(round(x) - 10, round(y) - 10, 21, 21))
    drawn = (truth.noiseless - truth.background)[star.slices(exposure.bbox)]
    assert star.area == 21 * 21
    np.testing.assert_allclose(drawn / flux, psf.compute_image(x, y), atol=1e-6)
    assert exposure.psf is psf


def test_galaxy_moments():
    # An exponential disk has <x**2> = 3 h**2, and the PSF adds its own.
    stamp = draw_galaxy(GaussianPsf(1.5), 10.3, 20.4, PROFILES["exponential"], 6.0, 0.5, 30.0)
    y, x = np.indices(stamp.shape) - np.array(stamp.shape)[:, None, None] // 2
    x, y = x - 0.3, y - 0.4
    along = x * np.cos(np.pi / 6) + y * np.sin(np.pi / 6)
    across = y * np.cos(np.pi / 6) - x * np.sin(np.pi / 6)
    h2 = (6.0 / 1.678347) ** 2
    assert stamp.sum() == pytest.approx(1, rel=1e-4)
    assert (stamp * along**2).sum() == pytest.approx(1.5**2 + 3 * h2 / 0.5, rel=0.04)
    assert (stamp * across**2).sum() == pytest.approx(1.5**2 + 3 * h2 * 0.5, rel=0.04)


@pytest.mark.parametrize("kind", ["exponential", "de_vaucouleurs"])
def test_half_of_the_light_is_within_the_half_light_radius(kind):
    stamp = draw_galaxy(GaussianPsf(1.0), 0, 0, PROFILES[kind], 12.0, 0.0, 0.0)
    y, x = np.indices(stamp.shape) - np.array(stamp.shape)[:, None, None] // 2
    assert stamp[np.hypot(x, y) < 12].sum() == pytest.approx(0.5, abs=0.02)


def test_wcs_is_in_parent_coordinates(simulated):
    exposure, truth = simulated
    x, y = exposure.bbox.center
    np.testing.assert_allclose(exposure.wcs.all_pix2world(x, y, 0), (150.0, 2.2))
    ra, dec = exposure.wcs.all_pix2world(truth.sources["x"], truth.sources["y"], 0)
    np.testing.assert_allclose((ra, dec), (truth.sources["ra"], truth.sources["dec"]))
    scales = np.sqrt(np.linalg.det(exposure.wcs.pixel_scale_matrix) * -1) * 3600
    assert scales == pytest.approx(0.2)


def test_north_is_rotated_from_up_towards_the_left():
    wcs = simulate_exposure(11, density=0, rotation=90).exposure.wcs
    x, y = wcs.all_world2pix(150.0, 2.2 + 0.2 / 3600, 0)
    np.testing.assert_allclose((x, y), (4, 5), atol=1e-6)


def test_header_and_units(simulated):
    exposure, truth = simulated
    wanted = {"EXPTIME": 30, "GAIN": 1.5, "BUNIT": "adu", "FILTER": "r", "RDNOISE": 6, "SEED": 5}
    assert {key: exposure.meta[key] for key in wanted} == wanted
    assert exposure.meta["SEEING"] == pytest.approx(0.8, abs=0.01)
    assert str(truth.sources["flux"].unit) == "adu"
    assert set(truth.sources["kind"]) == {"star", "exponential", "de_vaucouleurs"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, "size must be above zero, got 0"),
        ({"gain": 0}, "gain must be positive, got 0"),
        ({"density": -1}, "density must be zero or positive, got -1"),
        ({"star_fraction": 1.5}, "star_fraction must be from 0 to 1, got 1.5"),
        ({"background": np.nan}, "background must be zero or positive, got nan"),
    ],
)
def test_what_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        simulate_exposure(**options)
